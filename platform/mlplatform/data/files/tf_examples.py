"""tf.train.Example messages as Arrow columns, without TensorFlow.

Enters: bytes, and where messages stand in them.  Leaves: for every feature its kind and a column
of lists.  A feature that an example lacks, or has without a kind, is missing; an empty list is
present.  Of a feature or a list that stands there twice the last one counts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mlplatform.data.files.columns import Kind
from mlplatform.data.files.wire import (
    FIXED32,
    LENGTH,
    VARINT,
    Bytes,
    Fields,
    Malformed,
    Spans,
    as_binary,
    decode_varints,
    gather,
    split_fields,
)

_KINDS: Mapping[int, Kind] = {1: "STRING", 2: "FLOAT", 3: "INT"}  # by field number in Feature
_TYPES: Mapping[Kind, Any] = {"STRING": pa.binary(), "FLOAT": pa.float32(), "INT": pa.int64()}


@dataclass(frozen=True)
class Found:
    """One feature: its kind, and where the lists of those rows stand that have it."""

    kind: Kind
    lists: Spans


class MixedKinds(Exception):
    """A feature is a list of one kind in one example and of another elsewhere."""

    def __init__(self, name: str, row: int, kinds: tuple[Kind, Kind]) -> None:
        super().__init__(name, row, kinds)
        self.name, self.row, self.kinds = name, row, kinds


def find_features(data: Bytes, examples: Spans) -> dict[str, Found | None]:
    """Where every feature's lists stand; None of a feature that never has a kind.

    Raises:
        Malformed: an example is no such message, or the name of a feature is not UTF-8.
        MixedKinds: a feature has lists of two kinds.
    """
    features = _only(split_fields(data, examples), number=1).spans
    entries = _only(split_fields(data, features), number=1).spans
    parts = split_fields(data, entries)
    # An entry without a key or a value has an empty one.
    keys = _last_of_each(entries, _only(parts, number=1))
    values = _last_of_each(entries, _only(parts, number=2))
    codes, names = _encode_names(data, keys)
    kept = _last_places(entries.rows * max(len(names), 1) + codes)
    codes, values = codes[kept], values[kept]
    lists = _only(split_fields(data, values), number=None)
    lists = lists[np.isin(lists.numbers, list(_KINDS))]
    lists = lists[_last_places(lists.messages)]
    owners = codes[lists.messages]
    found: dict[str, Found | None] = dict.fromkeys(names)
    order = np.argsort(owners, kind="stable")
    limits = np.searchsorted(owners[order], np.arange(len(names) + 1))
    for code, name in enumerate(names):
        some = lists[order[limits[code] : limits[code + 1]]]
        if len(some.numbers):
            number = int(some.numbers[0])
            if (is_other := some.numbers != number).any():
                other = int(np.flatnonzero(is_other)[0])
                kinds = _KINDS[number], _KINDS[int(some.numbers[other])]
                raise MixedKinds(name, int(some.spans.rows[other]), kinds)
            found[name] = Found(_KINDS[number], some.spans)
    return found


def column_of(data: Bytes, found: Found | None, kind: Kind, rows: int) -> Any:
    """A list array [rows] of a feature, missing where no list was found.

    Raises:
        Malformed: a list is not one of its kind.
    """
    if found is None:
        return pa.nulls(rows, pa.list_(_TYPES[kind]))
    fields = split_fields(data, found.lists)
    fields = fields[fields.numbers == 1]
    if kind == "STRING":
        _require_wires(fields, LENGTH)
        values, counts = as_binary(data, fields.spans), np.ones(len(fields.numbers), np.int64)
    else:
        _require_wires(fields, LENGTH, FIXED32 if kind == "FLOAT" else VARINT)
        content, offsets = gather(data, fields.spans)
        if kind == "FLOAT":
            if (uneven := fields.spans.lengths % 4 != 0).any():
                raise Malformed(int(fields.spans.rows[uneven][0]))
            values, counts = pa.array(content.view("<f4")), fields.spans.lengths // 4
        else:
            numbers, ends = decode_varints(content)
            counts = np.diff(np.searchsorted(ends, offsets, side="right"))
            is_cut = np.diff(offsets) > 0
            is_cut &= ~np.isin(offsets[1:], ends)
            if is_cut.any():
                raise Malformed(int(fields.spans.rows[is_cut][0]))
            values = pa.array(numbers)
    lengths = np.bincount(fields.spans.rows, counts, rows).astype(np.int64)
    is_missing = np.ones(rows, np.bool_)
    is_missing[found.lists.rows] = False
    limits = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    return pa.ListArray.from_arrays(limits, values, mask=pa.array(is_missing))


def _only(fields: Fields, number: int | None) -> Fields:
    """The fields of that number, all of which must have a length."""
    fields = fields if number is None else fields[fields.numbers == number]
    _require_wires(fields, LENGTH)
    return fields


def _require_wires(fields: Fields, *wires: int) -> None:
    if not (is_right := np.isin(fields.wires, wires)).all():
        raise Malformed(int(fields.spans.rows[~is_right][0]))


def _last_of_each(messages: Spans, fields: Fields) -> Spans:
    """The last of the fields of each message, an empty span where there is none."""
    starts, ends = messages.ends.copy(), messages.ends.copy()
    # Of several the last assignment stays.
    starts[fields.messages], ends[fields.messages] = fields.spans.starts, fields.spans.ends
    return Spans(messages.rows, starts, ends)


def _last_places(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each distinct key stands for the last time, ascending."""
    _, last = np.unique(keys[::-1], return_index=True)
    return np.sort(len(keys) - 1 - last)


def _encode_names(data: Bytes, keys: Spans) -> tuple[NDArray[np.int64], list[str]]:
    encoded: Any = as_binary(data, keys).dictionary_encode()
    codes = encoded.indices.to_numpy().astype(np.int64)
    try:
        names = [name.decode() for name in encoded.dictionary.to_pylist()]
    except UnicodeDecodeError as error:
        raise Malformed(int(keys.rows[0])) from error
    return codes, names
