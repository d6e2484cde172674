"""Differences of two schemas, as a list for people.

Enters: two schemas.  Leaves: `Difference`s by feature.  As lines of text they are in `regions`.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf import text_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from tensorflow_metadata.proto.v0 import schema_pb2

# Messages that are listed by name: what is compared is those of the same name.
_NAMED = ("feature", "sparse_feature", "weighted_feature")
_DOMAINS = ("string_domain", "int_domain", "float_domain")


@dataclass(frozen=True)
class Difference:
    """subject: 'feature NAME', 'string_domain NAME (of FEATURE, ...)' or 'schema'."""

    subject: str
    text: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.text}"


def diff(old: schema_pb2.Schema, new: schema_pb2.Schema) -> list[Difference]:
    """What was added, removed and changed, field by field; order says nothing."""
    result: list[Difference] = []
    for field in (*_NAMED, *_DOMAINS):
        before = {one.name: one for one in getattr(old, field)}
        after = {one.name: one for one in getattr(new, field)}
        for name in {**before, **after}:
            subject = f"{field} {name!r}"
            if field in _DOMAINS:
                users = {f.name: None for f in (*old.feature, *new.feature) if f.domain == name}
                subject += f" (of {', '.join(users)})" if users else ""
            if name not in after:
                result.append(Difference(subject, "removed"))
            elif name not in before:
                result.append(Difference(subject, f"added with {_show(after[name])}"))
            else:
                lines = _diff_messages(before[name], after[name], "")
                result += [Difference(subject, line) for line in lines]
    rest_before, rest_after = _without_named(old), _without_named(new)
    result += [Difference("schema", line) for line in _diff_messages(rest_before, rest_after, "")]
    return result


def _without_named(schema: schema_pb2.Schema) -> schema_pb2.Schema:
    rest = schema_pb2.Schema()
    rest.CopyFrom(schema)
    for field in (*_NAMED, *_DOMAINS):
        rest.ClearField(field)
    return rest


def _diff_messages(old: Any, new: Any, path: str) -> Iterator[str]:
    """A line for each field, at any depth, that is not the same in two messages of one type."""
    fields = {field for message in (old, new) for field, _ in message.ListFields()}
    for field in sorted(fields, key=lambda field: field.number):
        before, after = getattr(old, field.name), getattr(new, field.name)
        here = f"{path}{field.name}"
        if field.is_repeated:
            yield from _diff_lists(_elements(before, field), _elements(after, field), here)
        elif not old.HasField(field.name):
            yield f"{here} set to {_show(after, field)}"
        elif not new.HasField(field.name):
            yield f"{here} cleared, was {_show(before, field)}"
        elif field.message_type is not None:
            yield from _diff_messages(before, after, f"{here}.")
        elif before != after:
            yield f"{here} {_show(before, field)} -> {_show(after, field)}"


def _diff_lists(old: list[str], new: list[str], path: str) -> Iterator[str]:
    added, removed = Counter(new) - Counter(old), Counter(old) - Counter(new)
    if added:
        yield f"{path} added {', '.join(sorted(added.elements()))}"
    if removed:
        yield f"{path} removed {', '.join(sorted(removed.elements()))}"
    if old != new and not added and not removed:
        yield f"{path} reordered"


def _elements(values: Any, field: FieldDescriptor) -> list[str]:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return [f"{key!r} {_show(values[key])}" for key in sorted(values)]
    return [_show(value, field) for value in values]


def _show(value: Any, field: FieldDescriptor | None = None) -> str:
    if isinstance(value, Message):
        return f"{{ {text_format.MessageToString(value, as_one_line=True, as_utf8=True).strip()} }}"
    if field is not None and field.enum_type is not None:
        return str(field.enum_type.values_by_number[value].name)
    return f"{value:g}" if isinstance(value, float) else repr(value)
