"""What a policy would have earned, told from the log of another, and whether to believe it.

Enters: rows of a log, each an action with the probability it was taken with, its reward, and the
probability with which the judged policy, the target, would have taken it.  Leaves: estimates of the
target's mean reward with 95 % intervals, what the log shows of the target, and a verdict.

With the weight w = target / propensity, the reward r, and a model q of it, over all rows:

    IPS    mean of w r                     Horvitz & Thompson, 1952.  Unbiased where the log may
                                           show all that the target does.
    SNIPS  sum of w r / sum of w           Swaminathan & Joachims, The Self-Normalized Estimator
                                           for Counterfactual Learning, 2015.  Never outside of the
                                           rewards' range, for a bias that vanishes with rows.
    DR     mean of q(target) + w (r - q)   Dudik et al., Doubly Robust Policy Evaluation and
                                           Optimization, 2014.  Unbiased like IPS whatever the
                                           model, and varies less the better it is.  Of what the
                                           log does not show it is the model's opinion.

When the log shows little of the target all three are wrong, and their intervals give no sign of it:
what was not shown is in no resample either.  Hence the verdict, which needs no truth.  It asks that
the weights average one, as they must where the log shows all that the target does (but for
`MISSING`), and that the log be worth `ENOUGH` rows, and rewards, of the target's own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, isnan, nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlplatform.errors import InvalidArgument
from mlplatform.evaluation.metrics import Float, Interval, WeightedMetric, intervals, mean_of

ENOUGH = 100.0  # of n rows a mean errs by 1/sqrt(n) of a deviation, of n rare rewards of itself
MISSING = 0.05  # of the target's actions, the share that may be absent from the log
_NOTHING = 1e-100  # of the largest weight: its square times a reward is a precise number still


@dataclass(frozen=True)
class Logged:
    """Arrays `[rows]` of a log: each action's propensity in (0, 1], its reward, whose row it is."""

    propensity: Float
    reward: Float
    group: NDArray[np.integer[Any]]


@dataclass(frozen=True)
class RewardModel:
    """Arrays `[rows]`: the reward predicted of the logged action, and its mean under the target."""

    logged: Float
    target: Float


@dataclass(frozen=True)
class Support:
    """What the log shows of the target.

    effective_rows: (sum w)^2 / sum w^2, how many equally weighted rows tell as much (Kong, 1992).
    effective_rewards: the same with w |r| for w (Owen, Monte Carlo Theory, Methods and Examples,
        2013, chapter 9): where rewards are rare it is these that are few.
    mass: mean of w, with its interval: the share of the target's actions that the log shows.  One
        where it shows all; what clipping takes is missing (Bottou et al., Counterfactual Reasoning
        and Learning Systems, 2013).
    largest_weight: before clipping.
    clip, clipped_share: the most that a weight may be, and in how many of the rows it was more.
    """

    rows: int
    effective_rows: float
    effective_rewards: float
    mass: Interval
    largest_weight: float
    clip: float
    clipped_share: float

    @property
    def effective_share(self) -> float:
        return self.effective_rows / self.rows


@dataclass(frozen=True)
class Verdict:
    """The target's mean reward by estimator, 'IPS', 'SNIPS' and, given a model, 'DR'.

    objections: the reasons not to believe them, a line each.
    """

    estimates: Mapping[str, Interval]
    support: Support
    objections: tuple[str, ...]

    @property
    def believable(self) -> bool:
        return not self.objections


def judge_target(
    logged: Logged,
    target: Float,
    seed: int,
    *,
    model: RewardModel | None = None,
    clip: float = inf,
) -> Verdict:
    """Estimate what the target would have earned a row.

    Intervals are of a bootstrap over groups.  Where all weight is zero, SNIPS is NaN.

    Args:
        target: the target's probability of each logged action, `[rows]` in [0, 1].
        clip: weights above it count as it.  This bounds the variance and biases IPS towards zero,
            SNIPS towards what the log shows often, DR towards its model; what it takes from the
            mean weight counts as missing.

    Raises:
        InvalidArgument: an array has no rows or other rows, or a value is out of its range.
    """
    _check(logged, target, model, clip)
    reward = np.asarray(logged.reward, dtype=np.float64)
    raw = np.asarray(target, dtype=np.float64) / logged.propensity
    weight = np.minimum(raw, clip)
    metrics: dict[str, WeightedMetric] = {"mass": mean_of(weight), "IPS": mean_of(weight * reward)}
    if weight.any():
        share = _shares(weight)
        metrics["SNIPS"] = _ratio_of(share * reward, share)
    if model is not None:
        metrics["DR"] = mean_of(model.target + weight * (reward - model.logged))
    found = intervals(metrics, logged.group, seed)
    found.setdefault("SNIPS", Interval(nan, nan, nan))
    support = Support(
        rows=len(weight),
        effective_rows=_effective(weight),
        effective_rewards=_effective(weight * np.abs(reward)),
        mass=found.pop("mass"),
        largest_weight=float(raw.max()),
        clip=clip,
        clipped_share=float((raw > clip).mean()),
    )
    return Verdict(found, support, _objections(support))


def _objections(support: Support) -> tuple[str, ...]:
    found = []
    if isnan(support.mass.low):
        found.append(
            "the rows are of so few groups that no interval can be told: take a log of more of them"
        )
    if support.mass.high < 1 - MISSING:
        found.append(
            f"the log shows {support.mass.value:.1%} of what the target does, expected "
            f"{1 - MISSING:.0%} or more: explore what the target would show"
        )
    if support.mass.low > 1 + MISSING:
        found.append(
            f"the mean weight is {support.mass.value:.2f}, expected 1: "
            "these are not the propensities that the log was made with"
        )
    for what, effective in (
        ("rows", support.effective_rows),
        ("rewards", support.effective_rewards),
    ):
        if effective < ENOUGH:
            found.append(
                f"the log is worth {effective:,.1f} {what} of the target's own, expected "
                f"{ENOUGH:,.0f} or more: take a longer log, or one with more exploration"
            )
    return tuple(found)


def _ratio_of(above: Float, below: Float) -> WeightedMetric:
    """Weighted sum over weighted sum, NaN where the second is gone."""

    def metric(weights: Float) -> float:
        total = below @ weights
        return float(above @ weights / total) if total else nan

    return metric


def _effective(weight: Float) -> float:
    """How many equal weights vary as much: (sum w)^2 / sum w^2, 0 where there is none."""
    if not weight.any():
        return 0.0
    share = _shares(weight)
    return float(share.sum() ** 2 / (share @ share))


def _shares(weight: Float) -> Float:
    """Weights as shares of the largest, so that products of all that count are precise numbers."""
    share = weight / weight.max()
    share[share < _NOTHING] = 0
    return share


def _check(logged: Logged, target: Float, model: RewardModel | None, clip: float) -> None:
    p, finite = logged.propensity, "a finite number"
    wanted = [
        ("propensity", p, (p > 0) & (p <= 1), "a probability above 0, up to 1"),
        ("reward", logged.reward, np.isfinite(logged.reward), finite),
        ("target", target, (target >= 0) & (target <= 1), "a probability from 0 to 1"),
    ]
    if model is not None:
        wanted.append(("model.logged", model.logged, np.isfinite(model.logged), finite))
        wanted.append(("model.target", model.target, np.isfinite(model.target), finite))
    rows = logged.group.shape
    for name, values, good, expected in wanted:
        if values.shape != rows or len(rows) != 1 or not rows[0]:
            raise InvalidArgument(
                f"{name}: expected one number for each row of `group`, and at least one row, "
                f"got shape {values.shape} beside {rows}"
            )
        if not good.all():
            row = int(np.argmin(good))
            raise InvalidArgument(
                f"{name}: expected {expected}, got {values[row]} in row {row} "
                f"({np.count_nonzero(~good)} such of {rows[0]} rows); leave out what has none"
            )
    if not clip > 0:
        raise InvalidArgument(f"clip: expected a weight above 0, got {clip}")
