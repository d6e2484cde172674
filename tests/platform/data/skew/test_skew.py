"""Skew by key, against planted faults and against a comparison row by row in plain Python."""

import json
import math
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlplatform.artifacts import to_json
from mlplatform.data.files.spans import write_parquet
from mlplatform.data.skew.columns import FEW_VALUES, TOP_CONFUSIONS, Confusion
from mlplatform.data.skew.compare import FeatureSkew, Sample, SkewReport, compare_by_key
from mlplatform.data.skew.join import KeyCounts
from mlplatform.errors import DataCorrupt, InvalidArgument, NotFound

NAN, INF = math.nan, math.inf


def compare(training: Any, serving: Any, **options: Any) -> FeatureSkew:
    """One feature `x`, of which both sides have the same rows in the same order."""
    sides = (pa.array(training), pa.array(serving))
    tables = [pa.table({"id": list(range(len(x))), "x": x}) for x in sides]
    report = compare_by_key(*tables, ["id"], **options)
    (feature,) = report.features
    return feature


def counts(feature: FeatureSkew) -> tuple[int, int, int, int, int]:
    return (
        feature.match,
        feature.mismatch,
        feature.training_only,
        feature.serving_only,
        feature.both_missing,
    )


def test_every_key_is_counted_once_and_repeated_keys_are_not_compared() -> None:
    training = pa.table({"id": [1, 2, 3, 3, 4, 4, 6, None], "x": [0] * 8})
    serving = pa.table({"id": [2, 1, 3, 5, 6, 6, 7, None, None], "x": [1, *[0] * 8]})
    report = compare_by_key(training, serving, ["id"])
    assert report.counts == KeyCounts(
        matched=2,  # 1, 2
        only_in_training=0,
        only_in_serving=2,  # 5, 7
        duplicated_in_training=2,  # 3, 4
        duplicated_in_serving=1,  # 6
        rows_without_key_in_training=1,
        rows_without_key_in_serving=2,
    )
    (feature,) = report.features
    assert counts(feature) == (1, 1, 0, 0, 0)
    assert feature.samples == (Sample((2,), 0, 1),)


def test_several_keys_name_a_row_together() -> None:
    training = pa.table({"a": [1, 1, 2, 2, None], "b": ["x", "y", "x", None, "x"], "f": range(5)})
    serving = pa.table({"b": ["x", "x", "y", "z"], "a": [2, 1, 1, 1], "f": [2, 0, 9, 9]})
    report = compare_by_key(training, serving, ["a", "b"])
    assert report.counts == KeyCounts(3, 0, 1, 0, 0, 2, 0)
    assert report.features[0].samples == (Sample((1, "y"), 1, 9),)


def test_keys_match_across_the_types_of_two_writers() -> None:
    training = pa.table(
        {
            "a": pa.array([1, 2], pa.int32()),
            "b": pa.chunked_array([["x"], ["y"]]).dictionary_encode(),
            "f": [1, 2],
        }
    )
    serving = pa.table(
        {"a": pa.array([2, 1], pa.uint64()), "b": pa.array(["y", "x"], pa.large_string())}
    )
    assert compare_by_key(training, serving, ["a", "b"]).counts.matched == 2


def test_tables_without_common_keys_or_rows_compare_nothing() -> None:
    one = pa.table({"id": [1], "x": [1]})
    for other, only in ((pa.table({"id": [2], "x": [1]}), 1), (one.slice(0, 0), 0)):
        report = compare_by_key(one, other, ["id"])
        assert report.counts == KeyCounts(0, 1, only, 0, 0, 0, 0)
        assert counts(report.features[0]) == (0, 0, 0, 0, 0)


def test_missing_is_null_and_an_absent_column_is_missing_in_all_rows() -> None:
    training = pa.table({"id": [1, 2, 3, 4], "x": [5, None, 5, None], "only": [1, None, 1, 1]})
    serving = pa.table({"id": [1, 2, 3, 4], "x": [5, 5, None, None]})
    report = compare_by_key(training, serving, ["id"])
    assert {feature.name: counts(feature) for feature in report.features} == {
        "only": (0, 0, 3, 0, 1),
        "x": (1, 0, 1, 1, 1),
    }
    assert report.features[1].samples == (Sample((3,), 5, None), Sample((2,), None, 5))


def test_lists_agree_as_wholes_in_order_and_an_empty_list_is_a_value() -> None:
    a = [[1, 2], [1, 2], [1], [], None, [], [1, None], [None], None]
    b = [[1, 2], [2, 1], [1, 1], [], [], None, [1, None], [1], None]
    feature = compare(a, b)
    assert counts(feature) == (3, 3, 1, 1, 1)
    assert feature.samples[:2] == (Sample((1,), (1, 2), (2, 1)), Sample((2,), (1,), (1, 1)))
    assert feature.confusions == () and feature.mean_difference is None


def test_lists_of_several_widths_encodings_and_chunks_agree() -> None:
    words = pa.list_(pa.dictionary(pa.int32(), pa.string()))
    training = pa.chunked_array([pa.array([["a", "b"]], words), pa.array([["c"], None], words)])
    serving = pa.array([["a", "b"], ["c"], None], pa.large_list(pa.string()))
    ids = {"id": [1, 2, 3]}
    report = compare_by_key(pa.table(ids | {"x": training}), pa.table(ids | {"x": serving}), ["id"])
    assert counts(report.features[0]) == (2, 0, 0, 0, 1)
    assert counts(compare(pa.array([[1, 2], None], pa.list_(pa.int8(), 2)), [[1, 3], None])) == (
        (0, 1, 0, 0, 1)
    )


def test_nan_agrees_with_nan_alone_and_counts_as_a_value() -> None:
    feature = compare([NAN, NAN, NAN, INF, 0.0], [NAN, 1.0, None, -INF, -0.0])
    assert counts(feature) == (2, 2, 1, 0, 0)
    assert feature.samples[:2] == (Sample((1,), "nan", 1.0), Sample((3,), "inf", "-inf"))
    assert counts(compare([[NAN, 1.0]], [[NAN, 1.0]])) == (1, 0, 0, 0, 0)


def test_floats_agree_exactly_unless_a_tolerance_is_given() -> None:
    training = [100.0, 100.0, 1e308, INF, 0.0, NAN, -101.005]
    serving = [101.005, 102.5, -1e308, 1e9, 1e-300, 1.0, -100.0]
    assert counts(compare(training, serving)) == (0, 7, 0, 0, 0)
    feature = compare(training, serving, tolerance=0.01)
    assert [sample.key for sample in feature.samples] == [(1,), (2,), (3,), (4,), (5,)]
    assert counts(compare([[100.0, 1.0]], [[101.0, 1.0]], tolerance=0.01)) == (1, 0, 0, 0, 0)
    assert counts(compare([100], [101], tolerance=0.01)) == (0, 1, 0, 0, 0)  # no floats


@pytest.mark.parametrize(
    ("training", "serving"),
    [
        (pa.array([1, 2], pa.int8()), pa.array([1, 2], pa.uint64())),
        (pa.array([2**63, 0], pa.uint64()), pa.array([2**63, 0], pa.uint64())),
        (pa.array([2**53, 2]), pa.array([2.0**53, 2.0])),
        (pa.array([0.5, 2], pa.float32()), pa.array([0.5, 2])),
        (pa.array([True, False]), pa.array([1, 0])),
        (pa.array(["é", ""]), pa.array(["é".encode(), b""])),
        (pa.array(["é", ""], pa.string_view()), pa.array(["é", ""]).dictionary_encode()),
    ],
)
def test_types_that_hold_the_same_values_are_compared_by_value(training: Any, serving: Any) -> None:
    assert counts(compare(training, serving)) == (2, 0, 0, 0, 0)
    assert counts(compare(serving.take([1, 0]), training)) == (0, 2, 0, 0, 0)


@pytest.mark.parametrize(
    ("training", "serving", "said"),
    [
        (["1"], [1], "int64 in serving"),
        ([1], [[1]], "a list is no single value"),
        ([2**53 + 1], [1.0], "9007199254740993"),
        (pa.array([2**63], pa.uint64()), [-1], "9223372036854775808"),
        (pa.array([0], pa.timestamp("s")), [0], "timestamp"),
        ([[[1]]], [[[1]]], "list"),
    ],
)
def test_types_that_cannot_be_compared_without_loss_are_one_clear_error(
    training: Any, serving: Any, said: str
) -> None:
    with pytest.raises(InvalidArgument, match=said) as error:
        compare(training, serving)
    assert str(error.value).startswith("feature 'x': ") and "\n" not in str(error.value)


def test_a_change_of_unit_shows_in_every_row_and_in_the_distances() -> None:
    mb = [1.0, 2.0, 6.0, None]
    feature = compare(mb, [None if x is None else x * 1024 for x in mb])
    assert counts(feature) == (0, 3, 0, 0, 1)
    assert feature.mean_difference == 3 * 1023 and feature.max_difference == 6 * 1023


def test_distances_leave_out_what_is_not_finite_and_stay_numbers() -> None:
    feature = compare([1.0, 5.0, NAN, INF, None], [1.0, 2.0, 1.0, 1.0, 1.0])
    assert (feature.mean_difference, feature.max_difference) == (1.5, 3.0)
    assert compare([NAN], [1.0]).max_difference is None
    huge = compare([1.7e308, 1.7e308], [-1.7e308, -1.7e308])
    largest = float.fromhex("0x1.fffffffffffffp+1023")
    assert (huge.mean_difference, huge.max_difference) == (largest, largest)


def test_stale_values_show_as_the_confusion_of_old_and_new() -> None:
    fresh = ["paid"] * 5 + ["free"] * 3 + ["trial"] * 2
    stale = ["paid"] * 2 + ["free"] * 3 + ["free"] * 2 + ["paid"] + ["trial"] + ["paid"]
    assert compare(fresh, stale).confusions == (
        Confusion("paid", "free", 3),
        Confusion("free", "paid", 1),
        Confusion("trial", "paid", 1),
    )


def test_bools_and_integers_of_few_values_have_confusions_and_many_values_none() -> None:
    assert compare([True, False, True], [False, False, None]).confusions == (
        Confusion(True, False, 1),
    )
    few = list(range(FEW_VALUES))
    assert len(compare(few, [x + 1 for x in few]).confusions) == TOP_CONFUSIONS
    many = list(range(FEW_VALUES + 1))
    assert compare(many, [x + 1 for x in many]).confusions == ()
    assert compare([0] * len(many), [x + 1 for x in many]).confusions == ()
    assert compare([1.0], [2.0]).confusions == ()
    words = [str(x) for x in many]
    assert compare(words, words[1:] + words[:1]).confusions[0] == Confusion("0", "1", 1)


def test_samples_are_the_first_of_each_way_to_differ_in_the_order_of_keys() -> None:
    training = pa.table({"id": [5, 4, 3, 2, 1], "x": [1, 1, 1, None, 1]})
    serving = pa.table({"id": [1, 2, 3, 4, 5], "x": [2, 2, None, 2, 2]})
    (feature,) = compare_by_key(training, serving, ["id"], samples=2).features
    assert feature.samples == (
        Sample((1,), 1, 2),
        Sample((4,), 1, 2),
        Sample((3,), 1, None),
        Sample((2,), None, 2),
    )


def test_ignored_columns_are_not_compared_whatever_their_type() -> None:
    table = pa.table({"id": [1], "x": [1], "at": pa.array([0], pa.timestamp("s"))})
    report = compare_by_key(table, table, ["id"], ignore=["at"])
    assert [feature.name for feature in report.features] == ["x"]


def test_features_stand_in_order_of_how_many_rows_differ() -> None:
    training = pa.table({"id": [1, 2], "c": [1, 1], "b": [1, 1], "a": [1, 1], "d": [1, 1]})
    serving = pa.table({"id": [1, 2], "d": [1, 1], "a": [1, 1], "b": [2, 1], "c": [2, 2]})
    report = compare_by_key(training, serving, ["id"])
    assert [(one.name, one.differing) for one in report.features] == [
        ("c", 2),
        ("b", 1),
        ("a", 0),
        ("d", 0),
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"keys": []}, "one or more key columns"),
        ({"keys": ["nope"]}, "key 'nope'.*training.*f, id, l"),
        ({"keys": ["f"]}, "key 'f': expected integers or strings, got double"),
        ({"keys": ["l"]}, "key 'l': expected integers or strings"),
        ({"ignore": ["nope"]}, "ignored column 'nope'"),
        ({"tolerance": 1.0}, "tolerance"),
        ({"tolerance": NAN}, "tolerance"),
        ({"samples": -1}, "samples"),
        ({"serving": pa.table({"id": ["1"]})}, "key 'id'.*string in serving"),
        ({"serving": pa.table([[1], [1]], names=["id", "id"])}, "serving: .*'id' more than once"),
        ({"serving": pa.table({"f": [1.0]})}, "key 'id': expected a column of serving"),
    ],
)
def test_a_wrong_argument_is_one_clear_line(change: dict[str, Any], said: str) -> None:
    table = pa.table({"id": [1], "f": [1.0], "l": [[1]]})
    arguments: dict[str, Any] = {"training": table, "serving": table, "keys": ["id"]} | change
    with pytest.raises(InvalidArgument, match=said) as error:
        compare_by_key(**arguments)
    assert "\n" not in str(error.value)


def test_files_are_compared_like_tables(tmp_path: Path) -> None:
    training = pa.table({"id": [1, 2], "x": ["a", "b"], "only": [1, 2]})
    serving = pa.table({"id": [2, 1], "x": ["b", "c"]})
    write_parquet(training, tmp_path / "training.parquet")
    write_parquet(serving, tmp_path / "serving.parquet")
    assert compare_by_key(
        tmp_path / "training.parquet", tmp_path / "serving.parquet", ["id"]
    ) == compare_by_key(training, serving, ["id"])
    with pytest.raises(NotFound, match=r"absent\.parquet"):
        compare_by_key(training, tmp_path / "absent.parquet", ["id"])
    (tmp_path / "bad.parquet").write_bytes(b"PAR1, or so it says")
    with pytest.raises(DataCorrupt, match=r"bad\.parquet"):
        compare_by_key(training, tmp_path / "bad.parquet", ["id"])


def test_a_report_is_strict_json_even_of_values_that_json_lacks() -> None:
    training = pa.table({"id": [b"\xff", b"k"], "x": [NAN, 1.0], "l": [[INF], [1.0]]})
    serving = pa.table({"id": [b"\xff", b"k"], "x": [1.0, 1.7e308], "l": [[1.0], None]})
    report = compare_by_key(training, serving, ["id"])

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    parsed = json.loads(to_json(asdict(report)), parse_constant=refuse)
    assert parsed["counts"]["matched"] == 2
    by_name = {feature["name"]: feature for feature in parsed["features"]}
    assert {"key": ["\\xff"], "training": ["inf"], "serving": [1.0]} in by_name["l"]["samples"]
    assert {"key": ["\\xff"], "training": "nan", "serving": 1.0} in by_name["x"]["samples"]


VALUES: dict[str, Any] = {
    "number": st.sampled_from([None, 0.0, 1.0, -1.5, NAN, INF]),
    "word": st.sampled_from([None, "", "a", "b"]),
    "list": st.none() | st.lists(st.sampled_from([None, 0, 1]), max_size=3),
}
TYPES = {"number": pa.float64(), "word": pa.string(), "list": pa.list_(pa.int64())}
Row = dict[str, Any]
KEYS = ("user", "item")


def rows() -> Any:
    key = {"user": st.sampled_from([None, 1, 2, 3]), "item": st.sampled_from(["x", "y", "z"])}
    return st.lists(st.fixed_dictionaries(key | VALUES), max_size=12)


def table_of(data: list[Row]) -> pa.Table:
    types = {"user": pa.int64(), "item": pa.string()} | TYPES
    return pa.table({name: pa.array([r[name] for r in data], t) for name, t in types.items()})


def report_of(training: list[Row], serving: list[Row]) -> SkewReport:
    return compare_by_key(table_of(training), table_of(serving), KEYS, samples=3)


def agree(a: Any, b: Any) -> bool:
    return bool(a == b or (a != a and b != b))


@given(rows(), rows())
def test_the_report_equals_a_comparison_row_by_row(training: list[Row], serving: list[Row]) -> None:
    sides: list[dict[tuple[int, str], list[Row]]] = []
    for data in (training, serving):
        sides.append({})
        for row in data:
            if row["user"] is not None:
                sides[-1].setdefault((row["user"], row["item"]), []).append(row)
    here, there = sides
    pairs = [
        (key, here[key][0], there[key][0])
        for key in sorted(here.keys() & there.keys())
        if len(here[key]) == len(there[key]) == 1
    ]
    report = report_of(training, serving)
    assert report.counts == KeyCounts(
        matched=len(pairs),
        only_in_training=sum(len(r) == 1 and k not in there for k, r in here.items()),
        only_in_serving=sum(len(r) == 1 and k not in here for k, r in there.items()),
        duplicated_in_training=sum(len(r) > 1 for r in here.values()),
        duplicated_in_serving=sum(len(r) > 1 for r in there.values()),
        rows_without_key_in_training=sum(row["user"] is None for row in training),
        rows_without_key_in_serving=sum(row["user"] is None for row in serving),
    )
    for feature in report.features:
        values = [(key, a[feature.name], b[feature.name]) for key, a, b in pairs]
        both = [(k, a, b) for k, a, b in values if a is not None and b is not None]
        mismatches = [(k, a, b) for k, a, b in both if not agree(a, b)]
        assert counts(feature) == (
            len(both) - len(mismatches),
            len(mismatches),
            sum(a is not None and b is None for _, a, b in values),
            sum(a is None and b is not None for _, a, b in values),
            sum(a is None and b is None for _, a, b in values),
        )
        first = [sample.key for sample in feature.samples][: min(len(mismatches), 3)]
        assert first == [key for key, _, _ in mismatches[:3]]
        if feature.name == "word":
            confused = Counter((a, b) for _, a, b in mismatches)
            assert {(c.training, c.serving): c.count for c in feature.confusions} == confused
        if feature.name == "number":
            apart = [abs(a - b) for _, a, b in both if math.isfinite(a) and math.isfinite(b)]
            assert feature.max_difference == (max(apart) if apart else None)
            assert feature.mean_difference == (
                pytest.approx(sum(apart) / len(apart)) if apart else None
            )


@given(rows(), rows(), st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(
    training: list[Row], serving: list[Row], random: Any
) -> None:
    expected = report_of(training, serving)
    shuffled = random.sample(training, len(training)), random.sample(serving, len(serving))
    assert report_of(*shuffled) == expected


@given(rows(), rows())
def test_swapping_the_sides_swaps_what_only_one_of_them_has(
    training: list[Row], serving: list[Row]
) -> None:
    def swapped(feature: FeatureSkew) -> FeatureSkew:
        return replace(
            feature,
            training_only=feature.serving_only,
            serving_only=feature.training_only,
            confusions=(),
            samples=(),
        )

    there, back = report_of(training, serving), report_of(serving, training)
    assert [swapped(one) for one in back.features] == [
        replace(one, confusions=(), samples=()) for one in there.features
    ]
    for a, b in zip(there.features, back.features, strict=True):
        assert {(s.key, s.training, s.serving) for s in a.samples} == {
            (s.key, s.serving, s.training) for s in b.samples
        }
        assert {(c.training, c.serving, c.count) for c in a.confusions} == {
            (c.serving, c.training, c.count) for c in b.confusions
        }


@given(rows())
def test_a_table_agrees_with_itself(data: list[Row]) -> None:
    report = report_of(data, data)
    for feature in report.features:
        assert feature.differing == 0 and feature.samples == () and feature.confusions == ()
        assert feature.match + feature.both_missing == report.counts.matched
        assert not feature.max_difference
