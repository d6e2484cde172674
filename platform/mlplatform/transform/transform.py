"""The transform: analyzed once, then one definition from raw values to codes.

Enters: Arrow columns (training, batch serving); for raw tensors see `graph.py`.  Leaves: int32
codes, and float32 z-scores.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mlplatform.errors import InvalidArgument
from mlplatform.transform.analyzed import Analyzed
from mlplatform.transform.feature import (
    FIRST_OF_VOCABULARY,
    MISSING,
    Bucketize,
    Crossed,
    Feature,
    Hashed,
    Quantiles,
    Vocabulary,
    ZScore,
)
from mlplatform.transform.hashing import hash_numpy
from mlplatform.transform.near_zero import flush_numpy
from mlplatform.transform.values import ARROW_TYPES, cast, flatten_lists, plain, require_finite
from mlplatform.transform.zscore import standardize_numpy

__all__ = ["ARROW_TYPES", "Codes", "Transform", "flatten_lists"]

Codes = NDArray[np.int32]


@dataclass(frozen=True)
class Transform(Analyzed):
    """Applies what was analyzed to Arrow columns."""

    def apply(self, table: pa.Table, names: Sequence[str] | None = None) -> dict[str, NDArray[Any]]:
        """Codes of each feature: `[rows] int32`, or `[rows, width] int32` for a list.

        Z-scores are float32 of the same shapes.  A null takes the feature's declared default;
        without one it is coded as missing, of which the z-score is 0.0.

        Raises:
            InvalidArgument: the table lacks a column, or a value has another type, or is NaN or
                infinite: that is a fault and not a missing value, and no code may hide it.
        """
        names = names if names is not None else [f.name for f in self.features if f.transform]
        read = {feature.name: self._read(feature, table) for feature in self.read_for(names)}
        return {name: read[name] if name in read else self._cross(name, read) for name in names}

    def codes(self, feature: Feature, values: pa.Array) -> Codes:
        """Codes of a flat Arrow array, `[len(values)] int32`.

        Raises:
            InvalidArgument: the values have another type than the feature, or are not finite; or
                the feature has no codes of a column of its own.
        """
        require_finite(feature, values)
        match feature.transform:
            case Vocabulary():
                return self._vocabulary_codes(feature, values)
            case Quantiles() | Bucketize():
                numbers, missing = plain(feature, values)
                numbers = flush_numpy(numbers.astype(np.float32))
                codes = 1 + np.searchsorted(self.limits(feature), numbers, side="right")
                return np.where(missing, 0, codes).astype(np.int32)
            case Hashed(buckets=buckets, salt=salt):
                integers, missing = plain(feature, values)
                hashed = 1 + hash_numpy(buckets, salt, integers)
                return np.where(missing, 0, hashed).astype(np.int32)
            case _:
                raise InvalidArgument(f"feature {feature.name!r} has no codes of a column")

    def _read(self, feature: Feature, table: pa.Table) -> NDArray[Any]:
        """Codes or z-scores of a feature that has a column."""
        encode = self._scores if isinstance(feature.transform, ZScore) else self.codes
        if feature.column not in table.column_names:
            if feature.default is None:
                raise InvalidArgument(
                    f"feature {feature.name!r}: expected a column {feature.column!r}, "
                    f"got {table.column_names}"
                )
            absent = pa.array([feature.default] * len(table), ARROW_TYPES[feature.dtype])
            return encode(feature, absent)
        column = table.column(feature.column).combine_chunks()
        if feature.width == 1:
            return encode(feature, column)
        flat, row, place = flatten_lists(column, feature.width)
        encoded = encode(feature, flat)
        padded = np.zeros((len(column), feature.width), encoded.dtype)
        padded[row, place] = encoded
        return padded

    def _scores(self, feature: Feature, values: pa.Array) -> NDArray[np.float32]:
        require_finite(feature, values)
        numbers, missing = plain(feature, values)
        scores = standardize_numpy(numbers.astype(np.float32), self.scales[feature.name])
        return np.where(missing, np.float32(0), scores)

    def _cross(self, name: str, codes: Mapping[str, Codes]) -> Codes:
        cross = self.by_name[name].transform
        assert isinstance(cross, Crossed)
        ids = [self.stable_ids(part)[codes[part]] for part in cross.of]
        return 1 + hash_numpy(cross.buckets, cross.salt, *ids)

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
        typed = cast(feature, values).fill_null(marker)
        if feature.default is not None:
            typed = pc.if_else(pc.equal(typed, marker), feature.default, typed)
        vocabulary = pa.array(self.vocabulary(feature), type=ARROW_TYPES[feature.dtype])
        found = pc.index_in(typed, value_set=vocabulary)
        codes = found.fill_null(-1).to_numpy(zero_copy_only=False) + FIRST_OF_VOCABULARY
        missing = pc.equal(typed, marker).to_numpy(zero_copy_only=False)
        return np.where(missing, 0, codes).astype(np.int32)
