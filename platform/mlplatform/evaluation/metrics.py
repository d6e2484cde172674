"""Metrics with 95 % intervals, by a bootstrap over users.

Rows of one user depend on each other, so the bootstrap draws users, not rows: each user gets a
Poisson(1) weight in each resample (the Poisson bootstrap; Chamandy et al., Estimating Uncertainty
for Massive Data Streams, 2012).  Two metrics under the same seed see the same resamples, so their
difference has an honest, paired interval.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.floating[Any]]
RESAMPLES = 200
WeightedMetric = Callable[[Float], float]  # weights [rows] -> value


@dataclass(frozen=True)
class Interval:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


def intervals(
    metrics: dict[str, WeightedMetric], user: NDArray[np.integer[Any]], seed: int
) -> dict[str, Interval]:
    """Each metric over all rows, with its percentile interval over resampled users.

    Args:
        metrics: each takes weights `[rows]` and gives the metric of the rows so weighted.
        user: whose row it is, `[rows]`.
    """
    draws: dict[str, list[float]] = {name: [] for name in metrics}
    for weights in _resampled(user, seed):
        for name, metric in metrics.items():
            draws[name].append(metric(weights))
    ones = np.ones(len(user))
    result = {}
    for name, metric in metrics.items():
        low, high = np.nanquantile(draws[name], [0.025, 0.975])
        result[name] = Interval(metric(ones), float(low), float(high))
    return result


def difference(a: WeightedMetric, b: WeightedMetric) -> WeightedMetric:
    """a - b, for a paired interval."""
    return lambda weights: a(weights) - b(weights)


def mean_of(values: Float) -> WeightedMetric:
    """The weighted mean, NaN where all weight is gone."""

    def metric(weights: Float) -> float:
        total = weights.sum()
        return float(values @ weights / total) if total else float("nan")

    return metric


def auc_of(scores: Float, labels: NDArray[np.integer[Any]]) -> WeightedMetric:
    """Area under the ROC curve; ties count half. Sorts once, then costs O(rows) a call."""
    order = np.argsort(scores, kind="stable")
    ordered, positive = scores[order], labels[order].astype(bool)
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])

    def metric(weights: Float) -> float:
        w = weights[order]
        up = np.add.reduceat(np.where(positive, w, 0.0), starts)
        down = np.add.reduceat(np.where(positive, 0.0, w), starts)
        below = np.cumsum(down) - down
        total = up.sum() * down.sum()
        return float((up * (below + down / 2)).sum() / total) if total else float("nan")

    return metric


def log_loss_of(probabilities: Float, labels: NDArray[np.integer[Any]]) -> WeightedMetric:
    p = np.clip(np.asarray(probabilities, dtype=np.float64), 1e-12, 1 - 1e-12)
    return mean_of(-np.where(labels == 1, np.log(p), np.log1p(-p)))


def _resampled(user: NDArray[np.integer[Any]], seed: int) -> Iterator[Float]:
    _, index = np.unique(user, return_inverse=True)
    rng = np.random.default_rng(seed)
    for _ in range(RESAMPLES):
        yield rng.poisson(1.0, index.max() + 1).astype(np.float64)[index]
