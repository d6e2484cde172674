"""Batches of rows: shuffled, the same each time, made a few ahead in a thread of their own.

Enters: a function that gives the arrays of the rows asked for.  Leaves: the batch of every step,
from any step on, cut into shares where several replicas learn from it.
"""

import queue
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mlplatform.errors import FailedPrecondition

Batch = Mapping[str, NDArray[Any]]
PREFETCHED = 4

T = TypeVar("T")


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

    def rows(self, start: int = 0) -> Iterator[NDArray[np.int64]]:
        """The rows of every batch from step `start` on, counted from 0; no batch is made."""
        epoch_steps = self.n_rows // self.batch_size
        for epoch in range(start // max(epoch_steps, 1), self.epochs):
            order = np.random.default_rng([self.seed, epoch]).permutation(self.n_rows)
            for step in range(max(start - epoch * epoch_steps, 0), epoch_steps):
                # Sorted rows are gathered faster; within a batch the order has no effect.
                yield np.sort(order[step * self.batch_size : (step + 1) * self.batch_size])

    def check(self, shares: int) -> None:
        """See that there is a batch, and that it can be cut into so many shares.

        Raises:
            FailedPrecondition: there are too few rows for a batch, or it cannot be cut evenly.
        """
        if self.n_rows < self.batch_size:
            raise FailedPrecondition(
                f"a batch takes {self.batch_size} rows, but there are only {self.n_rows}; "
                "set a smaller batch_size or generate more data"
            )
        if self.batch_size % shares:
            raise FailedPrecondition(
                f"a batch of {self.batch_size} rows cannot be cut into {shares} equal shares, one "
                f"a replica; set a batch_size that is a multiple of {shares}"
            )

    def read(
        self, start: int = 0, shares: Sequence[int] = (0,), of: int = 1
    ) -> Generator[list[Batch], None, None]:
        """Make the batches from step `start` on: of each, those of its `of` equal parts asked for.

        Raises:
            FailedPrecondition: as `check` says.
        """
        self.check(of)

        def made() -> Iterator[list[Batch]]:
            for rows in self.rows(start):
                cut = np.split(rows, of)
                yield [self.take(cut[share]) for share in shares]

        return _prefetch(made())


def _prefetch(items: Iterator[T]) -> Generator[T, None, None]:
    """Make items in a thread of their own, a few ahead; an error there is raised here."""
    ready: queue.Queue[tuple[T] | BaseException | None] = queue.Queue(PREFETCHED)
    stopped = threading.Event()

    def put(item: tuple[T] | BaseException | None) -> None:
        while not stopped.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    def produce() -> None:
        try:
            for item in items:
                put((item,))
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
            yield item[0]
    finally:
        stopped.set()
        producer.join()
