"""Schemas: what the data is expected to be, inferred once and then kept by people.

Enters and leaves: a tensorflow-metadata `Schema`, stored as text so that a change to it can be
reviewed.  Here are its file, its environments, and what it says of one feature.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from mlplatform.artifacts import write_file_atomically
from mlplatform.data.schemas.inference import (
    infer_schema as infer_schema,  # part of this module's surface
)
from mlplatform.errors import InvalidArgument, NotFound

# Domains are messages of several types with fields of the same names.
Domain = Any

RETIRED = frozenset(
    (
        schema_pb2.PLANNED,
        schema_pb2.ALPHA,
        schema_pb2.DEPRECATED,
        schema_pb2.DEBUG_ONLY,
        schema_pb2.DISABLED,
    )
)


def save_schema(schema: schema_pb2.Schema, path: Path) -> None:
    """Write `schema` as text."""
    write_file_atomically(path, schema_text(schema).encode())


def schema_text(schema: schema_pb2.Schema) -> str:
    """The text form that is stored."""
    text: str = text_format.MessageToString(schema, as_utf8=True)
    return text


def load_schema(path: Path) -> schema_pb2.Schema:
    """Read what `save_schema` or a person wrote.

    Raises:
        NotFound: there is no such file.
        InvalidArgument: the file is not the text form of a schema.
    """
    try:
        schema: schema_pb2.Schema = text_format.Parse(
            path.read_text(encoding="utf-8"), schema_pb2.Schema()
        )
    except FileNotFoundError as error:
        raise NotFound(f"{path}: expected a schema, found nothing; infer one first") from error
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise InvalidArgument(
            f"{path}: expected a schema as protobuf text, got a file that does not parse "
            f"({error}); correct that line or infer the schema again"
        ) from error
    return schema


def find_feature(schema: schema_pb2.Schema, name: str) -> schema_pb2.Feature:
    """The feature of that name, to be read or changed in place.

    Raises:
        InvalidArgument: the schema has no such feature.
    """
    for feature in schema.feature:
        if feature.name == name:
            return feature
    known = ", ".join(feature.name for feature in schema.feature)
    raise InvalidArgument(f"feature {name!r}: expected one of the schema's ({known})")


def live_features(schema: schema_pb2.Schema) -> Iterator[schema_pb2.Feature]:
    """The features of which anything is asked."""
    return (feature for feature in schema.feature if not is_retired(feature))


def named_features(schema: schema_pb2.Schema) -> Iterator[schema_pb2.Feature]:
    """Those of them that data can be compared with."""
    return (feature for feature in live_features(schema) if feature.name)


def is_categorical(feature: schema_pb2.Feature) -> bool:
    """Whether the feature's values are names and not quantities."""
    if feature.type == schema_pb2.INT:
        return feature.int_domain.is_categorical or feature.HasField("bool_domain")
    return bool(feature.type == schema_pb2.BYTES)


def find_domain(feature: schema_pb2.Feature, schema: schema_pb2.Schema) -> Domain | None:
    """The domain of a feature: its own or the shared one it names, to be read or changed in place.

    None if the feature has none, or names one that the schema lacks.
    """
    which = feature.WhichOneof("domain_info")
    if which != "domain":
        return getattr(feature, which) if which else None
    for shared in (*schema.string_domain, *schema.int_domain, *schema.float_domain):
        if shared.name == feature.domain:
            return shared
    return None


def is_retired(feature: Any) -> bool:
    """Whether the feature, of any sort, is at a stage at which nothing is asked of it."""
    return feature.lifecycle_stage in RETIRED or getattr(feature, "deprecated", False)


def is_in(environment: str | None, feature: schema_pb2.Feature, schema: schema_pb2.Schema) -> bool:
    """Whether a feature belongs to an environment; without one it does."""
    if environment is None or environment in feature.in_environment:
        return True
    return (
        environment in schema.default_environment and environment not in feature.not_in_environment
    )


def is_required(
    environment: str | None, feature: schema_pb2.Feature, schema: schema_pb2.Schema
) -> bool:
    """Whether data from an environment must have the feature."""
    presence = feature.presence
    return (
        not is_retired(feature)
        and (presence.min_count > 0 or presence.min_fraction > 0)
        and is_in(environment, feature, schema)
    )


def environments_of(schema: schema_pb2.Schema) -> list[str]:
    """Every environment that the schema names, in alphabetical order."""
    named = set(schema.default_environment)
    for feature in schema.feature:
        named.update(feature.in_environment, feature.not_in_environment)
    return sorted(named)


def set_environments(
    schema: schema_pb2.Schema,
    feature: str,
    *,
    in_environments: Iterable[str] = (),
    not_in_environments: Iterable[str] = (),
) -> None:
    """Say in which environments `feature` is expected, besides or against the default ones.

    A feature belongs to every default environment that it is not excluded from.  An environment
    that is new to the schema and named in `not_in_environments` becomes a default one, for
    otherwise no feature would be in it.

    Raises:
        InvalidArgument: the schema has no such feature, or an environment is on both sides.
    """
    chosen = find_feature(schema, feature)
    inside, outside = set(in_environments), set(not_in_environments)
    if both := sorted(inside & outside):
        raise InvalidArgument(
            f"feature {feature!r}: expected an environment either in or out, got "
            f"{', '.join(both)} on both sides"
        )
    schema.default_environment.extend(sorted(outside - set(environments_of(schema))))
    chosen.in_environment[:] = sorted((set(chosen.in_environment) | inside) - outside)
    chosen.not_in_environment[:] = sorted((set(chosen.not_in_environment) | outside) - inside)
