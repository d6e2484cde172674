"""Exact means and deviations against rational numbers."""

from fractions import Fraction
from itertools import pairwise
from math import isclose

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mlplatform.transform.exact_moments import ExactMoments
from tests.platform.transform.by_hand import FLOAT_MAX, float32

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False) | st.sampled_from(
    [FLOAT_MAX, -FLOAT_MAX, 2.0**-126, 2.0**-125, -(2.0**-149), 0.1]
)


def of(numbers: list[float]) -> ExactMoments:
    return ExactMoments.of(np.array(numbers, np.float32))


def test_the_moments_of_small_numbers_are_those_worked_out_by_hand() -> None:
    assert of([2, 4, 4, 4, 5, 5, 7, 9]).mean_and_deviation() == (5.0, 2.0)
    assert of([-1.5]).mean_and_deviation() == (-1.5, 0.0)


def test_a_constant_that_binary_cannot_hold_has_no_deviation_at_all() -> None:
    mean, deviation = of([0.1] * 1001).mean_and_deviation()
    assert (mean, deviation) == (float(np.float32(0.1)), 0.0)


def test_large_numbers_that_cancel_leave_the_small_ones() -> None:
    assert of([FLOAT_MAX, 3.0, -FLOAT_MAX]).mean_and_deviation()[0] == 1.0


def test_of_nothing_the_moments_are_0() -> None:
    assert of([]).mean_and_deviation() == (0.0, 0.0)
    assert ExactMoments.merge([of([]), of([])]).mean_and_deviation() == (0.0, 0.0)


@given(st.lists(FLOATS, min_size=1, max_size=30))
def test_moments_are_those_of_rational_numbers(numbers: list[float]) -> None:
    exact = [Fraction(float32(number)) for number in numbers]
    mean = sum(exact) / len(exact)
    variance = sum((number - mean) ** 2 for number in exact) / len(exact)
    found_mean, found_deviation = of(numbers).mean_and_deviation()
    assert found_mean == float(mean)
    assert isclose(found_deviation**2, float(variance), rel_tol=1e-15)


@given(st.lists(FLOATS, max_size=30), st.lists(st.integers(0, 30), max_size=4), st.randoms())
def test_neither_cuts_nor_the_order_of_merging_change_a_bit(
    numbers: list[float], cuts: list[int], random: object
) -> None:
    parts = [of(numbers[start:end]) for start, end in pairwise([0, *sorted(cuts), None])]
    random.shuffle(parts)  # type: ignore[attr-defined]
    merged = parts[0]
    for part in parts[1:]:
        merged = ExactMoments.merge([part, merged])
    at_once = of(numbers)
    assert merged.mean_and_deviation() == at_once.mean_and_deviation()
    assert merged.count == at_once.count and merged.sums.tolist() == at_once.sums.tolist()
