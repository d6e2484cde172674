"""The transform: analyzed once, then one definition from raw values to codes.

Enters: Arrow columns (training, batch serving) or raw tensors (`graph.py`).  Leaves: int32 codes.
A `Transform` is its features, their vocabularies and their quantile boundaries, kept as JSON.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mlplatform.artifacts import read_json, to_json, write_file_atomically
from mlplatform.errors import DataCorrupt, InvalidArgument
from mlplatform.transform.feature import MISSING, Feature, Hashed, Quantiles, Vocabulary
from mlplatform.transform.hashing import hash_numpy

Codes = NDArray[np.int32]
OUT_OF_VOCABULARY = 1
FIRST_OF_VOCABULARY = 2
ARROW_TYPES = {"int64": pa.int64(), "float32": pa.float32(), "string": pa.string()}


@dataclass(frozen=True)
class Transform:
    """`vocabularies`: values by feature; `boundaries`: rising float32 bucket limits by feature."""

    features: tuple[Feature, ...]
    vocabularies: Mapping[str, tuple[int | str, ...]] = field(default_factory=dict)
    boundaries: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    @cached_property
    def by_name(self) -> dict[str, Feature]:
        return {feature.name: feature for feature in self.features}

    def vocabulary(self, feature: Feature) -> tuple[int | str, ...]:
        assert isinstance(feature.transform, Vocabulary)
        return self.vocabularies[feature.transform.shared_with or feature.name]

    def cardinality(self, name: str) -> int:
        """How many codes the feature can have, 0 (missing) included."""
        feature = self.by_name[name]
        match feature.transform:
            case Vocabulary():
                return FIRST_OF_VOCABULARY + len(self.vocabulary(feature))
            case Quantiles():
                return 2 + len(self.boundaries[name])
            case Hashed(buckets=buckets):
                return 1 + buckets
            case None:
                raise InvalidArgument(f"feature {name!r} has no transform, so it has no codes")

    def apply(self, table: pa.Table, names: Sequence[str] | None = None) -> dict[str, Codes]:
        """Codes of each feature: `[rows] int32`, or `[rows, width] int32` for a list.

        A null takes the feature's declared default; without one it is coded as missing.

        Raises:
            InvalidArgument: the table lacks a column, or a value has another type, or is NaN or
                infinite: that is a fault and not a missing value, and no code may hide it.
        """
        names = names if names is not None else [f.name for f in self.features if f.transform]
        return {name: self._apply_one(self.by_name[name], table) for name in names}

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of everything that decides a code."""
        return hashlib.sha256(to_json(self._content())).hexdigest()

    def save(self, path: Path) -> None:
        write_file_atomically(path, to_json(self._content() | {"fingerprint": self.fingerprint}))

    @classmethod
    def load(cls, path: Path, features: Sequence[Feature]) -> "Transform":
        """Read what `save` wrote; `features` is the declaration it was analyzed for.

        Raises:
            DataCorrupt: the file belongs to another declaration, or was altered.
        """
        content = read_json(path)
        try:
            expected = content["fingerprint"]
            transform = cls(
                tuple(features),
                {name: tuple(values) for name, values in content["vocabularies"].items()},
                {
                    name: np.array(values, dtype=np.float32)
                    for name, values in content["boundaries"].items()
                },
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataCorrupt(
                f"{path}: expected a transform, got other JSON ({type(error).__name__}: {error}); "
                "delete it and run the command again"
            ) from error
        if transform.fingerprint != expected:
            raise DataCorrupt(
                f"{path}: made for another feature declaration (fingerprint "
                f"{str(expected)[:12]}, the declaration's is "
                f"{transform.fingerprint[:12]}); train a new version"
            )
        return transform

    def _content(self) -> dict[str, Any]:
        return {
            "features": {
                f.name: [f.dtype, f.width, f.column, repr(f.default), repr(f.transform)]
                for f in self.features
            },
            "vocabularies": {name: list(values) for name, values in self.vocabularies.items()},
            "boundaries": {
                name: [float(value) for value in values] for name, values in self.boundaries.items()
            },
        }

    def _apply_one(self, feature: Feature, table: pa.Table) -> Codes:
        if feature.column not in table.column_names:
            if feature.default is None:
                raise InvalidArgument(
                    f"feature {feature.name!r}: expected a column {feature.column!r}, "
                    f"got {table.column_names}"
                )
            absent = pa.array([feature.default] * len(table), ARROW_TYPES[feature.dtype])
            return self.codes(feature, absent)
        column = table.column(feature.column).combine_chunks()
        if feature.width == 1:
            return self.codes(feature, column)
        flat, row, place = flatten_lists(column, feature.width)
        codes = np.zeros((len(column), feature.width), dtype=np.int32)
        codes[row, place] = self.codes(feature, flat)
        return codes

    def codes(self, feature: Feature, values: pa.Array) -> Codes:
        """Codes of a flat Arrow array, `[len(values)] int32`.

        Raises:
            InvalidArgument: the values have another type than the feature, or are not finite.
        """
        _require_finite(feature, values)
        match feature.transform:
            case Vocabulary():
                return self._vocabulary_codes(feature, values)
            case Quantiles():
                numbers = _flush(_plain(feature, values).astype(np.float32))
                limits = _flush(self.boundaries[feature.name])
                codes = 1 + np.searchsorted(limits, numbers, side="right")
                missing = _is_missing(feature, _plain(feature, values))
                return np.where(missing, 0, codes).astype(np.int32)
            case Hashed(buckets=buckets, salt=salt):
                integers = _plain(feature, values)
                hashed = 1 + hash_numpy(buckets, salt, integers)
                return np.where(_is_missing(feature, integers), 0, hashed).astype(np.int32)
            case None:
                raise InvalidArgument(f"feature {feature.name!r} has no transform")

    def _vocabulary_codes(self, feature: Feature, values: pa.Array) -> Codes:
        if pa.types.is_dictionary(values.type):
            # Each distinct value is looked up once; appended, what index -1, a null, picks.
            distinct = pa.concat_arrays(
                [
                    values.dictionary.cast(ARROW_TYPES[feature.dtype]),
                    pa.nulls(1, ARROW_TYPES[feature.dtype]),
                ]
            )
            indices = values.indices.cast(pa.int64()).fill_null(-1)
            return self._vocabulary_codes(feature, distinct)[indices.to_numpy(zero_copy_only=False)]
        marker = pa.scalar(MISSING[feature.dtype], ARROW_TYPES[feature.dtype])
        typed = _cast(feature, values).fill_null(marker)
        if feature.default is not None:
            typed = pc.if_else(pc.equal(typed, marker), feature.default, typed)
        vocabulary = pa.array(self.vocabulary(feature), type=ARROW_TYPES[feature.dtype])
        found = pc.index_in(typed, value_set=vocabulary)
        codes = found.fill_null(-1).to_numpy(zero_copy_only=False) + FIRST_OF_VOCABULARY
        missing = pc.equal(typed, marker).to_numpy(zero_copy_only=False)
        return np.where(missing, 0, codes).astype(np.int32)


def flatten_lists(
    lists: pa.Array, width: int
) -> tuple[pa.Array, NDArray[np.int64], NDArray[np.int64]]:
    """The first `width` values of every list: the values, and the row and place of each one."""
    if pa.types.is_fixed_size_list(lists.type):
        lists = lists.cast(pa.list_(lists.type.value_type))
    offsets = lists.offsets.to_numpy()
    length = np.where(lists.is_null().to_numpy(zero_copy_only=False), 0, np.diff(offsets))
    length = np.minimum(length, width)
    row = np.repeat(np.arange(len(length)), length)
    place = np.arange(len(row)) - np.repeat(np.cumsum(length) - length, length)
    return lists.values.take(pa.array(offsets[:-1][row] + place)), row, place


def _cast(feature: Feature, values: pa.Array) -> pa.Array:
    """The values as the feature's type; numbers may be narrower, nothing else may differ."""
    wanted, given = ARROW_TYPES[feature.dtype], values.type
    numeric = pa.types.is_integer(given) or (
        feature.dtype == "float32" and pa.types.is_floating(given)
    )
    textual = pa.types.is_string(given) or pa.types.is_large_string(given)
    if pa.types.is_null(given) or (textual if feature.dtype == "string" else numeric):
        try:
            return values.cast(wanted, safe=feature.dtype != "float32")
        except pa.ArrowInvalid as error:
            raise InvalidArgument(f"feature {feature.name!r}: {error}") from error
    raise InvalidArgument(f"feature {feature.name!r}: expected {wanted}, got {given}")


def _require_finite(feature: Feature, values: pa.Array) -> None:
    if not pa.types.is_floating(values.type):
        return
    finite = pc.is_finite(values).fill_null(True)  # a null is missing, which is no fault
    if finite.true_count < len(values):
        at = np.flatnonzero(~finite.to_numpy(zero_copy_only=False))
        raise InvalidArgument(
            f"feature {feature.name!r}: expected finite numbers or nulls, got "
            f"{values[int(at[0])].as_py()} at {', '.join(map(str, at[:5]))} ({len(at)} in all, "
            "counted from 0); correct the data where it is made"
        )


def _plain(feature: Feature, values: pa.Array) -> NDArray[Any]:
    """Numbers with markers for nulls, and the default for both where there is one."""
    array: NDArray[Any] = (
        _cast(feature, values).fill_null(MISSING[feature.dtype]).to_numpy(zero_copy_only=False)
    )
    if feature.default is not None:
        array = np.where(_is_missing(feature, array), feature.default, array).astype(array.dtype)
    return array


def _is_missing(feature: Feature, array: NDArray[Any]) -> NDArray[np.bool_]:
    if feature.dtype == "float32":
        return np.isnan(array)
    missing: NDArray[np.bool_] = array == MISSING[feature.dtype]
    return missing


def _flush(numbers: NDArray[np.float32]) -> NDArray[np.float32]:
    """Subnormal numbers become 0, as TensorFlow takes them."""
    tiny = np.finfo(np.float32).tiny
    return np.where(np.abs(numbers) < tiny, np.float32(0), numbers)
