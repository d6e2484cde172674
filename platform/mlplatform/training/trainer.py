"""The trainer: any model, any batches, one loop.

Enters: a model that knows its loss and its optimizers, and batches of arrays.  Leaves: the loss
curve; the model's variables have been trained in place.
"""

import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mlplatform.errors import FailedPrecondition
from mlplatform.training.runtime import tensorflow

Batch = Mapping[str, NDArray[Any]]
PREFETCHED = 4
LOSS_EVERY = 50


class Trainable(Protocol):
    """What the trainer asks of a model."""

    def loss(self, batch: Mapping[str, Any]) -> tuple[Any, Any]:
        """Total loss of one batch of tensors, and the number of examples in it: two scalars.

        Gradients are those of the total, so that learning rates, accumulators and penalties keep
        the scale that the papers give them for single examples.
        """

    def optimizers(self) -> list[tuple[Any, list[Any]]]:
        """Each optimizer with the variables that it moves; together, all that are trained."""


@dataclass(frozen=True)
class Batches:
    """Shuffled batches over `n_rows` rows, deterministic for a seed.

    take: gives the arrays of the rows asked for; it runs in a thread beside the training step.
    A rest smaller than `batch_size` is left out of its epoch, so all batches have one shape.
    """

    take: Callable[[NDArray[np.int64]], Batch]
    n_rows: int
    batch_size: int
    epochs: int
    seed: int

    @property
    def steps(self) -> int:
        return self.epochs * (self.n_rows // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        if self.n_rows < self.batch_size:
            raise FailedPrecondition(
                f"a batch takes {self.batch_size} rows, but there are only {self.n_rows}; "
                "set a smaller batch_size or generate more data"
            )
        return _prefetch(self._batches())

    def _batches(self) -> Iterator[Batch]:
        for epoch in range(self.epochs):
            order = np.random.default_rng([self.seed, epoch]).permutation(self.n_rows)
            for start in range(0, self.n_rows - self.batch_size + 1, self.batch_size):
                # Sorted rows are gathered faster; within a batch the order has no effect.
                yield self.take(np.sort(order[start : start + self.batch_size]))


def train(
    model: Trainable, batches: Batches, advance: Callable[[int], None] = lambda rows: None
) -> list[tuple[int, float]]:
    """Run through `batches` once; return the curve of (rows seen, mean loss since the last).

    `advance` is told the number of rows after every step.

    Raises:
        FailedPrecondition: the loss became NaN or infinite; the variables are then of no use.
    """
    tf = tensorflow()
    groups = model.optimizers()
    variables = [variable for _, group in groups for variable in group]

    @tf.function(reduce_retracing=True)
    def step(batch: Mapping[str, Any]) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            for variable in variables:
                tape.watch(variable)
            total, examples = model.loss(batch)
        gradients = iter(tape.gradient(total, variables))
        for optimizer, group in groups:
            optimizer.apply_gradients([(next(gradients), variable) for variable in group])
        return total, examples

    curve: list[tuple[int, float]] = []
    pending: list[Any] = []
    rows = 0
    for number, batch in enumerate(batches, start=1):
        pending.append(step({name: tf.convert_to_tensor(array) for name, array in batch.items()}))
        rows += batches.batch_size
        advance(batches.batch_size)
        if number % LOSS_EVERY == 0 or number == batches.steps:
            mean = _mean_loss(pending)
            first = rows - len(pending) * batches.batch_size
            pending.clear()
            if not np.isfinite(mean):
                raise FailedPrecondition(
                    f"the loss became {mean} within rows {first} "
                    f"to {rows}; look for NaN or infinite features, or lower the learning rate"
                )
            curve.append((rows, mean))
    return curve


def _mean_loss(steps: list[tuple[Any, Any]]) -> float:
    totals, examples = np.array([(total.numpy(), float(n)) for total, n in steps]).T
    return float(totals.sum() / examples.sum())


def _prefetch(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Make batches in a thread of their own, a few ahead; an error there is raised here."""
    ready: queue.Queue[Batch | BaseException | None] = queue.Queue(PREFETCHED)
    stopped = threading.Event()

    def put(item: Batch | BaseException | None) -> None:
        while not stopped.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    def produce() -> None:
        try:
            for batch in batches:
                put(batch)
                if stopped.is_set():
                    return
            put(None)
        except BaseException as error:
            put(error)

    producer = threading.Thread(target=produce, name="prefetch", daemon=True)
    producer.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        producer.join()
