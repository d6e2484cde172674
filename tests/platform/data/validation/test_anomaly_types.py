"""Every type of anomaly is raised by a planted fault and not by its absence, or is listed as not
raised; and accepting what was found leaves nothing to be found."""

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2

from mlplatform.data.validation.anomaly_types import NOT_RAISED
from mlplatform.data.validation.findings import accept
from mlplatform.data.validation.inspection import inspect
from mlplatform.data.validation.validate import validate
from tests.platform.data.validation.described import schema_of, statistics_of, told

NAN, INF = float("nan"), float("inf")
Types = anomalies_pb2.AnomalyInfo


@dataclass(frozen=True)
class Case:
    """A schema, data that contradicts it in one way, and data that does not.

    Where the fault is the schema's, `sound_schema` is one without it, and the data is the same.
    """

    anomaly: str
    schema: str
    faulty: Any
    sound: Any = None
    sound_schema: str | None = None
    given: dict[str, Any] = field(default_factory=dict)
    sound_given: dict[str, Any] | None = None
    at: str | None = "f"

    @property
    def name(self) -> str:
        return f"{self.anomaly}: {self.schema[:60]}"


def f(constraints: str) -> str:
    return f'feature {{ name: "f" {constraints} }}'


def of(values: Any) -> Any:
    return statistics_of(f=values)


def rows(number: int) -> Any:
    return statistics_pb2.DatasetFeatureStatistics(num_examples=number)


def value(constraints: str, anomaly: str, faulty: Any, sound: Any) -> Case:
    return Case(anomaly, f(constraints), of(faulty), of(sound))


def fault(anomaly: str, faulty: str, sound: str, data: Any) -> Case:
    return Case(anomaly, faulty, data, data, sound)


def compared(
    comparator: str, anomaly: str, data: Any, control: Any, sound: Any, side: str = "previous"
) -> Case:
    name = "drift_comparator" if side == "previous" else "skew_comparator"
    kind = "BYTES" if isinstance(data[0], str) else "FLOAT"
    schema = f(f"type: {kind} {name} {{ {comparator} {{ threshold: 0.3 }} }}")
    return Case(anomaly, schema, of(data), of(sound), given={side: of(control)})


def composite(sort: str, anomaly: str, faulty: Any, sound: Any) -> Case:
    parts = {
        "sparse": 'value_feature { name: "v" } index_feature { name: "i" }',
        "weighted": 'feature { step: "v" } weight_feature { step: "i" }',
    }
    schema = (
        'feature { name: "v" type: FLOAT } feature { name: "i" type: INT } '
        f'{sort}_feature {{ name: "f" {parts[sort]} }}'
    )
    return Case(anomaly, schema, faulty, sound)


def custom(stats: str) -> str:
    return f'features {{ path {{ step: "f" }} type: FLOAT custom_stats {{ {stats} }} }}'


PARTS = (
    'features { path { step: "v" } type: FLOAT num_stats { common_stats { '
    "num_non_missing: 2 tot_num_values: 4 } } } "
    'features { path { step: "i" } type: INT num_stats { common_stats { '
    "num_non_missing: 2 tot_num_values: 4 } } } "
)
NESTED = (
    'features {{ path {{ step: "f" }} type: INT num_stats {{ common_stats {{ '
    "num_non_missing: 2 min_num_values: 1 max_num_values: {most} tot_num_values: 4 "
    "presence_and_valency_stats {{ num_non_missing: 2 min_num_values: 1 max_num_values: {most} }} "
    "presence_and_valency_stats {{ num_non_missing: 4 min_num_values: 1 max_num_values: 5 }} "
    "}} }} }}"
)
DERIVED = (
    'features { path { step: "f" } type: INT num_stats { common_stats { num_non_missing: 2 '
    "min_num_values: 1 max_num_values: 1 tot_num_values: 2 } } "
    'validation_derived_source { deriver_name: "d" } }'
)
NO_HISTOGRAM = (
    'features { path { step: "f" } type: FLOAT num_stats { common_stats { num_non_missing: 2 '
    "min_num_values: 1 max_num_values: 1 tot_num_values: 2 } min: 1 max: 2 } }"
)
FLOATS = [1.0, 2.0, 3.0, 4.0]

CASES = [
    value("type: INT", "UNEXPECTED_DATA_TYPE", [1.5], [1]),
    value("type: FLOAT", "UNEXPECTED_DATA_TYPE", [1], [1.5]),
    value("type: FLOAT float_domain { max: 2 }", "UNEXPECTED_DATA_TYPE", ["1.5"], [1.5]),
    value("type: BYTES int_domain { max: 2 }", "UNEXPECTED_DATA_TYPE", [1], ["1"]),
    value(
        "type: INT shape { dim { size: 1 } } presence { min_count: 1 }",
        "UNEXPECTED_DATA_TYPE",
        ["a", None],
        [1, 2],
    ),
    value(
        "type: INT presence { min_count: 2 }",
        "FEATURE_TYPE_LOW_NUMBER_PRESENT",
        [1, None, None],
        [1, 2, None],
    ),
    value(
        "type: INT presence { min_fraction: 0.5 }",
        "FEATURE_TYPE_LOW_FRACTION_PRESENT",
        [1, None, None],
        [1, None],
    ),
    value(
        "type: INT presence { min_fraction: 1 }",
        "FEATURE_TYPE_LOW_FRACTION_PRESENT",
        [1, None],
        [1, 2],
    ),
    value(
        "type: BYTES presence { min_count: 1 min_fraction: 1 }",
        "FEATURE_TYPE_NOT_PRESENT",
        [None, None],
        ["a", "b"],
    ),
    value(
        "type: INT value_count { min: 1 max: 2 }",
        "FEATURE_TYPE_LOW_NUMBER_VALUES",
        [[], [1]],
        [[1], [1, 2]],
    ),
    value(
        "type: INT value_count { min: 1 max: 2 }",
        "FEATURE_TYPE_HIGH_NUMBER_VALUES",
        [[1], [1, 2, 3]],
        [[1], [1, 2]],
    ),
    Case(
        "FEATURE_TYPE_HIGH_NUMBER_VALUES",
        f("type: INT value_counts { value_count { max: 3 } value_count { max: 5 } }"),
        told(NESTED.format(most=4)),
        told(NESTED.format(most=3)),
    ),
    Case(
        "FEATURE_TYPE_LOW_NUMBER_VALUES",
        f("type: INT value_counts { value_count { min: 1 } value_count { min: 2 } }"),
        told(NESTED.format(most=3)),
        told(NESTED.format(most=3)),
        f("type: INT value_counts { value_count { min: 1 } value_count { min: 1 } }"),
    ),
    Case(
        "VALUE_NESTEDNESS_MISMATCH",
        f("type: INT value_count { min: 1 }"),
        told(NESTED.format(most=3)),
        of([[1], [2]]),
    ),
    Case(
        "VALUE_NESTEDNESS_MISMATCH",
        f("type: INT value_counts { value_count { min: 1 } value_count { min: 1 } }"),
        of([[1], [2]]),
        told(NESTED.format(most=3)),
    ),
    value(
        "type: INT shape { dim { size: 2 } dim { size: 2 } }",
        "INVALID_FEATURE_SHAPE",
        [[1, 2, 3, 4], [1, 2, 3]],
        [[1, 2, 3, 4]],
    ),
    value("type: INT shape { }", "INVALID_FEATURE_SHAPE", [[1, 2]], [1]),
    value("type: INT shape { dim { size: 1 } }", "INVALID_FEATURE_SHAPE", [1, None], [1, 2]),
    value(
        "type: BYTES unique_constraints { min: 2 }", "FEATURE_TYPE_LOW_UNIQUE", ["a"], ["a", "b"]
    ),
    value(
        "type: BYTES unique_constraints { max: 1 }", "FEATURE_TYPE_HIGH_UNIQUE", ["a", "b"], ["a"]
    ),
    value("type: INT unique_constraints { max: 1 }", "FEATURE_TYPE_HIGH_UNIQUE", [1, 2], [1, 1]),
    Case(
        "FEATURE_TYPE_NO_UNIQUE",
        f("type: FLOAT unique_constraints { max: 1 }"),
        of([1.0]),
        of([1.0]),
        f("type: FLOAT"),
    ),
    value(
        'type: BYTES string_domain { value: "a" }',
        "ENUM_TYPE_UNEXPECTED_STRING_VALUES",
        ["a", "b"],
        ["a", "a"],
    ),
    Case(
        "ENUM_TYPE_UNEXPECTED_STRING_VALUES",
        f('type: BYTES domain: "shared"') + ' string_domain { name: "shared" value: "a" }',
        of(["a", "b"]),
        of(["a"]),
    ),
    value(
        'type: BYTES string_domain { value: "a" } '
        "distribution_constraints { min_domain_mass: 0.9 }",
        "ENUM_TYPE_UNEXPECTED_STRING_VALUES",
        ["a"] * 89 + ["b"] * 11,
        ["a"] * 90 + ["b"] * 10,
    ),
    value(
        'type: BYTES string_domain { value: "v0" } distribution_constraints { min_domain_mass: 1 }',
        "ENUM_TYPE_UNEXPECTED_STRING_VALUES",
        [f"v{i}" for i in range(1_500)],
        ["v0"],
    ),
    value(
        'type: BYTES string_domain { value: "a" }',
        "ENUM_TYPE_INVALID_UTF8",
        [b"a", b"\xff"],
        [b"a"],
    ),
    value("type: INT int_domain { min: 1 }", "INT_TYPE_SMALL_INT", [0, 3], [1, 3]),
    value("type: INT int_domain { max: 3 }", "INT_TYPE_BIG_INT", [1, 4], [1, 3]),
    value("type: INT int_domain { max: 3 }", "INT_TYPE_BIG_INT", [2**63 - 1], [3]),
    value("type: BYTES int_domain { min: -1 }", "INT_TYPE_SMALL_INT", ["-2", "3"], ["-1", "+3"]),
    value(
        "type: BYTES int_domain { max: 9007199254740992 }",
        "INT_TYPE_BIG_INT",
        ["9007199254740996"],
        ["9007199254740992"],
    ),
    value("type: BYTES int_domain { }", "INT_TYPE_NOT_INT_STRING", ["1", "1.0"], ["1"]),
    value("type: BYTES int_domain { }", "INT_TYPE_NOT_INT_STRING", [" 1"], ["-1"]),
    value("type: BYTES int_domain { }", "INT_TYPE_NOT_INT_STRING", ["9" * 5_000], ["9" * 18]),
    value("type: BYTES int_domain { }", "INT_TYPE_NOT_INT_STRING", [b"\xff"], [b"1"]),
    Case(
        "INT_TYPE_BIG_INT",
        f('type: INT domain: "shared"') + ' int_domain { name: "shared" max: 3 }',
        of([4]),
        of([3]),
    ),
    value("type: FLOAT float_domain { min: 0.1 }", "FLOAT_TYPE_SMALL_FLOAT", [0.05], [0.1]),
    value("type: FLOAT float_domain { max: 0.3 }", "FLOAT_TYPE_BIG_FLOAT", [0.35], [0.3]),
    value("type: FLOAT float_domain { max: 0.3 }", "FLOAT_TYPE_BIG_FLOAT", [0.1, INF], [NAN]),
    value("type: FLOAT float_domain { max: 0.3 }", "FLOAT_TYPE_BIG_FLOAT", [1e300], [NAN]),
    value("type: FLOAT float_domain { min: 1 }", "FLOAT_TYPE_SMALL_FLOAT", [-INF], [NAN, 1.0]),
    value("type: FLOAT float_domain { disallow_nan: true }", "FLOAT_TYPE_HAS_NAN", [NAN], [INF]),
    value("type: FLOAT float_domain { disallow_inf: true }", "FLOAT_TYPE_HAS_INF", [-INF], [NAN]),
    value("type: BYTES float_domain { min: 1 }", "FLOAT_TYPE_SMALL_FLOAT", ["0.5"], ["1e3", "nan"]),
    value("type: BYTES float_domain { max: 1 }", "FLOAT_TYPE_BIG_FLOAT", ["1.5"], [".5", "1."]),
    value("type: BYTES float_domain { disallow_nan: true }", "FLOAT_TYPE_HAS_NAN", ["NaN"], ["1"]),
    value("type: BYTES float_domain { disallow_inf: true }", "FLOAT_TYPE_HAS_INF", ["-inf"], ["1"]),
    value("type: BYTES float_domain { }", "FLOAT_TYPE_STRING_NOT_FLOAT", ["$4.99"], ["4.99"]),
    value("type: BYTES float_domain { }", "FLOAT_TYPE_STRING_NOT_FLOAT", ["1_0"], ["10"]),
    value("type: INT bool_domain { }", "BOOL_TYPE_BIG_INT", [0, 2], [0, 1]),
    value("type: INT bool_domain { }", "BOOL_TYPE_SMALL_INT", [-1, 1], [False, True]),
    value("type: FLOAT bool_domain { }", "BOOL_TYPE_UNEXPECTED_FLOAT", [0.0, 2.0], [0.0, 1.0]),
    value("type: FLOAT bool_domain { }", "BOOL_TYPE_UNEXPECTED_FLOAT", [0.0, 0.5, 1.0], [1.0]),
    value("type: FLOAT bool_domain { }", "BOOL_TYPE_UNEXPECTED_FLOAT", [0.0, NAN], [0.0]),
    value(
        'type: BYTES bool_domain { true_value: "yes" false_value: "no" }',
        "BOOL_TYPE_UNEXPECTED_STRING",
        ["yes", "maybe"],
        ["yes", "no"],
    ),
    Case("SCHEMA_NEW_COLUMN", "", of(["a", "b"]), of(["a"]), f("type: BYTES")),
    Case(
        "SCHEMA_MISSING_COLUMN",
        f("type: INT presence { min_count: 1 }") + ' feature { name: "g" type: INT }',
        statistics_of(g=[1]),
        statistics_of(f=[1], g=[1]),
    ),
    Case("NO_DATA_IN_SPAN", f("type: INT"), rows(0), of([1]), at=None),
    Case(
        "DATASET_LOW_NUM_EXAMPLES",
        "dataset_constraints { min_examples_count: 2 }",
        rows(1),
        rows(2),
        at=None,
    ),
    Case(
        "DATASET_HIGH_NUM_EXAMPLES",
        "dataset_constraints { max_examples_count: 2 }",
        rows(3),
        rows(2),
        at=None,
    ),
    Case(
        "COMPARATOR_LOW_NUM_EXAMPLES",
        "dataset_constraints { num_examples_drift_comparator { min_fraction_threshold: 0.5 } }",
        rows(49),
        rows(50),
        given={"previous": rows(100)},
        at=None,
    ),
    Case(
        "COMPARATOR_HIGH_NUM_EXAMPLES",
        "dataset_constraints { num_examples_drift_comparator { max_fraction_threshold: 1.5 } }",
        rows(151),
        rows(150),
        given={"previous": rows(100)},
        at=None,
    ),
    Case(
        "COMPARATOR_HIGH_NUM_EXAMPLES",
        "dataset_constraints { num_examples_version_comparator { max_fraction_threshold: 1 } }",
        rows(1),
        rows(1),
        given={"previous_version": rows(0)},
        sound_given={"previous_version": rows(1)},
        at=None,
    ),
    compared(
        "infinity_norm",
        "COMPARATOR_L_INFTY_HIGH",
        ["a", "a", "b", "b"],
        ["a", "a", "a", "a"],
        ["a", "a", "a", "a", "b"],
    ),
    compared(
        "infinity_norm",
        "COMPARATOR_L_INFTY_HIGH",
        ["a", "a", "b", "b"],
        ["a", "a", "a", "a"],
        ["a", "a", "a", "a", "b"],
        "serving",
    ),
    compared(
        "jensen_shannon_divergence",
        "COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH",
        FLOATS,
        [7.0, 8.0],
        [7.0, 8.0],
    ),
    compared(
        "jensen_shannon_divergence",
        "COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH",
        ["a"],
        ["b"],
        ["b"],
        "serving",
    ),
    compared(
        "normalized_abs_difference",
        "COMPARATOR_NORMALIZED_ABSOLUTE_DIFFERENCE_HIGH",
        ["a"] * 4,
        ["a"],
        ["a"],
    ),
    Case(
        "COMPARATOR_CONTROL_DATA_MISSING",
        f("type: BYTES drift_comparator { infinity_norm { threshold: 0 } }"),
        of(["a"]),
        of(["a"]),
        given={"previous": statistics_of(g=["a"])},
        sound_given={"previous": of(["a"])},
    ),
    Case(
        "COMPARATOR_TREATMENT_DATA_MISSING",
        f("type: BYTES skew_comparator { infinity_norm { threshold: 0 } }"),
        of([None]),
        of(["a"]),
        given={"serving": of(["a"])},
    ),
    Case(
        "STATS_NOT_AVAILABLE",
        f("type: FLOAT drift_comparator { jensen_shannon_divergence { threshold: 1 } }"),
        told(NO_HISTOGRAM),
        of([1.0, 2.0]),
        given={"previous": of([1.0])},
    ),
    Case(
        "STATS_NOT_AVAILABLE",
        f("type: FLOAT float_domain { disallow_nan: true }"),
        told(NO_HISTOGRAM),
        of([1.0, 2.0]),
    ),
    composite(
        "sparse",
        "SPARSE_FEATURE_MISSING_VALUE",
        statistics_of(v=[[1.0], None], i=[[1], [2]]),
        statistics_of(v=[[1.0], [1.0]], i=[[1], [2]]),
    ),
    composite(
        "sparse",
        "SPARSE_FEATURE_MISSING_INDEX",
        statistics_of(v=[[1.0], [1.0]], i=[[1], None]),
        statistics_of(v=[[1.0], None], i=[[1], None]),
    ),
    composite(
        "sparse",
        "SPARSE_FEATURE_LENGTH_MISMATCH",
        statistics_of(v=[[1.0], [1.0, 2.0]], i=[[1], [2]]),
        statistics_of(v=[[1.0], [1.0, 2.0]], i=[[1], [2, 3]]),
    ),
    composite(
        "sparse",
        "SPARSE_FEATURE_MISSING_VALUE",
        told(PARTS + custom('name: "missing_value" num: 1')),
        told(PARTS + custom('name: "missing_value" num: 0')),
    ),
    composite(
        "sparse",
        "SPARSE_FEATURE_MISSING_INDEX",
        told(
            PARTS
            + custom(
                'name: "missing_index" rank_histogram { buckets { label: "i" sample_count: 1 } }'
            )
        ),
        told(
            PARTS
            + custom(
                'name: "missing_index" rank_histogram { buckets { label: "i" sample_count: 0 } }'
            )
        ),
    ),
    composite(
        "sparse",
        "SPARSE_FEATURE_LENGTH_MISMATCH",
        told(
            PARTS
            + custom(
                'name: "max_length_diff" rank_histogram { buckets { label: "i" sample_count: 1 } }'
            )
        ),
        told(PARTS),
    ),
    composite(
        "weighted",
        "WEIGHTED_FEATURE_MISSING_VALUE",
        statistics_of(v=[[1.0], None], i=[[1], [2]]),
        statistics_of(v=[[1.0], [1.0]], i=[[1], [2]]),
    ),
    composite(
        "weighted",
        "WEIGHTED_FEATURE_MISSING_WEIGHT",
        told(PARTS + custom('name: "missing_weight" num: 1')),
        told(PARTS + custom('name: "missing_weight" num: 0')),
    ),
    composite(
        "weighted",
        "WEIGHTED_FEATURE_LENGTH_MISMATCH",
        told(PARTS + custom('name: "min_weight_length_diff" num: -1')),
        told(PARTS + custom('name: "min_weight_length_diff" num: 0')),
    ),
    fault(
        "SPARSE_FEATURE_NAME_COLLISION",
        f("type: FLOAT") + ' sparse_feature { name: "f" value_feature { name: "f" } '
        'index_feature { name: "f" } }',
        f("type: FLOAT"),
        of([1.0]),
    ),
    fault(
        "WEIGHTED_FEATURE_NAME_COLLISION",
        f("type: FLOAT") + ' weighted_feature { name: "f" feature { step: "f" } '
        'weight_feature { step: "f" } }',
        f("type: FLOAT") + ' weighted_feature { name: "f" lifecycle_stage: DEPRECATED }',
        of([1.0]),
    ),
    fault(
        "INVALID_SCHEMA_SPECIFICATION",
        'feature { name: "v" type: FLOAT } sparse_feature { name: "f" '
        'value_feature { name: "v" } index_feature { name: "i" } }',
        'feature { name: "v" type: FLOAT } feature { name: "i" type: INT } '
        'sparse_feature { name: "f" value_feature { name: "v" } index_feature { name: "i" } }',
        statistics_of(v=pa.nulls(1, pa.float32())),
    ),
    Case("FEATURE_MISSING_NAME", "feature { type: INT }", rows(1), rows(1), f("type: INT"), at=""),
    fault("FEATURE_MISSING_TYPE", f(""), f("type: INT"), of([1])),
    fault(
        "FEATURE_MISSING_TYPE",
        f('string_domain { value: "a" }'),
        f('type: BYTES string_domain { value: "a" }'),
        rows(1),
    ),
    fault("FEATURE_MISSING_TYPE", f("presence { min_count: 1 }"), f("type: INT"), rows(1)),
    fault(
        "DOMAIN_INVALID_FOR_TYPE",
        f("type: FLOAT int_domain { max: 1 }"),
        f("type: FLOAT float_domain { max: 1 }"),
        of([1.0]),
    ),
    fault(
        "DOMAIN_INVALID_FOR_TYPE",
        f('type: INT string_domain { value: "1" } distribution_constraints { }'),
        f("type: INT int_domain { }"),
        of([1]),
    ),
    Case(
        "DOMAIN_INVALID_FOR_TYPE",
        f('type: BYTES string_domain { value: "a" }'),
        told(
            'features { path { step: "f" } type: BYTES bytes_stats { '
            "common_stats { num_non_missing: 2 tot_num_values: 2 } } }"
        ),
        of(["a"]),
    ),
    fault(
        "INVALID_DOMAIN_SPECIFICATION", f('type: BYTES domain: "x"'), f("type: BYTES"), of(["a"])
    ),
    fault(
        "INVALID_DOMAIN_SPECIFICATION",
        f('type: BYTES bool_domain { true_value: "a" false_value: "a" }'),
        f('type: BYTES bool_domain { true_value: "a" false_value: "b" }'),
        of(["a"]),
    ),
    fault(
        "INVALID_DOMAIN_SPECIFICATION",
        f('type: BYTES string_domain { value: "a" value: "a" }'),
        f('type: BYTES string_domain { value: "a" }'),
        of(["a"]),
    ),
    fault(
        "INVALID_DOMAIN_SPECIFICATION",
        f("type: INT int_domain { min: 2 max: 1 }"),
        f("type: INT int_domain { min: 1 max: 1 }"),
        of([1]),
    ),
    fault(
        "INVALID_SCHEMA_SPECIFICATION",
        f("type: INT presence { min_fraction: 1.5 }"),
        f("type: INT presence { min_fraction: 1 }"),
        of([1]),
    ),
    fault(
        "INVALID_SCHEMA_SPECIFICATION",
        f("type: INT presence { min_fraction: -0.5 }"),
        f("type: INT presence { min_fraction: 0 }"),
        of([1, None]),
    ),
    fault(
        "INVALID_SCHEMA_SPECIFICATION",
        f("type: INT value_count { min: -1 }"),
        f("type: INT value_count { min: 0 }"),
        of([1]),
    ),
    fault(
        "INVALID_SCHEMA_SPECIFICATION",
        f("type: INT value_count { min: 1 max: 0 }"),
        f("type: INT value_count { min: 1 max: 1 }"),
        of([1]),
    ),
    fault(
        "INVALID_SCHEMA_SPECIFICATION",
        f("type: BYTES unique_constraints { min: 3 max: 2 }"),
        f("type: BYTES unique_constraints { min: 3 max: 3 }"),
        of(["a", "b", "c"]),
    ),
    fault(
        "INVALID_SCHEMA_SPECIFICATION",
        f("type: INT shape { dim { size: -1 } }"),
        f("type: INT shape { dim { size: 1 } }"),
        of([1]),
    ),
    fault(
        "INVALID_SCHEMA_SPECIFICATION",
        f("type: BYTES distribution_constraints { min_domain_mass: 0.5 }"),
        f('type: BYTES string_domain { value: "a" } distribution_constraints { }'),
        of(["a"]),
    ),
    fault(
        "INVALID_SCHEMA_SPECIFICATION",
        f("type: BYTES string_domain { } distribution_constraints { min_domain_mass: -1 }"),
        f("type: BYTES string_domain { } distribution_constraints { min_domain_mass: 0 }"),
        of(["a"]),
    ),
    fault(
        "INVALID_SCHEMA_SPECIFICATION",
        f('type: INT in_environment: "A" not_in_environment: "A"'),
        f('type: INT in_environment: "A" not_in_environment: "B"'),
        of([1]),
    ),
    fault(
        "INVALID_SCHEMA_SPECIFICATION",
        f("type: FLOAT drift_comparator { infinity_norm { threshold: 0.1 } }"),
        f("type: FLOAT drift_comparator { jensen_shannon_divergence { threshold: 0.1 } }"),
        of([1.0]),
    ),
    fault(
        "INVALID_SCHEMA_SPECIFICATION",
        f("type: INT skew_comparator { normalized_abs_difference { threshold: 0.1 } }"),
        f(
            "type: INT int_domain { is_categorical: true } "
            "skew_comparator { normalized_abs_difference { threshold: 0.1 } }"
        ),
        of([1]),
    ),
    fault(
        "INVALID_SCHEMA_SPECIFICATION",
        f("type: BYTES drift_comparator { infinity_norm { threshold: 2 } }"),
        f("type: BYTES drift_comparator { infinity_norm { threshold: 1 } }"),
        of(["a"]),
    ),
    fault("INVALID_SCHEMA_SPECIFICATION", f("type: INT") * 2, f("type: INT"), of([1])),
    Case(
        "INVALID_SCHEMA_SPECIFICATION",
        "dataset_constraints { min_examples_count: 1 max_examples_count: 0 }",
        rows(1),
        rows(1),
        "dataset_constraints { min_examples_count: 1 max_examples_count: 1 }",
        at=None,
    ),
    fault(
        "DERIVED_FEATURE_BAD_LIFECYCLE",
        f('type: INT validation_derived_source { deriver_name: "d" }'),
        f(
            'type: INT validation_derived_source { deriver_name: "d" } '
            "lifecycle_stage: VALIDATION_DERIVED"
        ),
        told(DERIVED),
    ),
    Case("DERIVED_FEATURE_INVALID_SOURCE", f("type: INT"), told(DERIVED), of([1, 2])),
]


def found(statistics: Any, schema: Any, given: dict[str, Any]) -> list[tuple[str | None, str]]:
    inspection = inspect(statistics, schema, **given)
    return [(finding.feature, finding.type_name) for finding in inspection.findings]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_planted_fault_is_found_and_its_absence_is_not(case: Case) -> None:
    assert found(case.faulty, schema_of(case.schema), case.given) == [(case.at, case.anomaly)]
    sound_schema = schema_of(case.sound_schema if case.sound_schema is not None else case.schema)
    sound_given = case.given if case.sound_given is None else case.sound_given
    assert found(case.sound, sound_schema, sound_given) == []


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_anomaly_says_what_is_wrong_and_what_would_accept_it(case: Case) -> None:
    schema = schema_of(case.schema)
    anomalies = validate(case.faulty, schema, **case.given)
    info = anomalies.dataset_anomaly_info if case.at is None else anomalies.anomaly_info[case.at]
    assert anomalies.baseline == schema
    assert list(info.path.step) == ([case.at] if case.at else [])
    assert info.severity == Types.ERROR
    (reason,) = info.reason
    assert Types.Type.Name(reason.type) == case.anomaly
    assert reason.short_description and reason.short_description == info.short_description
    assert reason.description.startswith(("Expected ", "The column is in the "))
    assert reason.description == info.description
    assert bool(info.diff_regions) == (case.anomaly != "NO_DATA_IN_SPAN")


def test_every_type_is_raised_or_listed_as_not_raised() -> None:
    raised = {case.anomaly for case in CASES}
    assert raised | NOT_RAISED.keys() == set(Types.Type.keys())
    assert not raised & NOT_RAISED.keys()
    assert all(NOT_RAISED.values())


ACCEPTABLE = [case for case in CASES if case.anomaly != "NO_DATA_IN_SPAN"]


@pytest.mark.parametrize("case", ACCEPTABLE, ids=lambda case: case.name)
def test_accepting_what_was_found_leaves_nothing_to_be_found(case: Case) -> None:
    schema = schema_of(case.schema)
    before = schema.SerializeToString(deterministic=True)
    accepted = accept(schema, inspect(case.faulty, schema, **case.given).findings)
    assert found(case.faulty, accepted, case.given) == []
    assert schema.SerializeToString(deterministic=True) == before
    assert found(case.faulty, schema, case.given) != []


# Features of one name a case, so that any cases can be put into one schema and one data set.
COMBINABLE = [
    case
    for case in ACCEPTABLE
    if case.at == "f" and case.schema.count("feature {") == 1 and "shared" not in case.schema
]


@given(st.lists(st.sampled_from(COMBINABLE), min_size=1, max_size=6), st.sampled_from([0, 1, 9]))
def test_accepting_any_faults_together_leaves_nothing_to_be_found(
    cases: list[Case], more_rows: int
) -> None:
    schema = schema_pb2.Schema()
    sides = {side: rows(5) for side in ("data", "previous", "serving")}
    for number, case in enumerate(cases):
        for feature in schema_of(case.schema).feature:
            feature.name = f"f{number}"
            schema.feature.append(feature)
        for side, statistics in {"data": case.faulty, **case.given}.items():
            for feature in statistics.features:
                if feature.path.step[0] == "f":
                    sides[side].features.add().CopyFrom(feature)
                    sides[side].features[-1].path.step[:] = [f"f{number}"]
    data = sides.pop("data")
    # More missing rows give some of the features further faults.
    for feature in data.features:
        stats = getattr(feature, feature.WhichOneof("stats") or "num_stats")
        stats.common_stats.num_missing += more_rows
    findings = inspect(data, schema, **sides).findings
    assert {case.anomaly for case in cases} <= {finding.type_name for finding in findings}
    assert found(data, accept(schema, findings), sides) == []
    for finding in findings:
        left = found(data, accept(schema, [finding]), sides)
        assert (finding.feature, finding.type_name) not in left
