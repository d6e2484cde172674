"""TFRecord files of tf.train.Example: framed, checked by their checksums, read in blocks.

Enters: paths; a name that ends in .gz is decompressed.  Leaves: `Contents` and record batches, in
which every column is one of lists.  A first pass finds the features, for no header tells them.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mlplatform.data.files.columns import Kind
from mlplatform.data.files.contents import Contents, Part, open_file
from mlplatform.data.files.crc32c import masked_crc32c
from mlplatform.data.files.tf_examples import MixedKinds, column_of, find_features
from mlplatform.data.files.wire import PADDING, Bytes, Malformed, Places, Spans
from mlplatform.errors import DataCorrupt, InvalidArgument

_BLOCK_BYTES = 1 << 23
_LENGTH = struct.Struct("<Q")
_HEAD, _TAIL = 12, 4  # bytes of length and its checksum, of the data's checksum


@dataclass(frozen=True)
class _Block:
    """Whole records.  first: number of the first one in the file.  records: rows from 0."""

    data: Bytes
    first: int
    records: Spans


def inspect(path: Path) -> Contents:
    """Read a whole file, to count its examples and to find its features and their kinds.

    Raises:
        NotFound: the file does not exist.
        DataCorrupt: a record is cut off, does not match its checksum, or holds no example.
        InvalidArgument: a feature has lists of two kinds.
    """
    kinds: dict[str, Kind | None] = {}
    rows = 0
    for block in _blocks(path):
        with _naming(path, block.first):
            for name, found in find_features(block.data, block.records).items():
                before = kinds.setdefault(name, None)
                if found is not None:
                    if before not in (None, found.kind):
                        raise MixedKinds(name, int(found.lists.rows[0]), (before, found.kind))
                    kinds[name] = found.kind
        rows += len(block.records.rows)
    # Sorted: examples have their features in any order.
    return Contents({name: kinds[name] for name in sorted(kinds)}, (Part(0, rows),))


def read(path: Path, parts: Sequence[Part], kinds: Mapping[str, Kind]) -> Iterator[pa.RecordBatch]:
    """Yield all examples of a file in batches, their features as lists.

    Raises:
        DataCorrupt: the file is not what it was when it was inspected.
    """
    for block in _blocks(path):
        with _naming(path, block.first):
            rows = len(block.records.rows)
            found = find_features(block.data, block.records)
            columns = [
                column_of(block.data, found.get(name), kind, rows) for name, kind in kinds.items()
            ]
        # One column more, and away with it: without a column there would be no rows either.
        batch = pa.RecordBatch.from_arrays([*columns, pa.nulls(rows)], names=[*kinds, ""])
        yield batch.select(list(range(len(kinds))))


def _blocks(path: Path) -> Iterator[_Block]:
    first, left = 0, b""
    with open_file(path, "TFRecord") as stream:
        while True:
            # A record longer than a block is read block by block until it is whole.
            block: bytes = stream.read(max(_BLOCK_BYTES, len(left)))
            content = left + block
            starts, end = _frame(content)
            if not block:
                if left:
                    raise DataCorrupt(
                        f"{path}: expected whole records, got record {first} cut off after "
                        f"{len(left):,} bytes; write the file again from its source"
                    )
                return
            left = content[end:]
            if starts:
                data = np.frombuffer(content[:end] + bytes(PADDING), np.uint8)
                records = _check(path, data, first, np.array([*starts, end + _HEAD], np.int64))
                yield _Block(data, first, records)
                first += len(starts)
            elif len(content) >= _HEAD:
                _check_lengths(path, np.frombuffer(content, np.uint8), first, np.array([_HEAD]))


def _frame(content: bytes) -> tuple[list[int], int]:
    """Where the data of each whole record begins, and where the last of them ends.

    Each record says where the next one is: the one loop over rows, of an addition each.
    """
    starts: list[int] = []
    at, size, unpack = 0, len(content), _LENGTH.unpack_from
    while at + _HEAD <= size:
        after = at + _HEAD + unpack(content, at)[0] + _TAIL
        if after > size:
            break
        starts.append(at + _HEAD)
        at = after
    return starts, at


def _check(path: Path, data: Bytes, first: int, starts: Places) -> Spans:
    _check_lengths(path, data, first, starts[:-1])
    starts, ends = starts[:-1], starts[1:] - _HEAD - _TAIL
    wrong = masked_crc32c(data, starts, ends) != _stored(data, ends)
    _refuse(path, first, wrong, "data")
    return Spans(np.arange(len(starts)), starts, ends)


def _check_lengths(path: Path, data: Bytes, first: int, starts: Places) -> None:
    """Lengths come first: a wrong one makes what follows meaningless."""
    wrong = masked_crc32c(data, starts - _HEAD, starts - _TAIL) != _stored(data, starts - _TAIL)
    _refuse(path, first, wrong, "length")


def _refuse(path: Path, first: int, wrong: Any, what: str) -> None:
    if wrong.any():
        raise DataCorrupt(
            f"{path}: expected records that match their checksums, got another {what} in record "
            f"{first + int(np.argmax(wrong))}; write the file again from its source"
        )


def _stored(data: Bytes, at: Places) -> Any:
    return data[at[:, np.newaxis] + np.arange(4)].copy().view("<u4")[:, 0]


@contextmanager
def _naming(path: Path, first: int) -> Iterator[None]:
    try:
        yield
    except Malformed as error:
        raise DataCorrupt(
            f"{path}: expected a tf.train.Example in every record, got something else in record "
            f"{first + error.row}; write the file again from its source"
        ) from error
    except MixedKinds as error:
        raise InvalidArgument(
            f"{path}: expected feature {error.name!r} to be {error.kinds[0]} in all examples, got "
            f"{error.kinds[1]} in record {first + error.row}; write it with one type"
        ) from error
