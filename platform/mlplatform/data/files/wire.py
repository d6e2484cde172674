"""The wire format of protocol buffers, read for many messages at once.

Enters: bytes, and where messages stand in them.  Leaves: where their fields stand.  All messages
advance one field at a time, so what takes a loop is the longest message, not their number.
https://protobuf.dev/programming-guides/encoding
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Places = NDArray[np.int64]

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
PADDING = 16  # bytes behind the last message, so that reading ahead stays inside
_MOST_VARINT_BYTES = 10


class Malformed(Exception):
    """A message is none; `row` says which."""

    def __init__(self, row: int) -> None:
        super().__init__(row)
        self.row = row


@dataclass(frozen=True)
class Spans:
    """Stretches of bytes, each of a row.  rows, starts, ends: int64 [n], rows ascending."""

    rows: Places
    starts: Places
    ends: Places

    def __getitem__(self, kept: Any) -> Self:
        return type(self)(self.rows[kept], self.starts[kept], self.ends[kept])

    @property
    def lengths(self) -> Places:
        return self.ends - self.starts


@dataclass(frozen=True)
class Fields:
    """The fields of some messages, by message, in their order.

    messages: index of each field's message.   numbers, wires: the two parts of its tag.
    spans: its value, without the length before it.
    """

    messages: Places
    numbers: Places
    wires: Places
    spans: Spans

    def __getitem__(self, kept: Any) -> Self:
        return type(self)(
            self.messages[kept], self.numbers[kept], self.wires[kept], self.spans[kept]
        )


def split_fields(data: Bytes, messages: Spans) -> Fields:
    """The fields of every message.

    Raises:
        Malformed: a field reaches beyond its message, or is of no known wire type.
    """
    found: list[tuple[Places, ...]] = []
    active = np.flatnonzero(messages.starts < messages.ends)
    at = messages.starts[active]
    while len(active):
        rows, limits = messages.rows[active], messages.ends[active]
        tags, starts = _read_varints(data, at, rows)
        wires = tags & 7
        if not (is_known := np.isin(wires, (VARINT, FIXED64, LENGTH, FIXED32))).all():
            raise Malformed(int(rows[~is_known][0]))
        ends = starts + np.where(wires == FIXED32, 4, 8)
        has_length, is_varint = wires == LENGTH, wires == VARINT
        lengths, after = _read_varints(data, starts[has_length], rows[has_length])
        starts[has_length], ends[has_length] = after, after + np.clip(lengths, -1, len(data))
        _, ends[is_varint] = _read_varints(data, starts[is_varint], rows[is_varint])
        if not (is_inside := (ends <= limits) & (starts <= ends)).all():
            raise Malformed(int(rows[~is_inside][0]))
        found.append((active, tags >> 3, wires, rows, starts, ends))
        goes_on = ends < limits
        active, at = active[goes_on], ends[goes_on]
    if not found:
        nothing = np.zeros(0, np.int64)
        return Fields(nothing, nothing, nothing, Spans(nothing, nothing, nothing))
    columns = [np.concatenate(column) for column in zip(*found, strict=True)]
    order = np.argsort(columns[0], kind="stable")
    owners, numbers, wires, rows, starts, ends = (column[order] for column in columns)
    return Fields(owners, numbers, wires, Spans(rows, starts, ends))


def gather(data: Bytes, spans: Spans) -> tuple[Bytes, Places]:
    """The bytes of all spans laid end to end, and where each of them begins, then the end."""
    offsets = np.concatenate([[0], np.cumsum(spans.lengths)])
    moved = np.repeat(spans.starts - offsets[:-1], spans.lengths)
    return data[moved + np.arange(offsets[-1])], offsets


def as_binary(data: Bytes, spans: Spans) -> Any:
    """The spans as an Arrow array of bytes."""
    content, offsets = gather(data, spans)
    buffers = [None, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(content)]
    return pa.Array.from_buffers(pa.binary(), len(spans.rows), buffers)


def decode_varints(content: Bytes) -> tuple[Places, Places]:
    """Signed 64-bit integers laid end to end, and where the bytes of each end.

    A varint of more than ten bytes gives a wrong number, not an error.
    """
    ends = np.flatnonzero(content < 128) + 1
    if not len(ends):
        return np.zeros(0, np.int64), ends
    content = content[: ends[-1]]
    starts = np.concatenate([[0], ends[:-1]])
    positions = np.arange(len(content)) - np.repeat(starts, ends - starts)
    bits = (content & np.uint8(127)).astype(np.uint64) << (7 * positions).astype(np.uint64)
    return np.add.reduceat(bits, starts).view(np.int64), ends


def _read_varints(data: Bytes, at: Places, rows: Places) -> tuple[Places, Places]:
    """The varint at every place, as int64, and the places behind them."""
    values, places = np.zeros(len(at), np.int64), at.copy()
    active = np.arange(len(at))
    for position in range(_MOST_VARINT_BYTES):
        byte = data[np.minimum(places[active], len(data) - 1)].astype(np.int64)
        values[active] |= (byte & 127) << (7 * position)
        places[active] += 1
        active = active[byte >= 128]
        if not len(active):
            break
    if len(active):
        raise Malformed(int(rows[active[0]]))
    return values, places
