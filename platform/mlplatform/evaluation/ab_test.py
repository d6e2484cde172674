"""A/B tests: who is in which arm, what two arms differ by, and whether the test may be believed.

Enters: units, users say, and for each the sums of a numerator and a denominator, installs and
requests say, with what is known of it from before the test.  Leaves: arms, effects with 95 %
intervals, and what could have been detected.

A ratio of sums over units whose rows depend on each other has the variance of its linear part: of
R = sum(n) / sum(d) that is (n_i - R d_i) / mean(d), a number a unit, whose mean is 0 (the delta
method; Deng et al., Applying the Delta Method in Metric Analytics, KDD 2018).  All that follows is
about means of such numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc, ndtri, stdtrit

from mlplatform.errors import InvalidArgument
from mlplatform.evaluation.metrics import Derived, Interval, WeightedMetric, intervals
from mlplatform.transform.hashing import hash_numpy, hash_values

Float = NDArray[np.float64]
_LEVEL = 0.975  # of the upper bound, of a two-sided 95 %
_CELLS = 1 << 30
# A split this unlikely by chance is taken for a mistake in the experiment (Fabijan et al.,
# Diagnosing Sample Ratio Mismatch in Online Controlled Experiments, KDD 2019).
SUSPICIOUS = 0.001


def assign(
    units: NDArray[np.integer[Any]], shares: Sequence[float], experiment: str
) -> NDArray[np.int64]:
    """The arm of each unit, by a hash of it and the experiment's name: `[units]`, -1 for none.

    Two experiments split alike by chance alone; the same one splits the same way everywhere.

    Args:
        shares: of all units, one an arm, together at most 1.

    Raises:
        InvalidArgument: the shares are no shares.
    """
    if not shares or min(shares) < 0 or sum(shares) > 1 + 1e-9:
        raise InvalidArgument(
            f"experiment {experiment!r}: expected shares from 0 that sum to at most 1, got "
            f"{list(shares)}"
        )
    salt = int(hash_values([experiment])[0])
    place = hash_numpy(_CELLS, salt, np.asarray(units)) / _CELLS
    arm: NDArray[np.int64] = np.searchsorted(np.cumsum(shares), place, side="right")
    return np.where(arm < len(shares), arm, -1)


def sample_ratio(counts: Sequence[int], shares: Sequence[float]) -> float:
    """The probability that chance alone splits units as unevenly: Pearson's chi-squared test.

    Below `SUSPICIOUS` the arms are not alike, and no effect of the test means anything.
    """
    observed = np.asarray(counts, dtype=np.float64)
    expected = observed.sum() * np.asarray(shares) / np.sum(shares)
    statistic = float(((observed - expected) ** 2 / expected).sum())
    return float(chdtrc(len(counts) - 1, statistic))


@dataclass(frozen=True)
class Outcomes:
    """What came of the units of one arm; arrays of one entry a unit.

    before: known of each from before the test, which the arm cannot have changed.
    """

    numerator: Float
    denominator: Float
    before: Float | None = None

    def __post_init__(self) -> None:
        n = len(self.numerator)
        if not (n > 1 and len(self.denominator) == n and self.denominator.sum() > 0):
            raise InvalidArgument(
                "outcomes: expected two units or more, a numerator and a denominator of each and "
                f"some denominator that is not 0, got {n} and {len(self.denominator)} entries"
            )
        if self.before is not None and len(self.before) != n:
            raise InvalidArgument(
                f"outcomes: expected {n} entries from before, as many as units, got "
                f"{len(self.before)}"
            )

    def __len__(self) -> int:
        return len(self.numerator)

    @property
    def ratio(self) -> float:
        return float(self.numerator.sum() / self.denominator.sum())

    @property
    def linear(self) -> Float:
        """Of each unit its part in the ratio's deviation; their mean is 0."""
        parts: Float = (self.numerator - self.ratio * self.denominator) / self.denominator.mean()
        return parts

    def take(self, units: NDArray[Any]) -> Self:
        before = None if self.before is None else self.before[units]
        return type(self)(self.numerator[units], self.denominator[units], before)


@dataclass(frozen=True)
class Effect:
    """What a treatment does to a ratio.

    difference: treatment less control.  relative: the same in shares of the control's.
    variance_kept: by what is known from before; 1 where nothing is, or nothing was asked.
    """

    control: float
    treatment: float
    difference: Interval
    relative: Interval
    variance_kept: float = 1.0


def unpaired(treatment: Outcomes, control: Outcomes) -> Effect:
    """The effect between two arms of different units, as in real life.

    Where both have it, what is known from before explains a part of the difference and of its
    variance away (CUPED; Deng et al., Improving the Sensitivity of Online Controlled Experiments,
    WSDM 2013), with one coefficient for both arms.
    """
    arms = (treatment, control)
    linear = [arm.linear for arm in arms]
    plain = _variance(linear[0]) + _variance(linear[1])
    shift = 0.0
    if treatment.before is not None and control.before is not None:
        before = [treatment.before, control.before]
        centred = [one - one.mean() for one in before]
        spread = sum(float(one @ one) for one in centred)
        if spread:
            shared = sum(float(a @ b) for a, b in zip(centred, linear, strict=True))
            slope = shared / spread
            shift = slope * float(before[0].mean() - before[1].mean())
            linear = [a - slope * b for a, b in zip(linear, centred, strict=True)]
    of_treatment, of_control = _variance(linear[0]), _variance(linear[1])
    base, quotient = control.ratio, (treatment.ratio - shift) / control.ratio
    units = min(len(treatment), len(control))
    return Effect(
        base,
        treatment.ratio,
        _around(treatment.ratio - shift - base, of_treatment + of_control, units),
        _around(quotient - 1, (of_treatment + quotient**2 * of_control) / base**2, units),
        (of_treatment + of_control) / plain if plain else 1.0,
    )


def paired(treatment: Outcomes, control: Outcomes) -> Effect:
    """The effect on the same units in the same luck, one entry a unit in both, in one order.

    Only a simulation can do that: a real user is in one arm.

    Raises:
        InvalidArgument: they are not as many.
    """
    if len(treatment) != len(control):
        raise InvalidArgument(
            f"a paired effect: expected the same units in both arms, got {len(treatment)} and "
            f"{len(control)}"
        )
    base, quotient = control.ratio, treatment.ratio / control.ratio
    a, b = treatment.linear, control.linear
    return Effect(
        base,
        treatment.ratio,
        _around(treatment.ratio - base, _variance(a - b), len(control)),
        _around(quotient - 1, _variance(a - quotient * b) / base**2, len(control)),
    )


def bootstrapped(
    treatment: Outcomes, control: Outcomes, seed: int, *, same_units: bool = False
) -> Effect:
    """The same effect, without CUPED, by a bootstrap over units: a second opinion.

    Args:
        same_units: as in `paired`; else as in `unpaired`.
    """
    n = len(treatment)
    units = np.concatenate([np.arange(n), np.arange(len(control)) + (0 if same_units else n)])

    def ratio_of(arm: Outcomes, rows: slice) -> WeightedMetric:
        def ratio(weights: NDArray[np.floating[Any]]) -> float:
            weight = weights[rows]
            return float(weight @ arm.numerator / (weight @ arm.denominator))

        return ratio

    derived: dict[str, Derived] = {
        "difference": lambda found: found["treatment"] - found["control"],
        "relative": lambda found: found["treatment"] / found["control"] - 1,
    }
    metrics = {
        "treatment": ratio_of(treatment, slice(0, n)),
        "control": ratio_of(control, slice(n, None)),
    }
    found = intervals(metrics, units, seed, derived)
    return Effect(control.ratio, treatment.ratio, found["difference"], found["relative"])


def detectable(like: Outcomes, units: Sequence[int], power: float = 0.8) -> float:
    """The least difference that a test of two arms of so many units finds that often, at 5 %.

    Args:
        like: units as those to come, from before the test.
    """
    deviation = float(np.var(like.linear, ddof=1))
    return _reach(power) * sqrt(sum(deviation / n for n in units))


def units_needed(like: Outcomes, difference: float, power: float = 0.8) -> int:
    """In each of two equal arms, to find a difference that often, at 5 %."""
    deviation = float(np.var(like.linear, ddof=1))
    return ceil(2 * deviation * (_reach(power) / difference) ** 2)


def _reach(power: float) -> float:
    return float(ndtri(_LEVEL) + ndtri(power))


def _variance(linear: Float) -> float:
    """Of the mean of parts, one a unit."""
    return float(np.var(linear, ddof=1)) / len(linear)


def _around(value: float, variance: float, units: int) -> Interval:
    half = float(stdtrit(units - 1, _LEVEL)) * sqrt(variance)
    return Interval(value, value - half, value + half)
