"""Histograms and quantiles of finite numbers, as tensorflow-metadata protos.

Enters: a sample, its weights if it has any, and the mass that it stands for.  Leaves: `Histogram`.
The infinities, if any, stand in outer buckets of their own.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from tensorflow_metadata.proto.v0 import statistics_pb2

Floats = NDArray[np.float64]

BUCKETS = 10


def standard_histogram(
    values: Floats,
    weights: Floats | None,
    mass: float,
    limits: tuple[float, float],
    infinities: tuple[float, float],
) -> statistics_pb2.Histogram:
    """Buckets of equal width from the lower to the upper limit."""
    low, high = limits
    below, above = infinities
    histogram = statistics_pb2.Histogram(type=statistics_pb2.Histogram.STANDARD)
    if below:
        histogram.buckets.add(low_value=-np.inf, high_value=-np.inf, sample_count=below)
    if len(values) and low == high:
        histogram.buckets.add(low_value=low, high_value=high, sample_count=mass)
    elif len(values):
        edges = _edges(low, high)
        sampled, _ = np.histogram(values, edges, weights=weights)
        of_sample = len(values) if weights is None else weights.sum()
        _add_buckets(histogram, edges, sampled * (mass / (of_sample or 1)))
    if above:
        histogram.buckets.add(low_value=np.inf, high_value=np.inf, sample_count=above)
    return histogram


def quantiles_histogram(
    values: Floats, weights: Floats | None, mass: float, limits: tuple[float, float]
) -> statistics_pb2.Histogram:
    """Buckets of equal mass."""
    histogram = statistics_pb2.Histogram(type=statistics_pb2.Histogram.QUANTILES)
    if len(values):
        inner = quantiles(values, np.arange(1, BUCKETS) / BUCKETS, weights)
        edges = np.array([limits[0], *inner, limits[1]])
        _add_buckets(histogram, edges, [mass / BUCKETS] * BUCKETS)
    return histogram


def quantiles(values: Floats, shares: Floats, weights: Floats | None) -> Floats:
    """The quantiles at some shares of the mass, of at least one value.

    Without weights between the nearest two values, linearly.  With weights the smallest value up
    to which there is that share of the weight; `values` are then ascending.
    """
    if weights is None:
        # Halved, so that the difference of two values cannot overflow.
        return np.asarray(np.quantile(values / 2, shares) * 2)
    up_to = np.cumsum(weights)
    return values[np.minimum(np.searchsorted(up_to, shares * up_to[-1]), len(values) - 1)]


def _edges(low: float, high: float) -> Floats:
    # Weighting the ends instead of adding steps keeps high - low from overflowing.
    share = np.arange(BUCKETS + 1) / BUCKETS
    return np.maximum.accumulate(np.clip(low * (1 - share) + high * share, low, high))


def _add_buckets(
    histogram: statistics_pb2.Histogram, edges: Floats, masses: Iterable[float]
) -> None:
    for low, high, mass in zip(edges[:-1], edges[1:], masses, strict=True):
        histogram.buckets.add(low_value=low, high_value=high, sample_count=mass)
