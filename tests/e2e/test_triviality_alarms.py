"""Alarms: a world or a model so easy, or so broken, that the figures would mean nothing.

Each one fails the build.  They are judged on interval bounds, on the finished tiny run.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from mlplatform.evaluation.metrics import auc_of
from mlplatform.training.batches import Batches
from mlplatform.training.runtime import set_seed, tensorflow
from mlplatform.training.trainer import train
from recsys.evaluation import score_slates


@pytest.fixture(scope="module")
def figures(finished):
    found = {}
    for stage, name in (("evaluate", "figures.json"), ("measure_in_world", "world.json")):
        (path,) = (finished / "artifacts" / stage).glob(f"*/{name}")
        found |= json.loads(path.read_text())
    return found


def test_held_out_auc_is_not_too_good_to_be_true(figures):
    assert figures["AUC: system"]["high"] < 0.9


def test_the_model_stays_below_the_oracle(figures):
    assert figures["AUC: system - oracle"]["high"] < 0


def test_wide_and_deep_is_better_than_linear(figures):
    assert figures["AUC: system - linear"]["low"] > 0


def test_popularity_is_better_than_random(figures):
    assert figures["AUC: popular"]["low"] > 0.5
    popular = figures["installs per request: popular"]
    assert popular["low"] > figures["installs per request: random"]["high"]


def test_the_system_is_better_than_popularity_where_it_counts(figures):
    assert figures["installs per request: system - popular"]["low"] > 0
    assert figures["recall@100 of all apps: system - popular"]["low"] > 0
    assert figures["AUC: system - popular"]["low"] > 0


def test_the_oracle_leaves_room_above_popularity_but_not_without_end(figures):
    oracle = figures["expected installs per request: oracle"]["value"]
    popular = figures["expected installs per request: popular"]["value"]
    assert 2 < oracle / popular < 8


def test_shuffled_labels_teach_nothing(finished: Path):
    from mlplatform.data.files.spans import read_span
    from mlplatform.transform.transform import Transform
    from recsys import features
    from recsys.apps import AppTable
    from recsys.models.ranking import Ranker, RankerSettings
    from recsys.training_data import Slates

    (spans,) = (finished / "artifacts" / "join_examples").glob("*/spans")
    (path,) = (finished / "artifacts" / "analyze").glob("*/transform.json")
    transform = Transform.load(path, features.ALL)
    apps = AppTable.of(read_span(spans, "apps", [7]), transform)
    training = Slates.read(spans, [5, 6], transform, apps)
    later = Slates.read(spans, [7], transform, apps)
    shown = training.label >= 0
    training.label[shown] = np.random.default_rng(3).permutation(training.label[shown])

    set_seed(3)
    model = Ranker(transform, apps, RankerSettings(wide_buckets=65_536, seed=3))
    train(lambda: model, Batches(training.batch, len(training), 128, 1, 3))

    def rank(request, history, app, impression):
        arrays = (request, history, app, impression)
        return {"logit": model.logits(*(tensorflow().constant(array) for array in arrays))}

    scores = score_slates(rank, later, later.impression)
    seen = later.label >= 0
    auc = auc_of(scores[seen], later.label[seen])(np.ones(seen.sum()))
    # About 900 installs: the standard error of an AUC of 0.5 is about 0.01.
    assert abs(auc - 0.5) < 0.04
