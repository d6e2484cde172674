"""What a metric sees, and what it says: rows in, integers to be added up out.

Enters: columns of rows.  Leaves: `Rows`, in an order in which the rows of one user in one slice lie
side by side, and the protocol of a `Metric`, which turns them into `Units`.  To add a metric, write
a class like those beside this file; nothing else has to know it.

Sums are integers.  Those of floats are taken in units of 2**-30: adding integers gives the same in
any order, so a figure is the same to the last bit however rows were spread and workers finished.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
# What a model's column holds, or that no model is looked at.  A probability is a score as well.
Reads = Literal["probability", "score", "rank", "label"]

ONE = 1 << 30


def fixed(values: Floats) -> Ints:
    """In units of 1/ONE, to the nearest."""
    return np.rint(values * ONE).astype(np.int64)


@dataclass(frozen=True)
class Rows:
    """Rows of one or many slices under one model, by slice, user and query.

    label: 0 or 1, `[n]`; 1 in rows that have none.
    given: what the model gave, float64 `[n]`.
    rank: the place of `given` among the distinct values of these rows and perhaps others, `[n]`.
    ordered: twice how many rows of the other label and the same slice are ordered rightly to this
        one, those of the same score once, `[n]`.
    users, queries: the first row of each user's and of each query's, ascending.
    """

    label: Ints
    given: Floats
    rank: Ints
    ordered: Ints
    users: Ints
    queries: Ints

    def __len__(self) -> int:
        return len(self.label)


@dataclass(frozen=True)
class Units:
    """What rows, users or queries add to one of the sums of a metric.

    at: a row of each unit, which says to which slice and group it belongs, `[m]`; without, every
        row is a unit.
    part: which sum.
    value: `[m]`; without, each adds one.
    bin: that of the metric's bins to which the unit belongs, `[m]`; without, the first.
    """

    at: Ints | None
    part: int
    value: Ints | None = None
    bin: Ints | None = None


class Metric(Protocol):
    """A figure that can be had from sums.  Its sums are `[bins, parts]` for each group of users.

    joint: what a row adds depends on the other rows of its slice.
    """

    @property
    def name(self) -> str: ...
    @property
    def reads(self) -> Reads: ...
    @property
    def joint(self) -> bool: ...
    @property
    def bins(self) -> int: ...
    @property
    def parts(self) -> int: ...

    def units(self, rows: Rows) -> Iterator[Units]:
        """What there is to add up, of all rows."""
        ...

    def value(self, sums: Floats) -> Floats:
        """`[resamples, bins, parts]` to `[resamples]`; NaN where there is nothing to tell.

        The first resample is the data itself.  Bins of zeros may be left out.
        """
        ...


def ratio(above: Any, below: Any) -> Floats:
    """above / below, NaN where below is 0."""
    result = np.full(np.shape(below), np.nan)
    np.divide(above, below, out=result, where=np.asarray(below) != 0)
    return result


class Mean(ABC):
    """Base of metrics that are the mean of something over rows, users or queries."""

    joint: ClassVar[bool] = False
    bins: ClassVar[int] = 1
    parts: ClassVar[int] = 2

    @abstractmethod
    def each(self, rows: Rows) -> tuple[Ints | None, Floats]:
        """A row of every unit, None if every row is one, and the unit's value."""

    def units(self, rows: Rows) -> Iterator[Units]:
        at, values = self.each(rows)
        yield Units(at, 0, fixed(values))
        yield Units(at, 1)

    def value(self, sums: Floats) -> Floats:
        total = sums.sum(axis=1)
        return ratio(total[:, 0] / ONE, total[:, 1])
