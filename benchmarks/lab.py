"""A laboratory: days of a world under the logged policy, models trained on some of them, and what
their recommendations would have been worth on a later one.

Enters: a configuration, whose training days are all days there are.  Leaves: a `Lab`, in which
models are trained by the application's own code and judged in installs by its own recommender,
before the world's truth.  The log is the same whatever is learned from it, so that models do not
disturb each other.
"""

import time
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from tensorflow_metadata.proto.v0 import schema_pb2

from benchmarks.store import Store
from data_gen import sessions
from data_gen.memory import Memory
from data_gen.world import World, load_truth
from mlplatform.data.files.spans import read_span, span_files, write_parquet
from mlplatform.quiet import silenced_stderr
from mlplatform.training.batches import Batches
from mlplatform.training.runtime import set_seed, tensorflow
from mlplatform.training.state import TrainingState, named_variables, save_state
from mlplatform.training.trainer import train
from mlplatform.training.warm_start import warm_start
from mlplatform.transform.analyze import analyze
from mlplatform.transform.transform import Transform
from recsys import evaluation, features
from recsys.apps import AppTable
from recsys.config import RunConfig
from recsys.examples import EventLog
from recsys.online.bundle import Bundle
from recsys.online.feature_store import FeatureStore, write_feature_store
from recsys.online.recommender import Recommender
from recsys.serving_log import SLATE, requests_of
from recsys.stages.data import EVENTS, OBSERVABLE, TRUTH, visits_of
from recsys.stages.models import sampled_batches
from recsys.training_data import Positives, Slates


@dataclass(frozen=True)
class View:
    """What may be known on the morning of a day: its transform and its catalogue."""

    day: int
    transform: Transform
    catalogue: pa.Table
    apps: AppTable


@dataclass(frozen=True)
class Learned:
    """A trained model.

    curve: (examples seen, held-out loss an example), the first before any step.
    state: where its training ended.
    seconds: of training alone, without building, tracing and judging.
    """

    model: Any
    curve: list[tuple[int, float]]
    state: Path
    seconds: float

    def examples_to(self, loss: float) -> float:
        """How many were seen when the held-out loss came down to this; infinite if it did not."""
        return next((float(examples) for examples, one in self.curve if one <= loss), np.inf)


class Lab:
    """`config.days.train` are the days of the log; what is judged are days among them."""

    def __init__(self, config: RunConfig, folder: Path) -> None:
        self.config, self.folder = config, folder
        self.store = Store.make(config, folder / "store")

    def view(self, day: int, window: int) -> View:
        """As of the morning of `day`: vocabularies and quantiles are of the days before it."""
        every = read_span(self.store.spans, "apps", [self.config.days.evaluate])
        catalogue = every.filter(pc.less(every["release_day"], day)).sort_by("app_id")
        path = self.folder / f"catalogue-{day}.parquet"
        write_parquet(catalogue, path)
        days = range(day - window, day)
        transform = analyze(
            {
                "requests": features.REQUEST,
                "apps": features.APP,
                "impressions": features.IMPRESSION,
            },
            {
                "requests": span_files(self.store.spans, "requests", days),
                "apps": [path],
                "impressions": span_files(self.store.spans, "impressions", days),
            },
        )
        return View(day, transform, catalogue, AppTable.of(catalogue, transform))

    def train_towers(
        self, view: View, days: list[int], epochs: int, parent: Path | None = None
    ) -> Learned:
        """Two towers, from the positives of some days; judged on those of the view's day."""
        tensorflow()
        from recsys.models.retrieval import TowerSettings, TwoTower

        wanted = self.config.retrieval
        build = partial(
            TwoTower,
            view.transform,
            view.apps,
            TowerSettings(learning_rate=wanted.learning_rate, seed=self.config.seed),
        )

        def batches(days: list[int], epochs: int) -> Batches:
            rows = Positives.read(self.store.spans, days, view.transform, view.apps)
            take = sampled_batches(rows, len(view.apps), wanted.batch_size, wanted.negatives)
            return Batches(take, len(rows), wanted.batch_size, epochs, self.config.seed)

        return self._train(build, batches(days, epochs), batches([view.day], 1), parent)

    def train_ranker(
        self,
        view: View,
        days: list[int],
        epochs: int,
        parent: Path | None = None,
        kind: str = "wide_deep",
    ) -> Learned:
        """A ranker, from the impressions of some days; judged on those of the view's day."""
        tensorflow()
        from recsys.models.ranking import Ranker, RankerSettings

        wanted = self.config.ranking

        def batches(slates: Slates, epochs: int) -> Batches:
            size = wanted.batch_requests
            return Batches(slates.batch, len(slates), size, epochs, self.config.seed)

        slates = self.slates(view, days)
        settings = RankerSettings(
            kind=kind,
            wide_buckets=wanted.wide_buckets,
            base_rate=float(slates.label[slates.label >= 0].mean()),
            seed=self.config.seed,
        )
        held_out = self.slates(view, [view.day])
        some = evaluation.sample(len(held_out), self.config.evaluation.requests, self.config.seed)
        build = partial(Ranker, view.transform, view.apps, settings)
        return self._train(build, batches(slates, epochs), batches(held_out.take(some), 1), parent)

    def slates(self, view: View, days: list[int]) -> Slates:
        return Slates.read(self.store.spans, days, view.transform, view.apps)

    def _train(
        self, build: Any, batches: Batches, held_out: Batches, parent: Path | None
    ) -> Learned:
        set_seed(self.config.seed)
        watch = _Watch(held_out, max(1, batches.steps // POINTS), batches.batch_size, parent)
        trained = train(build, batches, watch.advance, begin=watch.begin)
        self._number += 1
        state = self.folder / f"state-{self._number}"
        rows = trained.model.rows().to_json()
        save_state(state, named_variables(trained.model), trained.optimizers, rows)
        seconds = batches.steps * median(watch.durations)
        return Learned(trained.model, watch.curve, state, seconds)

    _number = 0

    def installs(self, view: View, towers: Any, ranker: Any, requests: int) -> "Installs":
        """What users would install of the models' lists, on the view's day."""
        world, memory = self._world, self._memories[view.day]
        visits = sessions.visits(world, view.day)
        visits = visits.take(evaluation.sample(len(visits), requests, self.config.seed))
        with FeatureStore(self._feature_store(view.day)) as store:
            recommender = Recommender(self.bundle(view, towers, ranker), store)
            slates = recommender.recommend(requests_of(store, visits_of(visits)), SLATE).app_ids
        expected = world.install_probability(visits, slates, memory).sum(axis=1)
        return Installs(visits.user, expected, world.answer(visits, slates, memory).sum(axis=1))

    def bundle(self, view: View, towers: Any, ranker: Any) -> Bundle:
        """Both models put together, without a detour by files."""
        from recsys.models.index import AppIndex, IndexSettings

        tf = tensorflow()
        vectors = towers.embed_apps()
        before = Positives.read(self.store.spans, [view.day - 1], view.transform, view.apps)
        queries = towers.query(before.request, before.history).numpy()
        settings = IndexSettings(**self.config.index.model_dump())
        with silenced_stderr():
            index = AppIndex.build(vectors, settings, 100, queries)
        query = tf.function(towers.query, reduce_retracing=True)
        rank = tf.function(ranker.logits, reduce_retracing=True)

        def vector(request: Any, history: Any) -> Mapping[str, Any]:
            return {"vector": query(tf.constant(request), tf.constant(history))}

        def logit(request: Any, history: Any, app: Any, impression: Any) -> Mapping[str, Any]:
            arrays = (request, history, app, impression)
            return {"logit": rank(*(tf.constant(array) for array in arrays))}

        return Bundle(
            view.transform, view.apps, view.catalogue, vectors, index, vector, logit,
            schema_pb2.Schema(), (towers, ranker),
        )  # fmt: skip

    @cached_property
    def _world(self) -> World:
        truth = self.store.artifact("generate_world") / TRUTH
        return load_truth(self.config.world, truth)

    @cached_property
    def _memories(self) -> dict[int, Memory]:
        """What users own and have seen on the morning of each day."""
        memory, _ = sessions.first_memory(self._world)
        mornings = {}
        for day in range(self.config.days.evaluate):
            mornings[day] = deepcopy(memory)
            sessions.simulate_day(self._world, memory, day)
        return mornings

    def _feature_store(self, day: int) -> Path:
        path = self.folder / f"feature-store-{day}"
        if not path.exists():
            path.mkdir()
            log = EventLog.read(
                self.store.artifact("generate_world") / OBSERVABLE,
                self.store.artifact("simulate_days") / EVENTS,
            )
            write_feature_store(log, day, path)
        return path


@dataclass(frozen=True)
class Installs:
    """Arrays `[requests]`: whose request, and the installs expected and had of its list."""

    user: NDArray[np.int64]
    expected: NDArray[np.floating[Any]]
    had: NDArray[np.int64]


POINTS = 25  # of a curve


@dataclass
class _Watch:
    """Judges a model on held-out batches while it learns, with the clock stopped."""

    held_out: Batches
    every: int  # steps
    batch_size: int
    parent: Path | None
    curve: list[tuple[int, float]] = field(default_factory=list)
    durations: list[float] = field(default_factory=list)
    _started: float = 0.0
    _loss: Any = None

    def begin(self, model: Any, variables: Any, slots: Any) -> None:
        if self.parent is not None:
            warm_start(variables, slots, model.rows(), TrainingState.load(self.parent), strict=True)
        self._loss = tensorflow().function(model.loss)
        self._judge()

    def advance(self, rows: int) -> None:
        self.durations.append(time.perf_counter() - self._started)
        if len(self.durations) % self.every == 0:
            self._judge()
        self._started = time.perf_counter()

    def _judge(self) -> None:
        total = examples = 0.0
        for (batch,) in self.held_out.read():
            loss, n = self._loss(batch)
            total, examples = total + float(loss), examples + float(n)
        self.curve.append((len(self.durations) * self.batch_size, total / examples))
        self._started = time.perf_counter()
