"""What is known of strings: how often each stands there, how long they are, which are not UTF-8.

Enters: an Arrow array of strings or bytes, dictionary-encoded or not, without nulls in the
dictionary.  Leaves: a `StringStatistics`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from tensorflow_metadata.proto.v0 import statistics_pb2

from mlplatform.data.files.columns import ArrowArray, to_numpy
from mlplatform.data.statistics.sketches import ValueCounts
from mlplatform.data.statistics.weights import Units, Weights, to_units

TOP_VALUES = 10
RANK_BUCKETS = 1_000


@dataclass(frozen=True)
class Strings:
    """String values; those that are not UTF-8 are counted, not listed.  Lengths are in bytes."""

    counts: ValueCounts
    count: int = 0
    size_bytes: int = 0
    invalid: int = 0

    @classmethod
    def of(cls, values: ArrowArray, weights: Weights | None = None) -> Self:
        strings, counts, units = _count_strings(values, weights)
        size_bytes = int(np.dot(to_numpy(pc.binary_length(strings)), counts))
        count, invalid = int(counts.sum()), 0
        if (is_valid := _valid_utf8(strings)) is not None:
            invalid = int(counts[~is_valid].sum())
            strings, counts = strings.filter(pa.array(is_valid)), counts[is_valid]
            units = None if units is None else units[is_valid]
        return cls(ValueCounts.of(strings, counts, units), count, size_bytes, invalid)

    @classmethod
    def merge(cls, parts: Iterable[Self]) -> Self:
        every = list(parts)
        return cls(
            ValueCounts.merge(part.counts for part in every),
            count=sum(part.count for part in every),
            size_bytes=sum(part.size_bytes for part in every),
            invalid=sum(part.invalid for part in every),
        )

    def describe(
        self, common: statistics_pb2.CommonStatistics
    ) -> statistics_pb2.FeatureNameStatistics:
        statistics = statistics_pb2.StringStatistics(
            common_stats=common,
            unique=self.counts.distinct(),
            avg_length=self.size_bytes / max(self.count, 1),
            invalid_utf8_count=self.invalid,
        )
        _list_ranked(statistics, self.counts.top(RANK_BUCKETS))
        if self.counts.weights is not None:
            weighted = statistics.weighted_string_stats
            _list_ranked(weighted, self.counts.top_by_weight(RANK_BUCKETS))
        described = statistics_pb2.FeatureNameStatistics(string_stats=statistics)
        if self.counts.shortfall:
            described.custom_stats.add(name="max_count_shortfall", num=self.counts.shortfall)
        return described


def _count_strings(
    values: ArrowArray, weights: Weights | None
) -> tuple[ArrowArray, NDArray[np.int64], Units | None]:
    """The strings among `values`, as binary, and how often and how heavily each stands there."""
    if not pa.types.is_dictionary(values.type):
        values = values.dictionary_encode()
    codes, size = to_numpy(values.indices), len(values.dictionary)
    counts = np.bincount(codes, minlength=size).astype(np.int64, copy=False)
    used = np.flatnonzero(counts)
    units = None if weights is None else to_units(np.bincount(codes, weights, size)[used])
    return values.dictionary.cast(pa.binary()).take(pa.array(used)), counts[used], units


def _list_ranked(
    statistics: statistics_pb2.StringStatistics | statistics_pb2.WeightedStringStatistics,
    ranked: Sequence[tuple[str, float]],
) -> None:
    for value, count in ranked[:TOP_VALUES]:
        statistics.top_values.add(value=value, frequency=count)
    for rank, (value, count) in enumerate(ranked):
        statistics.rank_histogram.buckets.add(
            low_rank=rank, high_rank=rank, label=value, sample_count=count
        )


def _valid_utf8(strings: ArrowArray) -> NDArray[np.bool_] | None:
    """Which of the strings are UTF-8, or None in the ordinary case that all are."""
    try:
        strings.cast(pa.string())
    except pa.ArrowInvalid:
        return np.array([_is_utf8(string) for string in strings.to_pylist()], dtype=np.bool_)
    return None


def _is_utf8(string: bytes) -> bool:
    try:
        string.decode()
    except UnicodeDecodeError:
        return False
    return True
