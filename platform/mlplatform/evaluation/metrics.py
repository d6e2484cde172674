"""Metrics with 95 % intervals, by a bootstrap over users.

Rows of one user depend on each other, so the bootstrap draws users, not rows: each user gets a
Poisson(1) weight in each resample (the Poisson bootstrap; Chamandy et al., Estimating Uncertainty
for Massive Data Streams, 2012).  Two metrics under the same seed see the same resamples, so their
difference has an honest, paired interval.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit

Float = NDArray[np.floating[Any]]
RESAMPLES = 200
_MOST_UNDEFINED = 0.05
WeightedMetric = Callable[[Float], float]  # weights [rows] -> value
Derived = Callable[[Mapping[str, float]], float]  # the metrics of one resample -> value


@dataclass(frozen=True)
class Interval:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, draws: NDArray[np.float64], units: int) -> Self:
        """The expanded percentile interval (Hesterberg, What Teachers Should Know About the
        Bootstrap, 2015, section 4.4.3).

        A plain one is too narrow for few units: a resample varies by (units - 1) / units of what it
        should, and the tails of t are longer than the normal's.  So quantiles further out are read.

        Where more than one resample in twenty has no value, because a slice has next to no
        positives say, the tails are not known and the bounds are NaN.  So they are of one unit.

        Args:
            draws: `[1 + resamples]`; the first is the figure itself.
            units: how many independent ones were resampled: users, or groups of them.
        """
        value, resampled = draws[0], draws[1:]
        undefined = np.isnan(resampled)
        if np.isnan(value) or undefined.mean() > _MOST_UNDEFINED or units < 2:
            return cls(float(value), float("nan"), float("nan"))
        level = ndtr(stdtrit(units - 1, 0.025) * np.sqrt(units / (units - 1)))
        # Weibull's quantiles: of n draws the first is expected at 1 / (n + 1).
        low, high = np.quantile(resampled[~undefined], [level, 1 - level], method="weibull")
        return cls(float(value), float(low), float(high))

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


def intervals(
    metrics: Mapping[str, WeightedMetric],
    user: NDArray[np.integer[Any]],
    seed: int,
    derived: Mapping[str, Derived] | None = None,
) -> dict[str, Interval]:
    """Each metric over all rows, with its interval over resampled users.

    Args:
        metrics: each takes weights `[rows]` and gives the metric of the rows so weighted.
        user: whose row it is, `[rows]`.
        derived: figures of the metrics of one resample, such as a `difference`, whose interval
            is thereby paired.
    """

    def values(weights: Float) -> dict[str, float]:
        found = {name: metric(weights) for name, metric in metrics.items()}
        return found | {name: figure(found) for name, figure in (derived or {}).items()}

    _, index = np.unique(user, return_inverse=True)
    users = int(index.max()) + 1
    rng = np.random.default_rng(seed)
    draws = [values(np.ones(len(user)))]
    draws += [values(rng.poisson(1.0, users).astype(float)[index]) for _ in range(RESAMPLES)]
    return {name: Interval.of(np.array([draw[name] for draw in draws]), users) for name in draws[0]}


def difference(a: str, b: str) -> Derived:
    """Metric a less metric b."""
    return lambda values: values[a] - values[b]


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
