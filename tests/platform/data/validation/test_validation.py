"""What anomalies say and which data passes; each type has its cases in test_anomaly_types."""

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2

from mlplatform.data.schemas.schema import find_feature, infer_schema, set_environments
from mlplatform.data.validation.findings import accept
from mlplatform.data.validation.inspection import inspect
from mlplatform.data.validation.validate import require_no_anomalies, validate
from mlplatform.errors import AnomaliesFound, InvalidArgument
from tests.platform.data.validation.described import schema_of, statistics_of

NAN, INF = float("nan"), float("inf")
type_name: Callable[[int], str] = anomalies_pb2.AnomalyInfo.Type.Name


def reasons(anomalies: Any) -> dict[str, list[str]]:
    return {
        name: [type_name(reason.type) for reason in info.reason]
        for name, info in anomalies.anomaly_info.items()
    }


def test_what_was_inferred_from_data_agrees_with_it() -> None:
    statistics = statistics_of(
        a=[1, 2], b=[1.5, NAN], c=["x", None], d=[["p", "q"], []], e=[True, False]
    )
    assert reasons(validate(statistics, infer_schema(statistics))) == {}


def test_a_tiny_missing_fraction_is_not_hidden_by_rounding() -> None:
    statistics = statistics_of(f=[1])
    common = statistics.features[0].num_stats.common_stats
    common.num_non_missing, common.num_missing = 2**62, 1
    schema = schema_of('feature { name: "f" type: INT presence { min_fraction: 1 } }')
    assert reasons(validate(statistics, schema)) == {"f": ["FEATURE_TYPE_LOW_FRACTION_PRESENT"]}


def test_missing_and_new_columns() -> None:
    schema = infer_schema(statistics_of(a=[1], b=[1]))
    found = reasons(validate(statistics_of(a=[1], c=[1]), schema))
    assert found == {"b": ["SCHEMA_MISSING_COLUMN"], "c": ["SCHEMA_NEW_COLUMN"]}
    assert reasons(validate(statistics_of(a=[1], b=[2]), schema)) == {}


def test_an_optional_or_deprecated_column_may_be_missing() -> None:
    schema = schema_of(
        """feature { name: "optional" type: INT }
           feature { name: "old" type: INT presence { min_count: 1 } deprecated: true }
           feature { name: "planned" type: INT presence { min_count: 1 } lifecycle_stage: PLANNED }
           feature { name: "a" type: INT }"""
    )
    assert reasons(validate(statistics_of(a=[1]), schema)) == {}
    assert reasons(validate(statistics_of(a=[1], old=["now a string"]), schema)) == {}


def test_environments_decide_what_must_be_there() -> None:
    training, serving = statistics_of(a=[1], label=[1]), statistics_of(a=[1])
    schema = infer_schema(training)
    schema.default_environment.append("TRAINING")
    set_environments(schema, "label", not_in_environments=["SERVING"])
    assert reasons(validate(serving, schema, environment="SERVING")) == {}
    assert reasons(validate(training, schema, environment="TRAINING")) == {}
    missing = {"label": ["SCHEMA_MISSING_COLUMN"]}
    assert reasons(validate(serving, schema, environment="TRAINING")) == missing
    assert reasons(validate(serving, schema)) == missing
    outside = {"label": ["SCHEMA_NEW_COLUMN"]}
    assert reasons(validate(training, schema, environment="SERVING")) == outside
    with pytest.raises(InvalidArgument, match=r"'TEST': expected one of .*SERVING, TRAINING"):
        validate(serving, schema, environment="TEST")


def test_no_rows_is_an_anomaly_of_the_data_set_alone() -> None:
    schema = infer_schema(statistics_of(a=[1]))
    anomalies = validate(statistics_pb2.DatasetFeatureStatistics(), schema)
    assert anomalies.data_missing
    assert not anomalies.anomaly_info
    (reason,) = anomalies.dataset_anomaly_info.reason
    assert type_name(reason.type) == "NO_DATA_IN_SPAN"
    assert not validate(statistics_of(a=[1]), schema).data_missing


def test_strings_beyond_those_listed_are_unexpected() -> None:
    values = [f"v{i:05}" for i in range(1_500)]
    domain = " ".join(f'value: "{value}"' for value in values)
    schema = schema_of(f'feature {{ name: "f" type: BYTES string_domain {{ {domain} }} }}')
    assert reasons(validate(statistics_of(f=values), schema)) == {}
    found = reasons(validate(statistics_of(f=[*values, "v99999"]), schema))
    assert found == {"f": ["ENUM_TYPE_UNEXPECTED_STRING_VALUES"]}


def test_several_reasons_make_one_anomaly() -> None:
    schema = schema_of(
        'feature { name: "f" type: INT presence { min_fraction: 1 } int_domain { max: 3 } }'
    )
    info = validate(statistics_of(f=[4, None]), schema).anomaly_info["f"]
    assert info.short_description == "Multiple errors"
    assert [type_name(reason.type) for reason in info.reason] == [
        "FEATURE_TYPE_LOW_FRACTION_PRESENT",
        "INT_TYPE_BIG_INT",
    ]
    assert all(reason.description in info.description for reason in info.reason)


def test_accepting_a_missing_column_takes_it_out_of_its_environment_alone() -> None:
    schema = infer_schema(statistics_of(a=[1], label=[1]))
    schema.default_environment.extend(["TRAINING", "SERVING"])
    serving = statistics_of(a=[1])
    accepted = accept(schema, inspect(serving, schema, environment="SERVING").findings)
    assert reasons(validate(serving, accepted, environment="SERVING")) == {}
    missing = {"label": ["SCHEMA_MISSING_COLUMN"]}
    assert reasons(validate(serving, accepted, environment="TRAINING")) == missing
    assert find_feature(accepted, "label").not_in_environment == ["SERVING"]


def test_accepting_a_column_outside_its_environment_puts_it_there() -> None:
    schema = infer_schema(statistics_of(a=[1], label=[1]))
    set_environments(schema, "label", not_in_environments=["SERVING"])
    data = statistics_of(a=[1], label=[2])
    accepted = accept(schema, inspect(data, schema, environment="SERVING").findings)
    assert reasons(validate(data, accepted, environment="SERVING")) == {}


def test_accepting_in_an_environment_that_is_no_default_one() -> None:
    schema = schema_of(
        """feature { name: "a" type: INT in_environment: "X" presence { min_count: 1 } }
           feature { name: "b" type: INT presence { min_count: 1 } }"""
    )
    data = statistics_of(new=[1])
    accepted = accept(schema, inspect(data, schema, environment="X").findings)
    assert reasons(validate(data, accepted, environment="X")) == {}
    assert find_feature(accepted, "new").in_environment == ["X"]


def test_accepting_another_type_keeps_what_does_not_speak_of_values() -> None:
    schema = schema_of(
        """feature { name: "f" type: INT presence { min_count: 1 } int_domain { max: 3 }
             shape { dim { size: 1 } } not_in_environment: "SERVING" annotation { tag: "t" }
             drift_comparator { jensen_shannon_divergence { threshold: 0.1 } } }
           string_domain { name: "f" value: "taken" }"""
    )
    data = statistics_of(f=["a", "b"])
    accepted = accept(schema, inspect(data, schema).findings)
    assert find_feature(accepted, "f") == find_feature(
        schema_of(
            """feature { name: "f" type: BYTES presence { min_count: 1 } domain: "f2"
                 shape { dim { size: 1 } } not_in_environment: "SERVING"
                 annotation { tag: "t" } }"""
        ),
        "f",
    )
    assert [domain.name for domain in accepted.string_domain] == ["f", "f2"]


def test_what_no_change_of_the_schema_accepts() -> None:
    schema = schema_of('feature { name: "f" type: INT }')
    findings = inspect(statistics_pb2.DatasetFeatureStatistics(), schema).findings
    with pytest.raises(InvalidArgument, match=r"data set: expected .* got NO_DATA_IN_SPAN"):
        accept(schema, findings)


def test_a_feature_that_is_tagged_so_gives_warnings() -> None:
    text = 'feature {{ name: "f" type: INT int_domain {{ max: 3 }} {} }}'
    tagged = validate(
        statistics_of(f=[4]), schema_of(text.format('annotation { tag: "warn_only" }'))
    )
    assert reasons(tagged) == {"f": ["INT_TYPE_BIG_INT"]}
    assert tagged.anomaly_info["f"].severity == anomalies_pb2.AnomalyInfo.WARNING
    require_no_anomalies(tagged, "span 7")
    with pytest.raises(AnomaliesFound):
        require_no_anomalies(validate(statistics_of(f=[4]), schema_of(text.format(""))), "span 7")


@pytest.mark.parametrize("stage", ["PLANNED", "ALPHA", "DEPRECATED", "DEBUG_ONLY", "DISABLED"])
def test_nothing_is_asked_of_a_feature_at_such_a_stage(stage: str) -> None:
    text = 'feature {{ name: "f" presence {{ min_fraction: 7 }} lifecycle_stage: {} }}'
    schema = schema_of(text.format(stage) + ' feature { name: "g" type: INT }')
    assert reasons(validate(statistics_of(f=["a"], g=[1]), schema)) == {}
    assert reasons(validate(statistics_of(g=[1]), schema)) == {}


@pytest.mark.parametrize("stage", ["UNKNOWN_STAGE", "BETA", "PRODUCTION"])
def test_all_is_asked_of_a_feature_at_another_stage(stage: str) -> None:
    schema = schema_of(f'feature {{ name: "f" type: INT lifecycle_stage: {stage} }}')
    assert reasons(validate(statistics_of(f=["a"]), schema)) == {"f": ["UNEXPECTED_DATA_TYPE"]}


def test_weighted_rows_come_first() -> None:
    schema = schema_of('feature { name: "f" type: INT presence { min_fraction: 0.5 } }')
    statistics = statistics_of(f=[1, None])
    assert reasons(validate(statistics, schema)) == {}
    weighted = statistics.features[0].num_stats.common_stats.weighted_common_stats
    weighted.num_non_missing, weighted.num_missing = 1, 3
    assert reasons(validate(statistics, schema)) == {"f": ["FEATURE_TYPE_LOW_FRACTION_PRESENT"]}


def test_an_accepted_limit_is_not_wider_than_it_must_be() -> None:
    schema = schema_of('feature { name: "f" type: FLOAT float_domain { min: 0 max: 1 } }')
    accepted = accept(schema, inspect(statistics_of(f=[-0.1, 2.7]), schema).findings)
    domain = find_feature(accepted, "f").float_domain
    assert (domain.min, domain.max) == (pytest.approx(-0.1), pytest.approx(2.7))
    just_beyond = validate(statistics_of(f=[2.7000004]), accepted)
    assert reasons(just_beyond) == {"f": ["FLOAT_TYPE_BIG_FLOAT"]}


def test_a_limit_that_no_int64_can_be_is_dropped() -> None:
    schema = schema_of('feature { name: "f" type: INT int_domain { min: 0 max: 9 } }')
    statistics = statistics_of(f=pa.array([2**64 - 1], pa.uint64()))
    accepted = accept(schema, inspect(statistics, schema).findings)
    assert find_feature(accepted, "f").int_domain == schema_pb2.IntDomain(min=0)


def test_require_no_anomalies() -> None:
    schema = schema_of(
        """feature { name: "f" type: INT int_domain { max: 3 } }
           feature { name: "g" type: BYTES string_domain { value: "a" } }
           dataset_constraints { min_examples_count: 2 }"""
    )
    require_no_anomalies(validate(statistics_of(f=[3, 3], g=["a", "a"]), schema), "span 7")
    anomalies = validate(statistics_of(f=[4], g=["b"]), schema)
    with pytest.raises(AnomaliesFound) as caught:
        require_no_anomalies(anomalies, "span 7")
    first, *lines = str(caught.value).splitlines()
    assert first.startswith("span 7: ")
    assert lines == [
        "  data set: Too few rows (Expected at least 2 rows, got 1)",
        "  f: Out-of-range values (Expected values of at most 3, got 4)",
        "  g: Unexpected string values (Expected values of the feature's domain in a share of "
        "at least 1, got 0, with values outside of it: 'b' (100.00%))",
    ]


def test_warnings_pass() -> None:
    anomalies = anomalies_pb2.Anomalies()
    anomalies.anomaly_info["f"].severity = anomalies_pb2.AnomalyInfo.WARNING
    require_no_anomalies(anomalies, "span 7")
