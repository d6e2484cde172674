"""The checks of single rows: what a row's number of values and each of its values break.

Enters: a column beside its feature of a schema.  Leaves: masks of rows by type of anomaly, of the
types that a whole data set with such rows raises.  To add a check of values, write it and put it
into the table by the kind of the values and the domain.  A null among the values breaks nothing.
"""

from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2

from mlplatform.data.files.columns import ArrowArray, Kind, is_list, kind_of, leaf_values
from mlplatform.data.schemas.numbers_in_text import as_floats, as_integers
from mlplatform.data.schemas.schema import Domain, find_domain

Types = anomalies_pb2.AnomalyInfo
Mask = NDArray[np.bool_]  # [rows] or [values]
Broken = Iterator[tuple[int, Mask]]  # type of anomaly, what raises it

_KINDS: dict[int, Kind] = {
    schema_pb2.INT: "INT",
    schema_pb2.FLOAT: "FLOAT",
    schema_pb2.BYTES: "STRING",
}


def check_column(
    column: ArrowArray, feature: schema_pb2.Feature, schema: schema_pb2.Schema
) -> Broken:
    """Yield the rows `[rows]` that break the feature, by type of anomaly; some masks are empty."""
    missing = _mask(column.is_null())
    if feature.presence.min_fraction:
        yield Types.FEATURE_TYPE_LOW_FRACTION_PRESENT, missing
    if pa.types.is_null(column.type):
        return
    lengths = np.ones(len(column), np.int64)
    if is_list(column.type):
        lengths = pc.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)
    yield from _check_lengths(lengths, missing, feature)

    owner = np.repeat(np.arange(len(column)), lengths)
    values = leaf_values(column)
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    for anomaly, bad in _check_values(values, feature, find_domain(feature, schema)):
        rows = np.zeros(len(column), np.bool_)
        rows[owner[bad]] = True
        yield anomaly, rows


def _check_lengths(
    lengths: NDArray[np.int64], missing: Mask, feature: schema_pb2.Feature
) -> Broken:
    if feature.HasField("shape"):
        size = prod(dim.size for dim in feature.shape.dim)
        yield Types.INVALID_FEATURE_SHAPE, missing | (lengths != size)
    levels = feature.value_counts.value_count or [feature.value_count]
    if len(levels) == 1:  # lists within lists are no columns
        yield Types.FEATURE_TYPE_LOW_NUMBER_VALUES, ~missing & (lengths < levels[0].min)
        if levels[0].HasField("max"):
            yield Types.FEATURE_TYPE_HIGH_NUMBER_VALUES, ~missing & (lengths > levels[0].max)


def _check_values(values: ArrowArray, feature: schema_pb2.Feature, domain: Domain | None) -> Broken:
    expected, got = _KINDS.get(feature.type), kind_of(values.type)
    if expected is None:
        return
    if got == "STRING" and expected != "STRING":
        # A text file's column has the type of its worst value; the rest may be what they should.
        values, is_wrong = _parse(values, expected)
        yield Types.UNEXPECTED_DATA_TYPE, is_wrong
    elif got != expected:
        yield Types.UNEXPECTED_DATA_TYPE, _mask(values.is_valid())
        return
    check = VALUE_CHECKS.get((expected, type(domain).__name__))
    if check is not None:
        yield from check(values, domain)


def _check_strings(values: ArrowArray, domain: schema_pb2.StringDomain) -> Broken:
    encoded = values.cast(pa.binary()).dictionary_encode()
    distinct = encoded.dictionary
    yield Types.ENUM_TYPE_INVALID_UTF8, _of_distinct(encoded, ~_is_utf8(distinct))
    known = pa.array([value.encode() for value in domain.value], pa.binary())
    is_known = _mask(pc.is_in(distinct, value_set=known))
    yield Types.ENUM_TYPE_UNEXPECTED_STRING_VALUES, _of_distinct(encoded, ~is_known)


def _check_integers(values: ArrowArray, domain: schema_pb2.IntDomain) -> Broken:
    integers, present = _numbers(values)
    small, big = Types.INT_TYPE_SMALL_INT, Types.INT_TYPE_BIG_INT
    yield from _check_range(integers, present, domain, small, big)


def _check_floats(values: ArrowArray, domain: schema_pb2.FloatDomain) -> Broken:
    floats, present = _numbers(values)
    if domain.disallow_nan:
        yield Types.FLOAT_TYPE_HAS_NAN, present & np.isnan(floats)
    if domain.disallow_inf:
        yield Types.FLOAT_TYPE_HAS_INF, present & np.isinf(floats)
    with np.errstate(over="ignore"):
        floats = floats.astype(np.float32)  # as the domain holds its limits
    small, big = Types.FLOAT_TYPE_SMALL_FLOAT, Types.FLOAT_TYPE_BIG_FLOAT
    yield from _check_range(floats, present, domain, small, big)


def _check_bool_integers(values: ArrowArray, domain: schema_pb2.BoolDomain) -> Broken:
    integers, present = _numbers(values)
    yield Types.BOOL_TYPE_SMALL_INT, present & (integers < 0)
    yield Types.BOOL_TYPE_BIG_INT, present & (integers > 1)


def _check_bool_floats(values: ArrowArray, domain: schema_pb2.BoolDomain) -> Broken:
    floats, present = _numbers(values)
    yield Types.BOOL_TYPE_UNEXPECTED_FLOAT, present & (floats != 0) & (floats != 1)


def _check_bool_strings(values: ArrowArray, domain: schema_pb2.BoolDomain) -> Broken:
    fields = ("true_value", "false_value")
    known = [getattr(domain, field).encode() for field in fields if domain.HasField(field)]
    is_known = pc.is_in(values.cast(pa.binary()), value_set=pa.array(known, pa.binary()))
    yield Types.BOOL_TYPE_UNEXPECTED_STRING, _mask(values.is_valid()) & ~_mask(is_known)


def _check_integers_in_text(values: ArrowArray, domain: schema_pb2.IntDomain) -> Broken:
    integers, is_wrong = _parse(values, "INT")
    yield Types.INT_TYPE_NOT_INT_STRING, is_wrong
    yield from _check_integers(integers, domain)


def _check_floats_in_text(values: ArrowArray, domain: schema_pb2.FloatDomain) -> Broken:
    floats, is_wrong = _parse(values, "FLOAT")
    yield Types.FLOAT_TYPE_STRING_NOT_FLOAT, is_wrong
    yield from _check_floats(floats, domain)


# By the schema's type and the domain.  Domains that are not here are not looked into.
VALUE_CHECKS: dict[tuple[Kind, str], Callable[[ArrowArray, Any], Broken]] = {
    ("STRING", "StringDomain"): _check_strings,
    ("INT", "IntDomain"): _check_integers,
    ("STRING", "IntDomain"): _check_integers_in_text,
    ("FLOAT", "FloatDomain"): _check_floats,
    ("STRING", "FloatDomain"): _check_floats_in_text,
    ("INT", "BoolDomain"): _check_bool_integers,
    ("FLOAT", "BoolDomain"): _check_bool_floats,
    ("STRING", "BoolDomain"): _check_bool_strings,
}


def _check_range(
    numbers: NDArray[Any], present: Mask, domain: Domain, small: int, big: int
) -> Broken:
    if domain.HasField("min"):
        yield small, present & (numbers < domain.min)
    if domain.HasField("max"):
        yield big, present & (numbers > domain.max)


def _numbers(values: ArrowArray) -> tuple[NDArray[Any], Mask]:
    """Numbers `[values]`, 0 where there is none; and where there is one."""
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.int64())
    return values.fill_null(0).to_numpy(zero_copy_only=False), _mask(values.is_valid())


def _parse(values: ArrowArray, kind: Kind) -> tuple[ArrowArray, Mask]:
    """Strings as numbers, null where they are none; and the strings that are none."""
    parse: Any = as_integers if kind == "INT" else as_floats
    encoded = values.cast(pa.binary()).dictionary_encode()
    strings = [text.decode(errors="replace") for text in encoded.dictionary.to_pylist()]
    distinct = [(parse([string]) or [None])[0] for string in strings]
    numbers = pa.array(distinct, pa.int64() if kind == "INT" else pa.float64())
    parsed = numbers.take(encoded.indices)
    return parsed, _mask(values.is_valid()) & _mask(parsed.is_null())


def _is_utf8(strings: ArrowArray) -> Mask:
    try:
        strings.cast(pa.string())
    except pa.ArrowInvalid:
        decoded = [text.decode(errors="ignore").encode() for text in strings.to_pylist()]
        return _mask(pc.equal(strings, pa.array(decoded, pa.binary())))
    return np.ones(len(strings), np.bool_)


def _of_distinct(encoded: ArrowArray, is_bad: Mask) -> Mask:
    """Of every value what is told of the distinct ones; nothing of a null."""
    return _mask(pa.array(is_bad, pa.bool_()).take(encoded.indices).fill_null(False))


def _mask(booleans: ArrowArray) -> Mask:
    mask: Mask = booleans.to_numpy(zero_copy_only=False)
    return mask
