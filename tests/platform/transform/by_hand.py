"""The transform one value at a time, in plain Python; and rows as a client sends them.

Import it after `mlplatform`, which sets what TensorFlow reads from the environment.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from mlplatform.training.runtime import tensorflow
from mlplatform.transform.feature import (
    MISSING,
    Bucketize,
    Crossed,
    Feature,
    Hashed,
    Quantiles,
    Vocabulary,
    ZScore,
)
from mlplatform.transform.transform import Transform

INT_MIN, INT_MAX = -(2**63), 2**63 - 1
FLOAT_MAX = float(np.finfo(np.float32).max)
ARROW = {"string": pa.string(), "int64": pa.int64(), "float32": pa.float32()}

Row = Mapping[str, Any]


def is_marker(value: Any) -> bool:
    return value is None or value != value or value in ("", INT_MIN)


def float32(number: Any) -> float:
    with np.errstate(over="ignore", under="ignore"):
        rounded = float(np.float32(number))
    return 0.0 if abs(rounded) < 2.0**-125 else rounded


def wrap(number: int) -> int:
    return (number + 2**63) % 2**64 - 2**63


def bucket_of(buckets: int, salt: int, *values: int) -> int:
    """The formula of hashing.py in Python's unbounded integers."""
    mixed = salt
    for value in values:
        mixed = wrap((mixed ^ value) * -0x61C8864680B583EB)
        mixed ^= mixed >> 29
        mixed = wrap(mixed * -0x4B47D0C5A2C9E57B)
        mixed ^= mixed >> 32
    return mixed % buckets


def id_of(value: int | str) -> int:
    person = b"str" if isinstance(value, str) else b"int"
    digest = hashlib.blake2b(str(value).encode(), digest_size=8, person=person).digest()
    return int.from_bytes(digest, "little", signed=True)


def encoded(transform: Transform, name: str, row: Row) -> Any:
    """Code or z-score of one feature in one row, a list of them for a list."""
    feature = transform.by_name[name]
    if isinstance(feature.transform, Crossed):
        ids = [stable_id(transform, part, row) for part in feature.transform.of]
        return 1 + bucket_of(feature.transform.buckets, feature.transform.salt, *ids)
    cell = row[feature.column]
    if feature.width == 1:
        return encoded_value(transform, feature, cell)
    codes = [encoded_value(transform, feature, value) for value in (cell or [])[: feature.width]]
    return codes + [0] * (feature.width - len(codes))


def stable_id(transform: Transform, part: str, row: Row) -> int:
    feature, code = transform.by_name[part], encoded(transform, part, row)
    if isinstance(feature.transform, Vocabulary) and code >= 2:
        value = row[feature.column]
        return id_of(feature.default if is_marker(value) else value)
    return code


def encoded_value(transform: Transform, feature: Feature, value: Any) -> Any:
    if is_marker(value) and feature.default is not None:
        value = feature.default
    if is_marker(value):
        return 0
    match feature.transform:
        case Vocabulary(shared_with=owner):
            vocabulary = transform.vocabularies[owner or feature.name]
            return 2 + vocabulary.index(value) if value in vocabulary else 1
        case Quantiles():
            limits = [float32(limit) for limit in transform.boundaries[feature.name]]
            return 1 + bisect_right(limits, float32(value))
        case Bucketize(boundaries=boundaries):
            return 1 + bisect_right([float32(limit) for limit in boundaries], float32(value))
        case Hashed(buckets=buckets, salt=salt):
            return 1 + bucket_of(buckets, salt, value)
        case ZScore():
            scale = transform.scales[feature.name]
            if scale.scale == 0:
                return 0.0
            # Twice the digits and more: rounding first to float64 does no harm (Figueroa 1995).
            return float32(float32(float32(value) - scale.mean) * scale.scale)
    raise AssertionError(feature)


def arrow_table(rows: list[Row], columns: Mapping[str, Feature]) -> pa.Table:
    return pa.table(
        {
            name: pa.array(
                [row[name] for row in rows],
                ARROW[feature.dtype] if feature.width == 1 else pa.list_(ARROW[feature.dtype]),
            )
            for name, feature in columns.items()
        }
    )


def raw_tensors(rows: list[Row], columns: Mapping[str, Feature]) -> dict[str, Any]:
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
        tensors[name] = tensorflow().constant(np.array(cells, dtype=dtype))
    return tensors
