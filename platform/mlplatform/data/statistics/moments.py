"""Mean and variance, the same to the last bit in whatever order parts are merged.

Enters: numbers, and where in the data they stand.  Leaves: mass, mean and variance.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """The moments of every part, kept apart until all are there: a few numbers for each batch.

    Rows are added up in the order of their places (Chan, Golub & LeVeque 1979), because sums of
    floats depend on the order and runners merge in any.  Values beyond 1e150 may overflow.

    places: uint64 [parts].   mass, mean, squares (of distances from the mean): float64 [parts].
    """

    places: NDArray[np.uint64]
    mass: Floats
    mean: Floats
    squares: Floats

    @classmethod
    def of(cls, numbers: Floats, place: int, weights: Floats | NDArray[np.int64] | None) -> Self:
        """Finite numbers, each as often as its weight says."""
        mass = float(len(numbers) if weights is None else weights.sum())
        if not mass:
            return cls(np.zeros(0, np.uint64), *(np.zeros(0) for _ in range(3)))
        with np.errstate(over="ignore", invalid="ignore"):
            # Not np.dot: its threads get in the way of ours, and what it rounds depends on them.
            mean = (numbers if weights is None else numbers * weights).sum() / mass
            squares = np.square(numbers - mean)
            squares = (squares if weights is None else squares * weights).sum()
        each = (np.array([value], np.float64) for value in (mass, mean, squares))
        return cls(np.array([place], np.uint64), *each)

    @classmethod
    def merge(cls, parts: Iterable[Self]) -> Self:
        every = list(parts)
        return cls(
            np.concatenate([part.places for part in every]),
            np.concatenate([part.mass for part in every]),
            np.concatenate([part.mean for part in every]),
            np.concatenate([part.squares for part in every]),
        )

    def fold(self) -> tuple[float, float, float]:
        """Mass, mean and variance of all, zeros when there is nothing."""
        if not len(self.places):
            return 0.0, 0.0, 0.0
        order = np.argsort(self.places, kind="stable")
        mass, means = self.mass[order], self.mean[order]
        total = float(mass.sum())
        with np.errstate(over="ignore", invalid="ignore"):
            mean = float((means * (mass / total)).sum())
            squares = self.squares[order].sum() + (mass * (means - mean) ** 2).sum()
        return total, mean, float(squares / total)
