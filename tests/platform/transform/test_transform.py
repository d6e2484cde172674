"""One definition, two executions: Arrow columns and TensorFlow tensors give the same codes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import mlplatform  # noqa: F401  # first: it sets what TensorFlow reads from the environment

# isort: split
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.errors import InvalidArgument
from mlplatform.training.runtime import tensorflow
from mlplatform.transform.feature import MISSING, Bucketize, Feature, Quantiles, Vocabulary, ZScore
from mlplatform.transform.transform import Transform
from mlplatform.transform.zscore import Scale
from tests.platform.transform import by_hand
from tests.platform.transform.by_hand import ARROW, FLOAT_MAX, INT_MIN
from tests.platform.transform.example import (
    CODED,
    COLUMNS,
    ROWS,
    STRINGS,
    TRANSFORM,
    WORDS,
    arrow_table,
    code_by_hand,
    raw_tensors,
)

tf = tensorflow()
from mlplatform.transform.graph import TransformGraph  # noqa: E402  # imports TensorFlow

NAN, INF = float("nan"), float("inf")


@pytest.fixture(scope="module")
def in_graph() -> Any:
    """A traced function, as an exported model has."""
    graph = TransformGraph(TRANSFORM, [feature.name for feature in CODED])
    return tf.function(lambda **raw: graph(raw)).get_concrete_function(**graph.signature())


@settings(deadline=None, max_examples=150)
@given(rows=ROWS)
def test_arrow_and_tensorflow_give_the_codes_computed_by_hand(rows: Any, in_graph: Any) -> None:
    applied = TRANSFORM.apply(arrow_table(rows))
    traced = in_graph(**raw_tensors(rows))
    assert applied.keys() == traced.keys() == {feature.name for feature in CODED}
    for feature in CODED:
        expected = [by_hand.encoded(TRANSFORM, feature.name, row) for row in rows]
        is_number = isinstance(feature.transform, ZScore)
        dtype = np.float32 if is_number else np.int32
        for codes in (applied[feature.name], traced[feature.name].numpy()):
            assert codes.dtype == dtype
            assert codes.tobytes() == np.array(expected, dtype).tobytes(), feature.name
            if not is_number:
                assert codes.min() >= 0 and codes.max() < TRANSFORM.cardinality(feature.name)


def test_codes_follow_the_order_of_the_vocabulary() -> None:
    table = pa.table({"word": [*WORDS, "not in it", "", None]})
    assert TRANSFORM.apply(table, ["word"])["word"].tolist() == [2, 3, 4, 5, 6, 7, 1, 0, 0]


def test_fixed_limits_are_compared_as_float32() -> None:
    values = pa.array([-2, -1.5, -0.5, 0, 0.05, 0.1, None], pa.float32())
    codes = TRANSFORM.apply(pa.table({"size": values}), ["size"])["size"]
    assert codes.tolist() == [1, 2, 2, 3, 3, 4, 0]  # 0.1 is 0.10000000149 on both sides
    assert TRANSFORM.cardinality("size") == 5
    # 2^63 - 1 is rounded to 2^63; 2^24 + 1 to 2^24; the list is cut to two and padded with missing.
    lists = pa.array([[2**63 - 1, 2**24 - 1, 5], [2**24 + 1], [-1, None], None])
    codes = TRANSFORM.apply(pa.table({"sizes": lists}), ["sizes"])["sizes"]
    assert codes.tolist() == [[4, 2], [3, 0], [1, 0], [0, 0]]


@pytest.mark.parametrize("limit", [2.0**-149, -(2.0**-149), 2.0**-126, -(2.0**-126)])
def test_values_and_limits_near_zero_are_compared_as_0(limit: float) -> None:
    transform = Transform(
        (
            Feature("fixed", "float32", "", Bucketize((limit, 1.0)), source="x"),
            Feature("found", "float32", "", Quantiles(3), source="x"),
        ),
        boundaries={"found": np.array([limit, 1.0], np.float32)},
    )
    values = np.array(
        [-1.0, -(2.0**-126), -(2.0**-149), 0.0, 2.0**-149, 2.0**-126, 1.0], np.float32
    )
    applied = transform.apply(pa.table({"x": values}))
    traced = TransformGraph(transform, ["fixed", "found"])({"x": tf.constant(values)})
    for name in ("fixed", "found"):
        assert applied[name].tolist() == traced[name].numpy().tolist() == [1, 2, 2, 2, 2, 2, 3]


def test_a_z_score_is_the_distance_from_the_mean_in_deviations() -> None:
    scaled = Transform(
        tuple(replace(TRANSFORM.by_name[name], transform=ZScore()) for name in ("score", "scores")),
        scales={"score": Scale(2.0, 0.25), "scores": Scale(10.0, 0.5)},
    )
    table = pa.table(
        {
            "score": pa.array([2.0, 4.0, None, -FLOAT_MAX], pa.float32()),
            "scores": [[11, 12, 13], [10, None], None, [INT_MIN]],
        }
    )
    scores = scaled.apply(table)
    assert scores["score"].dtype == scores["scores"].dtype == np.float32
    assert scores["score"].tolist() == [0.0, 0.5, 0.0, -FLOAT_MAX / 4]
    assert scores["scores"].tolist() == [[0.5, 1.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]


def test_a_feature_that_was_constant_has_the_z_score_0_whatever_comes() -> None:
    values = pa.array([7.0, 8.0, FLOAT_MAX, None], pa.float32())
    assert TRANSFORM.apply(pa.table({"flat": values}), ["flat"])["flat"].tolist() == [0.0] * 4


def test_a_missing_number_with_a_default_has_the_z_score_of_the_default() -> None:
    values = pa.array([None, 0.25, -1.5], pa.float32())
    scores = TRANSFORM.apply(pa.table({"score_or": values}), ["score_or"])["score_or"]
    assert scores.tolist() == [7.0, 7.0, 0.0]  # (0.25 + 1.5) / 0.25


def test_a_cross_hashes_ids_of_values_and_codes_of_all_else_missing_included() -> None:
    table = pa.table({"word": ["b", "b", "?", None], "count_or": [-1, None, 0, 2**24]})
    codes = TRANSFORM.apply(table, ["pair"])
    assert codes.keys() == {"pair"}
    b = by_hand.id_of("b")
    # A null of `count_or` is its default, 7: above 0, in the second bucket.
    ids = [(b, 1), (b, 2), (1, 2), (0, 3)]
    expected = [1 + by_hand.bucket_of(1 << 20, 3, *pair) for pair in ids]
    assert codes["pair"].dtype == np.int32 and codes["pair"].tolist() == expected
    assert TRANSFORM.cardinality("pair") == 1 + (1 << 20)


def test_a_cross_comes_with_its_parts_or_without_in_the_order_asked_for() -> None:
    rows = [dict.fromkeys(COLUMNS) | {"word": "x y", "count_or": 3}]
    alone = TRANSFORM.apply(arrow_table(rows), ["pair"])
    names = ["pair", "count_or", "word"]
    together = TRANSFORM.apply(arrow_table(rows), names)
    assert list(together) == list(TransformGraph(TRANSFORM, names)(raw_tensors(rows))) == names
    assert together["pair"].tolist() == alone["pair"].tolist()
    assert together["word"].tolist() == [6]


def test_a_crosss_missing_column_is_the_parts() -> None:
    with pytest.raises(InvalidArgument, match=r"'word'.*'word'.*\['level'\]"):
        TRANSFORM.apply(pa.table({"level": [1]}), ["pair"])


@pytest.mark.parametrize("name", ["score", "untouched", "pair"])
def test_what_has_no_codes_of_a_column_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgument, match=f"'{name}'"):
        TRANSFORM.codes(TRANSFORM.by_name[name], pa.array([], pa.int64()))


def test_a_value_on_a_boundary_belongs_to_the_bucket_above() -> None:
    values = pa.array([-FLOAT_MAX, -2, -1.5, 0, 0.4, 0.5, FLOAT_MAX, None], pa.float32())
    codes = TRANSFORM.apply(pa.table({"amount": values}), ["amount"])["amount"]
    assert codes.tolist() == [2, 2, 3, 4, 4, 5, 6, 0]
    assert TRANSFORM.cardinality("amount") == 7


@settings(deadline=None, max_examples=60)
@given(st.lists(st.none() | STRINGS, max_size=12), st.integers(0, 5), st.integers(0, 12))
def test_dictionary_encoded_sliced_and_chunked_columns_give_the_codes_of_plain_ones(
    values: list[str | None], start: int, cut: int
) -> None:
    names = ["word", "word_or"]
    plain = pa.array(values, pa.string())
    encoded = plain.dictionary_encode()
    chunked = pa.chunked_array(
        [plain.slice(0, cut).dictionary_encode(), plain.slice(cut).dictionary_encode()]
    )
    expected = TRANSFORM.apply(pa.table([plain, plain], names=names), names)
    for column, offset in ((encoded, 0), (chunked, 0), (encoded.slice(start), start)):
        got = TRANSFORM.apply(pa.table([column, column], names=names), names)
        for name in names:
            assert got[name].tolist() == expected[name].tolist()[offset:]


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.none() | st.lists(st.none() | STRINGS, max_size=5), max_size=8),
    st.integers(0, 4),
)
def test_sliced_lists_give_the_codes_of_their_rows(lists: list[Any], start: int) -> None:
    column = pa.array(lists, pa.list_(pa.string()))
    whole = TRANSFORM.apply(pa.table({"words": column}), ["words"])["words"]
    part = TRANSFORM.apply(pa.table({"words": column.slice(start)}), ["words"])["words"]
    assert part.tolist() == whole.tolist()[start:]


def test_a_null_list_that_hides_values_is_empty() -> None:
    mask = pa.array([False, True, False])
    column = pa.ListArray.from_arrays(
        pa.array([0, 1, 3, 4], pa.int32()), pa.array(["ü", "b", "b", "x y"]), mask=mask
    )
    codes = TRANSFORM.apply(pa.table({"words": column}), ["words"])["words"]
    assert codes.tolist() == [[2, 0, 0], [0, 0, 0], [6, 0, 0]]


def test_a_missing_column_is_named() -> None:
    with pytest.raises(InvalidArgument, match=r"'id_a'.*'id'.*\['word'\]"):
        TRANSFORM.apply(pa.table({"word": ["ü"]}), ["word", "id_a"])


@pytest.mark.parametrize("name", ["word_or", "amount_or", "count_or"])
def test_an_absent_column_takes_the_default_as_markers_do_in_the_graph(name: str) -> None:
    feature = TRANSFORM.by_name[name]
    applied = TRANSFORM.apply(pa.table({"other": [1, 2, 3]}), [name])[name]
    raw = raw_tensors([{name: None}] * 3, {name: feature})
    traced = TransformGraph(TRANSFORM, [name])(raw)[name].numpy()
    assert applied.tolist() == traced.tolist() == [code_by_hand(feature, None)] * 3


def test_text_where_numbers_are_expected_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="'amount'"):
        TRANSFORM.apply(pa.table({"amount": ["much"]}), ["amount"])


def test_a_signature_has_one_input_a_column() -> None:
    names = ["id_a", "id_b", "words", "amount", "pair", "count_or"]
    signature = TransformGraph(TRANSFORM, names).signature()
    assert {name: (spec.shape.as_list(), spec.dtype) for name, spec in signature.items()} == {
        "id": ([None], tf.int64),
        "words": ([None, 3], tf.string),
        "amount": ([None], tf.float32),
        "word": ([None], tf.string),
        "count_or": ([None], tf.int64),
    }


def test_an_exported_graph_keeps_its_codes(tmp_path: Path) -> None:
    names = ["word", "words", "level", "amount", "id_a"]
    module = TransformGraph(TRANSFORM, names)
    module.serve = tf.function(
        lambda **raw: module(raw), input_signature=None
    ).get_concrete_function(**module.signature())
    tf.saved_model.save(module, str(tmp_path / "model"), signatures={"serve": module.serve})
    row = {"word": "ü", "words": ["b", "?"], "level": 0, "amount": 0.6, "id": 5}
    loaded = tf.saved_model.load(str(tmp_path / "model")).signatures["serve"]
    columns = {TRANSFORM.by_name[name].column: TRANSFORM.by_name[name] for name in names}
    codes = loaded(**raw_tensors([row], columns))
    assert {name: codes[name].numpy().tolist() for name in names} == {
        "word": [2],
        "words": [[3, 1, 0]],
        "level": [6],
        "amount": [5],
        "id_a": [1 + by_hand.bucket_of(1 << 18, 1, 5)],
    }


@pytest.mark.parametrize(("dtype", "value"), [("int64", 5), ("string", "a")])
def test_an_empty_vocabulary_makes_every_value_unknown(dtype: Any, value: Any) -> None:
    transform = Transform((Feature("x", dtype, "", Vocabulary()),), {"x": ()})
    assert transform.apply(pa.table({"x": [value, None]}))["x"].tolist() == [1, 0]
    raw = {"x": tf.constant([value, MISSING[dtype]], tf.as_dtype(dtype))}
    assert TransformGraph(transform, ["x"])(raw)["x"].numpy().tolist() == [1, 0]


def test_no_boundaries_leave_one_bucket() -> None:
    transform = Transform(
        (Feature("x", "float32", "", Quantiles(4)),), {}, {"x": np.zeros(0, np.float32)}
    )
    column = pa.array([-FLOAT_MAX, 3.0, FLOAT_MAX, None], pa.float32())
    assert transform.apply(pa.table({"x": column}))["x"].tolist() == [1, 1, 1, 0]
    values = np.array([-INF, 3.0, INF, NAN], np.float32)
    in_graph = TransformGraph(transform, ["x"])({"x": tf.constant(values)})["x"]
    assert in_graph.numpy().tolist() == [1, 1, 1, 0]
    assert transform.cardinality("x") == 2


@pytest.mark.parametrize(
    ("name", "marker"), [("word_or", ""), ("amount_or", None), ("count_or", INT_MIN)]
)
def test_a_marker_in_a_column_takes_the_default_as_in_the_graph(name: str, marker: Any) -> None:
    feature = TRANSFORM.by_name[name]
    column = pa.array([marker], ARROW[feature.dtype])
    applied = TRANSFORM.apply(pa.table({name: column}), [name])[name]
    raw = raw_tensors([{name: None}], {name: feature})
    assert applied.tolist() == TransformGraph(TRANSFORM, [name])(raw)[name].numpy().tolist()


@pytest.mark.parametrize("fault", [NAN, INF, -INF])
@pytest.mark.parametrize("name", ["amount", "amount_or", "amounts"])
def test_a_number_that_is_not_finite_is_named_and_never_coded(name: str, fault: float) -> None:
    feature = TRANSFORM.by_name[name]
    cells = [None, 0.5, fault, fault]
    column = pa.array(cells if feature.width == 1 else [[cell] for cell in cells])
    with pytest.raises(InvalidArgument, match=rf"'{name}'.*got {fault} at 2, 3 \(2 in all"):
        TRANSFORM.apply(pa.table({name: column}), [name])


@pytest.mark.parametrize("data_type", [pa.int32(), pa.uint8()])
@pytest.mark.parametrize("name", ["id_b", "count"])
def test_narrow_integers_are_integers(name: str, data_type: Any) -> None:
    column = TRANSFORM.by_name[name].column
    narrow = TRANSFORM.apply(pa.table({column: pa.array([5, None], data_type)}), [name])[name]
    assert narrow.tolist() == [code_by_hand(TRANSFORM.by_name[name], 5), 0]


@pytest.mark.parametrize(("name", "value"), [("id_a", "five"), ("level", "high"), ("level", 1.5)])
def test_a_value_of_another_type_is_refused(name: str, value: Any) -> None:
    with pytest.raises(InvalidArgument, match=name):
        TRANSFORM.apply(pa.table({TRANSFORM.by_name[name].column: [value]}), [name])


@pytest.mark.parametrize("name", ["amount_or", "count_or"])
def test_no_rows_without_the_column_have_no_codes(name: str) -> None:
    table = pa.table({"other": pa.array([], pa.int64())})
    assert TRANSFORM.apply(table, [name])[name].tolist() == []
