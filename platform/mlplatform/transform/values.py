"""Raw values in Arrow columns, checked and made flat, before they are coded.

Enters: Arrow arrays.  Leaves: arrays of the feature's type; missing values as markers, or as the
default where one is declared.  What contradicts the declaration is refused and never coded.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mlplatform.errors import InvalidArgument
from mlplatform.transform.feature import MISSING, Feature

ARROW_TYPES = {"int64": pa.int64(), "float32": pa.float32(), "string": pa.string()}


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


def cast(feature: Feature, values: pa.Array) -> pa.Array:
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


def require_finite(feature: Feature, values: pa.Array) -> None:
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


def plain(feature: Feature, values: pa.Array) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Numbers, the default in place of what is missing, and where there still is none."""
    array: NDArray[Any] = (
        cast(feature, values).fill_null(MISSING[feature.dtype]).to_numpy(zero_copy_only=False)
    )
    missing = np.isnan(array) if feature.dtype == "float32" else array == MISSING[feature.dtype]
    if feature.default is not None:
        array = np.where(missing, feature.default, array).astype(array.dtype)
        missing = np.zeros_like(missing)
    return array, missing
