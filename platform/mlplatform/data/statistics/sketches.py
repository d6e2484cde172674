"""Bounded summaries of a stream of values that can be merged in any order.

Enters: numpy or Arrow arrays.  Leaves: `RowSample`, from which quantiles are read, and
`ValueCounts`, which knows the frequent strings and the number of distinct ones.  Both depend on the
values and on where they stand in the data, never on the order in which parts were merged, until
`ValueCounts` outgrows `KEPT_MERGED` values.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mlplatform.data.files.columns import ArrowArray
from mlplatform.data.statistics.weights import Units, from_units

Hashes = NDArray[np.uint64]

SAMPLE_SIZE = 32_768
KEPT_PER_PART = 10_000
KEPT_MERGED = 100_000
DISTINCT_SKETCH = 16_384
_LONG_STRING = 256  # bytes; above, one call of a library hash beats a loop over words

_U64 = np.uint64
_WORD_MASKS = np.array([(1 << (8 * n)) - 1 for n in range(9)], dtype=_U64)


def mix(values: Hashes) -> Hashes:
    """A bijection of 64-bit integers whose outputs look uniform and independent (splitmix64)."""
    mixed = values + _U64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> _U64(30)
    mixed *= _U64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> _U64(27)
    mixed *= _U64(0x94D049BB133111EB)
    mixed ^= mixed >> _U64(31)
    return mixed


def hash_bytes(strings: ArrowArray) -> Hashes:
    """A 64-bit hash of every string of a binary array without nulls, uint64 [len(strings)]."""
    _, offset_buffer, data = strings.buffers()
    if not len(strings):
        return np.zeros(0, _U64)
    offsets: NDArray[np.int32] = np.frombuffer(offset_buffer, np.int32)[strings.offset :][
        : len(strings) + 1
    ]
    starts, lengths = (offsets[:-1] - offsets[0]).astype(np.int64), np.diff(offsets)
    # Eight bytes of padding let every position be read as a whole word.
    padded = np.zeros(int(offsets[-1] - offsets[0]) + 8, np.uint8)
    padded[:-8] = np.frombuffer(data or b"", np.uint8)[offsets[0] : offsets[-1]]
    words = np.ndarray((len(padded) - 7,), "<u8", buffer=padded, strides=(1,))

    hashes = mix(lengths.astype(_U64))
    active = np.flatnonzero(lengths <= _LONG_STRING)
    for position in range(0, _LONG_STRING, 8):
        active = active[lengths[active] > position]
        if not len(active):
            break
        remaining = np.minimum(lengths[active] - position, 8)
        word = words[starts[active] + position] & _WORD_MASKS[remaining]
        hashes[active] = mix(hashes[active] ^ word)
    for index in np.flatnonzero(lengths > _LONG_STRING):
        string = padded[starts[index] :][: lengths[index]].tobytes()
        hashes[index] = int.from_bytes(hashlib.blake2b(string, digest_size=8).digest(), "little")
    return hashes


@dataclass(frozen=True)
class RowSample:
    """A uniform sample without replacement: the values whose keys are the `SAMPLE_SIZE` smallest.

    A key is a hash of the value's place in the data, so one data set always gives one sample.  Up
    to `SAMPLE_SIZE` values the sample is everything and quantiles are exact.  Beyond, by the
    Dvoretzky-Kiefer-Wolfowitz inequality, all quantiles together are within 1.1 % of their rank
    with probability 99.9 %.  Weights are drawn along with the values, whatever they are: as much
    as a few of them outweigh all others, so much fewer values decide on weighted quantiles.

    keys: uint64 [n].   values: float64 [n].   weights: float64 [n], None where there are none.
    """

    keys: Hashes
    values: NDArray[np.float64]
    weights: NDArray[np.float64] | None = None

    @classmethod
    def of(
        cls, values: NDArray[np.float64], seed: int, weights: NDArray[np.float64] | None = None
    ) -> Self:
        """Sample values that stand one after the other at the place named by `seed`."""
        keys, kept = _sampled_places(seed, len(values))
        return cls(keys, values[kept], None if weights is None else weights[kept])

    @classmethod
    def merge(cls, parts: Iterable[Self]) -> Self:
        samples = list(parts)
        keys = np.concatenate([sample.keys for sample in samples])
        kept = _smallest(keys)
        values = np.concatenate([sample.values for sample in samples])
        weights = [sample.weights for sample in samples if sample.weights is not None]
        return cls(keys[kept], values[kept], np.concatenate(weights)[kept] if weights else None)

    def ascending(self) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """Values and weights by ascending value, in one order however parts were merged."""
        order = np.lexsort((self.keys, self.values))
        return self.values[order], None if self.weights is None else self.weights[order]


# Most columns of a batch have as many values, so they share places and keys.
@lru_cache(maxsize=16)
def _sampled_places(seed: int, count: int) -> tuple[Hashes, NDArray[np.intp]]:
    places: Hashes = np.arange(count, dtype=_U64)
    keys = mix(places + mix(np.array([seed], _U64)))
    kept = _smallest(keys)
    return keys[kept], kept


def _smallest(keys: Hashes) -> NDArray[np.intp]:
    """Where the `SAMPLE_SIZE` smallest keys are."""
    if len(keys) <= SAMPLE_SIZE:
        return np.arange(len(keys))
    return np.flatnonzero(keys <= np.partition(keys, SAMPLE_SIZE - 1)[SAMPLE_SIZE - 1])


@dataclass(frozen=True)
class ValueCounts:
    """How often each string occurs, sorted by the strings' hashes.

    Counts are exact up to `KEPT_PER_PART` distinct strings in a part.  A part with more keeps its
    most frequent ones, and a merged summary with more than `KEPT_MERGED` keeps the most frequent
    of those; the count of any string is then short by at most `shortfall`, which the parts alone
    make no more than 1 / KEPT_PER_PART (0.01 %) of all strings.

    hashes: uint64 [n], ascending.   values: binary [n].   counts: int64 [n].
    smallest: the smallest hashes ever seen, ascending, uint64 [at most DISTINCT_SKETCH].
    weights: units [n, 2], None where there are none.
    """

    hashes: Hashes
    values: ArrowArray
    counts: NDArray[np.int64]
    smallest: Hashes
    shortfall: int = 0
    weights: Units | None = None

    @classmethod
    def of(
        cls, values: ArrowArray, counts: NDArray[np.int64], weights: Units | None = None
    ) -> Self:
        """Count `values`, in which a string may stand more than once, without nulls."""
        hashes = hash_bytes(values)
        return cls(hashes, values, counts, hashes[:0], weights=weights)._folded(KEPT_PER_PART)

    @classmethod
    def merge(cls, parts: Iterable[Self]) -> Self:
        every = list(parts)
        weights = [part.weights for part in every if part.weights is not None]
        return cls(
            np.concatenate([part.hashes for part in every]),
            pa.concat_arrays([part.values for part in every]),
            np.concatenate([part.counts for part in every]),
            np.concatenate([part.smallest for part in every]),
            sum(part.shortfall for part in every),
            np.concatenate(weights) if weights else None,
        )._folded(KEPT_MERGED)

    def _folded(self, limit: int) -> Self:
        """Bring together what stands there more than once, in order, and keep to the limits."""
        order = np.argsort(self.hashes)
        hashes = self.hashes[order]
        heads = np.flatnonzero(_differs_from_previous(hashes))
        hashes, counts = hashes[heads], _sums(self.counts, order, heads)
        weights = None if self.weights is None else _sums(self.weights, order, heads)
        seen = np.sort(np.concatenate([self.smallest, hashes[:DISTINCT_SKETCH]]))
        smallest = seen[_differs_from_previous(seen)][:DISTINCT_SKETCH]
        order, shortfall = order[heads], self.shortfall
        if len(hashes) > limit:
            ranks = np.lexsort((hashes, -counts))
            shortfall += int(counts[ranks[limit]])
            kept = np.sort(ranks[:limit])
            hashes, order, counts = hashes[kept], order[kept], counts[kept]
            weights = None if weights is None else weights[kept]
        values = self.values.take(pa.array(order))
        return type(self)(hashes, values, counts, smallest, shortfall, weights)

    def distinct(self) -> int:
        """Number of distinct strings: exact below `DISTINCT_SKETCH`, else 0.8 % off (1 sigma)."""
        if len(self.smallest) < DISTINCT_SKETCH:
            return len(self.smallest)
        return round((DISTINCT_SKETCH - 1) / (float(self.smallest[-1]) / 2.0**64))

    def top(self, limit: int) -> list[tuple[str, int]]:
        """The most frequent strings with their counts; equal counts in alphabetical order."""
        return self._ranked(self.counts, limit)

    def top_by_weight(self, limit: int) -> list[tuple[str, float]]:
        """Of the strings that are frequent enough to be known, those with the largest weight."""
        return [] if self.weights is None else self._ranked(from_units(self.weights), limit)

    def _ranked(self, scores: NDArray[Any], limit: int) -> list[tuple[str, Any]]:
        if not len(self.values):  # of which Arrow's select_k makes an error
            return []
        table: Any = pa.table({"value": self.values, "score": scores})
        ranking: Any = [("score", "descending"), ("value", "ascending")]
        best = table.take(pc.select_k_unstable(table, min(limit, len(table)), ranking))
        values = [value.decode() for value in best["value"].to_pylist()]
        return list(zip(values, best["score"].to_pylist(), strict=True))


def _sums(
    numbers: NDArray[np.int64], order: NDArray[np.intp], heads: NDArray[np.intp]
) -> NDArray[np.int64]:
    """The numbers in `order`, summed from each head to the next."""
    return np.add.reduceat(numbers[order], heads, axis=0) if len(heads) else numbers


def _differs_from_previous(ascending: Hashes) -> NDArray[np.bool_]:
    differs = np.ones(len(ascending), np.bool_)
    np.not_equal(ascending[1:], ascending[:-1], out=differs[1:])
    return differs
