"""What is known of numeric values: moments, extremes, and histograms read from a sample.

NaN and the infinities are counted, but moments, quantiles and the inner buckets of the histograms
speak of finite values only.  Moments of values beyond 1e150 may overflow to infinity.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray
from tensorflow_metadata.proto.v0 import statistics_pb2

from mlplatform.data.columns import ArrowArray, to_numpy
from mlplatform.data.sketches import RowSample

HISTOGRAM_BUCKETS = 10


@dataclass(frozen=True)
class Numbers:
    """Numeric values.  `squares` is the sum of squared distances from the mean."""

    sample: RowSample
    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    low: float = np.inf
    high: float = -np.inf
    zeros: int = 0
    nans: int = 0
    negative_infinities: int = 0
    positive_infinities: int = 0

    @classmethod
    def of(cls, values: ArrowArray, seed: int) -> Self:
        numbers = to_numpy(values).astype(np.float64, copy=False)
        is_finite = np.isfinite(numbers)
        if is_finite.all():
            return cls._of_finite(numbers, seed)
        return replace(
            cls._of_finite(numbers[is_finite], seed),
            nans=int(np.isnan(numbers).sum()),
            negative_infinities=int((numbers == -np.inf).sum()),
            positive_infinities=int((numbers == np.inf).sum()),
        )

    @classmethod
    def _of_finite(cls, numbers: NDArray[np.float64], seed: int) -> Self:
        sample = RowSample.of(numbers, seed)
        if not len(numbers):
            return cls(sample)
        with np.errstate(over="ignore", invalid="ignore"):
            mean = float(numbers.mean())
            distances = numbers - mean
            squares = float(np.dot(distances, distances))
        return cls(
            sample,
            count=len(numbers),
            mean=mean,
            squares=squares,
            low=float(numbers.min()),
            high=float(numbers.max()),
            zeros=len(numbers) - int(np.count_nonzero(numbers)),
        )

    @classmethod
    def merge(cls, parts: Iterable[Self]) -> Self:
        every = list(parts)
        count = sum(part.count for part in every)
        mean = sum(part.count * part.mean for part in every) / max(count, 1)
        return cls(
            RowSample.merge(part.sample for part in every),
            count=count,
            mean=mean,
            squares=sum(part.squares + part.count * (part.mean - mean) ** 2 for part in every),
            low=min(part.low for part in every),
            high=max(part.high for part in every),
            zeros=sum(part.zeros for part in every),
            nans=sum(part.nans for part in every),
            negative_infinities=sum(part.negative_infinities for part in every),
            positive_infinities=sum(part.positive_infinities for part in every),
        )

    def describe(
        self, common: statistics_pb2.CommonStatistics
    ) -> statistics_pb2.FeatureNameStatistics:
        statistics = statistics_pb2.NumericStatistics(common_stats=common)
        statistics.histograms.append(self._standard_histogram())
        statistics.histograms.append(self._quantiles_histogram())
        if self.count:
            statistics.mean = self.mean
            statistics.std_dev = (self.squares / self.count) ** 0.5
            statistics.median = float(np.median(self.sample.values))
        if self.count or self.negative_infinities or self.positive_infinities:
            statistics.min = -np.inf if self.negative_infinities else self.low
            statistics.max = np.inf if self.positive_infinities else self.high
        statistics.num_zeros = self.zeros
        return statistics_pb2.FeatureNameStatistics(num_stats=statistics)

    def _standard_histogram(self) -> statistics_pb2.Histogram:
        """Buckets of equal width; the infinities, if any, in outer buckets of their own."""
        histogram = statistics_pb2.Histogram(
            type=statistics_pb2.Histogram.STANDARD, num_nan=self.nans
        )
        if self.negative_infinities:
            histogram.buckets.add(
                low_value=-np.inf, high_value=-np.inf, sample_count=self.negative_infinities
            )
        if self.count and self.low == self.high:
            histogram.buckets.add(low_value=self.low, high_value=self.high, sample_count=self.count)
        elif self.count:
            edges = self._edges()
            counts, _ = np.histogram(self.sample.values, edges)
            _add_buckets(histogram, edges, counts * (self.count / len(self.sample.values)))
        if self.positive_infinities:
            histogram.buckets.add(
                low_value=np.inf, high_value=np.inf, sample_count=self.positive_infinities
            )
        return histogram

    def _quantiles_histogram(self) -> statistics_pb2.Histogram:
        """Buckets of equal mass."""
        histogram = statistics_pb2.Histogram(
            type=statistics_pb2.Histogram.QUANTILES, num_nan=self.nans
        )
        if self.count:
            inner = np.arange(1, HISTOGRAM_BUCKETS) / HISTOGRAM_BUCKETS
            # Halved, so that the difference of two values cannot overflow.
            quantiles = np.quantile(self.sample.values / 2, inner) * 2
            edges = np.array([self.low, *quantiles, self.high])
            masses = np.full(HISTOGRAM_BUCKETS, self.count / HISTOGRAM_BUCKETS)
            _add_buckets(histogram, edges, masses)
        return histogram

    def _edges(self) -> NDArray[np.float64]:
        # Weighting the ends instead of adding steps keeps high - low from overflowing.
        share = np.arange(HISTOGRAM_BUCKETS + 1) / HISTOGRAM_BUCKETS
        edges = np.clip(self.low * (1 - share) + self.high * share, self.low, self.high)
        return np.maximum.accumulate(edges)


def _add_buckets(
    histogram: statistics_pb2.Histogram,
    edges: NDArray[np.float64],
    masses: NDArray[np.float64],
) -> None:
    for low, high, mass in zip(edges[:-1], edges[1:], masses, strict=True):
        histogram.buckets.add(low_value=low, high_value=high, sample_count=mass)
