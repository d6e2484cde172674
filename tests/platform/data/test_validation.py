"""Every anomaly is raised by a planted fault and not by its absence."""

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2

from mlplatform.data.accumulators import FeatureAccumulator
from mlplatform.data.columns import kind_of
from mlplatform.data.schema import infer_schema, set_environments
from mlplatform.data.validation import require_no_anomalies, validate
from mlplatform.errors import AnomaliesFound, InvalidArgument

NAN, INF = float("nan"), float("inf")
type_name: Callable[[int], str] = anomalies_pb2.AnomalyInfo.Type.Name


def statistics_of(**columns: Any) -> Any:
    """Statistics of one data set, without a pipeline."""
    arrays = {name: pa.array(values) for name, values in columns.items()}
    rows = max(map(len, arrays.values()))
    result = statistics_pb2.DatasetFeatureStatistics(name="d", num_examples=rows)
    for name, array in arrays.items():
        kind = kind_of(array.type) or "STRING"
        feature = FeatureAccumulator.of(array, kind, seed=0).describe()
        feature.type = statistics_pb2.FeatureNameStatistics.Type.Value(kind)
        feature.path.step.append(name)
        common = getattr(feature, feature.WhichOneof("stats")).common_stats
        common.num_missing = rows - common.num_non_missing
        result.features.append(feature)
    return result


def schema_of(text: str) -> Any:
    return text_format.Parse(text, schema_pb2.Schema())


def reasons(anomalies: Any) -> dict[str, list[str]]:
    return {
        name: [type_name(reason.type) for reason in info.reason]
        for name, info in anomalies.anomaly_info.items()
    }


@pytest.mark.parametrize(
    ("constraint", "faulty", "sound", "anomaly"),
    [
        ("type: INT", [1.5], [1], "UNEXPECTED_DATA_TYPE"),
        ("type: FLOAT", [1], [1.5], "UNEXPECTED_DATA_TYPE"),
        ("type: FLOAT", ["1.5"], [1.5], "UNEXPECTED_DATA_TYPE"),
        ("type: BYTES", [1], ["1"], "UNEXPECTED_DATA_TYPE"),
        (
            "type: INT presence { min_count: 2 }",
            [1, None, None],
            [1, 2, None],
            "FEATURE_TYPE_LOW_NUMBER_PRESENT",
        ),
        (
            "type: INT presence { min_fraction: 0.5 }",
            [1, None, None],
            [1, None],
            "FEATURE_TYPE_LOW_FRACTION_PRESENT",
        ),
        (
            "type: INT presence { min_fraction: 1 }",
            [1, None],
            [1, 2],
            "FEATURE_TYPE_LOW_FRACTION_PRESENT",
        ),
        (
            "type: INT presence { min_count: 1 }",
            pa.nulls(2, pa.int64()),
            [1, None],
            "FEATURE_TYPE_NOT_PRESENT",
        ),
        (
            "type: INT value_count { min: 1 max: 2 }",
            [[], [1]],
            [[1], [1, 2]],
            "FEATURE_TYPE_LOW_NUMBER_VALUES",
        ),
        (
            "type: INT value_count { min: 1 max: 2 }",
            [[1], [1, 2, 3]],
            [[1], [1, 2]],
            "FEATURE_TYPE_HIGH_NUMBER_VALUES",
        ),
        (
            "type: INT shape { dim { size: 2 } dim { size: 2 } }",
            [[1, 2, 3, 4], [1, 2, 3]],
            [[1, 2, 3, 4]],
            "FEATURE_TYPE_LOW_NUMBER_VALUES",
        ),
        ("type: INT shape { }", [[1, 2]], [1], "FEATURE_TYPE_HIGH_NUMBER_VALUES"),
        (
            'type: BYTES string_domain { value: "a" }',
            ["a", "b"],
            ["a", "a"],
            "ENUM_TYPE_UNEXPECTED_STRING_VALUES",
        ),
        (
            'type: BYTES string_domain { value: "a" } '
            "distribution_constraints { min_domain_mass: 0.9 }",
            ["a"] * 89 + ["b"] * 11,
            ["a"] * 90 + ["b"] * 10,
            "ENUM_TYPE_UNEXPECTED_STRING_VALUES",
        ),
        (
            'type: BYTES string_domain { value: "a" }',
            [b"a", b"\xff"],
            [b"a"],
            "ENUM_TYPE_INVALID_UTF8",
        ),
        ("type: INT int_domain { min: 1 }", [0, 3], [1, 3], "INT_TYPE_SMALL_INT"),
        ("type: INT int_domain { max: 3 }", [1, 4], [1, 3], "INT_TYPE_BIG_INT"),
        ("type: FLOAT float_domain { min: 0.1 }", [0.05], [0.1], "FLOAT_TYPE_SMALL_FLOAT"),
        ("type: FLOAT float_domain { max: 0.3 }", [0.35], [0.3], "FLOAT_TYPE_BIG_FLOAT"),
        ("type: FLOAT float_domain { max: 0.3 }", [0.1, INF], [NAN], "FLOAT_TYPE_BIG_FLOAT"),
        ("type: FLOAT float_domain { min: 1 }", [-INF], [NAN, 1.0], "FLOAT_TYPE_SMALL_FLOAT"),
        ("type: FLOAT float_domain { disallow_nan: true }", [NAN], [INF], "FLOAT_TYPE_HAS_NAN"),
        ("type: FLOAT float_domain { disallow_inf: true }", [-INF], [NAN], "FLOAT_TYPE_HAS_INF"),
    ],
)
def test_feature_anomalies(constraint: str, faulty: Any, sound: Any, anomaly: str) -> None:
    schema = schema_of(f'feature {{ name: "f" {constraint} }}')
    assert reasons(validate(statistics_of(f=sound), schema)) == {}
    anomalies = validate(statistics_of(f=faulty), schema)
    assert reasons(anomalies) == {"f": [anomaly]}
    info = anomalies.anomaly_info["f"]
    assert info.short_description
    assert info.description
    assert info.path.step == ["f"]
    assert info.severity == anomalies_pb2.AnomalyInfo.ERROR
    assert anomalies.baseline == schema


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


def test_number_of_rows() -> None:
    schema = schema_of("dataset_constraints { min_examples_count: 2 max_examples_count: 3 }")

    def found(rows: int) -> list[str]:
        statistics = statistics_pb2.DatasetFeatureStatistics(num_examples=rows)
        return [type_name(r.type) for r in validate(statistics, schema).dataset_anomaly_info.reason]

    assert found(1) == ["DATASET_LOW_NUM_EXAMPLES"]
    assert found(2) == found(3) == []
    assert found(4) == ["DATASET_HIGH_NUM_EXAMPLES"]


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


def test_a_domain_that_the_schema_lacks() -> None:
    schema = schema_of('feature { name: "f" type: BYTES domain: "nowhere" }')
    with pytest.raises(InvalidArgument, match="'nowhere' is not in the schema"):
        validate(statistics_of(f=["a"]), schema)


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
