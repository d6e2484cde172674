"""Statistics that TFDV wrote, judged as TFDV judged them.

tfdv/clean.pb and tfdv/shifted.pb are what TFDV 1.16.1 makes of two made-up listings of apps, 400
and 401 rows; in the second, one row stands a column too far left.  The expected values are TFDV's
own, of the same statistics.
"""

from pathlib import Path

import pytest
from tensorflow_metadata.proto.v0 import statistics_pb2

from mlplatform.data.schemas.inference import infer_schema
from mlplatform.data.validation.validate import validate
from tests.platform.data.validation.described import schema_of

AT_FAULT = {
    "Category", "Reviews", "Size", "Installs", "Type", "Price", "Content Rating", "Genres",
    "Last Updated", "Current Ver", "Android Ver",
}  # fmt: skip


def read(name: str) -> statistics_pb2.DatasetFeatureStatistics:
    content = (Path(__file__).parent / "tfdv" / f"{name}.pb").read_bytes()
    (statistics,) = statistics_pb2.DatasetFeatureStatisticsList.FromString(content).datasets
    return statistics


def test_its_anomalies_are_tfdvs() -> None:
    schema = infer_schema(read("clean"))
    assert len(schema.feature) == 13
    assert not validate(read("clean"), schema).anomaly_info
    assert set(validate(read("shifted"), schema).anomaly_info) == AT_FAULT


@pytest.mark.parametrize(
    ("feature", "measure", "expected"),
    [
        ('name: "Category" type: BYTES', "infinity_norm", 0.0024937655860349127),
        ('name: "Installs" type: BYTES', "jensen_shannon_divergence", 0.0012480056844589894),
        ('name: "Rating" type: FLOAT', "jensen_shannon_divergence", 0.05127749983269998),
        ('name: "Size" type: BYTES', "normalized_abs_difference", 0.0012484394506866417),
    ],
)
def test_its_distances_are_tfdvs(feature: str, measure: str, expected: float) -> None:
    schema = schema_of(
        f"feature {{ {feature} drift_comparator {{ {measure} {{ threshold: 0.5 }} }} }}"
    )
    anomalies = validate(read("shifted"), schema, previous=read("clean"))
    (info,) = anomalies.drift_skew_info
    (measured,) = info.drift_measurements
    assert measured.value == pytest.approx(expected, rel=1e-12)
