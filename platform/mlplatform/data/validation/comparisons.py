"""Comparisons of a data set with another: drift against the span before, skew against serving.

Enters: a feature of the schema with its comparators, and its statistics in both data sets.  Leaves:
findings, and every distance that was measured, also those within their thresholds.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2

from mlplatform.data.schemas.schema import is_categorical
from mlplatform.data.validation.distances import (
    Distance,
    infinity_norm,
    jensen_shannon,
    normalized_abs_difference,
)
from mlplatform.data.validation.facts import Dataset, Statistics, common_statistics, feature_name
from mlplatform.data.validation.findings import Finding, Types, clearing, finding_of, setting

Measurement: TypeAlias = anomalies_pb2.DriftSkewInfo.Measurement


@dataclass(frozen=True)
class Control:
    """A data set that features are compared with.

    Attributes:
        comparator: the field of a feature that says how.
        name: of the control in descriptions.
        features: the control's statistics by feature; None if it was not given.
    """

    comparator: str
    name: str
    features: dict[str, Statistics] | None

    @classmethod
    def of(cls, comparator: str, name: str, control: Dataset | None) -> "Control":
        features = None if control is None else {feature_name(f): f for f in control.features}
        return cls(comparator, name, features)


@dataclass(frozen=True)
class Measure:
    """A way to measure distance, and what is reported of it.

    Attributes:
        field: of a `FeatureComparator`.
        type, anomaly: of the measurement, and of a distance above the threshold.
    """

    field: str
    type: int
    anomaly: int
    name: str


MEASURES = (
    Measure(
        "infinity_norm", Measurement.L_INFTY, Types.COMPARATOR_L_INFTY_HIGH, "L-infinity distance"
    ),
    Measure(
        "jensen_shannon_divergence",
        Measurement.JENSEN_SHANNON_DIVERGENCE,
        Types.COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH,
        "Jensen-Shannon divergence",
    ),
    Measure(
        "normalized_abs_difference",
        Measurement.NORMALIZED_ABSOLUTE_DIFFERENCE,
        Types.COMPARATOR_NORMALIZED_ABSOLUTE_DIFFERENCE_HIGH,
        "normalized absolute difference",
    ),
)


def compare_feature(
    feature: schema_pb2.Feature, treatment: Statistics | None, controls: Iterable[Control]
) -> tuple[list[Finding], anomalies_pb2.DriftSkewInfo]:
    """Compare one feature with the data sets that its comparators name.

    Without a control data set every measurement is there with its threshold and no value, and
    there is no finding.  A side that lacks the feature, or has it in no row, is a finding; where
    both lack it there is nothing to compare.

    Args:
        feature: of the schema.
        treatment: its statistics in the data set that is validated.
    """
    findings: list[Finding] = []
    info = anomalies_pb2.DriftSkewInfo()
    info.path.step.append(feature.name)
    for control in controls:
        found, measurements = _compare(feature, treatment, control)
        findings += found
        is_drift = control.comparator == "drift_comparator"
        target = info.drift_measurements if is_drift else info.skew_measurements
        target.extend(measurements)
    return findings, info


def list_not_compared(anomalies: anomalies_pb2.Anomalies) -> list[str]:
    """What the schema asks to compare and could not be, for want of the other data set.

    Returns:
        'FEATURE (drift)' or 'FEATURE (skew)', one each.
    """
    return [
        f"{info.path.step[0]} ({name})"
        for info in anomalies.drift_skew_info
        for name, measurements in (
            ("drift", info.drift_measurements),
            ("skew", info.skew_measurements),
        )
        if any(not measurement.HasField("value") for measurement in measurements)
    ]


def _compare(
    feature: schema_pb2.Feature, treatment: Statistics | None, control: Control
) -> tuple[list[Finding], list[Measurement]]:
    measures = [one for one in MEASURES if _threshold(feature, control, one) is not None]
    if not measures:
        return [], []
    if control.features is None:
        return [], [_measurement(feature, control, measure) for measure in measures]
    other = control.features.get(feature.name)
    has_treatment, has_control = _has_values(treatment), _has_values(other)
    if treatment is not None and other is not None and has_treatment and has_control:
        return _measure_all(feature, treatment, other, control, measures)
    if has_treatment == has_control:
        return [], []
    kind, side = (
        (Types.COMPARATOR_CONTROL_DATA_MISSING, f"the {control.name} data")
        if has_treatment
        else (Types.COMPARATOR_TREATMENT_DATA_MISSING, "the data")
    )
    text = f"Expected values to compare with the {control.name} data, got none in {side}"
    drop = clearing(control.comparator)
    return [finding_of(feature, kind, "Nothing to compare", text, drop)], []


def _measure_all(
    feature: schema_pb2.Feature,
    treatment: Statistics,
    other: Statistics,
    control: Control,
    measures: Iterable[Measure],
) -> tuple[list[Finding], list[Measurement]]:
    findings, measurements = [], []
    for measure in measures:
        path = f"{control.comparator}.{measure.field}"
        distance = _distance(measure, feature, treatment, other, control)
        threshold = _threshold(feature, control, measure) or 0.0
        if distance is None:
            text = (
                f"Expected statistics of both sides from which to tell the {measure.name} to the "
                f"{control.name} data, got some without"
            )
            kind = Types.STATS_NOT_AVAILABLE
            findings.append(finding_of(feature, kind, "Not comparable", text, clearing(path)))
            continue
        measurements.append(_measurement(feature, control, measure, distance.value))
        if distance.value > threshold:
            at = f"; they differ most in {distance.at!r}" if distance.at is not None else ""
            findings.append(
                finding_of(
                    feature,
                    measure.anomaly,
                    f"High {measure.name} to the {control.name} data",
                    f"Expected a {measure.name} of at most {threshold:g} to the {control.name} "
                    f"data, got {distance.value:.6g}{at}",
                    setting(f"{path}.threshold", distance.value),
                )
            )
    return findings, measurements


def _distance(
    measure: Measure,
    feature: schema_pb2.Feature,
    treatment: Statistics,
    other: Statistics,
    control: Control,
) -> Distance | None:
    compare: dict[str, Callable[[Statistics, Statistics], Distance | None]] = {
        "infinity_norm": infinity_norm,
        "normalized_abs_difference": normalized_abs_difference,
    }
    if measure.field in compare:
        return compare[measure.field](treatment, other)
    source = getattr(feature, control.comparator).jensen_shannon_divergence.source.type
    is_quantiles = source == schema_pb2.HistogramSelection.QUANTILES
    histogram = statistics_pb2.Histogram
    return jensen_shannon(
        treatment,
        other,
        kind=histogram.QUANTILES if is_quantiles else histogram.STANDARD,
        as_categories=is_categorical(feature),
    )


def _threshold(feature: schema_pb2.Feature, control: Control, measure: Measure) -> float | None:
    limits = getattr(getattr(feature, control.comparator), measure.field)
    return limits.threshold if limits.HasField("threshold") else None


def _measurement(
    feature: schema_pb2.Feature, control: Control, measure: Measure, value: float | None = None
) -> Measurement:
    threshold = _threshold(feature, control, measure)
    return Measurement(type=measure.type, threshold=threshold, value=value)


def _has_values(statistics: Statistics | None) -> bool:
    return statistics is not None and common_statistics(statistics).tot_num_values > 0
