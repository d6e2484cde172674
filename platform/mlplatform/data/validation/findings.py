"""Findings: ways in which data contradicts its schema, and the changes that would accept them.

Enters: what a check saw.  Leaves: a `Finding`.  A change is a function that alters a schema in
place; `accept` applies changes to a copy.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2

from mlplatform.data.schemas.schema import find_domain, find_feature
from mlplatform.data.validation.facts import Statistics
from mlplatform.errors import InvalidArgument

Types: TypeAlias = anomalies_pb2.AnomalyInfo
SchemaChange = Callable[[schema_pb2.Schema], None]
Change = Callable[[Any], None]

# A feature whose annotation has this tag gives warnings instead of errors.
WARN_ONLY = "warn_only"


@dataclass(frozen=True)
class Finding:
    """One way in which the data contradicts the schema, or the schema itself.

    Attributes:
        feature: the name of the feature, None for the data set as a whole.
        type: an `AnomalyInfo.Type`.
        short_description, description: what was expected and what came.
        severity: an `AnomalyInfo.Severity`.
        change: alters a schema so that the finding no longer arises; None when none can.
    """

    feature: str | None
    type: int
    short_description: str
    description: str
    change: SchemaChange | None
    severity: int = anomalies_pb2.AnomalyInfo.ERROR

    @property
    def type_name(self) -> str:
        return str(anomalies_pb2.AnomalyInfo.Type.Name(self.type))


@dataclass(frozen=True)
class Observed:
    """A feature that is in both the schema and the data: what a check looks at."""

    schema: schema_pb2.Schema
    feature: schema_pb2.Feature
    statistics: Statistics

    def finding(
        self,
        kind: int,
        short: str,
        description: str,
        change: Change | None = None,
        *,
        domain_change: Change | None = None,
        schema_change: SchemaChange | None = None,
    ) -> Finding:
        """A finding that one of three changes accepts: of the feature, of its domain, wherever
        that stands, or of the schema."""
        found = finding_of(self.feature, kind, short, description, change or (lambda _: None))
        if domain_change is not None:
            schema_change = _on_domain(self.feature.name, domain_change)
        return found if schema_change is None else replace(found, change=schema_change)


def finding_of(
    feature: schema_pb2.Feature, kind: int, short: str, description: str, change: Change
) -> Finding:
    """A finding that `change`, applied to the feature of that name, accepts."""
    is_warning = WARN_ONLY in feature.annotation.tag
    return Finding(
        feature.name,
        kind,
        short,
        description,
        lambda schema: change(find_feature(schema, feature.name)),
        Types.WARNING if is_warning else Types.ERROR,
    )


def accept(schema: schema_pb2.Schema, findings: Iterable[Finding]) -> schema_pb2.Schema:
    """A copy of `schema` with the changes of `findings`: the same data then gives none of them.

    Raises:
        InvalidArgument: a finding that no change of the schema can accept.
    """
    accepted = schema_pb2.Schema()
    accepted.CopyFrom(schema)
    for finding in findings:
        if finding.change is None:
            raise InvalidArgument(
                f"{finding.feature or 'data set'}: expected a finding that a change of the schema "
                f"accepts, got {finding.type_name}; correct the data"
            )
        finding.change(accepted)
    return accepted


def setting(path: str, value: object) -> Change:
    """The change that sets the field at `path`, for example 'presence.min_count'."""
    *parents, field = path.split(".")

    def change(message: Any) -> None:
        for parent in parents:
            message = getattr(message, parent)
        setattr(message, field, value)

    return change


def clearing(*paths: str) -> Change:
    """The change that clears the fields at `paths`; a oneof's name clears whichever is set."""

    def change(message: Any) -> None:
        for path in paths:
            *parents, field = path.split(".")
            holder = message
            for parent in parents:
                holder = getattr(holder, parent)
            holder.ClearField(field)

    return change


RETIRE = setting("lifecycle_stage", schema_pb2.DEPRECATED)
CLEAR_DOMAIN = clearing("domain_info", "distribution_constraints")


def _on_domain(feature: str, change: Change) -> SchemaChange:
    def change_schema(schema: schema_pb2.Schema) -> None:
        domain = find_domain(find_feature(schema, feature), schema)
        if domain is not None:
            change(domain)

    return change_schema
