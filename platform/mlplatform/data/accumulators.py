"""What is known of one feature after part of the data, and how such parts become one.

Enters: an Arrow column.  Leaves: a `FeatureNameStatistics`.  A null row is missing; an empty list
is present with no values; nulls inside a list count towards its length and towards nothing else.
"""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from tensorflow_metadata.proto.v0 import statistics_pb2

from mlplatform.data.columns import ArrowArray, Kind, is_list, leaf_values, to_numpy
from mlplatform.data.numeric import Numbers
from mlplatform.data.sketches import ValueCounts

TOP_VALUES = 10
RANK_BUCKETS = 1_000


@dataclass(frozen=True)
class Valency:
    """How many rows have the feature, and how many values they have."""

    rows: int = 0
    fewest: int = sys.maxsize
    most: int = 0
    total: int = 0

    @classmethod
    def of(cls, column: ArrowArray) -> Self:
        if not is_list(column.type):
            rows = len(column) - column.null_count
            return cls(rows, 1, 1, rows) if rows else cls()
        lengths = to_numpy(pc.list_value_length(column))
        if not len(lengths):
            return cls()
        return cls(len(lengths), int(lengths.min()), int(lengths.max()), int(lengths.sum()))

    @classmethod
    def merge(cls, parts: Iterable[Self]) -> Self:
        every = list(parts)
        return cls(
            rows=sum(part.rows for part in every),
            fewest=min(part.fewest for part in every),
            most=max(part.most for part in every),
            total=sum(part.total for part in every),
        )

    def describe(self) -> statistics_pb2.CommonStatistics:
        if not self.rows:
            return statistics_pb2.CommonStatistics()
        return statistics_pb2.CommonStatistics(
            num_non_missing=self.rows,
            min_num_values=self.fewest,
            max_num_values=self.most,
            avg_num_values=self.total / self.rows,
            tot_num_values=self.total,
        )


@dataclass(frozen=True)
class Strings:
    """String values; those that are not UTF-8 are counted, not listed.  Lengths are in bytes."""

    counts: ValueCounts
    count: int = 0
    size_bytes: int = 0
    invalid: int = 0

    @classmethod
    def of(cls, values: ArrowArray) -> Self:
        strings, counts = _count_strings(values)
        size_bytes = int(np.dot(to_numpy(pc.binary_length(strings)), counts))
        total, invalid = int(counts.sum()), 0
        if (is_valid := _valid_utf8(strings)) is not None:
            invalid = int(counts[~is_valid].sum())
            strings, counts = strings.filter(pa.array(is_valid)), counts[is_valid]
        return cls(ValueCounts.of(strings, counts), total, size_bytes, invalid)

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
        ranked = self.counts.top(RANK_BUCKETS)
        for value, count in ranked[:TOP_VALUES]:
            statistics.top_values.add(value=value, frequency=count)
        for rank, (value, count) in enumerate(ranked):
            statistics.rank_histogram.buckets.add(
                low_rank=rank, high_rank=rank, label=value, sample_count=count
            )
        described = statistics_pb2.FeatureNameStatistics(string_stats=statistics)
        if self.counts.shortfall:
            described.custom_stats.add(name="max_count_shortfall", num=self.counts.shortfall)
        return described


@dataclass(frozen=True)
class FeatureAccumulator:
    """One feature over part of the rows of one data set."""

    valency: Valency
    values: Numbers | Strings

    @classmethod
    def of(cls, column: ArrowArray, kind: Kind, seed: int) -> Self:
        """Summarise a column.  `seed` names the place where the column stands in the data."""
        values = leaf_values(column)
        if pa.types.is_null(values.type):
            values = pa.array([], pa.string() if kind == "STRING" else pa.float64())
        elif pa.types.is_dictionary(values.type) and (kind != "STRING" or _hides_nulls(values)):
            values = values.dictionary_decode()
        valency = Valency.of(column if is_list(column.type) else values)
        return cls(valency, Strings.of(values) if kind == "STRING" else Numbers.of(values, seed))

    @classmethod
    def empty(cls, kind: Kind) -> Self:
        return cls.of(pa.nulls(0), kind, seed=0)

    @classmethod
    def merge(cls, parts: Iterable[Self]) -> Self:
        every = list(parts)
        valency = Valency.merge(part.valency for part in every)
        numbers = [part.values for part in every if isinstance(part.values, Numbers)]
        strings = [part.values for part in every if isinstance(part.values, Strings)]
        return cls(valency, Numbers.merge(numbers) if numbers else Strings.merge(strings))

    def describe(self) -> statistics_pb2.FeatureNameStatistics:
        """The statistics without the feature's name and type and the number of missing rows."""
        return self.values.describe(self.valency.describe())


def _count_strings(values: ArrowArray) -> tuple[ArrowArray, NDArray[np.int64]]:
    """The strings among `values`, as binary, and how often each stands there."""
    if not pa.types.is_dictionary(values.type):
        values = values.dictionary_encode()
    codes = to_numpy(values.indices)
    counts = np.bincount(codes, minlength=len(values.dictionary)).astype(np.int64, copy=False)
    used = np.flatnonzero(counts)
    return values.dictionary.cast(pa.binary()).take(pa.array(used)), counts[used]


def _hides_nulls(values: ArrowArray) -> bool:
    return bool(values.dictionary.null_count)


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
