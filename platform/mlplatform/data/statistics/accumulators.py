"""What is known of one feature after part of the data, and how such parts become one.

Enters: an Arrow column.  Leaves: a `FeatureNameStatistics`.  A null row is missing; an empty list
is present with no values; nulls inside a list count towards its length and towards nothing else.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from tensorflow_metadata.proto.v0 import statistics_pb2

from mlplatform.data.files.columns import (
    ArrowArray,
    ArrowType,
    Kind,
    is_list,
    leaf_values,
    to_numpy,
)
from mlplatform.data.statistics.histograms import quantiles_histogram
from mlplatform.data.statistics.integers import IntegerCounts
from mlplatform.data.statistics.numeric import Numbers
from mlplatform.data.statistics.strings import Strings
from mlplatform.data.statistics.weights import NO_UNITS, Units, Weights, from_units, total

# Of what type the values of a column are when Arrow cannot tell, for there are none.
_NULLS: Mapping[Kind, ArrowType] = {
    "INT": pa.int64(),
    "FLOAT": pa.float64(),
    "STRING": pa.string(),
}


@dataclass(frozen=True)
class Valency:
    """How many rows have so many values; of rows that have the feature."""

    lengths: IntegerCounts

    @classmethod
    def of(cls, column: ArrowArray, weights: Weights | None = None) -> Self:
        if weights is not None:
            weights = weights[_is_valid(column)]
        if is_list(column.type):
            return cls(IntegerCounts.of(to_numpy(pc.list_value_length(column)), weights))
        rows = len(column) - column.null_count
        units = None if weights is None else total(weights)[np.newaxis][: bool(rows)]
        one = np.array([1])[: bool(rows)]
        return cls(IntegerCounts(one, one * rows, units))

    @classmethod
    def merge(cls, parts: Iterable[Self]) -> Self:
        return cls(IntegerCounts.merge(part.lengths for part in parts))

    def describe(self) -> statistics_pb2.CommonStatistics:
        common = statistics_pb2.CommonStatistics()
        lengths, counts, units = self.lengths.values, self.lengths.counts, self.lengths.weights
        if not len(lengths):
            return common
        rows = int(counts.sum())
        common.num_non_missing = rows
        common.min_num_values = int(lengths[0])
        common.max_num_values = int(lengths[-1])
        common.tot_num_values = int(lengths @ counts)
        common.avg_num_values = common.tot_num_values / rows
        common.num_values_histogram.CopyFrom(
            quantiles_histogram(
                lengths.astype(np.float64),
                counts.astype(np.float64),
                rows,
                (lengths[0], lengths[-1]),
            )
        )
        if units is not None:
            weights = from_units(units)
            weighted = common.weighted_common_stats
            weighted.num_non_missing = from_units(units.sum(axis=0))
            weighted.tot_num_values = weights @ lengths
            if weighted.num_non_missing:
                weighted.avg_num_values = weighted.tot_num_values / weighted.num_non_missing
        return common


@dataclass(frozen=True)
class Examples:
    """How many rows there are, and the units of what they weigh."""

    rows: int
    weight: Units | None

    @classmethod
    def of(cls, rows: int, weights: Weights | None) -> Self:
        return cls(rows, None if weights is None else total(weights))

    @classmethod
    def merge(cls, parts: Iterable[Self]) -> Self:
        every = list(parts)
        weights = [part.weight for part in every if part.weight is not None]
        return cls(sum(part.rows for part in every), sum(weights, NO_UNITS) if weights else None)


@dataclass(frozen=True)
class FeatureAccumulator:
    """One feature over part of the rows of one data set."""

    valency: Valency
    values: Numbers | Strings

    @classmethod
    def of(cls, column: ArrowArray, kind: Kind, seed: int, weights: Weights | None = None) -> Self:
        """Summarise a column.

        Args:
            column: Arrow [rows].
            kind: what the data set takes the column for.
            seed: names the place where the column stands in the data.
            weights: float64 [rows], if the rows have any.
        """
        values = leaf_values(column)
        if pa.types.is_null(values.type):
            values = pa.nulls(len(values), _NULLS[kind])
        elif pa.types.is_dictionary(values.type) and (kind != "STRING" or _hides_nulls(values)):
            values = values.dictionary_decode()
        rows = column if is_list(column.type) else values
        if weights is None:
            return cls(Valency.of(rows), _summarise(values, kind, seed, None))
        of_values = np.repeat(weights, _lengths(column)) if is_list(column.type) else weights
        of_values = of_values[_is_valid(values)]
        return cls(Valency.of(rows, weights), _summarise(values, kind, seed, of_values))

    @classmethod
    def empty(cls, kind: Kind, *, weighted: bool = False) -> Self:
        return cls.of(pa.nulls(0), kind, seed=0, weights=np.zeros(0) if weighted else None)

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


def _summarise(
    values: ArrowArray, kind: Kind, seed: int, weights: Weights | None
) -> Numbers | Strings:
    if kind == "STRING":
        return Strings.of(values, weights)
    return Numbers.of(values, seed, weights)


def _lengths(column: ArrowArray) -> NDArray[np.int64]:
    """How many values each row has; none where the row is missing."""
    lengths: NDArray[np.int64] = to_numpy(pc.list_value_length(column).fill_null(0))
    return lengths


def _is_valid(values: ArrowArray) -> NDArray[np.bool_]:
    is_valid: NDArray[np.bool_] = values.is_valid().to_numpy(zero_copy_only=False)
    return is_valid


def _hides_nulls(values: ArrowArray) -> bool:
    return bool(values.dictionary.null_count)
