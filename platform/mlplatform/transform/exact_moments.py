"""Mean and standard deviation of float32 values, exact until they are asked for.

Enters: finite float32 values.  Leaves: their mean and deviation in float64.  Sums of integers
depend neither on the order of merging nor on how files were cut into batches, which sums of floats
do.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mlplatform.transform.near_zero import flush_numpy

_DIGITS = 24  # bits of a float32's significand
_LOWEST, _HIGHEST = -124, 128  # exponents as frexp has them, of what is not near zero


@dataclass(frozen=True)
class ExactMoments:
    """Significands and their squares, summed apart for every exponent; 2^39 values fit.

    sums: int64 [3, exponents], of significands, and of the lower and the upper 24 bits of squares.
    """

    count: int
    sums: NDArray[np.int64]

    @classmethod
    def of(cls, numbers: NDArray[np.float32]) -> Self:
        """Numbers near zero count as 0."""
        fractions, exponents = np.frexp(flush_numpy(numbers))
        significands = np.ldexp(fractions, _DIGITS).astype(np.int64)
        squares = significands**2
        columns = significands, squares & ((1 << _DIGITS) - 1), squares >> _DIGITS
        # bincount adds float64, which is exact as long as a batch has less than 2^29 values.
        sums = [
            np.bincount(exponents - _LOWEST, column, _HIGHEST - _LOWEST + 1) for column in columns
        ]
        return cls(len(numbers), np.array(sums).astype(np.int64))

    @classmethod
    def merge(cls, parts: Iterable[Self]) -> Self:
        every = list(parts)
        return cls(sum(part.count for part in every), np.sum([part.sums for part in every], axis=0))

    def mean_and_deviation(self) -> tuple[float, float]:
        """The mean and the population standard deviation; zeros when there is nothing."""
        if not self.count:
            return 0.0, 0.0
        total, squares = 0, 0
        for place, (plain, low, high) in enumerate(self.sums.T.tolist()):
            total += plain << place
            squares += (low + (high << _DIGITS)) << (2 * place)
        unit = Fraction(2) ** (_LOWEST - _DIGITS)
        mean = Fraction(total, self.count)
        variance = Fraction(squares, self.count) - mean**2
        return float(mean * unit), float(variance * unit**2) ** 0.5
