"""Which rows break a schema, and the check of sampled requests that counts them."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2

from mlplatform.data.statistics.compute import compute_statistics
from mlplatform.data.validation.broken_rows import BrokenRow, broken_rows, find_broken_rows
from mlplatform.data.validation.serving_check import ServingCheck
from mlplatform.data.validation.validate import require_no_anomalies, validate
from mlplatform.errors import AnomaliesFound, InvalidArgument

NAN, INF = float("nan"), float("inf")
NAME = anomalies_pb2.AnomalyInfo.Type.Name


def schema_of(text: str) -> schema_pb2.Schema:
    return text_format.Parse(text, schema_pb2.Schema())


FLOAT = 'name: "x" type: FLOAT'
INT = 'name: "x" type: INT'
BYTES = 'name: "x" type: BYTES'

# (the feature, a column, rows that break it by anomaly)
CASES: list[tuple[str, pa.Array, dict[str, list[int]]]] = [
    (FLOAT + " float_domain {disallow_nan: true}", pa.array([1.0, NAN, None, INF]),
     {"FLOAT_TYPE_HAS_NAN": [1]}),
    (FLOAT + " float_domain {disallow_inf: true}", pa.array([1.0, NAN, None, INF, -INF]),
     {"FLOAT_TYPE_HAS_INF": [3, 4]}),
    (FLOAT + " float_domain {min: 0.1 max: 2}", pa.array([0.1, 0.0, 2.0, 3.0, None]),
     {"FLOAT_TYPE_SMALL_FLOAT": [1], "FLOAT_TYPE_BIG_FLOAT": [3]}),
    (FLOAT, pa.array(["1.5", "nan", "", "4.9 USD", None, " 1"]),
     {"UNEXPECTED_DATA_TYPE": [2, 3, 5]}),
    (FLOAT + " float_domain {max: 2}", pa.array(["1.5", "2.5", "much"]),
     {"UNEXPECTED_DATA_TYPE": [2], "FLOAT_TYPE_BIG_FLOAT": [1]}),
    (FLOAT, pa.array([1, None, 2]), {"UNEXPECTED_DATA_TYPE": [0, 2]}),
    (INT + " int_domain {min: 0 max: 9}", pa.array([-1, 0, 9, 10, None]),
     {"INT_TYPE_SMALL_INT": [0], "INT_TYPE_BIG_INT": [3]}),
    (INT + " int_domain {min: 1}", pa.array([True, False, None]), {"INT_TYPE_SMALL_INT": [1]}),
    (INT, pa.array(["7", "1.5", "10,000+"]), {"UNEXPECTED_DATA_TYPE": [1, 2]}),
    (BYTES + ' string_domain {value: "a" value: "b"}', pa.array(["a", "c", None, "b", "C"]),
     {"ENUM_TYPE_UNEXPECTED_STRING_VALUES": [1, 4]}),
    (BYTES + ' string_domain {value: "a"}', pa.array(["a", "c", None]).dictionary_encode(),
     {"ENUM_TYPE_UNEXPECTED_STRING_VALUES": [1]}),
    (BYTES, pa.array([1.5, None]), {"UNEXPECTED_DATA_TYPE": [0]}),
    (BYTES + " presence {min_fraction: 1}", pa.array(["a", None]),
     {"FEATURE_TYPE_LOW_FRACTION_PRESENT": [1]}),
    (BYTES + " presence {min_fraction: 1}", pa.nulls(2),
     {"FEATURE_TYPE_LOW_FRACTION_PRESENT": [0, 1]}),
    (INT + " value_count {min: 1 max: 2}", pa.array([[1], [], None, [1, 2, 3]]),
     {"FEATURE_TYPE_LOW_NUMBER_VALUES": [1], "FEATURE_TYPE_HIGH_NUMBER_VALUES": [3]}),
    (INT + " shape {dim {size: 2}}", pa.array([[1, 2], [1], [1, 2, 3]]),
     {"INVALID_FEATURE_SHAPE": [1, 2]}),
    (INT + " shape {dim {size: 1}}", pa.array([1, None]), {"INVALID_FEATURE_SHAPE": [1]}),
    (INT + " value_counts {value_count {min: 2}}", pa.array([[1, 2], [1]]),
     {"FEATURE_TYPE_LOW_NUMBER_VALUES": [1]}),
    (INT + " int_domain {max: 5}", pa.array([[1, 6], None, [], [5, None], [9]]),
     {"INT_TYPE_BIG_INT": [0, 4]}),
    (INT + ' domain: "shared ints"', pa.array([0, 2, -2]),
     {"INT_TYPE_BIG_INT": [1], "INT_TYPE_SMALL_INT": [2]}),
    (FLOAT + ' domain: "shared floats"', pa.array([0.5, 1.5, NAN]),
     {"FLOAT_TYPE_BIG_FLOAT": [1], "FLOAT_TYPE_HAS_NAN": [2]}),
    (INT + " bool_domain {}", pa.array([0, 1, 2, -1, None]),
     {"BOOL_TYPE_BIG_INT": [2], "BOOL_TYPE_SMALL_INT": [3]}),
    (FLOAT + " bool_domain {}", pa.array([0.0, 1.0, None, 0.5, NAN]),
     {"BOOL_TYPE_UNEXPECTED_FLOAT": [3, 4]}),
    (BYTES + ' bool_domain {true_value: "yes" false_value: "no"}',
     pa.array(["yes", "no", None, "maybe"]), {"BOOL_TYPE_UNEXPECTED_STRING": [3]}),
    (BYTES + " int_domain {max: 5}", pa.array(["5", "five", None]),
     {"INT_TYPE_NOT_INT_STRING": [1]}),
    (BYTES + " int_domain {max: 5}", pa.array(["5", "6", None]), {"INT_TYPE_BIG_INT": [1]}),
    (BYTES + " float_domain {disallow_nan: true}", pa.array(["1.5", "nan"]),
     {"FLOAT_TYPE_HAS_NAN": [1]}),
    (BYTES + " float_domain {}", pa.array(["1.5", "$4.99"]), {"FLOAT_TYPE_STRING_NOT_FLOAT": [1]}),
    (BYTES + ' string_domain {value: "a"}', pa.array([b"a", b"\xff", None], pa.binary()),
     {"ENUM_TYPE_INVALID_UTF8": [1], "ENUM_TYPE_UNEXPECTED_STRING_VALUES": [1]}),
    (INT + " int_domain {max: 5} lifecycle_stage: DEPRECATED", pa.array([9]), {}),
]  # fmt: skip


SHARED = """
int_domain { name: "shared ints" min: -1 max: 1 }
float_domain { name: "shared floats" max: 1 disallow_nan: true }
"""


@pytest.mark.parametrize(("feature", "column", "expected"), CASES)
def test_a_row_breaks_what_its_value_breaks(
    feature: str, column: pa.Array, expected: dict[str, list[int]]
) -> None:
    batch = pa.record_batch({"x": column})
    found = broken_rows(batch, schema_of(f"feature {{ {feature} }} {SHARED}"))
    assert {NAME(anomaly): np.flatnonzero(m).tolist() for _, anomaly, m in found} == expected


@pytest.mark.parametrize(("feature", "column", "expected"), CASES)
def test_rows_of_a_slice_are_those_of_the_whole(
    feature: str, column: pa.Array, expected: dict[str, list[int]]
) -> None:
    batch = pa.record_batch({"x": pa.concat_arrays([column, column])}).slice(len(column))
    found = broken_rows(batch, schema_of(f"feature {{ {feature} }} {SHARED}"))
    assert {NAME(anomaly): np.flatnonzero(m).tolist() for _, anomaly, m in found} == expected


@pytest.mark.parametrize(("feature", "column", "expected"), CASES)
def test_an_anomaly_of_a_data_set_has_rows(
    feature: str, column: pa.Array, expected: dict[str, list[int]], tmp_path: Path
) -> None:
    path, schema = tmp_path / "x.parquet", schema_of(f"feature {{ {feature} }} {SHARED}")
    pq.write_table(pa.table({"x": column}), path)
    anomalies = validate(compute_statistics({"d": [path]}).datasets[0], schema)
    raised = {NAME(reason.type) for reason in anomalies.anomaly_info["x"].reason}
    assert raised <= {*expected, "FEATURE_TYPE_NOT_PRESENT"}
    assert bool(raised) == bool(expected)
    found = {row.anomaly: row.row for row in find_broken_rows([path], schema, anomalies)}
    assert found.keys() == raised - {"FEATURE_TYPE_NOT_PRESENT"}


def test_columns_are_judged_by_the_environment() -> None:
    schema = schema_of(
        'default_environment: "A" default_environment: "B" '
        'feature { name: "x" type: INT presence {min_count: 1} not_in_environment: "B" }'
    )
    with_x, without = pa.record_batch({"x": [1, 2]}), pa.record_batch({"y": [1, 2]})

    def found(batch: pa.RecordBatch, environment: str) -> set[tuple[str, str]]:
        return {(name, NAME(a)) for name, a, _ in broken_rows(batch, schema, environment)}

    assert found(with_x, "A") == set()
    assert found(with_x, "B") == {("x", "SCHEMA_NEW_COLUMN")}
    assert found(without, "A") == {("x", "SCHEMA_MISSING_COLUMN"), ("y", "SCHEMA_NEW_COLUMN")}
    assert found(without, "B") == {("y", "SCHEMA_NEW_COLUMN")}


@pytest.mark.parametrize(
    ("feature", "column"),
    [
        (BYTES + " presence {min_fraction: 0.1}", pa.array(["a", None])),
        (BYTES + ' string_domain {value: "a"} distribution_constraints {min_domain_mass: 0.1}',
         pa.array(["a", "b"])),
    ],
)  # fmt: skip
def test_what_a_share_of_rows_may_break_is_told_only_on_request(
    feature: str, column: pa.Array
) -> None:
    batch, schema = pa.record_batch({"x": column}), schema_of(f"feature {{ {feature} }}")
    assert list(broken_rows(batch, schema)) == []
    ((_, _, mask),) = broken_rows(batch, schema, shares=True)
    assert mask.tolist() == [False, True]


def files_of(folder: Path) -> list[Path]:
    """Two files; what is wrong stands in rows 3 and 1 of them, and in the second's lack of `y`."""
    tables = [
        pa.table({"x": [1.0, 2.0, 3.0, NAN], "y": ["a", "a", "b", "a"]}),
        pa.table({"x": [4.0, INF]}),
    ]
    for number, table in enumerate(tables):
        pq.write_table(table, folder / f"{number}.parquet")
    return [folder / "0.parquet", folder / "1.parquet"]


SCHEMA = schema_of(
    """
    feature { name: "x" type: FLOAT float_domain { disallow_nan: true disallow_inf: true } }
    feature { name: "y" type: BYTES presence { min_fraction: 0.9 } string_domain { value: "a" } }
    """
)


def test_the_rows_behind_the_anomalies_of_a_data_set_are_found(tmp_path: Path) -> None:
    first, second = files_of(tmp_path)
    statistics = compute_statistics({"d": [first, second]}).datasets[0]
    anomalies = validate(statistics, SCHEMA)
    found = find_broken_rows([first, second], SCHEMA, anomalies)
    assert set(found) == {
        BrokenRow("x", "FLOAT_TYPE_HAS_NAN", first, 3, "nan"),
        BrokenRow("x", "FLOAT_TYPE_HAS_INF", second, 1, "inf"),
        BrokenRow("y", "ENUM_TYPE_UNEXPECTED_STRING_VALUES", first, 2, "'b'"),
        BrokenRow("y", "FEATURE_TYPE_LOW_FRACTION_PRESENT", second, 0, "no column"),
        BrokenRow("y", "FEATURE_TYPE_LOW_FRACTION_PRESENT", second, 1, "no column"),
    }
    assert str(found[0]) == f"x = nan in row 3 of {first}"
    with pytest.raises(AnomaliesFound) as raised:
        require_no_anomalies(anomalies, "span 7", found)
    assert str(raised.value).endswith("\n".join(f"    {row}" for row in found))


def test_no_more_rows_are_found_than_asked_for_and_only_for_raised_anomalies(
    tmp_path: Path,
) -> None:
    paths = files_of(tmp_path)
    anomalies = anomalies_pb2.Anomalies()
    anomalies.anomaly_info["y"].reason.add(type=NAMED["FEATURE_TYPE_LOW_FRACTION_PRESENT"])
    found = find_broken_rows(paths, SCHEMA, anomalies, samples=1)
    assert [(row.feature, row.path, row.row) for row in found] == [("y", paths[1], 0)]
    assert find_broken_rows(paths, SCHEMA, anomalies_pb2.Anomalies()) == []


def test_a_column_that_is_lost_or_new_has_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "0.parquet"
    pq.write_table(pa.table({"x": [1.0], "z": [1]}), path)
    schema = schema_of('feature { name: "y" type: INT presence { min_count: 1 } }')
    anomalies = validate(compute_statistics({"d": [path]}).datasets[0], schema)
    assert set(anomalies.anomaly_info) == {"x", "y", "z"}
    assert find_broken_rows([path], schema, anomalies) == []


NAMED: Any = dict(anomalies_pb2.AnomalyInfo.Type.items())


def test_a_long_value_is_cut(tmp_path: Path) -> None:
    pq.write_table(pa.table({"y": ["b" * 1000]}), tmp_path / "0.parquet")
    anomalies = anomalies_pb2.Anomalies()
    anomalies.anomaly_info["y"].reason.add(type=NAMED["ENUM_TYPE_UNEXPECTED_STRING_VALUES"])
    (row,) = find_broken_rows([tmp_path / "0.parquet"], SCHEMA, anomalies)
    assert row.value == "'" + "b" * 79 + "…"


# --- Requests, sampled --------------------------------------------------------------------------

SERVED = schema_of(
    """
    default_environment: "TRAINING" default_environment: "SERVING"
    feature { name: "x" type: FLOAT presence { min_fraction: 1 } }
    feature { name: "label" type: INT presence { min_fraction: 1 } not_in_environment: "SERVING" }
    """
)


@pytest.mark.parametrize("block", [1, 2, 7, 100])
@pytest.mark.parametrize("every", [1, 3, 10])
def test_every_nth_request_is_checked_however_they_come(block: int, every: int) -> None:
    x = [float(i) if i % 2 else None for i in range(100)]
    check = ServingCheck(SERVED, "SERVING", every)
    for start in range(0, 100, block):
        check.observe(pa.table({"x": pa.array(x[start : start + block], pa.float64())}))
    turns = range(0, 100, every)
    assert check.checked == len(turns)
    assert check.counts == {
        ("x", "FEATURE_TYPE_LOW_FRACTION_PRESENT"): sum(i % 2 == 0 for i in turns)
    }


def test_requests_that_keep_the_schema_are_counted_and_nothing_else() -> None:
    check = ServingCheck(SERVED, "SERVING", 1)
    check.observe(pa.table({"x": [1.0]}))
    assert (check.checked, dict(check.counts)) == (1, {})


def test_the_log_speaks_at_each_doubling(caplog: pytest.LogCaptureFixture) -> None:
    check = ServingCheck(SERVED, "SERVING", 1)
    with caplog.at_level(logging.WARNING):
        for _ in range(100):
            check.observe(pa.table({"x": [1.0], "label": [1]}))
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 7  # at 1, 2, 4, … 64
    assert told[-1] == "feature 'label' of the requests: SCHEMA_NEW_COLUMN in 64 of 64 checked"


def test_checking_none_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="every: expected at least 1, got 0"):
        ServingCheck(SERVED, "SERVING", 0)
