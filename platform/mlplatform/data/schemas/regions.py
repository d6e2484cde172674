"""Differences of two schemas as regions of lines, which is how anomalies show a change.

Enters: two schemas as `Blocks`.  Leaves: `DiffRegion`s, whose lines are those of the text form.
A schema can have a hundred thousand lines, and there are as many changes to show as anomalies:
blocks that are the same on both sides are written as text once, and not compared line by line.
"""

from collections.abc import Iterator
from difflib import SequenceMatcher
from typing import TypeAlias

from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2

from mlplatform.data.schemas.schema import schema_text

# (encoded, lines) of each feature and domain, and of what else there is, in the order of the text.
Blocks: TypeAlias = list[tuple[bytes, list[str]]]
Opcode: TypeAlias = tuple[str, int, int, int, int]
_CONTEXT = 3


def blocks_of(schema: schema_pb2.Schema, known: Blocks | None = None) -> Blocks:
    """The text form of a schema in pieces.

    Args:
        known: of a similar schema, to take the text from where they are the same.
    """
    lines = dict(known or ())
    blocks = []
    for part in _parts(schema):
        encoded = part.SerializeToString(deterministic=True)
        blocks.append((encoded, lines.get(encoded) or schema_text(part).splitlines()))
    return blocks


def diff_regions(old: Blocks, new: Blocks) -> list[anomalies_pb2.DiffRegion]:
    """The lines of two schemas as regions in order; lines far from any difference are hidden.

    Lines are counted from 1.  Equal schemas have no regions.
    """
    opcodes = _join_equal(_compare(old, new))
    if all(tag == "equal" for tag, *_ in opcodes):
        return []
    left, right = _lines(old), _lines(new)
    regions: list[anomalies_pb2.DiffRegion] = []
    for position, (tag, first, last, start, end) in enumerate(opcodes):
        region = anomalies_pb2.DiffRegion()
        if tag == "equal":
            before = _CONTEXT if position else 0
            after = _CONTEXT if position < len(opcodes) - 1 else 0
            regions += _equal(left, first, last, start - first, before, after)
            continue
        if tag == "delete":
            region.removed.start = first + 1
            region.removed.contents.extend(left[first:last])
        elif tag == "insert":
            region.added.start = start + 1
            region.added.contents.extend(right[start:end])
        else:
            region.changed.left_start, region.changed.right_start = first + 1, start + 1
            region.changed.left_contents.extend(left[first:last])
            region.changed.right_contents.extend(right[start:end])
        regions.append(region)
    return regions


def _parts(schema: schema_pb2.Schema) -> Iterator[schema_pb2.Schema]:
    """Schemas whose texts, one after the other, are that of `schema`."""
    for field, value in schema.ListFields():
        is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
        if field.is_repeated and field.message_type is not None and not is_map:
            for one in value:
                yield schema_pb2.Schema(**{field.name: [one]})
        else:
            yield schema_pb2.Schema(**{field.name: value})


def _lines(blocks: Blocks) -> list[str]:
    return [line for _, lines in blocks for line in lines]


def _compare(old: Blocks, new: Blocks) -> Iterator[Opcode]:
    """Opcodes of lines, as of `SequenceMatcher`: by block, and by line in blocks that differ."""
    left_keys, right_keys = ([key for key, _ in blocks] for blocks in (old, new))
    left_at = right_at = 0
    for tag, i, j, k, m in SequenceMatcher(None, left_keys, right_keys, False).get_opcodes():
        left, right = _lines(old[i:j]), _lines(new[k:m])
        inner = [(tag, 0, len(left), 0, len(right))]
        if tag == "replace":
            inner = SequenceMatcher(None, left, right, False).get_opcodes()
        for name, first, last, start, end in inner:
            yield name, left_at + first, left_at + last, right_at + start, right_at + end
        left_at, right_at = left_at + len(left), right_at + len(right)


def _join_equal(opcodes: Iterator[Opcode]) -> list[Opcode]:
    joined: list[Opcode] = []
    for opcode in opcodes:
        if joined and joined[-1][0] == opcode[0] == "equal":
            _, first, _, start, _ = joined.pop()
            opcode = ("equal", first, opcode[2], start, opcode[4])
        joined.append(opcode)
    return joined


def _equal(
    lines: list[str], first: int, last: int, offset: int, before: int, after: int
) -> Iterator[anomalies_pb2.DiffRegion]:
    """Lines `first` to `last`, the same in both texts; of many only those near a difference."""
    hide_from, hide_to = min(first + before, last), max(last - after, first)
    if hide_to <= hide_from:
        hide_from = hide_to = last
    for begin, stop, is_hidden in (
        (first, hide_from, False),
        (hide_from, hide_to, True),
        (hide_to, last, False),
    ):
        if begin == stop:
            continue
        region = anomalies_pb2.DiffRegion()
        shown = region.hidden if is_hidden else region.unchanged
        shown.left_start, shown.right_start = begin + 1, begin + offset + 1
        if is_hidden:
            region.hidden.size = stop - begin
        else:
            region.unchanged.contents.extend(lines[begin:stop])
        yield region
