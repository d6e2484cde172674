"""The encoder: the same bits as the transform, for any request."""

import math
from dataclasses import fields
from fractions import Fraction
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.errors import InvalidArgument
from mlplatform.transform.feature import Feature, ZScore
from mlplatform.transform.near_zero import NEAR_ZERO
from mlplatform.transform.transform import Transform
from recsys import features
from recsys.apps import AppTable
from recsys.columns import Columns
from recsys.online.encoder import Encoder, coder, least_integer, least_number
from recsys.online.recommender import Recommender
from recsys.online.requests import OWNED_LENGTH, Requests

IDS = np.array([-7, 10, 20, 30, 2**40, 2**62])
APPS = AppTable(IDS, np.zeros((len(IDS) + 1, 1), np.int32))
# Also values that float32 keeps apart, or that only float64 does, on either side of a limit.
LIMITS = [0.0, -1.0, 1 / 3, 4.0, 500.0, 16777216.0, 1e30]
INTEGER_LIMITS = [-(2.0**40), 0.0, 10.0, 16777216.0, 2.0**53]


@pytest.fixture(scope="module")
def made(transform: Transform) -> Transform:
    """The transform with limits that are hard to hit."""
    limits = {
        "ram_gb": LIMITS,
        "free_storage_mb": [-1e-30, 1e-40, 1e-30, 3e38],
        "account_age_days": INTEGER_LIMITS,
        "history_count": [],
    }
    found = {name: np.sort(np.array(of, np.float32)) for name, of in limits.items()}
    return Transform(transform.features, transform.vocabularies, {**transform.boundaries, **found})


@pytest.fixture(scope="module")
def encoder(made: Transform) -> Encoder:
    return Encoder(made, APPS)


@pytest.fixture(scope="module")
def tables(made: Transform) -> Recommender:
    """What of a recommender reads tables."""
    recommender = cast(Any, object.__new__(Recommender))
    recommender.bundle = SimpleNamespace(transform=made, apps=APPS)
    recommender._request = Columns.of(made, features.REQUEST)
    return cast(Recommender, recommender)


def neighbours(limits: list[float]) -> list[float]:
    """Limits, and the float32 and float64 numbers around them and halfway between."""
    found: list[float] = []
    for limit in np.array(limits, np.float32):
        for other in (np.nextafter(limit, np.float32(s * np.inf)) for s in (-1, 1)):
            half = (float(limit) + float(other)) / 2
            found += [float(limit), float(other), half]
            found += [math.nextafter(half, -math.inf), math.nextafter(half, math.inf)]
    return found


LARGEST = float(np.finfo(np.float32).max)
numbers = st.one_of(
    st.none(),
    st.sampled_from(neighbours([*LIMITS, -1e-30, 1e-40, 1e-30, 3e38, NEAR_ZERO, -NEAR_ZERO])),
    st.sampled_from([-0.0, 5e-324, 1e-45, 1.1754942e-38, LARGEST, -LARGEST]),
    st.floats(-LARGEST, LARGEST),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.integers(-(2**24), 2**24),  # what a table takes as float32 without loss
)
integers = st.one_of(
    st.none(),
    st.sampled_from([-(2**63), -(2**62), 2**62, 2**53 + 1, 16777217, 10, 9, 11, 0, -1]),
    st.builds(lambda limit, by: int(limit) + by, st.sampled_from(INTEGER_LIMITS),
              st.integers(-(2**29) - 2, 2**29 + 2)),
    st.integers(-(2**63), 2**63 - 1),
)  # fmt: skip
strings = st.one_of(
    st.none(), st.sampled_from(["", "BR", "US", "en", "low", "wifi", "25-34"]), st.text(max_size=3)
)
ids = st.lists(st.one_of(st.sampled_from(IDS.tolist()), st.integers(-(2**63), 2**63 - 1)),
               max_size=90)  # fmt: skip
categories = st.lists(st.sampled_from([None, "", "GAME", "TOOLS", "other"]), max_size=8)
BY_DTYPE = {"float32": numbers, "int64": integers, "string": strings}
a_row: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={f.name: BY_DTYPE[f.dtype] for f in features.REQUEST if f.width == 1}
    | {
        "recent_categories": st.none() | categories,
        "history": st.none() | ids,
        "owned": st.none() | ids,
        # Where another row has none, a table takes these through float64.
        "os_version": st.none() | st.integers(-(2**53), 2**53) | st.integers(7, 11),
        "hour_of_day": st.none() | st.integers(-1, 25),
    },
)


def same(a: Requests, b: Requests) -> None:
    for field in fields(Requests):
        one, other = getattr(a, field.name), getattr(b, field.name)
        assert one.dtype == other.dtype and one.shape == other.shape, field.name
        assert one.tobytes() == other.tobytes(), field.name
        assert one.flags.c_contiguous, field.name


@settings(max_examples=200, deadline=None)
@given(rows=st.lists(a_row, min_size=1, max_size=4))
def test_any_rows_are_encoded_as_the_transform_encodes_a_table_of_them(
    encoder: Encoder, tables: Recommender, rows: list[dict[str, Any]]
) -> None:
    same(encoder.encode(rows), tables.requests(tables.table(rows)))


def test_no_rows_are_no_requests(encoder: Encoder, tables: Recommender) -> None:
    same(encoder.encode([]), tables.requests(tables.table([])))


def test_codes_and_rows_are_those_counted_by_hand(encoder: Encoder) -> None:
    row = {
        "country": "US", "language": "xx", "device_tier": None, "age_band": "18-24",
        "ram_gb": 4, "free_storage_mb": 0, "os_version": 9, "account_age_days": 10,
        "network": "metered", "history_count": 12, "recent_categories": ["TOOLS", "?"],
        "history": [20, 99, -7], "owned": [20, 99, 2**62, 10],
    }  # fmt: skip
    made = encoder.encode([row, {}])
    # Vocabularies count from 2, 1 is another value, 0 is missing; hour 20 is declared as default.
    # Limits at or below 4: -1, 0, 1/3 and 4 itself; at or below 0: -1e-30 and 1e-40, which is as
    # good as 0; at or below ten: -2^40, 0 and 10; of no limits there is one bucket.
    assert made.codes.tolist() == [
        [3, 1, 0, 2, 5, 3, 3, 4, 22, 3, 1, 3, 1, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0, 22, 0, 0, 0, 0, 0, 0, 0],
    ]
    assert made.history[0, :4].tolist() == [3, 0, 1, 0]
    assert made.owned[0, :5].tolist() == [3, 0, 6, 2, 0]
    assert not made.history[1].any() and not made.owned[1].any()
    assert made.os_version[0] == 9 and np.isnan(made.os_version[1])


def test_of_long_lists_the_first_values_count(encoder: Encoder) -> None:
    made = encoder.encode([{"history": [10] * 20 + [20], "owned": [30] * 64 + [20]}, {}])
    assert made.history.tolist() == [[2] * 20, [0] * 20]
    assert made.owned.tolist() == [[4] * OWNED_LENGTH, [0] * OWNED_LENGTH]


HALF = LARGEST + 2.0**103  # halfway to 2^128, which float32 rounds up to infinity


@pytest.mark.parametrize("name", ["ram_gb", "free_storage_mb"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, HALF, -HALF, 10**39, 1e300])
def test_what_is_no_finite_float32_is_refused_by_name(
    encoder: Encoder, name: str, value: float
) -> None:
    with pytest.raises(InvalidArgument, match=f"feature '{name}': expected a finite number"):
        encoder.encode([{}, {name: value}])


def test_what_float32_rounds_to_its_largest_number_is_taken(encoder: Encoder) -> None:
    below = math.nextafter(HALF, 0)
    assert np.isfinite(np.float32(below))
    codes = encoder.encode([{"ram_gb": below}, {"ram_gb": LARGEST}, {"ram_gb": -below}]).codes
    assert codes[0, 4] == codes[1, 4] == 1 + len(LIMITS) and codes[2, 4] == 1


def test_a_huge_integer_is_the_float_that_it_is(encoder: Encoder) -> None:
    integers = [{"ram_gb": n} for n in (10**31, -(10**31), 16777217)]
    floats = [{"ram_gb": float(n)} for n in (10**31, -(10**31), 16777217)]
    same(encoder.encode(integers), encoder.encode(floats))


def rounded(value: Fraction) -> Fraction:
    """To float32 with 24 bits, ties to even, and near zero to 0: by arithmetic of fractions."""
    if abs(value) < Fraction(NEAR_ZERO):
        # The last number below the border is rounded to it before it is compared with it.
        tie = Fraction(NEAR_ZERO) - Fraction(2) ** -150
        return Fraction(0) if abs(value) < tie else Fraction(NEAR_ZERO) * (1 if value > 0 else -1)
    exponent = (
        math.frexp(value)[1] - 1
    )  # of the float nearest to it; one too high just below a power
    exponent -= Fraction(2) ** exponent > abs(value)
    unit = Fraction(2) ** (exponent - 23)
    return round(value / unit) * unit


@given(st.floats(-(2.0**100), 2.0**100, width=32).filter(lambda x: x == 0 or abs(x) >= NEAR_ZERO))
def test_the_least_number_rounds_up_to_the_limit_and_the_one_before_does_not(limit: float) -> None:
    least = least_number(np.float32(limit))
    assert rounded(Fraction(least)) >= Fraction(limit)
    assert rounded(Fraction(math.nextafter(least, -math.inf))) < Fraction(limit)


@given(st.floats(-(2.0**70), 2.0**70, width=32).filter(lambda x: x == 0 or abs(x) >= NEAR_ZERO))
def test_so_does_the_least_integer(limit: float) -> None:
    least = least_integer(np.float32(limit))
    assert rounded(Fraction(least)) >= Fraction(limit) > rounded(Fraction(least - 1))


def test_a_feature_without_vocabulary_or_buckets_has_no_coder(made: Transform) -> None:
    with pytest.raises(InvalidArgument, match="'z': expected a vocabulary or buckets, got ZScore"):
        coder(made, Feature("z", "float32", "", ZScore()))
