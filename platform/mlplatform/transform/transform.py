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
            InvalidArgument: the table lacks a column, or a value has another type.
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
        transform = cls(
            tuple(features),
            {name: tuple(values) for name, values in content["vocabularies"].items()},
            {
                name: np.array(values, dtype=np.float32)
                for name, values in content["boundaries"].items()
            },
        )
        if transform.fingerprint != content["fingerprint"]:
            raise DataCorrupt(
                f"{path}: made for another feature declaration (fingerprint "
                f"{content['fingerprint'][:12]}, the declaration's is "
                f"{transform.fingerprint[:12]}); train a new version"
            )
        return transform

    def _content(self) -> dict[str, Any]:
        return {
            "features": {f.name: [f.dtype, f.width, repr(f.transform)] for f in self.features},
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
            return self.codes(feature, pa.array([feature.default] * len(table)))
        column = table.column(feature.column).combine_chunks()
        if feature.width == 1:
            return self.codes(feature, column)
        flat, row, place = flatten_lists(column, feature.width)
        codes = np.zeros((len(column), feature.width), dtype=np.int32)
        codes[row, place] = self.codes(feature, flat)
        return codes

    def codes(self, feature: Feature, values: pa.Array) -> Codes:
        """Codes of a flat Arrow array, `[len(values)] int32`."""
        if feature.default is not None and values.null_count:
            values = values.fill_null(feature.default)
        match feature.transform:
            case Vocabulary():
                return self._vocabulary_codes(feature, values)
            case Quantiles():
                numbers = _numbers(feature, values)
                codes = 1 + np.searchsorted(self.boundaries[feature.name], numbers, side="right")
                return np.where(np.isnan(numbers), 0, codes).astype(np.int32)
            case Hashed(buckets=buckets, salt=salt):
                integers = values.fill_null(MISSING["int64"]).to_numpy(zero_copy_only=False)
                hashed = 1 + hash_numpy(buckets, salt, integers)
                return np.where(integers == MISSING["int64"], 0, hashed).astype(np.int32)
            case None:
                raise InvalidArgument(f"feature {feature.name!r} has no transform")

    def _vocabulary_codes(self, feature: Feature, values: pa.Array) -> Codes:
        if pa.types.is_dictionary(values.type):
            of_values = self._vocabulary_codes(feature, values.dictionary)
            indices = values.indices.fill_null(-1).to_numpy(zero_copy_only=False)
            # Appended: the code that index -1, a null, picks.
            return np.append(of_values, np.int32(0))[indices]
        arrow_type = pa.string() if feature.dtype == "string" else pa.int64()
        vocabulary = pa.array(self.vocabulary(feature), type=arrow_type)
        found = pc.index_in(values.cast(arrow_type), value_set=vocabulary)
        codes = found.fill_null(-1).to_numpy(zero_copy_only=False) + FIRST_OF_VOCABULARY
        missing = pc.equal(values.cast(arrow_type), MISSING[feature.dtype]).fill_null(True)
        return np.where(missing.to_numpy(zero_copy_only=False), 0, codes).astype(np.int32)


def flatten_lists(
    lists: pa.Array, width: int
) -> tuple[pa.Array, NDArray[np.int64], NDArray[np.int64]]:
    """The first `width` values of every list: the values, and the row and place of each one."""
    offsets = lists.offsets.to_numpy()
    length = np.where(lists.is_null().to_numpy(zero_copy_only=False), 0, np.diff(offsets))
    length = np.minimum(length, width)
    row = np.repeat(np.arange(len(length)), length)
    place = np.arange(len(row)) - np.repeat(np.cumsum(length) - length, length)
    return lists.values.take(pa.array(offsets[:-1][row] + place)), row, place


def _numbers(feature: Feature, values: pa.Array) -> NDArray[np.float32]:
    if pa.types.is_integer(values.type):
        integers = values.fill_null(MISSING["int64"]).to_numpy(zero_copy_only=False)
        numbers = integers.astype(np.float32)
        return np.where(integers == MISSING["int64"], np.float32("nan"), numbers)
    if not pa.types.is_floating(values.type):
        raise InvalidArgument(f"feature {feature.name!r}: expected numbers, got {values.type}")
    return values.cast(pa.float32()).fill_null(float("nan")).to_numpy(zero_copy_only=False)
