"""Rows that models were scored on, read from Arrow batches and checked.

Enters: a record batch and the task.  Leaves: a `Block` of numpy columns.  A value that cannot be
right, a score that is not finite say, is one line that names the model, the file and the row.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mlplatform.data.files.columns import kind_of
from mlplatform.data.files.shards import Piece, read_batches
from mlplatform.errors import InvalidArgument
from mlplatform.evaluation.rows import Floats
from mlplatform.evaluation.slicing import codes_of
from mlplatform.evaluation.task import Task

Hashes = NDArray[np.uint64]
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_BASE = np.uint64(0x9E3779B97F4A7C15)
_GAVE = {
    "probability": "probabilities from 0 to 1",
    "score": "finite scores",
    "rank": "whole ranks from 0",
}


@dataclass(frozen=True)
class Block:
    """Columns of n rows.

    user, query: hashes of 64 bits; query is zeros without.
    label: int8, 0 or 1; ones without.
    given: what the models gave, in their order, float64 `[models, n]`.
    codes: of the columns to slice by, int16 `[columns, n]`, -1 where there is no value.
    """

    user: Hashes
    query: Hashes
    label: NDArray[np.int8]
    given: Floats
    codes: NDArray[np.int16]

    def take(self, rows: Any) -> Self:
        return type(self)(*(getattr(self, field.name)[..., rows] for field in fields(self)))

    @classmethod
    def concatenate(cls, blocks: Sequence[Self]) -> Self:
        columns = ([getattr(one, field.name) for one in blocks] for field in fields(cls))
        return cls(*(np.concatenate(parts, axis=-1) for parts in columns))


def read_blocks(task: Task, values: Mapping[str, Sequence[str]], piece: Piece) -> Iterator[Block]:
    """The rows of a piece.

    Args:
        values: of each column to slice by, in the order of their codes.

    Raises:
        DataCorrupt, InvalidArgument: as `read_batches` and `read_block` do.
    """
    for first_row, batch in read_batches(piece):
        codes = [codes_of(batch.column(name), values[name]) for name in task.slice_columns]
        stacked = np.array(codes, np.int16).reshape(len(codes), len(batch))
        yield read_block(task, batch, piece.path, first_row, stacked)


def read_block(
    task: Task, batch: pa.RecordBatch, path: Path, first_row: int, codes: NDArray[np.int16]
) -> Block:
    """The batch as numpy columns; `codes` are those of the slices.

    Raises:
        InvalidArgument: a column is missing, or a value is: it is null, NaN, not of its range.
    """
    for name in task.columns:
        if name not in batch.schema.names:
            raise InvalidArgument(
                f"{path}: expected a column {name!r}, got {', '.join(batch.schema.names)}; "
                "write it into every file"
            )
    rows = len(batch)

    def require(right: Any, values: Any, who: str, column: str, expected: str) -> None:
        if not right.all():
            row = int(np.flatnonzero(~right)[0])
            value = values[row].as_py()
            raise InvalidArgument(
                f"{path}: expected {expected} of {who} in column {column!r}, got "
                f"{'none' if value is None else value} in row {first_row + row}; "
                "score the rows again or leave those out"
            )

    def numbers(column: str, who: str, expected: str) -> tuple[Any, Floats]:
        values = batch.column(column)
        if kind_of(values.type) == "STRING" or pa.types.is_nested(values.type):
            raise InvalidArgument(
                f"{path}: expected {expected} of {who} in column {column!r}, got {values.type}; "
                "name another column"
            )
        cast = values.cast(pa.float64()).fill_null(np.nan)
        return values, cast.to_numpy(zero_copy_only=False)

    label = np.ones(rows, np.int8)
    if task.label is not None:
        values, found = numbers(task.label, "the label", "0 or 1")
        require((found == 0) | (found == 1), values, "the label", task.label, "0 or 1")
        label = found.astype(np.int8)
    given = np.empty((len(task.models), rows))
    for number, (name, model) in enumerate(task.models.items()):
        who, expected = f"model {name!r}", _GAVE[model.gives]
        values, found = numbers(model.column, who, expected)
        right = np.isfinite(found)
        if model.gives == "probability":
            right &= (found >= 0) & (found <= 1)
        elif model.gives == "rank":
            right &= (found >= 0) & (found == np.floor(found))
        require(right, values, who, model.column, expected)
        given[number] = found
    keys = []
    for column in (task.user, task.query):
        if column is None:
            keys.append(np.zeros(rows, np.uint64))
            continue
        values = batch.column(column)
        require(
            values.is_valid().to_numpy(zero_copy_only=False), values, "the row", column, "a key"
        )
        keys.append(hash_keys(values, f"{path}: column {column!r}"))
    return Block(keys[0], keys[1], label, given, codes)


def hash_keys(values: Any, where: str) -> Hashes:
    """64 bits for each value, none of them null: one to one of integers, nearly so of strings.

    Among a million strings two have one hash in one case of 40 million.

    Raises:
        InvalidArgument: they are neither strings nor integers.
    """
    if pa.types.is_dictionary(values.type):
        return hash_keys(values.dictionary, where)[values.indices.to_numpy()]
    kind = None if pa.types.is_nested(values.type) else kind_of(values.type)
    if kind == "INT":
        if pa.types.is_boolean(values.type):
            values = values.cast(pa.uint8())
        return _mix(values.to_numpy().astype(np.uint64))
    if kind == "STRING":
        return _mix(_polynomials(pc.cast(values, pa.large_binary())))
    raise InvalidArgument(
        f"{where}: expected strings or integers, got {values.type}; "
        "write keys that can be told apart"
    )


def _mix(values: Hashes) -> Hashes:
    """A bijection after which every bit depends on every bit (splitmix64; Steele et al., 2014)."""
    with np.errstate(over="ignore"):
        mixed = values + _BASE
        mixed = (mixed ^ (mixed >> np.uint64(30))) * _MIX_1
        mixed = (mixed ^ (mixed >> np.uint64(27))) * _MIX_2
    return mixed ^ (mixed >> np.uint64(31))


def _polynomials(values: Any) -> Hashes:
    """The bytes of each string as a polynomial modulo 2**64, all strings at once."""
    _, offset_bytes, content = values.buffers()
    offsets = np.frombuffer(offset_bytes, np.int64)[values.offset : values.offset + len(values) + 1]
    lengths = np.diff(offsets)
    if not len(values) or not lengths.any():
        return lengths.astype(np.uint64)
    text = np.frombuffer(content, np.uint8)[offsets[0] : offsets[-1]]
    starts = offsets[:-1] - offsets[0]
    place = np.arange(len(text)) - np.repeat(starts, lengths)
    with np.errstate(over="ignore"):
        powers = np.multiply.accumulate(np.full(lengths.max(), _BASE))
        terms = _mix(text + np.uint64(1)) * powers[place]
        sums = np.append(np.uint64(0), np.cumsum(terms, dtype=np.uint64))
        result: Hashes = sums[starts + lengths] - sums[starts] + lengths.astype(np.uint64)
    return result
