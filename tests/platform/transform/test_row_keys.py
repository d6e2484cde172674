"""Which old row each new code continues, by hand and by what must hold of any two transforms."""

import json
from bisect import bisect_right
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlplatform.errors import DataCorrupt, InvalidArgument
from mlplatform.transform.row_keys import RowKeys, match_rows
from tests.platform.transform.by_hand import FLOAT_MAX, INT_MAX, INT_MIN


def vocabulary(*values: int | str) -> RowKeys:
    return RowKeys("vocabulary", values=values)


def buckets(*limits: float) -> RowKeys:
    return RowKeys("buckets", limits=limits)


def matched(old: RowKeys, new: RowKeys) -> list[int]:
    rows = match_rows(old, new)
    assert rows is not None and rows.dtype == np.int64
    return rows.tolist()


STRINGS = st.lists(st.text(min_size=1, max_size=3), unique=True, max_size=6)
INTS = st.lists(st.integers(INT_MIN + 1, INT_MAX), unique=True, max_size=6)
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False)
VOCABULARIES = (STRINGS | INTS).map(lambda values: vocabulary(*values))
BUCKETS = st.lists(FLOATS, unique=True, max_size=9).map(lambda limits: buckets(*sorted(limits)))
HASHED = st.builds(
    RowKeys,
    st.just("hashed"),
    buckets=st.integers(1, 9),
    salt=st.integers(0, 2),
    parts=st.sampled_from([(), ("a: string", "b: int64"), ("b: int64", "a: string")]),
)
KEYS = VOCABULARIES | BUCKETS | HASHED


def test_values_take_their_own_rows_wherever_they_stood() -> None:
    old, new = vocabulary("a", "b", "c"), vocabulary("c", "x", "a")
    assert matched(old, new) == [0, 1, 4, -1, 2]


def test_integers_take_the_rows_of_integers() -> None:
    assert matched(vocabulary(7, INT_MAX, -1), vocabulary(-1, INT_MAX, 8)) == [0, 1, 4, 3, -1]


def test_the_number_1_is_not_the_text_1() -> None:
    assert matched(vocabulary("1", "2"), vocabulary(1, 2)) == [0, 1, -1, -1]


def test_an_empty_vocabulary_has_missing_and_unknown_alone() -> None:
    assert matched(vocabulary(), vocabulary("a")) == [0, 1, -1]
    assert matched(vocabulary("a"), vocabulary()) == [0, 1]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        # Limits that moved a little, up or down.
        ((0, 10, 20), (1, 11, 21), [0, 1, 2, 3, 4]),
        ((0, 10, 20), (-1, 9, 19), [0, 1, 2, 3, 4]),
        # A finer cut, with the middles 0, 2.5, 5, 10, 15 and 17.5.
        ((4, 12), (1.25, 3.75, 6.25, 13.75, 16.25), [0, 1, 1, 2, 2, 3, 3]),
        # A coarser one: the open buckets count as wide as the one between, middles 5, 15, 25.
        ((2, 4, 6, 14, 16, 26), (10, 20), [0, 3, 5, 6]),
        # Far up: what now is the first bucket was the second and third, middle 15.
        ((0, 10, 20), (20, 30), [0, 3, 4, 4]),
        # A middle on an old limit belongs above it.
        ((5,), (0, 10), [0, 1, 2, 2]),
        # Single limits: the outermost buckets take the outermost.
        ((0, 10, 20), (5,), [0, 1, 4]),
        ((3,), (8,), [0, 1, 2]),
        # No limits: the bucket that holds everything takes the one at the old limits' middle.
        ((0, 10, 20), (), [0, 3]),
        ((), (0, 10), [0, 1, 1, 1]),
        ((), (), [0, 1]),
        # Nothing overflows.
        ((-FLOAT_MAX, 0, FLOAT_MAX), (-FLOAT_MAX, FLOAT_MAX), [0, 1, 3, 4]),
    ],
)
def test_a_bucket_takes_the_row_of_the_one_that_held_its_middle(
    old: tuple[float, ...], new: tuple[float, ...], expected: list[int]
) -> None:
    assert matched(buckets(*old), buckets(*new)) == expected


@pytest.mark.parametrize("changes", [{"buckets": 6}, {"salt": 1}, {"parts": ("b", "a")}])
def test_rows_of_another_hash_are_not_taken(changes: dict[str, Any]) -> None:
    old = RowKeys("hashed", buckets=5, parts=("a", "b"))
    assert matched(old, old) == [0, 1, 2, 3, 4, 5]
    assert match_rows(old, replace(old, **changes)) is None


def test_rows_of_another_kind_are_not_taken() -> None:
    kinds = [vocabulary(), buckets(), RowKeys("hashed", buckets=1)]
    for old in kinds:
        for new in kinds:
            assert (match_rows(old, new) is None) == (old is not new)


@given(KEYS)
def test_what_did_not_change_keeps_its_rows(keys: RowKeys) -> None:
    assert matched(keys, keys) == list(range(keys.cardinality))


@given(KEYS, KEYS)
def test_every_new_code_takes_a_row_that_there_was_or_none(old: RowKeys, new: RowKeys) -> None:
    rows = match_rows(old, new)
    if rows is None:
        assert old.kind != new.kind or old.kind == "hashed"
        return
    assert rows.shape == (new.cardinality,)
    assert rows[0] == 0
    assert rows.min() >= (-1 if new.kind == "vocabulary" else 0) and rows.max() < old.cardinality


@given(VOCABULARIES, VOCABULARIES)
def test_a_values_old_code_stands_for_the_same_value(old: RowKeys, new: RowKeys) -> None:
    for value, row in zip(new.values, matched(old, new)[2:], strict=True):
        same = [
            i
            for i, before in enumerate(old.values)
            if (before, type(before)) == (value, type(value))
        ]
        assert row == (2 + same[0] if same else -1)


@given(BUCKETS, BUCKETS)
def test_buckets_stay_in_order_and_inner_ones_hold_the_middle(old: RowKeys, new: RowKeys) -> None:
    rows = matched(old, new)
    assert rows == sorted(rows)
    for code, (low, high) in enumerate(zip(new.limits, new.limits[1:], strict=False), start=2):
        assert rows[code] == 1 + bisect_right(old.limits, (low + high) / 2)


@given(KEYS)
def test_keys_survive_json(keys: RowKeys) -> None:
    again = RowKeys.from_json(json.loads(json.dumps(keys.to_json())))
    assert again == keys
    assert [type(value) for value in again.values] == [type(value) for value in keys.values]


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        {},
        {"kind": "vocabulary"},
        vocabulary("a").to_json() | {"kind": "table"},
        vocabulary("a").to_json() | {"values": 3},
        vocabulary("a").to_json() | {"values": ["a", 1]},
        vocabulary("a").to_json() | {"buckets": None},
    ],
)
def test_other_json_is_refused_in_one_line(content: Any) -> None:
    with pytest.raises(DataCorrupt, match=r"^row keys: expected [^\n]* train a new version$"):
        RowKeys.from_json(content)


def test_values_of_two_types_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="got int and str"):
        vocabulary(1, "1")


@pytest.mark.parametrize(
    ("keys", "expected"),
    [(vocabulary("a"), 3), (buckets(0, 1), 4), (RowKeys("hashed", buckets=5), 6)],
)
def test_cardinality_counts_every_code(keys: RowKeys, expected: int) -> None:
    assert keys.cardinality == expected
