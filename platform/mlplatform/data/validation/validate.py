"""Validation: where a data set contradicts its schema.

Enters: statistics and a schema.  Leaves: tensorflow-metadata `Anomalies`, one entry a feature, each
with its reasons and with the change of the schema that would accept it.
What is compared with what is decided in `inspection`; to review the changes, start from there.
"""

from collections.abc import Sequence

from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2

from mlplatform.data.schemas.regions import Blocks, blocks_of, diff_regions
from mlplatform.data.validation.broken_rows import BrokenRow
from mlplatform.data.validation.facts import Dataset
from mlplatform.data.validation.findings import Finding, accept
from mlplatform.data.validation.inspection import inspect
from mlplatform.errors import AnomaliesFound


def validate(
    statistics: Dataset,
    schema: schema_pb2.Schema,
    *,
    environment: str | None = None,
    previous: Dataset | None = None,
    serving: Dataset | None = None,
    previous_version: Dataset | None = None,
) -> anomalies_pb2.Anomalies:
    """Compare `statistics` with `schema`, and with other data sets where the schema asks for it.

    A data set without rows is one anomaly of the data set, and its features are not looked at.

    `drift_skew_info` has every distance that the schema's comparators ask for.  One that has a
    threshold and no value was not measured, because the data set to compare with was not given:
    that fails nothing, and `list_not_compared` names it.

    Args:
        statistics: of one data set, as `compute_statistics` or TFDV returns them.
        schema: what is expected.
        environment: where the data comes from, for example SERVING; decides which features must be
            there and which must not.  Without it every feature of the schema is expected.
        previous: the span before, for drift_comparator and num_examples_drift_comparator.
        serving: what servers saw, for skew_comparator; `statistics` are then of training data.
        previous_version: an earlier version of this span, for num_examples_version_comparator.

    Raises:
        InvalidArgument: the schema does not know `environment`.
    """
    inspection = inspect(
        statistics,
        schema,
        environment=environment,
        previous=previous,
        serving=serving,
        previous_version=previous_version,
    )
    anomalies = anomalies_pb2.Anomalies(
        baseline=schema,
        drift_skew_info=inspection.distances,
    )
    if not statistics.num_examples:
        anomalies.data_missing = True
    grouped: dict[str | None, list[Finding]] = {}
    for finding in inspection.findings:
        grouped.setdefault(finding.feature, []).append(finding)
    blocks = blocks_of(schema) if grouped else []
    for name, findings in grouped.items():
        if name is None:
            anomalies.dataset_anomaly_info.CopyFrom(_describe(findings, schema, blocks))
        else:
            anomalies.anomaly_info[name].CopyFrom(_describe(findings, schema, blocks))
            anomalies.anomaly_info[name].path.step.extend([name] if name else [])
    return anomalies


def require_no_anomalies(
    anomalies: anomalies_pb2.Anomalies, where: str, broken: Sequence[BrokenRow] = ()
) -> None:
    """Let data pass that has warnings at most.

    Args:
        anomalies: as `validate` returns them.
        where: names the data in the message.
        broken: rows to show, as `find_broken_rows` returns them.

    Raises:
        AnomaliesFound: an anomaly has severity ERROR; the message has a line for each of them.
    """
    named = dict(sorted(anomalies.anomaly_info.items()))
    if anomalies.HasField("dataset_anomaly_info"):
        named = {"data set": anomalies.dataset_anomaly_info, **named}
    lines = [
        f"  {name or 'a feature without a name'}: {info.short_description} ({info.description})"
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
                    *(f"    {row}" for row in broken),
                )
            )
        )


def _describe(
    findings: Sequence[Finding], schema: schema_pb2.Schema, blocks: Blocks
) -> anomalies_pb2.AnomalyInfo:
    """One entry with a reason for each finding, and the change that accepts them all.

    blocks: of `schema`.
    """
    changed = accept(schema, (finding for finding in findings if finding.change))
    info = anomalies_pb2.AnomalyInfo(
        severity=max(finding.severity for finding in findings),
        short_description=(
            findings[0].short_description if len(findings) == 1 else "Multiple errors"
        ),
        description="; ".join(finding.description for finding in findings),
        diff_regions=diff_regions(blocks, blocks_of(changed, known=blocks)),
    )
    for finding in findings:
        info.reason.add(
            type=finding.type,
            short_description=finding.short_description,
            description=finding.description,
        )
    return info
