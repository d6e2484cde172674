"""How far two data sets are apart in one feature, told from their statistics alone.

Enters: the statistics of the feature in both.  Leaves: a `Distance` from 0 to 1, or None where the
statistics do not tell, because a side has no values or does not list what is asked for.

Values of a categorical feature are those that the statistics list, the most frequent 1,000.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tensorflow_metadata.proto.v0 import statistics_pb2

from mlplatform.data.validation.facts import Counts, Statistics, category_counts, find_histogram

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Distance:
    """at: the value in which the two sides differ most, where it is a matter of one."""

    value: float
    at: str | None = None


def infinity_norm(first: Statistics, second: Statistics) -> Distance | None:
    """The largest difference of a value's shares: max_i |p_i - q_i|."""
    sides = _align_counts(category_counts(first), category_counts(second))
    if sides is None:
        return None
    values, p, q = sides
    return _largest(values, np.abs(p / p.sum() - q / q.sum()))


def normalized_abs_difference(first: Statistics, second: Statistics) -> Distance | None:
    """The largest difference of a value's counts, by all counts: max_i |x_i - y_i| / sum(x + y).

    For data sets that should be of the same size: twice the rows are a distance.
    """
    sides = _align_counts(category_counts(first), category_counts(second))
    if sides is None:
        return None
    values, x, y = sides
    return _largest(values, np.abs(x - y) / (x.sum() + y.sum()))


def jensen_shannon(
    first: Statistics,
    second: Statistics,
    *,
    kind: int = statistics_pb2.Histogram.STANDARD,
    as_categories: bool = False,
) -> Distance | None:
    """The Jensen-Shannon divergence in bits (Lin, Divergence Measures Based on the Shannon Entropy,
    1991), of listed values or of histograms.

    Of histograms it is an approximation.  Both are cut at all edges of either, the mass of a bucket
    being uniform within it.  A bucket without width is mass at a point, and meets only mass at that
    point.  NaN and the infinities of one side never agree with those of the other, as in TFDV: with
    them a feature differs even from itself.

    Args:
        kind: the `HistogramType` of the histograms that are compared.
        as_categories: compare listed values although the feature is of numbers.  Strings always
            are.
    """
    if as_categories or first.WhichOneof("stats") == "string_stats":
        listed = _align_counts(category_counts(first), category_counts(second))
        return Distance(_divergence(*listed[1:])) if listed else None
    sides = find_histogram(first, kind), find_histogram(second, kind)
    if sides[0] is None or sides[1] is None:
        return None
    p, q = _align_histograms(sides[0], sides[1])
    return Distance(_divergence(p, q)) if p.sum() and q.sum() else None


def _largest(values: list[str], differences: Floats) -> Distance:
    worst = int(np.argmax(differences))
    return Distance(float(differences[worst]), values[worst])


def _divergence(p: Floats, q: Floats) -> float:
    """The Jensen-Shannon divergence of masses over the same cells, log to base 2."""
    p, q = p / p.sum(), q / q.sum()
    mean = (p + q) / 2

    def information(masses: Floats) -> float:
        some = masses > 0
        return float(masses[some] @ np.log2(masses[some] / mean[some]))

    # Rounding could leave the range by the last bit.
    return min(max((information(p) + information(q)) / 2, 0.0), 1.0)


def _align_counts(
    first: Counts | None, second: Counts | None
) -> tuple[list[str], Floats, Floats] | None:
    """The values of either side in alphabetical order, and their counts on both."""
    if not first or not second:
        return None
    values = sorted(first.keys() | second.keys())
    x = np.array([first.get(value, 0) for value in values], np.float64)
    y = np.array([second.get(value, 0) for value in values], np.float64)
    return (values, x, y) if x.sum() and y.sum() else None


def _align_histograms(
    first: statistics_pb2.Histogram, second: statistics_pb2.Histogram
) -> tuple[Floats, Floats]:
    """Masses over the cells that both histograms are cut into."""
    sides = [Buckets.of(histogram) for histogram in (first, second)]
    edges = np.unique(np.concatenate([side.wide[:, :2].ravel() for side in sides]))
    points = np.unique(np.concatenate([side.at_point[:, 0] for side in sides]))
    p, q = (np.concatenate([side.within(edges[:-1], edges[1:]), side.at(points)]) for side in sides)
    alone, other = (np.array([side.nan, side.infinite]) for side in sides)
    return np.concatenate([p, alone, 0 * other]), np.concatenate([q, 0 * alone, other])


@dataclass(frozen=True)
class Buckets:
    """A histogram's buckets as rows (low, high, mass), and the mass that is in none.

    wide: those of some width.  at_point: those of none.
    """

    wide: Floats
    at_point: Floats
    nan: float
    infinite: float

    @classmethod
    def of(cls, histogram: statistics_pb2.Histogram) -> "Buckets":
        rows = [(one.low_value, one.high_value, one.sample_count) for one in histogram.buckets]
        buckets = np.array(rows, np.float64).reshape(-1, 3)
        is_finite = np.isfinite(buckets[:, :2]).all(axis=1)
        infinite = float(buckets[~is_finite, 2].sum())
        buckets = buckets[is_finite]
        # Of a width that halving leaves nothing of, as it is between the smallest numbers.
        is_point = buckets[:, 0] / 2 == buckets[:, 1] / 2
        return cls(buckets[~is_point], buckets[is_point], float(histogram.num_nan), infinite)

    def within(self, lows: Floats, highs: Floats) -> Floats:
        """The mass of the wide buckets in each range, as if it were even within a bucket."""
        # Halved, so that the width of a bucket cannot overflow.
        low, high, mass = self.wide.T[..., None] * np.array([0.5, 0.5, 1])[:, None, None]
        overlap = np.minimum(high, highs / 2) - np.maximum(low, lows / 2)
        shares = np.maximum(overlap, 0) / (high - low)
        result: Floats = (mass * shares).sum(axis=0)
        return result

    def at(self, points: Floats) -> Floats:
        """The mass at each of the points."""
        indices = np.searchsorted(points, self.at_point[:, 0])
        masses: Floats = np.bincount(indices, self.at_point[:, 2], len(points)).astype(np.float64)
        return masses
