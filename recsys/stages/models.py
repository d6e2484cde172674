"""Stages that learn: the two towers, the index over all apps, the ranker."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlplatform.artifacts import to_json
from mlplatform.data.files.spans import read_span
from mlplatform.pipeline import Context
from mlplatform.quiet import silenced_stderr
from mlplatform.training.runtime import set_seed
from mlplatform.training.trainer import Batches, train
from mlplatform.transform.transform import Transform
from recsys import features
from recsys.apps import AppTable
from recsys.config import RunConfig
from recsys.online.bundle import QUERY_TOWER, RANKER, TRANSFORM, VECTORS
from recsys.stages.data import BACKLOG_DAY, SPANS
from recsys.training_data import Positives, Slates

LINEAR = "linear"
CURVE = "loss.json"


def train_retrieval(config: RunConfig, context: Context) -> dict[str, Any]:
    """-> query_tower/ (SavedModel), app_vectors.npy, app_ids.npy, app_codes.npy, loss.json."""
    from recsys.models.retrieval import TowerSettings, TwoTower

    set_seed(config.seed)
    transform, apps, root = read_inputs(config, context)
    positives = Positives.read(root, [BACKLOG_DAY, *config.days.train], transform, apps)
    settings = config.retrieval
    batch_size, n_negatives, n_apps = settings.batch_size, settings.negatives, len(apps)
    # How often an app is expected among a batch's candidates, as its own user's or as a negative.
    share = np.bincount(positives.app, minlength=n_apps + 1) / len(positives)
    expected = (batch_size * share + n_negatives / n_apps) / (batch_size + n_negatives)

    def take(rows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        # Seeded by the rows themselves: no state, so batches can be made in any thread.
        rng = np.random.default_rng(rows[:8])
        negatives = rng.integers(1, n_apps + 1, n_negatives).astype(np.int32)
        app = positives.app[rows]
        return {
            "request": positives.request[rows],
            "history": positives.history[rows],
            "app": app,
            "negatives": negatives,
            "probability": expected[np.concatenate([app, negatives])].astype(np.float32),
        }

    model = TwoTower(
        transform,
        apps,
        TowerSettings(learning_rate=settings.learning_rate, seed=config.seed),
    )
    batches = Batches(
        take, len(positives), batch_size, settings.epochs, config.seed, positives.where
    )
    context.progress.expect(batches.steps * batch_size)
    curve = train(model, batches, context.progress.advance)
    model.export(context.output / QUERY_TOWER)
    apps.save(context.output)
    np.save(context.output / VECTORS, model.embed_apps(), allow_pickle=False)
    (context.output / CURVE).write_bytes(to_json(curve))
    return {"rows": batches.steps * batch_size, "final loss": curve[-1][1]}


def build_index(config: RunConfig, context: Context) -> dict[str, Any]:
    """-> scann/: every app's vector, searchable."""
    from recsys.models.index import AppIndex, IndexSettings

    vectors = np.load(context.inputs["train_retrieval"] / VECTORS, allow_pickle=False)
    # ScaNN reports its clustering on standard error, past Python; that is no news to a user.
    with silenced_stderr():
        index = AppIndex.build(vectors, IndexSettings(**config.index.model_dump()), k=100)
        index.save(context.output)
    return {"rows": index.size}


def train_ranker(config: RunConfig, context: Context) -> dict[str, Any]:
    """-> ranker/ and, to compare with, linear/: SavedModels; loss.json."""
    from recsys.models.ranking import Ranker, RankerSettings

    transform, apps, root = read_inputs(config, context)
    slates = Slates.read(root, list(config.days.train), transform, apps)
    labels = slates.label[slates.label >= 0]
    settings = RankerSettings(
        kind=config.ranking.kind,
        wide_buckets=config.ranking.wide_buckets,
        base_rate=float(labels.mean()),
        seed=config.seed,
    )
    batches = Batches(
        slates.batch,
        len(slates),
        config.ranking.batch_requests,
        config.ranking.epochs,
        config.seed,
        slates.where,
    )
    rows = batches.steps * batches.batch_size
    context.progress.expect(2 * rows)
    curves = {}
    for name, one in ((RANKER, settings), (LINEAR, replace(settings, kind="linear"))):
        set_seed(config.seed)
        model = Ranker(transform, apps, one)
        curves[name] = train(model, batches, context.progress.advance)
        model.export(context.output / name)
    (context.output / CURVE).write_bytes(to_json(curves))
    return {
        "rows": 2 * rows * slates.app.shape[1],
        **{f"final loss of {name}": curve[-1][1] for name, curve in curves.items()},
    }


def read_inputs(config: RunConfig, context: Context) -> tuple[Transform, AppTable, Path]:
    """The transform, the app table it gives, and where the spans are."""
    root = context.inputs["join_examples"] / SPANS
    transform = Transform.load(context.inputs["analyze"] / TRANSFORM, features.ALL)
    apps = AppTable.of(read_span(root, "apps", [config.days.evaluate]), transform)
    return transform, apps, root
