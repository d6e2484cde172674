"""Slices: the rows of a data set that share a value of a column.

Enters: a record batch and the columns that slice.  Leaves: the name of every slice in it, and
which rows it has.  A slice is a data set of its own, `DATASET/COLUMN=VALUE`.  A row whose list has
several values is in as many slices; a row without a value is in none.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mlplatform.data.files.columns import Kind, is_list, leaf_values, to_numpy
from mlplatform.errors import InvalidArgument

MOST_SLICES = 500

Rows = NDArray[np.int64]


def require_slicing(dataset: str, kinds: Mapping[str, Kind], columns: Sequence[str]) -> None:
    """Raise InvalidArgument unless every column is there and has text or integers."""
    for column in columns:
        if kinds.get(column, "FLOAT") == "FLOAT":
            raise InvalidArgument(
                f"data set {dataset!r}: expected a column {column!r} of strings or integers to "
                f"slice by, got {'one of floats' if column in kinds else 'none'}; name another "
                "column or describe the data set apart"
            )


def require_few(dataset: str, slices: int) -> None:
    if slices > MOST_SLICES:
        raise InvalidArgument(
            f"data set {dataset!r}: expected at most {MOST_SLICES} slices, got {slices:,} or more; "
            "slice by columns of fewer values"
        )


def slice_rows(
    dataset: str, batch: pa.RecordBatch, columns: Sequence[str]
) -> Iterator[tuple[str, Rows]]:
    """Yield (name, rows of the batch, ascending) of every slice; a column may be missing."""
    for name in columns:
        if name not in batch.schema.names:
            continue
        column = batch.column(name)
        rows = np.arange(len(column))
        if is_list(column.type):
            rows = to_numpy(pc.list_parent_indices(column)).astype(np.int64)
        values = _as_bytes(leaf_values(column))
        is_value = values.is_valid().to_numpy(zero_copy_only=False)
        encoded = values.drop_null().dictionary_encode()
        # Each row once in a slice, however often its list has the value.
        pairs = np.unique(to_numpy(encoded.indices) * np.int64(len(batch)) + rows[is_value])
        codes, rows = np.divmod(pairs, max(len(batch), 1))
        ends = np.searchsorted(codes, np.arange(len(encoded.dictionary) + 1))
        for code, value in enumerate(encoded.dictionary.to_pylist()):
            text = value.decode(errors="backslashreplace")
            yield f"{dataset}/{name}={text}", rows[ends[code] : ends[code + 1]]


def _as_bytes(values: Any) -> Any:
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.uint8())
    if pa.types.is_integer(values.type) or pa.types.is_null(values.type):
        values = values.cast(pa.string())
    return values.cast(pa.binary())
