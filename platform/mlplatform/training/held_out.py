"""Held-out batches: what the model's loss is on rows that it does not learn from.

Enters: batches that are held out, and how often and how patiently they are judged.  Leaves: means
over their examples.  The same batches are judged each time, a rest smaller than one excepted.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from mlplatform.errors import InvalidArgument
from mlplatform.training import divergence
from mlplatform.training.batches import Batches
from mlplatform.training.replicas import Replicas
from mlplatform.training.runtime import tensorflow

LOSS = "loss"


@runtime_checkable
class Measured(Protocol):
    """A model that measures more than its loss."""

    def measures(self, batch: Mapping[str, Any]) -> Mapping[str, tuple[Any, Any]]:
        """Of a batch of tensors, by name: a total and its weight, whose ratio over all is told.

        What is no ratio of sums (AUC) belongs where a finished model is evaluated.
        """


@dataclass(frozen=True)
class HeldOut:
    """Batches that are judged every `every` steps and after the last.

    Training ends early when `patience` judgements in a row were no better than one before them.
    """

    batches: Batches
    every: int
    patience: int

    def __post_init__(self) -> None:
        if self.every < 1 or self.patience < 1:
            raise InvalidArgument(
                f"held-out batches: expected every and patience of at least 1, got "
                f"every={self.every}, patience={self.patience}"
            )


class Judge:
    """The compiled judgement of a model; it is made once a run."""

    def __init__(self, model: Any, held_out: HeldOut, replicas: Replicas) -> None:
        tf = tensorflow()

        def measured(batch: Mapping[str, Any]) -> dict[str, Any]:
            pairs = {LOSS: model.loss(batch)}
            if isinstance(model, Measured):
                pairs |= {f"metric {name}": pair for name, pair in model.measures(batch).items()}
            return {
                name: tf.stack([tf.cast(total, tf.float64), tf.cast(weight, tf.float64)])
                for name, (total, weight) in pairs.items()
            }

        self.every = held_out.every
        self._batches, self._replicas = held_out.batches, replicas
        self._measured = replicas.summed(measured)

    def means(self, step: int) -> tuple[float, dict[str, float]]:
        """The loss, mean an example, and the metrics by name, after step `step`.

        Raises:
            FailedPrecondition: one of them is NaN or infinite.
        """
        batches = self._replicas.read(self._batches)
        found = [self._measured(batch) for batch in batches]
        means: dict[str, float] = {}
        for name in found[0]:
            totals = np.array([pairs[name].numpy() for pairs in found])
            bad = np.flatnonzero(~np.isfinite(totals).all(axis=1))
            what = f"the held-out {name} became {{}} after step {step}"
            if bad.size:
                value = totals[bad[0]][~np.isfinite(totals[bad[0]])][0]
                divergence.refuse(what.format(value), self._batches, int(bad[0]))
            total, weight = totals.sum(axis=0)
            if weight == 0:
                raise InvalidArgument(
                    f"the held-out {name} has a weight of 0 in all of {self._batches.n_rows} rows; "
                    "expected some that count, hold out other rows"
                )
            means[name.removeprefix("metric ")] = float(total / weight)
        loss = means.pop(LOSS)
        return loss, means
