"""Distances between statistics: hand computed ones, and what holds of all."""

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from tensorflow_metadata.proto.v0 import statistics_pb2

from mlplatform.data.validation.distances import (
    infinity_norm,
    jensen_shannon,
    normalized_abs_difference,
)
from tests.platform.data.validation.described import feature_of

NAN, INF = float("nan"), float("inf")
QUANTILES = statistics_pb2.Histogram.QUANTILES

strings = st.lists(st.sampled_from("abcd"), min_size=1, max_size=30)
numbers = st.lists(
    st.floats(-1e300, 1e300) | st.sampled_from([0.0, 1.0, 1e-300]),
    min_size=1,
    max_size=30,
)


def histogram(*buckets: tuple[float, float, float], nan: int = 0) -> Any:
    """Statistics with one standard histogram of (low, high, count)."""
    feature = statistics_pb2.FeatureNameStatistics(type=statistics_pb2.FeatureNameStatistics.FLOAT)
    added = feature.num_stats.histograms.add(num_nan=nan, type=statistics_pb2.Histogram.STANDARD)
    for low, high, count in buckets:
        added.buckets.add(low_value=low, high_value=high, sample_count=count)
    return feature


def value(distance: Any) -> float:
    assert distance is not None
    return distance.value


def test_the_largest_difference_of_shares() -> None:
    # a: 3/4 - 1/2, b: 1/4 - 0, c: 0 - 1/2.
    distance = infinity_norm(feature_of(["a", "a", "a", "b"]), feature_of(["a", "c"]))
    assert distance is not None
    assert (distance.value, distance.at) == (0.5, "c")


def test_the_largest_difference_of_counts() -> None:
    # a: 3 - 1, b: 1 - 0, c: 0 - 1, of 6 values.
    distance = normalized_abs_difference(feature_of(["a", "a", "a", "b"]), feature_of(["a", "c"]))
    assert distance is not None
    assert distance.value == pytest.approx(2 / 6)
    assert distance.at == "a"


def test_twice_the_rows_differ_in_counts_and_not_in_shares() -> None:
    once, twice = feature_of(["a", "b"]), feature_of(["a", "b", "a", "b"])
    assert value(infinity_norm(once, twice)) == 0
    assert value(jensen_shannon(once, twice)) == 0
    assert value(normalized_abs_difference(once, twice)) == pytest.approx(1 / 6)


def test_divergence_of_strings() -> None:
    # p = (1, 0), q = (1/2, 1/2), m = (3/4, 1/4).
    expected = (math.log2(4 / 3) + (math.log2(2 / 3) + math.log2(2)) / 2) / 2
    got = jensen_shannon(feature_of(["a"]), feature_of(["a", "b"]))
    assert value(got) == pytest.approx(expected)


def test_strings_that_are_not_utf8_are_one_value() -> None:
    distance = infinity_norm(feature_of([b"a", b"\xff", b"\xfe", b"a"]), feature_of([b"a"]))
    assert value(distance) == 0.5


def test_integers_as_categories() -> None:
    first, second = feature_of([1, 1, 2, 10]), feature_of([1, 2, 2, 2])
    distance = infinity_norm(first, second)
    assert distance is not None
    assert (distance.value, distance.at) == (0.5, "2")
    expected = jensenshannon([0.5, 0.25, 0.25], [0.25, 0.75, 0], base=2) ** 2
    assert value(jensen_shannon(first, second, as_categories=True)) == pytest.approx(expected)


def test_divergence_of_histograms_with_the_same_edges() -> None:
    first, second = histogram((0, 1, 3), (1, 2, 1)), histogram((0, 1, 1), (1, 2, 3))
    expected = jensenshannon([0.75, 0.25], [0.25, 0.75], base=2) ** 2
    assert value(jensen_shannon(first, second)) == pytest.approx(expected)


def test_the_mass_of_a_bucket_is_uniform_within_it() -> None:
    # Cut at 0, 1, 2, 3: thirds of the mass against none, half, half.
    first, second = histogram((0, 3, 9)), histogram((1, 2, 1), (2, 3, 1))
    expected = jensenshannon([1 / 3, 1 / 3, 1 / 3], [0, 0.5, 0.5], base=2) ** 2
    assert value(jensen_shannon(first, second)) == pytest.approx(expected)


def test_a_gap_between_buckets_has_no_mass() -> None:
    first, second = histogram((0, 1, 1), (2, 3, 1)), histogram((1, 2, 5))
    assert value(jensen_shannon(first, second)) == 1


def test_mass_at_a_point_meets_only_mass_at_that_point() -> None:
    assert value(jensen_shannon(histogram((1, 1, 5)), histogram((1, 1, 2)))) == 0
    assert value(jensen_shannon(histogram((1, 1, 5)), histogram((2, 2, 5)))) == 1
    assert value(jensen_shannon(histogram((1, 1, 5)), histogram((0, 2, 5)))) == 1


@pytest.mark.parametrize("odd", [[NAN], [INF], [-INF]])
def test_nan_and_infinities_are_mismatch_even_with_themselves(odd: list[float]) -> None:
    half = feature_of([1.0, *odd])
    assert value(jensen_shannon(half, half)) == pytest.approx(0.5)
    expected = jensenshannon([1, 0], [0.5, 0.5], base=2) ** 2
    assert value(jensen_shannon(feature_of([1.0]), half)) == pytest.approx(expected)


def test_buckets_too_wide_for_a_float() -> None:
    limit = np.finfo(np.float64).max
    first, second = histogram((-limit, limit, 1)), histogram((-limit, 0, 1))
    expected = jensenshannon([0.5, 0.5], [1, 0], base=2) ** 2
    assert value(jensen_shannon(first, second)) == pytest.approx(expected)


def test_quantiles_can_be_compared_instead() -> None:
    first, second = feature_of([0.0, 1.0]), feature_of([0.0, 1.0])
    del second.num_stats.histograms[0]
    assert jensen_shannon(first, second) is None
    assert value(jensen_shannon(first, second, kind=QUANTILES)) == pytest.approx(0)


def test_weighted_counts_come_first() -> None:
    first = text_format.Parse(
        """type: STRING string_stats {
             rank_histogram { buckets { label: "a" sample_count: 1 }
                              buckets { label: "b" sample_count: 1 } }
             weighted_string_stats {
               rank_histogram { buckets { label: "a" sample_count: 3 }
                                buckets { label: "b" sample_count: 1 } } } }""",
        statistics_pb2.FeatureNameStatistics(),
    )
    assert value(infinity_norm(first, feature_of(["a", "b"]))) == 0.25


@pytest.mark.parametrize("measure", [infinity_norm, normalized_abs_difference])
def test_statistics_that_do_not_tell(measure: Any) -> None:
    assert measure(feature_of([1.5]), feature_of([1.5])) is None
    assert measure(feature_of(["a"]), feature_of([None])) is None
    assert measure(feature_of(["a"]), feature_of([1.5])) is None


def test_empty_histograms_do_not_tell() -> None:
    assert jensen_shannon(histogram(), histogram((0, 1, 1))) is None
    assert jensen_shannon(feature_of(["a"]), feature_of([None])) is None


@given(strings, strings)
def test_distances_of_strings_are_of_their_counts(first: list[str], second: list[str]) -> None:
    labels = sorted({*first, *second})
    x, y = (np.array([Counter(side)[label] for label in labels]) for side in (first, second))
    p, q = x / x.sum(), y / y.sum()
    sides = feature_of(first), feature_of(second)
    assert value(infinity_norm(*sides)) == pytest.approx(max(abs(p - q)))
    assert value(normalized_abs_difference(*sides)) == pytest.approx(max(abs(x - y)) / sum(x + y))
    # scipy's is the square root, and its rounding can make that of 0 a NaN.
    expected = 0 if (p == q).all() else jensenshannon(p, q, base=2) ** 2
    assert value(jensen_shannon(*sides)) == pytest.approx(expected, abs=1e-12)


@given(strings, strings)
def test_distances_of_strings_are_symmetric(first: list[str], second: list[str]) -> None:
    one, other = feature_of(first), feature_of(second)
    for measure in (infinity_norm, normalized_abs_difference, jensen_shannon):
        assert value(measure(one, other)) == pytest.approx(value(measure(other, one)), abs=1e-12)
        assert value(measure(one, one)) == 0
        assert 0 <= value(measure(one, other)) <= 1


@given(numbers, numbers, st.sampled_from([statistics_pb2.Histogram.STANDARD, QUANTILES]))
def test_divergence_of_numbers_is_a_symmetric_share(
    first: list[float], second: list[float], kind: int
) -> None:
    one, other = feature_of(first), feature_of(second)
    forth = value(jensen_shannon(one, other, kind=kind))
    assert 0 <= forth <= 1
    assert forth == pytest.approx(value(jensen_shannon(other, one, kind=kind)), abs=1e-9)
    assert value(jensen_shannon(one, one, kind=kind)) == pytest.approx(0, abs=1e-9)


@given(
    st.lists(st.floats(-100, -1), min_size=1, max_size=20),
    st.lists(st.floats(1, 100), min_size=1, max_size=20),
)
def test_divergence_of_disjoint_numbers_is_1(below: list[float], above: list[float]) -> None:
    assert value(jensen_shannon(feature_of(below), feature_of(above))) == pytest.approx(1)


@given(strings)
def test_disjoint_strings_are_at_distance_1(values: list[str]) -> None:
    others = feature_of([value + "!" for value in values])
    assert value(jensen_shannon(feature_of(values), others)) == pytest.approx(1)
    assert value(infinity_norm(feature_of(["e"]), feature_of(["f"]))) == 1
