"""Raw features as dense numpy arrays: what a model reads that does its own transforming.

Enters: an Arrow table and the features declared of it.  Leaves: an array a column.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mlplatform.transform.feature import MISSING, Feature
from mlplatform.transform.transform import flatten_lists

Arrays = Mapping[str, NDArray[Any]]
_DTYPES: dict[str, type] = {"int64": np.int64, "float32": np.float32, "string": object}


def raw_arrays(table: pa.Table, declared: Sequence[Feature]) -> Arrays:
    """Dense raw values by column, `[rows]` or `[rows, width]`; what is missing is marked.

    Strings come as bytes in an object array, every distinct one made once.
    """
    found = {}
    for feature in declared:
        column = table[feature.column].combine_chunks()
        if feature.width == 1:
            found[feature.column] = _flat(column, feature)
            continue
        values, row, place = flatten_lists(column, feature.width)
        dense: NDArray[Any] = np.full(
            (len(table), feature.width), missing_marker(feature), _DTYPES[feature.dtype]
        )
        dense[row, place] = _flat(values, feature)
        found[feature.column] = dense
    return found


def missing_marker(feature: Feature) -> Any:
    return b"" if feature.dtype == "string" else MISSING[feature.dtype]


def is_missing(value: Any) -> bool:
    return bool(value in (b"", MISSING["int64"]) or value != value)


def _flat(values: pa.Array, feature: Feature) -> NDArray[Any]:
    if feature.dtype != "string":
        filled = values.fill_null(missing_marker(feature)) if values.null_count else values
        return filled.to_numpy(zero_copy_only=False).astype(_DTYPES[feature.dtype], copy=False)
    encoded = values.cast(pa.binary()).dictionary_encode()
    distinct = np.array([*encoded.dictionary.to_pylist(), missing_marker(feature)], dtype=object)
    return distinct[encoded.indices.fill_null(len(distinct) - 1).to_numpy(zero_copy_only=False)]
