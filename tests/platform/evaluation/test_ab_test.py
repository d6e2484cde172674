"""A/B tests: by hand, against scipy's own tests, and by simulations whose truth is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from mlplatform.errors import InvalidArgument
from mlplatform.evaluation.ab_test import (
    SUSPICIOUS,
    Outcomes,
    assign,
    bootstrapped,
    detectable,
    paired,
    sample_ratio,
    units_needed,
    unpaired,
)

UNITS = np.arange(100_000)


def outcomes(*rows: tuple[float, float]) -> Outcomes:
    numerator, denominator = np.array(rows, dtype=np.float64).T
    return Outcomes(numerator, denominator)


# Who is in which arm.


def test_units_fall_into_arms_by_their_shares_and_the_rest_into_none() -> None:
    arm = assign(UNITS, [0.2, 0.5], "one")
    counts = [int((arm == one).sum()) for one in (-1, 0, 1)]
    # Five standard deviations of a binomial: 5 * sqrt(100,000 * .5 * .5) = 791.
    assert np.allclose(counts, [30_000, 20_000, 50_000], atol=791)


def test_a_split_depends_on_the_unit_and_the_name_alone() -> None:
    arm = assign(UNITS, [0.5, 0.5], "one")
    order = np.random.default_rng(0).permutation(len(UNITS))
    assert (assign(UNITS[order], [0.5, 0.5], "one") == arm[order]).all()
    other = assign(UNITS, [0.5, 0.5], "two")
    together = np.bincount(2 * arm + other, minlength=4)
    assert stats.chisquare(together).pvalue > 1e-4  # as if by chance


def test_a_unit_does_not_leave_its_arm_when_the_last_one_grows() -> None:
    few, more = (assign(UNITS, [0.1, share], "ramp") for share in (0.1, 0.4))
    assert (more[few >= 0] == few[few >= 0]).all()


@pytest.mark.parametrize("shares", [[], [0.5, 0.6], [-0.1, 0.5]])
def test_shares_that_are_none_are_refused(shares: list[float]) -> None:
    with pytest.raises(InvalidArgument, match="experiment 'x': expected shares"):
        assign(UNITS, shares, "x")


def test_a_split_is_suspicious_where_chance_does_not_explain_it() -> None:
    assert sample_ratio([5000, 5000], [1, 1]) == pytest.approx(1.0)
    assert sample_ratio([5100, 4900], [0.5, 0.5]) == pytest.approx(
        stats.chisquare([5100, 4900]).pvalue
    )
    assert sample_ratio([821_588, 815_482], [1, 1]) < SUSPICIOUS  # Fabijan et al., section 2
    assert sample_ratio([3000, 1000], [0.75, 0.25]) == pytest.approx(1.0)


# What two arms differ by.


def test_of_one_row_a_unit_it_is_welchs_test() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(1.0, 2.0, 400), rng.normal(1.2, 1.0, 300)
    effect = unpaired(Outcomes(b, np.ones(300)), Outcomes(a, np.ones(400)))
    assert effect.difference.value == pytest.approx(b.mean() - a.mean())
    error = np.sqrt(a.var(ddof=1) / 400 + b.var(ddof=1) / 300)
    half = stats.t(299).ppf(0.975) * error
    assert effect.difference.high - effect.difference.value == pytest.approx(half)
    assert effect.variance_kept == 1.0


def test_the_same_units_are_compared_with_themselves() -> None:
    a, b = np.array([1.0, 2.0, 4.0]), np.array([2.0, 4.0, 5.0])
    effect = paired(Outcomes(b, np.ones(3)), Outcomes(a, np.ones(3)))
    expected = stats.ttest_rel(b, a).confidence_interval(0.95)
    assert effect.difference.value == pytest.approx(4 / 3)
    assert effect.difference.low == pytest.approx(expected.low)
    assert effect.difference.high == pytest.approx(expected.high)
    assert effect.relative.value == pytest.approx(11 / 7 - 1)


def test_a_ratio_is_of_sums_and_its_parts_are_by_hand() -> None:
    # 1 of 2 and 3 of 2: 4 of 4; parts (1 - 2) / 2 and (3 - 2) / 2.
    one = outcomes((1, 2), (3, 2))
    assert one.ratio == 1.0 and one.linear.tolist() == [-0.5, 0.5]
    # variance of the mean: (.5² + .5²) / 1 / 2 = 0.25
    effect = unpaired(one, outcomes((1, 1), (1, 1)))
    half = effect.difference.high - effect.difference.value
    assert half == pytest.approx(stats.t(1).ppf(0.975) * 0.5)


def visitors(rng: np.random.Generator, n: int, rate: float) -> tuple[Outcomes, NDArray[np.float64]]:
    """Units of 1 to 9 requests and a taste of their own; what they did before tells of it."""
    requests = rng.integers(1, 10, n).astype(np.float64)
    taste = rng.gamma(4.0, 0.25, n)
    before = rng.poisson(3.0 * taste).astype(np.float64)
    installs = rng.poisson(rate * taste * requests).astype(np.float64)
    return Outcomes(installs, requests, before), taste


@pytest.mark.parametrize("lift", [0.0, 0.05])
def test_intervals_hold_the_truth_as_often_as_they_say(lift: float) -> None:
    rng = np.random.default_rng(2)
    held = np.zeros(4)
    runs = 400
    for _ in range(runs):
        control, _ = visitors(rng, 400, 0.5)
        treatment, _ = visitors(rng, 500, 0.5 + lift)
        plain = unpaired(
            Outcomes(treatment.numerator, treatment.denominator),
            Outcomes(control.numerator, control.denominator),
        )
        adjusted = unpaired(treatment, control)
        for i, effect in enumerate((plain, adjusted)):
            held[i] += effect.difference.low <= lift <= effect.difference.high
            held[2 + i] += effect.relative.low <= 2 * lift <= effect.relative.high
    # 95 % of 400, within 3.3 standard deviations: sqrt(400 * .95 * .05) = 4.4.
    assert (abs(held - 380) <= 14.5).all(), held


def test_what_was_known_before_takes_its_share_of_the_variance_away() -> None:
    rng = np.random.default_rng(3)
    control, _ = visitors(rng, 20_000, 0.5)
    treatment, _ = visitors(rng, 20_000, 0.5)
    effect = unpaired(treatment, control)
    assert control.before is not None
    correlation = np.corrcoef(control.linear, control.before)[0, 1]
    assert effect.variance_kept == pytest.approx(1 - correlation**2, rel=0.05)
    assert effect.variance_kept < 0.9


def test_a_chance_difference_that_was_there_before_is_not_an_effect() -> None:
    # Arms that differ by nothing but who is in them: those who install much, and the others.
    rng = np.random.default_rng(4)
    before = np.concatenate([rng.poisson(3.0, 5000), rng.poisson(3.3, 5000)]).astype(float)
    installs = before + rng.normal(0.0, 0.1, 10_000)
    few, many = (
        Outcomes(installs[rows], np.ones(5000), before[rows])
        for rows in (slice(0, 5000), slice(5000, None))
    )
    effect = unpaired(many, few)
    assert abs(effect.difference.value) < 0.02 < 0.25 < many.ratio - few.ratio


def test_a_second_opinion_agrees() -> None:
    rng = np.random.default_rng(5)
    control, taste = visitors(rng, 2000, 0.5)
    more = rng.poisson(0.05 * taste * control.denominator)
    treatment = Outcomes(control.numerator + more, control.denominator)
    plain = Outcomes(control.numerator, control.denominator)
    for effect, other in (
        (unpaired(treatment, plain), bootstrapped(treatment, plain, 0)),
        (paired(treatment, plain), bootstrapped(treatment, plain, 0, same_units=True)),
    ):
        for name in ("difference", "relative"):
            ours, theirs = getattr(effect, name), getattr(other, name)
            assert theirs.value == pytest.approx(ours.value)
            # 200 resamples know a width to 1 / sqrt(400): 5 %.
            assert theirs.high - theirs.low == pytest.approx(ours.high - ours.low, rel=0.2)
    same = paired(treatment, plain).difference
    assert same.high - same.low < 0.5 * (
        unpaired(treatment, plain).difference.high - unpaired(treatment, plain).difference.low
    )


@settings(deadline=None, max_examples=50)
@given(st.integers(2, 50), st.integers(0, 10**6), st.floats(0.1, 100))
def test_no_effect_depends_on_the_units_order_or_on_what_is_counted_in(
    n: int, seed: int, scale: float
) -> None:
    rng = np.random.default_rng(seed)
    a, b = (
        Outcomes(rng.poisson(3.0, n) + 1.0, rng.integers(1, 5, n).astype(float)) for _ in range(2)
    )
    order = rng.permutation(n)
    base = paired(a, b)
    moved = paired(a.take(order), b.take(order))
    assert moved.difference.low == pytest.approx(base.difference.low, abs=1e-9)
    scaled = paired(
        Outcomes(scale * a.numerator, a.denominator), Outcomes(scale * b.numerator, b.denominator)
    )
    assert scaled.difference.value == pytest.approx(scale * base.difference.value)
    assert scaled.relative.high == pytest.approx(base.relative.high, abs=1e-9)


# What could have been detected.


def test_a_difference_that_is_detectable_is_found_as_often_as_was_wanted() -> None:
    rng = np.random.default_rng(6)
    like, _ = visitors(rng, 50_000, 0.5)
    least = detectable(like, [1000, 1000], power=0.8)
    found = 0
    for _ in range(300):
        control, _ = visitors(rng, 1000, 0.5)
        treatment, _ = visitors(rng, 1000, 0.5 + least)
        plain = [Outcomes(one.numerator, one.denominator) for one in (treatment, control)]
        found += unpaired(*plain).difference.low > 0
    assert abs(found / 300 - 0.8) < 0.08  # 3.4 standard deviations
    assert units_needed(like, least, power=0.8) == pytest.approx(1000, abs=1)


def test_with_four_times_the_units_half_the_difference_is_found() -> None:
    like = outcomes((1, 1), (0, 1), (2, 1))
    assert detectable(like, [400, 400]) == pytest.approx(detectable(like, [100, 100]) / 2)
    # By hand: sd 1, z 1.96 + 0.8416, sqrt(2 / 100).
    assert detectable(like, [100, 100]) == pytest.approx(2.8016 * np.sqrt(0.02), rel=1e-4)


@pytest.mark.parametrize(
    "wrong",
    [
        ([1.0], [1.0], None),
        ([1.0, 2.0], [1.0], None),
        ([1.0, 2.0], [0.0, 0.0], None),
        ([1.0, 2.0], [1.0, 1.0], [1.0]),
    ],
)
def test_outcomes_that_are_none_are_refused(wrong: tuple[list[float], ...]) -> None:
    with pytest.raises(InvalidArgument, match="outcomes: expected"):
        Outcomes(*(None if one is None else np.array(one) for one in wrong))  # type: ignore[arg-type]


def test_the_same_units_are_as_many_in_both_arms() -> None:
    with pytest.raises(InvalidArgument, match="expected the same units in both arms, got 2 and 3"):
        paired(outcomes((1, 1), (2, 1)), outcomes((1, 1), (2, 1), (0, 1)))
