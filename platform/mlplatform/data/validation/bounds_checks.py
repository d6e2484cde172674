"""The checks of the numbers in a schema: shares, counts and thresholds that could hold.

Enters: a schema.  Leaves: findings.  They are part of the list in `schema_checks`.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from tensorflow_metadata.proto.v0 import schema_pb2

from mlplatform.data.schemas.schema import named_features
from mlplatform.data.validation.facts import Statistics
from mlplatform.data.validation.findings import (
    Change,
    Finding,
    SchemaChange,
    Types,
    clearing,
    finding_of,
    setting,
)


def check_bounds(schema: schema_pb2.Schema, data: Mapping[str, Statistics]) -> Iterator[Finding]:
    """Shares lie between 0 and 1, counts are not negative, no minimum is above its maximum."""
    for feature in named_features(schema):
        share = feature.presence.min_fraction
        if not 0 <= share <= 1:
            limit = setting("presence.min_fraction", min(max(share, 0.0), 1.0))
            yield invalid(feature, f"presence.min_fraction from 0 to 1, got {share:g}", limit)
        mass = feature.distribution_constraints.min_domain_mass
        if not 0 <= mass <= 1:
            path = "distribution_constraints.min_domain_mass"
            limit = setting(path, min(max(mass, 0.0), 1.0))
            yield invalid(feature, f"{path} from 0 to 1, got {mass:g}", limit)
        for path in ("value_count", "unique_constraints"):
            yield from _check_counts(feature, path)
        for dim in feature.shape.dim:
            if dim.size < 0:
                text = f"sizes of shape.dim of at least 0, got {dim.size}"
                yield invalid(feature, text, clearing("shape"))
                break


def check_dataset_constraints(
    schema: schema_pb2.Schema, data: Mapping[str, Statistics]
) -> Iterator[Finding]:
    """The least number of rows is not above the greatest, as such and as a share of another's."""
    constraints = schema.dataset_constraints
    shares = ("min_fraction_threshold", "max_fraction_threshold")
    for limits, path, (least, greatest) in (
        (constraints, "", ("min_examples_count", "max_examples_count")),
        *(
            (getattr(constraints, name), f"{name}.", shares)
            for name in ("num_examples_drift_comparator", "num_examples_version_comparator")
        ),
    ):
        low, high = getattr(limits, least), getattr(limits, greatest)
        if limits.HasField(greatest) and high < max(low, 0):
            yield Finding(
                None,
                Types.INVALID_SCHEMA_SPECIFICATION,
                "Invalid schema",
                f"Expected dataset_constraints.{path}{greatest} of at least {max(low, 0):g}, got "
                f"{high:g}",
                _on_dataset(clearing(f"{path}{greatest}")),
            )


def invalid(feature: schema_pb2.Feature, text: str, change: Change) -> Finding:
    """A finding that the schema asks of a feature what makes no sense."""
    kind = Types.INVALID_SCHEMA_SPECIFICATION
    return finding_of(feature, kind, "Invalid schema", f"Expected {text}", change)


def _check_counts(feature: schema_pb2.Feature, path: str) -> Iterator[Finding]:
    limits: Any = getattr(feature, path)
    if limits.min < 0:
        yield invalid(
            feature, f"{path}.min of at least 0, got {limits.min}", clearing(f"{path}.min")
        )
    if limits.HasField("max") and limits.max < max(limits.min, 0):
        text = f"{path}.max of at least {max(limits.min, 0)}, got {limits.max}"
        yield invalid(feature, text, clearing(f"{path}.max"))


def _on_dataset(change: Change) -> SchemaChange:
    return lambda schema: change(schema.dataset_constraints)
