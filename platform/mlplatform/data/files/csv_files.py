"""CSV files with a header row: a first pass decides the columns' types, a second one reads.

Enters: paths of UTF-8 files, commas between the fields, `"` around those with commas, quotes or
line breaks; a name that ends in .gz is decompressed.  Leaves: `Contents` and record batches.

Nothing is coerced: a column is INT if all its fields are integers of 64 bits, FLOAT if all are
numbers ('nan' and 'inf' are), and otherwise STRING; ' 1', '0x1F', '$4.99' and '10,000+' are
strings, and so is a column with an integer of more than 64 bits, of which a float would lose
digits.  An empty field is missing, with quotes or without.  An empty line is no row, except in a
file of one column, where it is a missing field.
"""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from mlplatform.data.files.columns import ArrowArray, ArrowType, Kind
from mlplatform.data.files.contents import (
    Contents,
    Part,
    first_line,
    open_file,
    require_distinct,
)
from mlplatform.errors import DataCorrupt

# Also the longest row: Arrow wants a row to end in the block after the one that it begins in.
_BLOCK_BYTES = 1 << 22
_SHOWN = 40  # fields of a faulty row, and characters of a field
_WIDENING: tuple[Kind | None, ...] = (None, "INT", "FLOAT", "STRING")
_TYPES: Mapping[Kind, ArrowType] = {
    "INT": pa.int64(),
    "FLOAT": pa.float64(),
    "STRING": pa.binary(),  # which may hold what is not UTF-8, to be counted
}


def inspect(path: Path) -> Contents:
    """Read a whole file, to count its rows and to find the kind of every column.

    Raises:
        NotFound: the file does not exist.
        DataCorrupt: it is empty, its header is no header, a row has too many or too few fields,
            a quote is never closed, or a compressed file is cut off.
    """
    names = _read_header(path)
    kinds: dict[str, Kind | None] = dict.fromkeys(names)
    rows, last_row = 0, None
    with (
        ThreadPoolExecutor() as pool,
        _batches(path, names, dict.fromkeys(names, "STRING")) as batches,
    ):
        for batch in batches:
            found = pool.map(_kind_of, batch.columns, kinds.values())
            kinds = {
                name: widest(kinds[name], kind) for name, kind in zip(names, found, strict=True)
            }
            rows += len(batch)
            last_row = batch.slice(len(batch) - 1)
    # What was added to the file as a row of its own (see `_Padded`) belongs to a quoted field.
    if last_row is None or any(column.null_count == 0 for column in last_row.columns):
        raise DataCorrupt(
            f"{path}: expected every quoted field to end, got one that is still open at the end "
            "of the file; the file is cut off or a quote is missing: write it again"
        )
    return Contents(kinds, (Part(0, rows - 1),))


def read(path: Path, parts: Sequence[Part], kinds: Mapping[str, Kind]) -> Iterator[pa.RecordBatch]:
    """Yield all rows of a file in batches, its columns as `kinds` says.

    Raises:
        DataCorrupt: the file is not what it was when it was inspected.
    """
    names = _read_header(path)
    remaining = sum(part.rows for part in parts)
    with _batches(path, names, kinds) as batches:
        for batch in batches:
            if remaining:
                yield batch.slice(0, remaining)
                remaining -= min(remaining, len(batch))


def widest(*kinds: Kind | None) -> Kind | None:
    """The narrowest kind that every value of these kinds has as text."""
    return max(kinds, key=_WIDENING.index)


def _kind_of(column: ArrowArray, known: Kind | None) -> Kind | None:
    """The kind of a block of a column of which the blocks before are `known`."""
    strings = column.drop_null()
    if known == "STRING" or not len(strings):
        return known
    if known != "FLOAT" and _cast(strings, pa.int64()) is not None:
        return "STRING" if _any_has(strings, b"x") else "INT"  # hexadecimal to Arrow
    numbers = _cast(strings, pa.float64())
    if numbers is None or _any_has(strings, b"("):  # nan(1) is a number to Arrow
        return "STRING"
    if np.nanmax(np.abs(numbers.to_numpy()), initial=0.0) >= 2.0**63:
        whole = strings.filter(pc.match_substring_regex(strings, r"^[+-]?[0-9]+$"))
        return "FLOAT" if _cast(whole, pa.int64()) is not None else "STRING"
    return "FLOAT"


def _cast(strings: ArrowArray, numbers: ArrowType) -> ArrowArray | None:
    try:
        return strings.cast(numbers)
    except pa.ArrowInvalid:
        return None


def _any_has(strings: ArrowArray, character: bytes) -> bool:
    content = strings.buffers()[2]
    if content is None or character not in content.to_pybytes().lower():
        return False  # which is nearly always so, and quickly found
    found: Any = pc.match_substring(strings, character, ignore_case=True)
    return bool(found.true_count)


def _read_header(path: Path) -> list[str]:
    with open_file(path, "CSV", _reason) as stream:
        # Only the header has to be UTF-8: invalid bytes in values are counted later.
        text = io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="")
        names = next(csv.reader(text), [])
        "".join(names).encode()
    if not names:
        raise DataCorrupt(
            f"{path}: expected a CSV file with a header row, got an empty first line or no line at "
            "all; write the file again from its source"
        )
    require_distinct(names, path)
    return names


@contextmanager
def _batches(
    path: Path, names: Sequence[str], kinds: Mapping[str, Kind]
) -> Iterator[Iterator[pa.RecordBatch]]:
    """The rows of the file and an empty one after them."""
    uneven: list[pyarrow.csv.InvalidRow] = []

    def refuse(row: pyarrow.csv.InvalidRow) -> str:
        uneven.append(row)
        return "error"

    try:
        with (
            open_file(path, "CSV", _reason) as stream,
            pyarrow.csv.open_csv(
                _Padded(stream, fields=len(names)),
                read_options=pyarrow.csv.ReadOptions(block_size=_BLOCK_BYTES),
                parse_options=pyarrow.csv.ParseOptions(
                    newlines_in_values=True,
                    ignore_empty_lines=len(names) > 1,
                    invalid_row_handler=refuse,
                ),
                convert_options=pyarrow.csv.ConvertOptions(
                    column_types={name: _TYPES[kinds[name]] for name in names},
                    null_values=[""],
                    strings_can_be_null=True,
                ),
            ) as reader,
        ):
            yield iter(reader)
    except DataCorrupt as error:
        if not uneven:
            raise
        raise DataCorrupt(
            f"{path}: expected {uneven[0].expected_columns} fields in every row as in the header, "
            f"got {uneven[0].actual_columns} {_find_uneven_row(path, names)}; "
            "correct the row or write the file again"
        ) from error


def _find_uneven_row(path: Path, names: Sequence[str]) -> str:
    """In which line the first row with too many or too few fields begins, and what it holds.

    Arrow counts rows, not lines, and threads do not count at all.  So the file is read again, row
    by row, up to the line that somebody has to look at.
    """
    with open_file(path, "CSV", _reason) as stream:
        reader = csv.reader(io.TextIOWrapper(stream, "utf-8", errors="replace", newline=""))
        first_line_of_row = 1
        with suppress(csv.Error):  # a field that Python finds too long, and Arrow does not
            for row in reader:
                if row and len(row) != len(names):
                    shown = zip_longest(names[:_SHOWN], row[:_SHOWN], fillvalue="(none)")
                    fields = (f"{name} = {field[:_SHOWN]!r}" for name, field in shown)
                    return f"in line {first_line_of_row} ({', '.join(fields)})"
                first_line_of_row = reader.line_num + 1
    return "in one"


def _reason(error: BaseException) -> str:
    if "straddling" in str(error):
        return f"a row of more than {_BLOCK_BYTES:,} bytes, or a quote that is never closed"
    return first_line(error)


class _Padded:
    """A stream and, behind it, a row of empty fields, which a quoted field still open swallows."""

    closed = False

    def __init__(self, stream: Any, fields: int) -> None:
        self._stream = stream
        self._row: bytes | None = b"," * (fields - 1) + b"\n"
        self._pending, self._last_byte = b"", b"\n"

    def read(self, size: int) -> bytes:
        # Arrow wants the end of a short file's header in the block that it begins in.
        while len(self._pending) < size and self._row is not None:
            block: bytes = self._stream.read(size)
            if block:
                self._last_byte = block[-1:]
            else:
                block = self._row if self._last_byte in b"\r\n" else b"\n" + self._row
                self._row = None
            self._pending += block
        block, self._pending = self._pending[:size], self._pending[size:]
        return block
