"""Slices: the rows that share the values of one or several columns.

Enters: columns of strings or integers.  Leaves: codes of their values, slices by code, names of
slices.  A row without a value of a column is in none of the column's slices.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mlplatform.data.files.columns import kind_of
from mlplatform.errors import InvalidArgument
from mlplatform.evaluation.rows import Ints

MOST_VALUES = 500
MOST_SLICES = 500

Where = tuple[tuple[str, str], ...]  # columns and values


def name_of(where: Where) -> str:
    """COLUMN=VALUE, ..."""
    return ", ".join(f"{column}={value}" for column, value in where)


@dataclass(frozen=True)
class Cross:
    """Columns, and every combination of their values, which have codes from 0.

    values: of each column, in the order of their own codes.
    """

    columns: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return prod(len(values) for values in self.values)

    def codes(self, of_column: Mapping[str, NDArray[np.int16]], rows: int) -> Ints:
        """The code of every row, -1 if it lacks a value; `[rows]`."""
        code, outside = np.zeros(rows, np.int64), np.zeros(rows, bool)
        for column, values in zip(self.columns, self.values, strict=True):
            code = code * len(values) + of_column[column]
            outside |= of_column[column] < 0
        code[outside] = -1
        return code

    def where(self, code: int) -> Where:
        at = np.unravel_index(code, [len(values) for values in self.values]) if self.columns else ()
        pairs = zip(self.columns, self.values, at, strict=True)
        return tuple((column, values[place]) for column, values, place in pairs)


@dataclass(frozen=True)
class Slicing:
    """The slices of a cross that are evaluated, numbered from 0.

    kept: their codes, ascending.   dropped: how many others there are that have rows.
    """

    cross: Cross
    kept: Ints
    dropped: int

    def __len__(self) -> int:
        return len(self.kept)

    def numbers(self, of_column: Mapping[str, NDArray[np.int16]], rows: int) -> Ints:
        """Of every row the number of its slice, -1 if it is in none; `[rows]`."""
        number = np.full(len(self.cross) + 1, -1)
        number[self.kept] = np.arange(len(self.kept))
        return number[self.cross.codes(of_column, rows)]

    @property
    def wheres(self) -> list[Where]:
        return [self.cross.where(code) for code in self.kept.tolist()]


def distinct_values(column: Any, name: str, path: Path) -> set[str]:
    """The values of a column as text, without null.

    Raises:
        InvalidArgument: it is neither of strings nor of integers, or has too many values.
    """
    if pa.types.is_nested(column.type) or kind_of(column.type) == "FLOAT":
        raise InvalidArgument(
            f"{path}: expected a column {name!r} of strings or integers to slice by, got "
            f"{column.type}; make buckets of it first"
        )
    if pa.types.is_dictionary(column.type):  # which may have values that no row has
        values = column.dictionary.take(pc.unique(column.indices).drop_null())
    else:
        values = pc.unique(column)
    require_few_values(name, len(values))
    return {text for text in _as_text(values) if text is not None}


def require_few_values(name: str, values: int) -> None:
    if values > MOST_VALUES:
        raise InvalidArgument(
            f"column {name!r}: expected at most {MOST_VALUES} values to slice by, got {values:,} "
            "or more; make buckets of it first"
        )


def codes_of(column: Any, values: Sequence[str]) -> NDArray[np.int16]:
    """The place of each row's value among `values`, -1 of null; int16 `[n]`."""
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    places = {value: place for place, value in enumerate(values)}
    known = [-1 if text is None else places.get(text, -1) for text in _as_text(encoded.dictionary)]
    codes = encoded.indices.cast(pa.int64()).fill_null(len(known)).to_numpy()
    return np.array([*known, -1], np.int16)[codes]


def _as_text(values: Any) -> list[str | None]:
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.uint8())
    if kind_of(values.type) == "STRING":
        values = values.cast(pa.binary())
        return [v if v is None else v.decode(errors="backslashreplace") for v in values.to_pylist()]
    return [v if v is None else str(v) for v in values.to_pylist()]
