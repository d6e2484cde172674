"""Coverage, inequality and popularity of lists, by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlplatform.errors import InvalidArgument
from mlplatform.evaluation.lists import describe_lists

POPULARITY = np.array([100, 5, 5, 0])  # percentiles 0.875, 0.5, 0.5, 0.125


def test_figures_of_lists_by_hand() -> None:
    found = describe_lists(np.array([[0, 1], [0, -1]]), POPULARITY, np.array([0, 3]))
    assert found.coverage == 0.5
    assert found.popularity == pytest.approx((0.875 + 0.5 + 0.875) / 3)
    assert found.wanted_popularity == pytest.approx((0.875 + 0.125) / 2)
    assert math.isnan(
        describe_lists(np.array([[0]]), POPULARITY, np.array([], int)).wanted_popularity
    )


@given(lists=st.lists(st.lists(st.integers(0, 3), min_size=2, max_size=2), min_size=1, max_size=9))
def test_gini_is_half_the_mean_difference_over_the_mean(lists: list[list[int]]) -> None:
    counts = [sum(row.count(item) for row in lists) for item in range(4)]
    difference = sum(abs(a - b) for a in counts for b in counts) / 16
    expected = difference / (2 * sum(counts) / 4)
    found = describe_lists(np.array(lists), POPULARITY, np.array([0]))
    assert found.gini == pytest.approx(expected, abs=1e-12)


def test_even_lists_have_a_gini_of_zero() -> None:
    assert describe_lists(np.array([[0, 1], [2, 3]]), POPULARITY, np.array([1])).gini == 0


@pytest.mark.parametrize(
    ("lists", "wanted", "message"),
    [
        ([[0, 4]], [0], "lists: expected places of 4 items, from 0, got 4"),
        ([[0, -2]], [0], "lists: .* got -2"),
        ([[0, 1]], [-1], "wanted: .* got -1"),
        ([[-1, -1]], [0], "at least one item in a list"),
    ],
)
def test_items_have_to_be_of_the_catalogue(lists: object, wanted: object, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        describe_lists(np.array(lists), POPULARITY, np.array(wanted))
