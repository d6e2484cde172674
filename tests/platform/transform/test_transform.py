"""One definition, two executions: Arrow columns and TensorFlow tensors give the same codes."""

import json
from bisect import bisect_right
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

from mlplatform.errors import DataCorrupt, InvalidArgument
from mlplatform.training.runtime import tensorflow
from mlplatform.transform.feature import MISSING, Feature, Hashed, Quantiles, Vocabulary
from mlplatform.transform.hashing import hash_numpy, hash_tensorflow
from mlplatform.transform.transform import Transform

tf = tensorflow()
from mlplatform.transform.graph import TransformGraph  # noqa: E402  # imports TensorFlow

INT_MIN, INT_MAX = -(2**63), 2**63 - 1
FLOAT_MAX = float(np.finfo(np.float32).max)
NAN, INF = float("nan"), float("inf")

WORDS = ("ü", "b", "日本語", "a\x00b", "x y", "🜚")
LIMITS = (-FLOAT_MAX, -1.5, 0.0, 0.5, FLOAT_MAX)
FEATURES = (
    Feature("word", "string", "", Vocabulary()),
    Feature("words", "string", "", Vocabulary(shared_with="word"), width=3),
    Feature("word_or", "string", "", Vocabulary(shared_with="word"), default="b"),
    Feature("level", "int64", "", Vocabulary()),
    Feature("amount", "float32", "", Quantiles(6)),
    Feature("amount_or", "float32", "", Quantiles(6), default=0.25),
    Feature("amounts", "float32", "", Quantiles(6), width=2),
    Feature("count", "int64", "", Quantiles(4)),
    Feature("count_or", "int64", "", Quantiles(4), default=7),
    Feature("id_a", "int64", "", Hashed(1 << 18, salt=1), source="id"),
    Feature("id_b", "int64", "", Hashed(7, salt=2), source="id"),
    Feature("ids", "int64", "", Hashed(1000), width=2),
    Feature("untouched", "string", ""),
)
TRANSFORM = Transform(
    FEATURES,
    {"word": WORDS, "level": (7, -3, INT_MAX, INT_MIN + 1, 0)},
    {
        **{n: np.array(LIMITS, np.float32) for n in ("amount", "amount_or", "amounts")},
        **{n: np.array([0, 2**24, 2.0**63], np.float32) for n in ("count", "count_or")},
    },
)
CODED = [feature for feature in FEATURES if feature.transform]

STRINGS = st.text(max_size=8) | st.sampled_from([*WORDS, "", "a", "A\u0308", "u\u0308", "\x00"])
INTS = st.integers(INT_MIN, INT_MAX) | st.sampled_from(
    [INT_MIN, INT_MIN + 1, INT_MAX, 0, -1, 7, -3, 2**24, 2**24 + 1, INT_MAX - 1]
)
# Subnormal numbers have a test of their own.
FLOATS = st.floats(
    width=32, allow_subnormal=False, allow_nan=False, allow_infinity=False
) | st.sampled_from([FLOAT_MAX, -FLOAT_MAX, 0.0, -0.0, 0.5, -1.5])
VALUES: dict[str, Any] = {"string": STRINGS, "int64": INTS, "float32": FLOATS}
ARROW = {"string": pa.string(), "int64": pa.int64(), "float32": pa.float32()}


def is_marker(value: Any) -> bool:
    return value is None or value != value or value in ("", INT_MIN)


def values_of(feature: Feature) -> Any:
    one = VALUES[feature.dtype]
    if feature.default is not None:
        one = one.filter(lambda value: not is_marker(value))
    one = st.none() | one
    return one if feature.width == 1 else st.none() | st.lists(one, max_size=feature.width + 2)


COLUMNS = {feature.column: feature for feature in CODED}
ROWS = st.lists(
    st.fixed_dictionaries({name: values_of(feature) for name, feature in COLUMNS.items()}),
    min_size=1,
    max_size=5,
)


def arrow_table(rows: list[dict[str, Any]]) -> pa.Table:
    columns = {}
    for name, feature in COLUMNS.items():
        data_type = ARROW[feature.dtype]
        if feature.width > 1:
            data_type = pa.list_(data_type)
        columns[name] = pa.array([row[name] for row in rows], data_type)
    return pa.table(columns)


def raw_tensors(rows: list[dict[str, Any]], columns: dict[str, Feature]) -> dict[str, Any]:
    """What a client sends: dense, nulls as markers, lists cut and padded with markers."""
    tensors = {}
    for name, feature in columns.items():
        marker = MISSING[feature.dtype]
        cells = [row[name] for row in rows]
        if feature.width > 1:
            cells = [((cell or []) + [None] * feature.width)[: feature.width] for cell in cells]
            cells = [[marker if value is None else value for value in cell] for cell in cells]
        else:
            cells = [marker if cell is None else cell for cell in cells]
        dtype: Any = object if feature.dtype == "string" else feature.dtype
        tensors[name] = tf.constant(np.array(cells, dtype=dtype))
    return tensors


def wrap(number: int) -> int:
    return (number + 2**63) % 2**64 - 2**63


def hash_by_hand(buckets: int, salt: int, *values: int) -> int:
    """The formula of hashing.py in Python's unbounded integers."""
    mixed = salt
    for value in values:
        mixed = wrap((mixed ^ value) * -0x61C8864680B583EB)
        mixed ^= mixed >> 29
        mixed = wrap(mixed * -0x4B47D0C5A2C9E57B)
        mixed ^= mixed >> 32
    return mixed % buckets


def code_by_hand(feature: Feature, value: Any) -> int:
    if value is None and feature.default is not None:
        value = feature.default
    if is_marker(value):
        return 0
    match feature.transform:
        case Vocabulary(shared_with=owner):
            vocabulary = TRANSFORM.vocabularies[owner or feature.name]
            return 2 + vocabulary.index(value) if value in vocabulary else 1
        case Quantiles():
            limits = [float(limit) for limit in TRANSFORM.boundaries[feature.name]]
            return 1 + bisect_right(limits, float(np.float32(value)))
        case Hashed(buckets=buckets, salt=salt):
            return 1 + hash_by_hand(buckets, salt, value)
    raise AssertionError(feature)


def codes_by_hand(feature: Feature, cell: Any) -> Any:
    if feature.width == 1:
        return code_by_hand(feature, cell)
    codes = [code_by_hand(feature, value) for value in (cell or [])[: feature.width]]
    return codes + [0] * (feature.width - len(codes))


@pytest.fixture(scope="module")
def in_graph() -> Any:
    """A traced function, as an exported model has."""
    graph = TransformGraph(TRANSFORM, [feature.name for feature in CODED])
    return tf.function(lambda **raw: graph(raw)).get_concrete_function(**graph.signature())


@settings(deadline=None, max_examples=150)
@given(rows=ROWS)
def test_arrow_and_tensorflow_give_the_codes_computed_by_hand(rows: Any, in_graph: Any) -> None:
    applied = TRANSFORM.apply(arrow_table(rows))
    traced = in_graph(**raw_tensors(rows, COLUMNS))
    assert applied.keys() == traced.keys() == {feature.name for feature in CODED}
    for feature in CODED:
        expected = [codes_by_hand(feature, row[feature.column]) for row in rows]
        for codes in (applied[feature.name], traced[feature.name].numpy()):
            assert codes.dtype == np.int32
            assert codes.tolist() == expected, feature.name
            assert codes.min() >= 0 and codes.max() < TRANSFORM.cardinality(feature.name)


@settings(deadline=None, max_examples=60)
@given(
    values=st.lists(st.tuples(INTS, INTS), min_size=1, max_size=8),
    buckets=st.integers(1, 2**31 - 1),
    salt=st.integers(INT_MIN, INT_MAX),
)
def test_the_two_hashes_agree_on_any_integers(
    values: list[tuple[int, int]], buckets: int, salt: int
) -> None:
    a, b = np.array(values, dtype=np.int64).T
    in_numpy = hash_numpy(buckets, salt, a, b)
    in_tensorflow = hash_tensorflow(buckets, salt, tf.constant(a), tf.constant(b)).numpy()
    assert in_numpy.dtype == in_tensorflow.dtype == np.int32
    expected = [hash_by_hand(buckets, salt, *pair) for pair in values]
    assert in_numpy.tolist() == in_tensorflow.tolist() == expected


def test_a_crossed_hash_broadcasts_alike() -> None:
    a, b = np.arange(6, dtype=np.int64).reshape(2, 3), np.array([5, 6, 7], dtype=np.int32)
    in_numpy = hash_numpy(101, 3, a, b)
    in_tensorflow = hash_tensorflow(101, 3, tf.constant(a), tf.constant(b)).numpy()
    expected = [
        [hash_by_hand(101, 3, int(x), int(y)) for x, y in zip(r, b, strict=True)] for r in a
    ]
    assert in_numpy.tolist() == in_tensorflow.tolist() == expected


def test_hashed_buckets_fill_evenly_and_differ_by_salt() -> None:
    ids = np.arange(100_000, dtype=np.int64)
    counts = np.bincount(hash_numpy(100, 1, ids), minlength=100)
    # Chi-squared with 99 degrees of freedom: beyond 170 with probability 1e-5.
    assert ((counts - 1000) ** 2 / 1000).sum() < 170
    assert np.mean(hash_numpy(100, 1, ids) == hash_numpy(100, 2, ids)) < 0.02


def test_codes_follow_the_order_of_the_vocabulary() -> None:
    table = pa.table({"word": [*WORDS, "not in it", "", None]})
    assert TRANSFORM.apply(table, ["word"])["word"].tolist() == [2, 3, 4, 5, 6, 7, 1, 0, 0]


def test_a_value_on_a_boundary_belongs_to_the_bucket_above() -> None:
    values = pa.array([-FLOAT_MAX, -2, -1.5, 0, 0.4, 0.5, FLOAT_MAX, None], pa.float32())
    codes = TRANSFORM.apply(pa.table({"amount": values}), ["amount"])["amount"]
    assert codes.tolist() == [2, 2, 3, 4, 4, 5, 6, 0]
    assert TRANSFORM.cardinality("amount") == 7


@pytest.mark.parametrize(("name", "expected"), [("id_b", 8), ("word_or", 8), ("level", 7)])
def test_cardinality_counts_missing_and_unknown(name: str, expected: int) -> None:
    assert TRANSFORM.cardinality(name) == expected


def test_a_feature_without_a_transform_has_no_cardinality() -> None:
    with pytest.raises(InvalidArgument, match="'untouched'"):
        TRANSFORM.cardinality("untouched")


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
    signature = TransformGraph(TRANSFORM, ["id_a", "id_b", "words", "amount"]).signature()
    assert {name: (spec.shape.as_list(), spec.dtype) for name, spec in signature.items()} == {
        "id": ([None], tf.int64),
        "words": ([None, 3], tf.string),
        "amount": ([None], tf.float32),
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
        "id_a": [1 + hash_by_hand(1 << 18, 1, 5)],
    }


def test_a_saved_transform_gives_the_same_codes(tmp_path: Path) -> None:
    TRANSFORM.save(tmp_path / "transform.json")
    loaded = Transform.load(tmp_path / "transform.json", FEATURES)
    assert loaded.fingerprint == TRANSFORM.fingerprint
    assert dict(loaded.vocabularies) == dict(TRANSFORM.vocabularies)
    assert loaded.boundaries.keys() == TRANSFORM.boundaries.keys()
    for name, limits in TRANSFORM.boundaries.items():
        assert loaded.boundaries[name].dtype == np.float32
        assert loaded.boundaries[name].tobytes() == limits.tobytes()


def with_first(**changes: Any) -> tuple[Feature, ...]:
    return (replace(FEATURES[0], **changes), *FEATURES[1:])


@pytest.mark.parametrize(
    "features",
    [
        with_first(transform=Vocabulary(min_count=2)),
        with_first(transform=Hashed(5)),
        with_first(width=2),
        with_first(dtype="int64"),
        with_first(name="term"),
        FEATURES[1:],
    ],
)
def test_another_declaration_is_refused(features: tuple[Feature, ...], tmp_path: Path) -> None:
    path = tmp_path / "transform.json"
    TRANSFORM.save(path)
    with pytest.raises(DataCorrupt, match=r"transform\.json"):
        Transform.load(path, features)


@pytest.mark.parametrize("changes", [{"default": "b"}, {"source": "term"}])
def test_what_a_null_becomes_and_where_it_is_read_belong_to_the_declaration(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "transform.json"
    TRANSFORM.save(path)
    with pytest.raises(DataCorrupt):
        Transform.load(path, with_first(**changes))


def test_an_altered_vocabulary_or_boundary_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "transform.json"
    TRANSFORM.save(path)
    content = json.loads(path.read_text())
    assert Transform.load(path, FEATURES).fingerprint == content["fingerprint"]
    content["vocabularies"]["word"].reverse()
    path.write_text(json.dumps(content))
    with pytest.raises(DataCorrupt, match=r"transform\.json"):
        Transform.load(path, FEATURES)
    content["vocabularies"]["word"].reverse()
    content["boundaries"]["amount"][1] = -1.25
    path.write_text(json.dumps(content))
    with pytest.raises(DataCorrupt, match=r"transform\.json"):
        Transform.load(path, FEATURES)


def test_a_cut_off_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "transform.json"
    TRANSFORM.save(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataCorrupt, match=r"transform\.json"):
        Transform.load(path, FEATURES)


@pytest.mark.parametrize("content", ["[]", "{}", '{"vocabularies": {}, "boundaries": {}}'])
def test_json_of_another_shape_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "transform.json"
    path.write_text(content)
    with pytest.raises(DataCorrupt, match=r"transform\.json"):
        Transform.load(path, FEATURES)


def test_subnormal_numbers_get_the_same_codes(in_graph: Any) -> None:
    row = dict.fromkeys(COLUMNS) | {"amount": -1e-40}
    applied = TRANSFORM.apply(arrow_table([row]), ["amount"])["amount"]
    traced = in_graph(**raw_tensors([row], COLUMNS))["amount"].numpy()
    assert applied.tolist() == traced.tolist()


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


def test_a_list_has_no_default() -> None:
    with pytest.raises(InvalidArgument, match="'x'"):
        Feature("x", "string", "", Vocabulary(), width=2, default="b")


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
