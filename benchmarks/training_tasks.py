"""Our models with their batches, as the stages that train them have them.

Enters: a store and how many steps are wanted.  Leaves: a `Task`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.store import Store
from mlplatform.training.batches import Batch, Batches
from mlplatform.training.runtime import tensorflow
from recsys import features
from recsys.apps import AppTable
from recsys.stages.data import BACKLOG_DAY
from recsys.stages.models import sampled_batches
from recsys.training_data import Positives, Slates


@dataclass(frozen=True)
class Task:
    """Our model and its batches; of a batch's examples, each has so many rows."""

    model: Any
    batches: Batches
    apps: AppTable
    rows_an_example: int

    @cached_property
    def stable_ids(self) -> dict[str, NDArray[np.int64]]:
        """Of each feature, the ids that crosses are hashed of, by code."""
        transform = self.model.transform
        return {feature.name: transform.stable_ids(feature.name) for feature in features.ALL}

    @property
    def rows(self) -> int:
        return self.batches.batch_size * self.rows_an_example


def towers(store: Store, steps: int) -> Task:
    """Batches as the stage `train_retrieval` makes them."""
    tensorflow()
    from recsys.models.retrieval import TowerSettings, TwoTower

    config, transform = store.config, store.transform()
    apps = store.apps(transform)
    settings = config.retrieval
    days = [BACKLOG_DAY, *config.days.train]
    positives = Positives.read(store.spans, days, transform, apps)
    take = sampled_batches(positives, len(apps), settings.batch_size, settings.negatives)
    model = TwoTower(transform, apps, TowerSettings(learning_rate=settings.learning_rate))
    return Task(model, _batches(take, len(positives), settings.batch_size, steps), apps, 1)


def ranker(store: Store, steps: int) -> Task:
    """Batches as the stage `train_ranker` makes them, of full slates alone: no row stands empty."""
    tensorflow()
    from recsys.models.ranking import Ranker, RankerSettings

    config, transform = store.config, store.transform()
    apps = store.apps(transform)
    slates = Slates.read(store.spans, list(config.days.train), transform, apps)
    slates = slates.take(np.flatnonzero((slates.label >= 0).all(axis=1)))
    settings = RankerSettings(wide_buckets=config.ranking.wide_buckets)
    return Task(
        Ranker(transform, apps, settings),
        _batches(slates.batch, len(slates), config.ranking.batch_requests, steps),
        apps,
        slates.app.shape[1],
    )


def _batches(take: Callable[[NDArray[np.int64]], Batch], n: int, size: int, steps: int) -> Batches:
    """So many steps, of rows from all over; more than an epoch if there are too few rows."""
    epochs = -(-steps * size // n)
    chosen = np.random.default_rng(0).permutation(n)[: steps // epochs * size]
    return Batches(lambda rows: take(chosen[rows]), len(chosen), size, epochs, seed=0)
