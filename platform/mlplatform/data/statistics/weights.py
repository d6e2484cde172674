"""Weights of rows: checked, and added up so that the order of adding does not matter.

Enters: a record batch and the name of its column of weights.  Leaves: float64 [rows], and sums of
them as integers ("units", int64 [..., 2]): floating-point sums depend on the order in which a
runner merges, integer ones do not.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mlplatform.data.files.columns import Kind, is_list
from mlplatform.errors import InvalidArgument

Weights = NDArray[np.float64]
Units = NDArray[np.int64]

LARGEST = 2.0**24
# A sum is coarse / 2**10 + fine / 2**50.  Half a billion rows of the largest weight fit the first,
# and 16 million sums the second.
_COARSE, _FINE = 2.0**10, 2.0**50
NO_UNITS: Units = np.zeros(2, np.int64)


def to_units(sums: NDArray[Any]) -> Units:
    """Exact sums of floats, [...] to [..., 2]: add them, in any order, and `from_units` them."""
    coarse = np.rint(sums * _COARSE)
    fine = np.rint((sums - coarse / _COARSE) * _FINE)
    return np.stack([coarse, fine], axis=-1).astype(np.int64)


def from_units(units: Units) -> Any:
    """The sums as float64, [..., 2] to [...]."""
    return units[..., 0] / _COARSE + units[..., 1] / _FINE


def total(weights: Weights) -> Units:
    return to_units(weights.sum())


def require_weight_column(dataset: str, kinds: Mapping[str, Kind], column: str | None) -> None:
    """Raise InvalidArgument unless the column, if there is to be one, is there and has numbers."""
    if column is not None and kinds.get(column, "STRING") == "STRING":
        raise InvalidArgument(
            f"data set {dataset!r}: expected a column {column!r} of numbers as weights, got "
            f"{'one of strings' if column in kinds else 'none'}; name another column"
        )


def read_weights(batch: pa.RecordBatch, column: str, path: Path, first_row: int) -> Weights:
    """The weight of every row, float64 [rows].

    Raises:
        InvalidArgument: the file lacks the column, or a row has not one weight, or one below 0,
            above `LARGEST` or not finite.
    """
    if column not in batch.schema.names:
        raise InvalidArgument(
            f"{path}: expected a column {column!r} with one weight a row, got no such column; "
            "write the weights into every file or describe the data set without them"
        )
    values: Any = batch.column(column)
    if is_list(values.type):
        has_one = pc.equal(pc.list_value_length(values), 1)
        if not pc.all(has_one, skip_nulls=False).as_py():
            row = pc.index(pc.fill_null(has_one, False), False).as_py()
            raise InvalidArgument(
                f"{path}: expected one weight a row in column {column!r}, got {values[row]} in row "
                f"{first_row + row}; correct the weights"
            )
        values = values.flatten()
    numbers = values.cast(pa.float64()).fill_null(np.nan)
    weights: Weights = numbers.to_numpy(zero_copy_only=False)
    if not (is_weight := (weights >= 0) & (weights <= LARGEST)).all():
        row = int(np.flatnonzero(~is_weight)[0])
        got = values[row].as_py()
        raise InvalidArgument(
            f"{path}: expected weights from 0 to {LARGEST:.0f} in column {column!r}, got "
            f"{'none' if got is None else got} in row {first_row + row}; correct the weights "
            "or scale them"
        )
    return weights
