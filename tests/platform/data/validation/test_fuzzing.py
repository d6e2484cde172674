"""Rows made from a schema: those it allows raise nothing, a planted fault is found where it is."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow.parquet as pq
import pytest
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2

from mlplatform.data.statistics.compute import compute_statistics
from mlplatform.data.validation.broken_rows import broken_rows
from mlplatform.data.validation.validate import validate
from tests.schema_rows import Fault, Row, arrow_table, faults, served, valid_data

SCHEMA = text_format.Parse(
    """
    feature { name: "id" type: INT presence { min_fraction: 1 } shape { dim { size: 1 } } }
    feature { name: "age" type: INT value_count { min: 1 max: 1 } int_domain { min: -3 max: 130 } }
    feature { name: "share" type: FLOAT presence { min_fraction: 1 } shape { dim { size: 1 } }
              float_domain { min: 0 max: 1 disallow_nan: true disallow_inf: true } }
    feature { name: "colour" type: BYTES domain: "colours" value_count { min: 1 max: 1 } }
    feature { name: "colours" type: BYTES domain: "colours" presence { min_count: 1 } }
    feature { name: "pair" type: INT shape { dim { size: 2 } } presence { min_fraction: 1 } }
    feature { name: "some" type: FLOAT value_count { min: 1 max: 4 } float_domain { max: 10 } }
    feature { name: "text" type: BYTES value_count { min: 1 max: 1 } }
    feature { name: "label" type: INT presence { min_fraction: 1 } shape { dim { size: 1 } }
              int_domain { min: 0 max: 1 } not_in_environment: "SERVING" }
    string_domain { name: "colours" value: "red" value: "green" value: "" value: "bl\\303\\274" }
    default_environment: "TRAINING" default_environment: "SERVING"
    """,
    schema_pb2.Schema(),
)
NAME = anomalies_pb2.AnomalyInfo.Type.Name
ENVIRONMENTS = ["TRAINING", "SERVING"]
EVERY_FAULT = [(e, fault) for e in ENVIRONMENTS for fault in faults(SCHEMA, e)]


def anomalies_of(rows: list[Row], environment: str) -> dict[str, set[str]]:
    """The anomalies that the whole path finds, from a file on disk, by feature."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "rows.parquet"
        pq.write_table(arrow_table(rows, served(SCHEMA, environment)), path)
        statistics = compute_statistics({"d": [path]}).datasets[0]
    anomalies = validate(statistics, SCHEMA, environment=environment)
    assert not anomalies.HasField("dataset_anomaly_info")
    return {
        name: {NAME(reason.type) for reason in info.reason}
        for name, info in anomalies.anomaly_info.items()
    }


def broken(rows: list[Row], environment: str) -> dict[tuple[str, str], list[int]]:
    (batch,) = arrow_table(rows, served(SCHEMA, environment)).combine_chunks().to_batches()
    return {
        (feature, NAME(anomaly)): np.flatnonzero(mask).tolist()
        for feature, anomaly, mask in broken_rows(batch, SCHEMA, environment)
    }


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_rows_that_the_schema_allows_raise_no_anomaly(environment: str) -> None:
    @settings(max_examples=25, deadline=None)
    @given(valid_data(SCHEMA, environment))
    def check(rows: list[Row]) -> None:
        assert anomalies_of(rows, environment) == {}

    check()


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_no_row_that_the_schema_allows_is_broken(environment: str) -> None:
    @settings(max_examples=150, deadline=None)
    @given(valid_data(SCHEMA, environment))
    def check(rows: list[Row]) -> None:
        assert broken(rows, environment) == {}

    check()


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_planted_fault_breaks_its_row_and_no_other(data: st.DataObject) -> None:
    environment, (feature, anomaly, cell) = data.draw(st.sampled_from(EVERY_FAULT))
    rows = data.draw(valid_data(SCHEMA, environment))
    at = data.draw(st.integers(0, len(rows) - 1))
    rows[at] = rows[at] | {feature: cell}
    found = broken(rows, environment)
    assert found[feature, anomaly] == [at]
    # An infinity is above every limit, too.
    assert {name for name, _ in found} == {feature}
    assert all(places == [at] for places in found.values())


@pytest.mark.parametrize(("environment", "fault"), EVERY_FAULT)
def test_a_planted_fault_is_an_anomaly_of_its_feature_alone(environment: str, fault: Fault) -> None:
    feature, anomaly, cell = fault

    @settings(max_examples=2, deadline=None)
    @given(valid_data(SCHEMA, environment))
    def check(rows: list[Row]) -> None:
        found = anomalies_of([*rows, rows[0] | {feature: cell}], environment)
        assert found.keys() == {feature}
        assert anomaly in found[feature]

    check()


def test_every_kind_of_fault_is_among_the_planted_ones() -> None:
    assert {anomaly for _, (_, anomaly, _) in EVERY_FAULT} == {
        "FEATURE_TYPE_LOW_FRACTION_PRESENT",
        "FEATURE_TYPE_LOW_NUMBER_VALUES",
        "ENUM_TYPE_UNEXPECTED_STRING_VALUES",
        "FLOAT_TYPE_HAS_NAN",
        "FLOAT_TYPE_HAS_INF",
        "FLOAT_TYPE_BIG_FLOAT",
        "INT_TYPE_SMALL_INT",
        "INT_TYPE_BIG_INT",
    }
