"""What is known of numeric values: moments, extremes, and histograms read from a sample.

NaN and the infinities are counted, but moments, quantiles and the inner buckets of the histograms
speak of finite values only.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from tensorflow_metadata.proto.v0 import statistics_pb2

from mlplatform.data.files.columns import ArrowArray, to_numpy
from mlplatform.data.statistics.histograms import quantiles, quantiles_histogram, standard_histogram
from mlplatform.data.statistics.integers import IntegerCounts
from mlplatform.data.statistics.moments import Floats, Moments
from mlplatform.data.statistics.sketches import RowSample
from mlplatform.data.statistics.weights import Units, Weights, from_units, to_units

# An INT feature of at most so many distinct values can be compared as a categorical one.
MOST_CATEGORIES = 256
VALUE_COUNTS = "value_counts"  # the name of the custom statistic that says how often each occurs


@dataclass(frozen=True)
class Weighted:
    """What is known of the values' weights.  infinities: units [2, 2], of -inf and of inf."""

    moments: Moments
    infinities: Units


@dataclass(frozen=True)
class Numbers:
    """Numeric values.

    integers: how often each occurs; None of floats, and of more than `MOST_CATEGORIES` integers.
    """

    sample: RowSample
    moments: Moments
    integers: IntegerCounts | None
    count: int = 0
    low: float = np.inf
    high: float = -np.inf
    zeros: int = 0
    nans: int = 0
    negative_infinities: int = 0
    positive_infinities: int = 0
    weighted: Weighted | None = None

    @classmethod
    def of(cls, values: ArrowArray, place: int, weights: Weights | None = None) -> Self:
        raw = to_numpy(values)
        if raw.dtype.kind != "f":
            integers = IntegerCounts.of_few(raw)
            return cls._of_finite(raw.astype(np.float64), place, weights, integers)
        numbers = raw.astype(np.float64, copy=False)
        is_finite = np.isfinite(numbers)
        if is_finite.all():
            return cls._of_finite(numbers, place, weights)
        infinite = numbers == -np.inf, numbers == np.inf
        finite = cls._of_finite(
            numbers[is_finite], place, None if weights is None else weights[is_finite]
        )
        if weights is not None and finite.weighted:
            sums = np.array([weights[where].sum() for where in infinite])
            finite = replace(finite, weighted=replace(finite.weighted, infinities=to_units(sums)))
        return replace(
            finite,
            nans=int(np.isnan(numbers).sum()),
            negative_infinities=int(infinite[0].sum()),
            positive_infinities=int(infinite[1].sum()),
        )

    @classmethod
    def _of_finite(
        cls,
        numbers: Floats,
        place: int,
        weights: Weights | None,
        integers: IntegerCounts | None = None,
    ) -> Self:
        # A few values, each many times, are faster to add up than all of them.
        distinct = numbers if integers is None else integers.values.astype(np.float64)
        times = None if integers is None else integers.counts
        is_zero = distinct == 0
        return cls(
            RowSample.of(numbers, place, weights),
            Moments.of(distinct, place, times),
            integers if integers and len(distinct) <= MOST_CATEGORIES else None,
            count=len(numbers),
            low=float(distinct.min(initial=np.inf)),
            high=float(distinct.max(initial=-np.inf)),
            zeros=int(is_zero.sum() if times is None else times[is_zero].sum()),
            weighted=None
            if weights is None
            else Weighted(Moments.of(numbers, place, weights), np.zeros((2, 2), np.int64)),
        )

    @classmethod
    def merge(cls, parts: Iterable[Self]) -> Self:
        every = list(parts)
        weighted = [part.weighted for part in every if part.weighted]
        return cls(
            RowSample.merge(part.sample for part in every),
            Moments.merge(part.moments for part in every),
            _merge_integers([part.integers for part in every]),
            count=sum(part.count for part in every),
            low=min(part.low for part in every),
            high=max(part.high for part in every),
            zeros=sum(part.zeros for part in every),
            nans=sum(part.nans for part in every),
            negative_infinities=sum(part.negative_infinities for part in every),
            positive_infinities=sum(part.positive_infinities for part in every),
            weighted=Weighted(
                Moments.merge(part.moments for part in weighted),
                np.sum([part.infinities for part in weighted], axis=0),
            )
            if weighted
            else None,
        )

    def describe(
        self, common: statistics_pb2.CommonStatistics
    ) -> statistics_pb2.FeatureNameStatistics:
        described = statistics_pb2.FeatureNameStatistics()
        statistics = described.num_stats
        statistics.common_stats.CopyFrom(common)
        infinities = float(self.negative_infinities), float(self.positive_infinities)
        limits = self.low, self.high
        values = self.sample.values
        if self.count:
            _, statistics.mean, variance = self.moments.fold()
            statistics.std_dev = variance**0.5
            statistics.median = _median(values)
        if self.count or any(infinities):
            statistics.min = -np.inf if self.negative_infinities else self.low
            statistics.max = np.inf if self.positive_infinities else self.high
        statistics.num_zeros = self.zeros
        statistics.histograms.append(
            standard_histogram(values, None, self.count, limits, infinities)
        )
        statistics.histograms.append(quantiles_histogram(values, None, self.count, limits))
        if self.weighted:
            self._describe_weighted(self.weighted, statistics.weighted_numeric_stats)
        for histogram in (*statistics.histograms, *statistics.weighted_numeric_stats.histograms):
            histogram.num_nan = self.nans
        if self.integers:
            self._describe_integers(self.integers, described.custom_stats.add(name=VALUE_COUNTS))
        return described

    def _describe_weighted(
        self, weighted: Weighted, statistics: statistics_pb2.WeightedNumericStatistics
    ) -> None:
        values, weights = self.sample.ascending()
        mass, mean, variance = weighted.moments.fold()
        if mass:
            statistics.mean, statistics.std_dev = mean, variance**0.5
            statistics.median = float(quantiles(values, np.array([0.5]), weights)[0])
        limits = self.low, self.high
        below, above = from_units(weighted.infinities).tolist()
        statistics.histograms.append(
            standard_histogram(values, weights, mass, limits, (below, above))
        )
        statistics.histograms.append(quantiles_histogram(values, weights, mass, limits))

    @staticmethod
    def _describe_integers(
        integers: IntegerCounts, statistic: statistics_pb2.CustomStatistic
    ) -> None:
        """The values by falling count, as they are listed of strings."""
        ranked = np.lexsort((integers.values, -integers.counts))
        for rank, index in enumerate(ranked.tolist()):
            statistic.rank_histogram.buckets.add(
                low_rank=rank,
                high_rank=rank,
                label=str(integers.values[index]),
                sample_count=integers.counts[index],
            )


def _merge_integers(parts: Sequence[IntegerCounts | None]) -> IntegerCounts | None:
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    merged = IntegerCounts.merge(known)
    return merged if len(merged.values) <= MOST_CATEGORIES else None


def _median(values: Floats) -> float:
    with np.errstate(over="ignore"):
        median = float(np.median(values))
    # The sum of the two in the middle can overflow, which their halves cannot.
    return median if np.isfinite(median) else float(np.median(values / 2)) * 2
