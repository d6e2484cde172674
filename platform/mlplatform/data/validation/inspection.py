"""Inspection: every way in which a data set contradicts its schema, as findings.

Enters: statistics and a schema.  Leaves: findings, each with the change of the schema that accepts
it, and the distances to other data sets.

The schema's own faults come first.  The data is then compared with the schema as it would be
without them, so that accepting every finding leaves none to be found.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2

from mlplatform.data.schemas.inference import infer_feature
from mlplatform.data.schemas.schema import (
    environments_of,
    is_in,
    is_required,
    named_features,
    set_environments,
)
from mlplatform.data.validation.comparisons import Control, compare_feature
from mlplatform.data.validation.composites import check_composites
from mlplatform.data.validation.dataset_checks import check_dataset
from mlplatform.data.validation.domain_checks import check_domain
from mlplatform.data.validation.facts import (
    Dataset,
    Statistics,
    common_statistics,
    feature_name,
    feature_type,
)
from mlplatform.data.validation.feature_checks import PRESENCE_CHECKS, VALENCY_CHECKS, check_type
from mlplatform.data.validation.findings import (
    RETIRE,
    Finding,
    Observed,
    Types,
    accept,
    clearing,
    finding_of,
)
from mlplatform.data.validation.schema_checks import SCHEMA_CHECKS
from mlplatform.errors import InvalidArgument


@dataclass(frozen=True)
class Inspection:
    """What validation found.

    Attributes:
        findings: of the data set, of the schema itself, of its features in their order, of new
            columns, of composites, of comparisons.
        distances: of every feature that has a comparator, to the other data sets.
    """

    findings: tuple[Finding, ...]
    distances: tuple[anomalies_pb2.DriftSkewInfo, ...]


def inspect(
    statistics: Dataset,
    schema: schema_pb2.Schema,
    *,
    environment: str | None = None,
    previous: Dataset | None = None,
    serving: Dataset | None = None,
    previous_version: Dataset | None = None,
) -> Inspection:
    """What `validate` reports, with the changes of the schema as functions; see there."""
    _require_known(environment, schema)
    data = {feature_name(one): one for one in statistics.features}
    faults, repaired = _repair(schema, data)
    findings = [*check_dataset(repaired, statistics, previous, previous_version), *faults]
    if not statistics.num_examples:
        return Inspection(tuple(findings), ())
    findings += _check_features(repaired, data, environment)
    findings += check_composites(repaired, data)
    controls = [
        Control.of("drift_comparator", "previous", previous),
        Control.of("skew_comparator", "serving", serving),
    ]
    distances = []
    for feature in named_features(repaired):
        observed = data.get(feature.name)
        if _is_comparable(feature, observed, repaired, environment):
            found, info = compare_feature(feature, observed, controls)
            findings += found
            if info.drift_measurements or info.skew_measurements:
                distances.append(info)
    return Inspection(tuple(findings), tuple(distances))


def _repair(
    schema: schema_pb2.Schema, data: Mapping[str, Statistics]
) -> tuple[list[Finding], schema_pb2.Schema]:
    """The schema's own faults, and the schema without them."""
    faults: list[Finding] = []
    repaired = schema
    for check in SCHEMA_CHECKS:
        found = list(check(repaired, data))
        repaired = accept(repaired, found)
        faults += found
    return faults, repaired


def _check_features(
    schema: schema_pb2.Schema, data: Mapping[str, Statistics], environment: str | None
) -> Iterator[Finding]:
    """Yield what is wrong with each feature of the schema, then with new columns."""
    for feature in named_features(schema):
        if feature.name in data:
            yield from _check_feature(Observed(schema, feature, data[feature.name]), environment)
        elif is_required(environment, feature, schema):
            yield _missing(feature, environment)
    composites = (*schema.sparse_feature, *schema.weighted_feature)
    known = {one.name for one in (*schema.feature, *composites)}
    for name, observed in data.items():
        if name not in known:
            yield _new(name, observed, environment)


def _check_feature(observed: Observed, environment: str | None) -> Iterator[Finding]:
    feature, schema = observed.feature, observed.schema
    if not common_statistics(observed.statistics).num_non_missing:
        if is_required(environment, feature, schema):
            yield observed.finding(
                Types.FEATURE_TYPE_NOT_PRESENT,
                "Column dropped",
                "Expected the feature in some rows, got none that has it",
                clearing("presence"),
            )
        return
    if environment is not None and not is_in(environment, feature, schema):
        yield observed.finding(
            Types.SCHEMA_NEW_COLUMN,
            "Column outside its environment",
            f"The column is in the data but, by the schema, not in environment {environment}",
            schema_change=partial(
                set_environments, feature=feature.name, in_environments=[environment]
            ),
        )
    for check in PRESENCE_CHECKS:
        yield from check(observed)
    if of_another_type := list(check_type(observed)):
        yield from of_another_type
        return
    for check in (*VALENCY_CHECKS, check_domain):
        yield from check(observed)


def _is_comparable(
    feature: schema_pb2.Feature,
    observed: Statistics | None,
    schema: schema_pb2.Schema,
    environment: str | None,
) -> bool:
    """Whether the feature belongs here and its values, if any, are of its type."""
    if observed is None:
        return is_in(environment, feature, schema)
    is_empty = not common_statistics(observed).num_non_missing
    return is_empty or feature_type(observed) == feature.type


def _missing(feature: schema_pb2.Feature, environment: str | None) -> Finding:
    """The change takes the feature out of the environment, or retires it where there is none."""
    text = "The column is in the schema but not in the data"
    found = finding_of(feature, Types.SCHEMA_MISSING_COLUMN, "Column dropped", text, RETIRE)
    if environment is None:
        return found
    leave = partial(set_environments, feature=feature.name, not_in_environments=[environment])
    return replace(found, change=leave)


def _new(name: str, observed: Statistics, environment: str | None) -> Finding:
    def add(schema: schema_pb2.Schema) -> None:
        feature = schema.feature.add()
        infer_feature(observed, schema, feature)
        if environment is not None and not is_in(environment, feature, schema):
            feature.in_environment.append(environment)

    text = "The column is in the data but not in the schema"
    return Finding(name, Types.SCHEMA_NEW_COLUMN, "New column", text, add)


def _require_known(environment: str | None, schema: schema_pb2.Schema) -> None:
    known = environments_of(schema)
    if environment is not None and environment not in known:
        raise InvalidArgument(
            f"environment {environment!r}: expected one of the schema's "
            f"({', '.join(known) or 'it has none'}); declare it as a default_environment"
        )
