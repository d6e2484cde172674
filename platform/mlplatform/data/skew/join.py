"""The same rows in two tables, found by their keys.

Enters: the key columns of both.  Leaves: which row of one is which row of the other, in the order
of the keys, so that nothing that follows depends on the order of either table.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mlplatform.data.files.columns import ArrowArray
from mlplatform.data.skew.columns import align
from mlplatform.errors import InvalidArgument

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class KeyCounts:
    """How many distinct keys stand where, and how many rows have none.

    A key that stands on either side more than once is only counted as duplicated there: which of
    its rows belong together nobody knows, so none of them is compared.
    """

    matched: int
    only_in_training: int
    only_in_serving: int
    duplicated_in_training: int
    duplicated_in_serving: int
    rows_without_key_in_training: int
    rows_without_key_in_serving: int


@dataclass(frozen=True)
class Join:
    """Row `training[i]` of one table is row `serving[i]` of the other; its key, `keys[i]`."""

    keys: pa.Table
    training: Rows
    serving: Rows
    counts: KeyCounts


def join_by_key(training: pa.Table, serving: pa.Table, keys: Sequence[str]) -> Join:
    """Find the rows whose key stands exactly once on each side.

    Takes O(rows) memory, about 50 bytes each beside the keys, and sorts only what matched.

    Args:
        training, serving: with at least the columns `keys`.
        keys: integers or strings, together the name of a row. A row with a null among them has
            no key.

    Raises:
        InvalidArgument: no keys, or keys that are neither integers nor strings on both sides.
    """
    if not keys:
        raise InvalidArgument("expected the names of one or more key columns, got none")
    columns = {name: _aligned_key(name, training[name], serving[name]) for name in keys}
    codes = _codes(list(columns.values()))
    here, there = codes[: len(training)], codes[len(training) :]
    n_keys = int(codes.max(initial=-1)) + 1
    in_training, in_serving = (
        np.bincount(side[side >= 0], minlength=n_keys) for side in (here, there)
    )
    matched = (in_training == 1) & (in_serving == 1)
    rows, others = (_row_of_key(side, n_keys)[matched] for side in (here, there))
    found = pa.table({name: column.take(pa.array(rows)) for name, (column, _) in columns.items()})
    order = pc.sort_indices(found, sort_keys=[(name, "ascending") for name in columns])
    counts = KeyCounts(
        matched=int(matched.sum()),
        only_in_training=int(((in_training == 1) & (in_serving == 0)).sum()),
        only_in_serving=int(((in_training == 0) & (in_serving == 1)).sum()),
        duplicated_in_training=int((in_training > 1).sum()),
        duplicated_in_serving=int((in_serving > 1).sum()),
        rows_without_key_in_training=int((here < 0).sum()),
        rows_without_key_in_serving=int((there < 0).sum()),
    )
    ranks = order.to_numpy()
    return Join(found.take(order), rows[ranks], others[ranks], counts)


def _aligned_key(
    name: str, training: ArrowArray, serving: ArrowArray
) -> tuple[ArrowArray, ArrowArray]:
    aligned = align(f"key {name!r}", training, serving)
    if not (pa.types.is_integer(aligned[0].type) or pa.types.is_large_binary(aligned[0].type)):
        raise InvalidArgument(
            f"key {name!r}: expected integers or strings, got {training.type} in training and "
            f"{serving.type} in serving; name other key columns"
        )
    return aligned


def _codes(columns: Sequence[tuple[ArrowArray, ArrowArray]]) -> Rows:
    """A number for every row, training's first: equal for equal keys, -1 where there is none."""
    codes: ArrowArray = None
    for pair in columns:
        encoded = pa.concat_arrays(pair).dictionary_encode()
        indices = encoded.indices.cast(pa.int64())
        if codes is not None:  # nulls stay null in sums, so a key is null if any part of it is
            indices = pc.add(pc.multiply(codes, max(len(encoded.dictionary), 1)), indices)
            indices = indices.dictionary_encode().indices.cast(pa.int64())
        codes = indices
    numbers: Rows = pc.fill_null(codes, -1).to_numpy()
    return numbers


def _row_of_key(codes: Rows, n_keys: int) -> Rows:
    has_key = np.flatnonzero(codes >= 0)
    rows = np.zeros(n_keys, np.int64)
    rows[codes[has_key]] = has_key
    return rows
