"""The trainer: any model, any batches, one loop.

Enters: a model that knows its loss and its optimizers, and batches of arrays.  Leaves: the loss
curve; the model's variables have been trained in place.
"""

import itertools
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray

from mlplatform.errors import FailedPrecondition
from mlplatform.training.runtime import tensorflow

Batch = Mapping[str, NDArray[Any]]
PREFETCHED = 4
LOSS_EVERY = 50
SAMPLE_ROWS = 5  # named in an error


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
    where: names rows in an error, as their span and key do; their numbers by default.
    A rest smaller than `batch_size` is left out of its epoch, so all batches have one shape.
    """

    take: Callable[[NDArray[np.int64]], Batch]
    n_rows: int
    batch_size: int
    epochs: int
    seed: int
    where: Callable[[NDArray[np.int64]], str] = lambda rows: f"rows {', '.join(map(str, rows))}"

    @property
    def steps(self) -> int:
        return self.epochs * (self.n_rows // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        if self.n_rows < self.batch_size:
            raise FailedPrecondition(
                f"a batch takes {self.batch_size} rows, but there are only {self.n_rows}; "
                "set a smaller batch_size or generate more data"
            )
        return _prefetch(map(self.take, self.rows()))

    def rows(self) -> Iterator[NDArray[np.int64]]:
        """The rows of every batch."""
        for epoch in range(self.epochs):
            order = np.random.default_rng([self.seed, epoch]).permutation(self.n_rows)
            for start in range(0, self.n_rows - self.batch_size + 1, self.batch_size):
                # Sorted rows are gathered faster; within a batch the order has no effect.
                yield np.sort(order[start : start + self.batch_size])


def train(
    model: Trainable, batches: Batches, advance: Callable[[int], None] = lambda rows: None
) -> list[tuple[int, float]]:
    """Run through `batches` once; return the curve of (rows seen, mean loss since the last).

    `advance` is told the number of rows after every step.

    Raises:
        FailedPrecondition: the loss became NaN or infinite, and the variables of no use; the
            message names the step, the input at fault and some of its rows, where there is one.
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
            totals, examples = np.array([(total.numpy(), float(n)) for total, n in pending]).T
            if not np.isfinite(totals).all():
                bad = int(np.flatnonzero(~np.isfinite(totals))[0])
                _explain(totals[bad], number - len(pending) + bad, batches)
            pending.clear()
            curve.append((rows, float(totals.sum() / examples.sum())))
    return curve


def _explain(loss: float, step: int, batches: Batches) -> NoReturn:
    """Say why the loss of a step, counted from 0, is not finite: make its batch anew and look."""
    rows = next(itertools.islice(batches.rows(), step, None))
    for name, array in batches.take(rows).items():
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            bad = ~np.isfinite(array)
            message = f"input {name!r} is {array[bad][0]}"
            if len(array) == len(rows):
                of_rows = np.asarray(bad.reshape(len(rows), -1).any(axis=1))
                message += f" in {batches.where(rows[of_rows][:SAMPLE_ROWS])}"
            break
    else:
        message = (
            f"all inputs are finite, so learning diverged: lower the learning rate "
            f"(the step learned from {batches.where(rows[:SAMPLE_ROWS])} and others)"
        )
    raise FailedPrecondition(f"the loss became {loss} in step {step + 1}: {message}")


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
