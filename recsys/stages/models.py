"""Stages that learn: the two towers, the index over all apps, the ranker.

Each model begins where that of the version in service ended, if there is one among the inputs
('push'), and otherwise cold.  A run that was killed goes on at its last checkpoint.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlplatform.artifacts import hash_file, link_tree, to_json
from mlplatform.data.files.spans import read_span
from mlplatform.pipeline import Context
from mlplatform.quiet import silenced_stderr
from mlplatform.training import picture
from mlplatform.training.batches import Batches
from mlplatform.training.checkpoints import Checkpoints
from mlplatform.training.curve import Point
from mlplatform.training.runtime import set_seed
from mlplatform.training.state import TrainingState, Variables, named_variables, save_state
from mlplatform.training.trainer import Trained, train
from mlplatform.training.warm_start import WarmStart, warm_start
from mlplatform.transform.transform import Transform
from recsys import features
from recsys.apps import AppTable
from recsys.config import RunConfig
from recsys.online.bundle import (
    INDEX_OF,
    QUERY_TOWER,
    STATES,
    TRANSFORM,
    VECTORS,
    require_transform,
)
from recsys.stages.data import SPANS
from recsys.stages.versions import current_version
from recsys.training_data import Positives, Slates

LINEAR = "linear"
QUERIES = "query_vectors.npy"  # like those that the index will be asked
QUERY_SAMPLE = 10_000
CURVE, PICTURE, EVENTS, WARM_START = "loss.json", "loss.png", "events", "warm_start.json"


def train_retrieval(
    config: RunConfig, days: Sequence[int], epochs: int, registry: Path, context: Context
) -> dict[str, Any]:
    """-> query_tower/ (SavedModel), states/, app_vectors.npy, app_ids.npy, app_codes.npy, loss.*.

    And query_vectors.npy, of some of the positives.  Learns from the positives of some days.
    """
    from recsys.models.retrieval import TowerSettings, TwoTower

    transform, apps, root = read_inputs(config, context)
    positives = Positives.read(root, days, transform, apps)
    settings = config.retrieval
    take = sampled_batches(positives, len(apps), settings.batch_size, settings.negatives)
    towers = TowerSettings(learning_rate=settings.learning_rate, seed=config.seed)
    batches = Batches(
        take, len(positives), settings.batch_size, epochs, config.seed, positives.where
    )
    context.progress.expect(batches.steps * batches.batch_size)
    learned = _learn(
        config, QUERY_TOWER, partial(TwoTower, transform, apps, towers), batches, registry, context
    )
    apps.save(context.output)
    np.save(context.output / VECTORS, learned.model.embed_apps(), allow_pickle=False)
    chosen = np.random.default_rng(config.seed).permutation(len(positives))[:QUERY_SAMPLE]
    some = positives.take(chosen)
    queries = learned.model.query(some.request, some.history).numpy()
    np.save(context.output / QUERIES, queries, allow_pickle=False)
    _write_curves(context, {QUERY_TOWER: learned.curve})
    return {"rows": batches.steps * batches.batch_size, "final loss": learned.curve[-1].loss}


def build_index(config: RunConfig, context: Context) -> dict[str, Any]:
    """-> scann/: every app's vector, searchable; index.json, which vectors these are."""
    from recsys.models.index import AppIndex, IndexSettings

    retrieval = context.inputs["train_retrieval"]
    vectors, queries = (np.load(retrieval / f, allow_pickle=False) for f in (VECTORS, QUERIES))
    # ScaNN reports its clustering on standard error, past Python; that is no news to a user.
    with silenced_stderr():
        settings = IndexSettings(**config.index.model_dump())
        index = AppIndex.build(vectors, settings, k=100, queries=queries)
        index.save(context.output)
    vectors_hash = hash_file(retrieval / VECTORS)
    (context.output / INDEX_OF).write_bytes(to_json({VECTORS: vectors_hash}))
    return {"rows": index.size}


def train_ranker(
    config: RunConfig,
    days: Sequence[int],
    epochs: int,
    kinds: Mapping[str, str],
    registry: Path,
    context: Context,
) -> dict[str, Any]:
    """-> a SavedModel and a state for each of `kinds`, rankers by the name of their directory.

    Learns from the impressions of some days.
    """
    from recsys.models.ranking import Ranker, RankerSettings

    transform, apps, root = read_inputs(config, context)
    slates = Slates.read(root, days, transform, apps)
    settings = partial(
        RankerSettings,
        wide_buckets=config.ranking.wide_buckets,
        base_rate=float(slates.label[slates.label >= 0].mean()),
        seed=config.seed,
    )
    batches = Batches(
        slates.batch,
        len(slates),
        config.ranking.batch_requests,
        epochs,
        config.seed,
        slates.where,
    )
    rows = batches.steps * batches.batch_size
    context.progress.expect(len(kinds) * rows)
    curves = {}
    for name, kind in kinds.items():
        build = partial(Ranker, transform, apps, settings(kind=kind))
        curves[name] = _learn(config, name, build, batches, registry, context).curve
    _write_curves(context, curves)
    return {
        "rows": len(kinds) * rows * slates.app.shape[1],
        **{f"final loss of {name}": curve[-1].loss for name, curve in curves.items()},
    }


def sampled_batches(
    positives: Positives, n_apps: int, batch_size: int, n_negatives: int
) -> Callable[[NDArray[np.int64]], dict[str, NDArray[Any]]]:
    """What `TwoTower.loss` takes: positives, and negatives drawn from the whole catalogue."""
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

    return take


def read_inputs(config: RunConfig, context: Context) -> tuple[Transform, AppTable, Path]:
    """The transform, the app table it gives, and where the spans are."""
    root = context.inputs["join_examples"] / SPANS
    transform = Transform.load(context.inputs["analyze"] / TRANSFORM, features.ALL)
    apps = AppTable.of(read_span(root, "apps", [config.days.evaluate]), transform)
    return transform, apps, root


def _learn(
    config: RunConfig,
    name: str,
    build: Callable[[], Any],
    batches: Batches,
    registry: Path,
    context: Context,
) -> Trained[Any]:
    """Train a model and write it, its state and its logs."""
    set_seed(config.seed)
    report: WarmStart | None = None

    def begin(model: Any, variables: Variables, slots: Mapping[str, Variables]) -> None:
        nonlocal report
        if "push" in context.inputs:
            version = current_version(registry, context)
            parent = TrainingState.load(version.path / STATES / name)
            require_transform(version, str(parent.rows.get("transform")), f"{STATES}/{name}")
            report = warm_start(variables, slots, model.rows(), parent, strict=config.loop.strict)

    learned = train(
        build,
        batches,
        context.progress.advance,
        # The directory's name is the stage's fingerprint: of its data, its settings and its code.
        checkpoints=Checkpoints(context.scratch / name, context.scratch.name),
        events=context.scratch / EVENTS / name,
        begin=begin,
    )
    model = learned.model
    model.export(context.output / name)
    save_state(
        context.output / STATES / name,
        named_variables(model),
        learned.optimizers,
        model.rows().to_json(),
    )
    link_tree(context.scratch / EVENTS / name, context.output / EVENTS / name)
    if report is not None:
        (context.output / STATES / name / WARM_START).write_bytes(to_json(asdict(report)))
    return learned


def _write_curves(context: Context, curves: Mapping[str, Sequence[Point]]) -> None:
    content = {name: [asdict(point) for point in curve] for name, curve in curves.items()}
    (context.output / CURVE).write_bytes(to_json(content))
    picture.draw(curves, context.output / PICTURE, "nats")
