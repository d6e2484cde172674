"""How often each integer occurs, exactly.

Enters: integers, and weights if there are any.  Leaves: `IntegerCounts`, which says how many values
the rows of a feature have, and how often each value of a small set of integers stands there.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mlplatform.data.statistics.weights import Units, Weights, to_units

Integers = NDArray[Any]
_NARROW = 1 << 16  # so many counters cost less than sorting a batch
_PREFIX = 4_096


@dataclass(frozen=True)
class IntegerCounts:
    """values, counts: int64 [n], by ascending value.   weights: units [n, 2], None without them."""

    values: NDArray[np.int64]
    counts: NDArray[np.int64]
    weights: Units | None = None

    @classmethod
    def of(cls, integers: Integers, weights: Weights | None = None) -> Self:
        low = int(integers.min()) if len(integers) else 0
        if len(integers) and int(integers.max()) - low < _NARROW:
            codes = integers.astype(np.int64) - low
            counts = np.bincount(codes)
            used = np.flatnonzero(counts)
            values, counts = used + low, counts[used]
            sums = None if weights is None else np.bincount(codes, weights)[used]
        else:
            values, codes, counts = np.unique(integers, return_inverse=True, return_counts=True)
            sums = None if weights is None else np.bincount(codes, weights, len(values))
        units = None if sums is None else to_units(sums)
        return cls(values.astype(np.int64), counts.astype(np.int64), units)

    @classmethod
    def of_few(cls, integers: Integers, weights: Weights | None = None) -> Self | None:
        """As `of`, or None where a look says that counting costs more than the counts are worth."""
        if len(integers) and integers.max() > np.iinfo(np.int64).max:
            return None
        is_narrow = len(integers) and int(integers.max()) - int(integers.min()) < _NARROW
        if is_narrow or len(np.unique(integers[:_PREFIX])) <= _PREFIX // 16:
            return cls.of(integers, weights)
        return None

    @classmethod
    def merge(cls, parts: Iterable[Self]) -> Self:
        every = list(parts)
        values, codes = np.unique(
            np.concatenate([part.values for part in every]), return_inverse=True
        )
        counts = np.zeros(len(values), np.int64)
        np.add.at(counts, codes, np.concatenate([part.counts for part in every]))
        weighted = [part.weights for part in every if part.weights is not None]
        if not weighted:
            return cls(values, counts)
        weights = np.zeros((len(values), 2), np.int64)
        np.add.at(weights, codes, np.concatenate(weighted))
        return cls(values, counts, weights)
