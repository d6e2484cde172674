"""Validation: where a data set contradicts its schema.

Enters: statistics and a schema.  Leaves: tensorflow-metadata `Anomalies`, one entry a feature, each
with its reasons.  Which columns must be there is decided here, what they must hold in `checks`.
"""

from collections.abc import Iterable, Iterator

from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2

from mlplatform.data.checks import DATASET_CHECKS, FEATURE_CHECKS, Finding, Observed, Types
from mlplatform.data.schema import feature_name
from mlplatform.errors import AnomaliesFound, InvalidArgument

_RETIRED = frozenset(
    (schema_pb2.PLANNED, schema_pb2.ALPHA, schema_pb2.DEPRECATED, schema_pb2.DEBUG_ONLY)
)


def validate(
    statistics: statistics_pb2.DatasetFeatureStatistics,
    schema: schema_pb2.Schema,
    *,
    environment: str | None = None,
) -> anomalies_pb2.Anomalies:
    """Compare `statistics` with `schema`.

    A data set without rows is one anomaly of the data set, and its features are not looked at.

    Args:
        statistics: of one data set, as `compute_statistics` returns them.
        schema: what is expected.
        environment: where the data comes from, for example SERVING; decides which features must be
            there and which must not.  Without it every feature of the schema is expected.

    Raises:
        InvalidArgument: the schema does not know `environment`.
    """
    _require_known(environment, schema)
    anomalies = anomalies_pb2.Anomalies(baseline=schema)
    findings = [one for check in DATASET_CHECKS for one in check(schema, statistics)]
    if findings:
        anomalies.dataset_anomaly_info.CopyFrom(_describe(findings))
    if not statistics.num_examples:
        anomalies.data_missing = True
        return anomalies
    for name, findings in _check_features(statistics, schema, environment):
        if findings:
            anomalies.anomaly_info[name].CopyFrom(_describe(findings))
            anomalies.anomaly_info[name].path.step.append(name)
    return anomalies


def require_no_anomalies(anomalies: anomalies_pb2.Anomalies, where: str) -> None:
    """Let data pass that has warnings at most.

    Args:
        anomalies: as `validate` returns them.
        where: names the data in the message.

    Raises:
        AnomaliesFound: an anomaly has severity ERROR; the message has a line for each of them.
    """
    named = dict(sorted(anomalies.anomaly_info.items()))
    if anomalies.HasField("dataset_anomaly_info"):
        named = {"data set": anomalies.dataset_anomaly_info, **named}
    lines = [
        f"  {name}: {info.short_description} ({info.description})"
        for name, info in named.items()
        if info.severity == anomalies_pb2.AnomalyInfo.ERROR
    ]
    if lines:
        raise AnomaliesFound(
            "\n".join(
                (
                    f"{where}: expected data that agrees with its schema, got these anomalies; "
                    "correct the data, or the schema if the data is right:",
                    *lines,
                )
            )
        )


def _check_features(
    statistics: statistics_pb2.DatasetFeatureStatistics,
    schema: schema_pb2.Schema,
    environment: str | None,
) -> Iterator[tuple[str, list[Finding]]]:
    """Yield every feature of the data or of the schema with its findings."""
    data = {feature_name(one): one for one in statistics.features}
    expected = {feature.name: feature for feature in schema.feature}
    for name, observed in data.items():
        feature = expected.get(name)
        if feature is None:
            text = "The column is in the data but not in the schema"
            yield name, [Finding(Types.SCHEMA_NEW_COLUMN, "New column", text)]
        elif not _is_retired(feature):
            yield name, list(_check_feature(Observed(schema, feature, observed), environment))
    for name, feature in expected.items():
        if name not in data and _is_required(feature, schema, environment):
            text = "The column is in the schema but not in the data"
            yield name, [Finding(Types.SCHEMA_MISSING_COLUMN, "Column dropped", text)]


def _check_feature(observed: Observed, environment: str | None) -> Iterator[Finding]:
    feature, schema = observed.feature, observed.schema
    if not observed.common.num_non_missing:
        if _is_required(feature, schema, environment):
            text = "Expected the feature in some rows, got none that has it"
            yield Finding(Types.FEATURE_TYPE_NOT_PRESENT, "Column dropped", text)
        return
    if not _is_in(environment, feature, schema):
        text = f"The column is in the data but, by the schema, not in environment {environment}"
        yield Finding(Types.SCHEMA_NEW_COLUMN, "Column outside its environment", text)
    for check in FEATURE_CHECKS:
        yield from check(observed)


def _is_required(
    feature: schema_pb2.Feature, schema: schema_pb2.Schema, environment: str | None
) -> bool:
    presence = feature.presence
    return (
        not _is_retired(feature)
        and (presence.min_count > 0 or presence.min_fraction > 0)
        and _is_in(environment, feature, schema)
    )


def _is_retired(feature: schema_pb2.Feature) -> bool:
    return feature.deprecated or feature.lifecycle_stage in _RETIRED


def _is_in(environment: str | None, feature: schema_pb2.Feature, schema: schema_pb2.Schema) -> bool:
    if environment is None or environment in feature.in_environment:
        return True
    return (
        environment in schema.default_environment and environment not in feature.not_in_environment
    )


def _require_known(environment: str | None, schema: schema_pb2.Schema) -> None:
    known = set(schema.default_environment).union(
        *(feature.in_environment for feature in schema.feature)
    )
    if environment is not None and environment not in known:
        raise InvalidArgument(
            f"environment {environment!r}: expected one of the schema's "
            f"({', '.join(sorted(known)) or 'it has none'}); declare it as a default_environment"
        )


def _describe(findings: Iterable[Finding]) -> anomalies_pb2.AnomalyInfo:
    """One entry with a reason for each finding."""
    every = list(findings)
    info = anomalies_pb2.AnomalyInfo(
        severity=max(finding.severity for finding in every),
        short_description=every[0].short_description if len(every) == 1 else "Multiple errors",
        description="; ".join(finding.description for finding in every),
    )
    for finding in every:
        info.reason.add(
            type=finding.type,
            short_description=finding.short_description,
            description=finding.description,
        )
    return info
