"""Drift and skew in validation: what is compared, measured, and reported as not compared."""

from typing import Any

import pytest
from tensorflow_metadata.proto.v0 import anomalies_pb2

from mlplatform.data.validation.comparisons import list_not_compared
from mlplatform.data.validation.validate import require_no_anomalies, validate
from tests.platform.data.validation.described import schema_of, statistics_of

Measurement = anomalies_pb2.DriftSkewInfo.Measurement
BOTH = """feature { name: "f" type: BYTES
    drift_comparator { infinity_norm { threshold: %s } normalized_abs_difference { threshold: 1 } }
    skew_comparator { jensen_shannon_divergence { threshold: %s } } }"""


def reasons(anomalies: Any) -> dict[str, list[str]]:
    return {
        name: [anomalies_pb2.AnomalyInfo.Type.Name(reason.type) for reason in info.reason]
        for name, info in anomalies.anomaly_info.items()
    }


def test_distances_within_their_thresholds_are_reported_too() -> None:
    anomalies = validate(
        statistics_of(f=["a", "a", "b", "b"]),
        schema_of(BOTH % (0.25, 0.9)),
        previous=statistics_of(f=["a", "a", "a", "b"]),
        serving=statistics_of(f=["c"]),
    )
    (info,) = anomalies.drift_skew_info
    assert info.path.step == ["f"]
    assert list(info.drift_measurements) == [
        Measurement(type=Measurement.L_INFTY, value=0.25, threshold=0.25),
        Measurement(type=Measurement.NORMALIZED_ABSOLUTE_DIFFERENCE, value=1 / 8, threshold=1),
    ]
    assert list(info.skew_measurements) == [
        Measurement(type=Measurement.JENSEN_SHANNON_DIVERGENCE, value=1, threshold=0.9)
    ]
    assert reasons(anomalies) == {"f": ["COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH"]}
    assert list_not_compared(anomalies) == []


def test_thresholds_are_strict() -> None:
    data, before = statistics_of(f=["a", "b"]), statistics_of(f=["a"])
    assert reasons(validate(data, schema_of(BOTH % (0.5, 1)), previous=before)) == {}
    found = reasons(validate(data, schema_of(BOTH % (0.499, 1)), previous=before))
    assert found == {"f": ["COMPARATOR_L_INFTY_HIGH"]}


def test_the_value_that_differs_most_is_named() -> None:
    anomalies = validate(
        statistics_of(f=["a", "b"]), schema_of(BOTH % (0, 1)), previous=statistics_of(f=["a"])
    )
    description = anomalies.anomaly_info["f"].description
    assert description == (
        "Expected a L-infinity distance of at most 0 to the previous data, got 0.5; they differ "
        "most in 'a'"
    )


def test_without_the_other_data_set_nothing_fails_and_that_is_said() -> None:
    anomalies = validate(statistics_of(f=["a"]), schema_of(BOTH % (0, 0)))
    require_no_anomalies(anomalies, "span 7")
    assert reasons(anomalies) == {}
    assert list_not_compared(anomalies) == ["f (drift)", "f (skew)"]
    (info,) = anomalies.drift_skew_info
    assert info.drift_measurements[0] == Measurement(type=Measurement.L_INFTY, threshold=0)
    partly = validate(
        statistics_of(f=["a"]), schema_of(BOTH % (0, 0)), previous=statistics_of(f=["a"])
    )
    assert list_not_compared(partly) == ["f (skew)"]


def test_a_feature_that_both_sides_lack_is_not_compared() -> None:
    empty = statistics_of(f=[None], g=["a"])
    anomalies = validate(
        empty,
        schema_of(BOTH % (0, 0) + 'feature { name: "g" type: BYTES }'),
        previous=statistics_of(g=["a"]),
        serving=empty,
    )
    assert reasons(anomalies) == {}


def test_a_feature_outside_the_environment_is_not_compared() -> None:
    schema = schema_of(
        'default_environment: "SERVING" feature { name: "f" type: BYTES not_in_environment: '
        '"SERVING" drift_comparator { infinity_norm { threshold: 0 } } } '
        'feature { name: "g" type: BYTES }'
    )
    data, before = statistics_of(g=["a"]), statistics_of(f=["a"], g=["a"])
    assert reasons(validate(data, schema, environment="SERVING", previous=before)) == {}
    found = reasons(validate(data, schema, previous=before))
    assert found == {"f": ["COMPARATOR_TREATMENT_DATA_MISSING"]}


def test_quantiles_are_compared_where_the_schema_asks_for_them() -> None:
    first, second = statistics_of(f=[0.0, 1.0]), statistics_of(f=[0.0, 1.0])
    del second.features[0].num_stats.histograms[0]
    text = """feature {{ name: "f" type: FLOAT drift_comparator {{
        jensen_shannon_divergence {{ threshold: 0.1 source {{ type: {} }} }} }} }}"""
    quantiles = validate(first, schema_of(text.format("QUANTILES")), previous=second)
    assert reasons(quantiles) == {}
    standard = validate(first, schema_of(text.format("STANDARD")), previous=second)
    assert reasons(standard) == {"f": ["STATS_NOT_AVAILABLE"]}


@pytest.mark.parametrize("domain", ["int_domain { is_categorical: true }", "bool_domain { }"])
def test_categorical_integers_are_compared_by_value(domain: str) -> None:
    schema = schema_of(
        f'feature {{ name: "f" type: INT {domain} '
        "drift_comparator { infinity_norm { threshold: 0.4 } } }"
    )
    before = statistics_of(f=[0, 0])
    assert reasons(validate(statistics_of(f=[0, 0, 1]), schema, previous=before)) == {}
    found = reasons(validate(statistics_of(f=[0, 1]), schema, previous=before))
    assert found == {"f": ["COMPARATOR_L_INFTY_HIGH"]}
