"""Alarms: a world or a model so easy, or so broken, that the figures would mean nothing.

Each one fails the build.  They are judged on interval bounds, on the finished tiny run.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from mlplatform.data.files.spans import read_span
from mlplatform.evaluation.metrics import auc_of, difference, intervals
from mlplatform.training.batches import Batches
from mlplatform.training.runtime import set_seed, tensorflow
from mlplatform.training.trainer import train
from mlplatform.transform.transform import Transform
from recsys import features
from recsys.apps import AppTable
from recsys.evaluation import score_slates
from recsys.training_data import Slates


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


def test_the_deep_part_adds_to_the_wide_one(figures):
    # By as little as in the paper that both come from, where it is 0.002: so small a world cannot
    # tell that from nothing, and a benchmark in a larger one does.
    assert figures["AUC: system - linear"]["value"] > 0


def test_what_needs_no_knowledge_of_the_user_is_not_enough(finished: Path):
    """A model that is linear in what the app is, without a cross with who asks."""
    training, later, transform, apps = read(finished, [3, 4, 5, 6])
    additive = scores_of("additive", training, later, transform, apps)
    crossed = scores_of("linear", training, later, transform, apps)
    seen = later.label >= 0
    user = np.broadcast_to(later.user[:, None], seen.shape)[seen]
    metrics = {
        name: auc_of(scores[seen], later.label[seen])
        for name, scores in (("additive", additive), ("crossed", crossed))
    }
    found = intervals(metrics, user, 1, {"gain": difference("crossed", "additive")})
    assert found["gain"].low > 0.01


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
    training, later, transform, apps = read(finished, [5, 6])
    shown = training.label >= 0
    training.label[shown] = np.random.default_rng(3).permutation(training.label[shown])
    scores = scores_of("wide_deep", training, later, transform, apps)
    seen = later.label >= 0
    auc = auc_of(scores[seen], later.label[seen])(np.ones(seen.sum()))
    # About 900 installs: the standard error of an AUC of 0.5 is about 0.01.
    assert abs(auc - 0.5) < 0.04


def read(finished: Path, days: list[int]) -> tuple[Slates, Slates, Transform, AppTable]:
    """Slates of some days and of the later day, the transform and the app table."""
    (spans,) = (finished / "artifacts" / "join_examples").glob("*/spans")
    (path,) = (finished / "artifacts" / "analyze").glob("*/transform.json")
    transform = Transform.load(path, features.ALL)
    apps = AppTable.of(read_span(spans, "apps", [7]), transform)
    training, later = (Slates.read(spans, some, transform, apps) for some in (days, [7]))
    return training, later, transform, apps


def scores_of(kind: str, training: Slates, later: Slates, transform: Transform, apps: AppTable):
    """Logits of the later day's places, of a ranker that learned from some days."""
    from recsys.models.ranking import Ranker, RankerSettings

    set_seed(3)
    model = Ranker(transform, apps, RankerSettings(kind=kind, wide_buckets=65_536, seed=3))
    train(lambda: model, Batches(training.batch, len(training), 128, 1, 3))

    def rank(request, history, app, impression):
        arrays = (request, history, app, impression)
        return {"logit": model.logits(*(tensorflow().constant(array) for array in arrays))}

    return score_slates(rank, later, later.impression)
