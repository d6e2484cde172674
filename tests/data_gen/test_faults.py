"""Planted faults: what they change, and that they change nothing else."""

import numpy as np
import pyarrow as pa
import pytest

from data_gen.faults import FAULTS, plant

ROWS = 3000
REQUESTS = pa.table(
    {
        "request_id": np.arange(ROWS),
        "free_storage_mb": pa.array(np.full(ROWS, 2048.0), pa.float32()),
        "ram_gb": pa.array(np.full(ROWS, 4.0), pa.float32()),
        "country": pa.array(["BR", "US", None] * (ROWS // 3)),
    }
)
IMPRESSIONS = pa.table(
    {"request_id": np.arange(ROWS), "installed": (np.arange(ROWS) < 100).astype(np.int64)}
)
CHANGED = {"unit": "free_storage_mb", "nan": "ram_gb", "vocabulary": "country"}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("table", [REQUESTS, IMPRESSIONS])
def test_a_fault_changes_one_column_of_one_type_of_row(fault: str, table: pa.Table) -> None:
    planted = plant(fault, table)
    assert planted.schema == table.schema
    changed = [name for name in table.column_names if not planted[name].equals(table[name])]
    expected = {**CHANGED, "labels": "installed"}[fault]
    assert changed == ([expected] if expected in table.column_names else [])


def test_what_a_fault_writes() -> None:
    assert set(plant("unit", REQUESTS)["free_storage_mb"].to_pylist()) == {2.0}
    memory = plant("nan", REQUESTS)["ram_gb"].to_numpy()
    assert np.flatnonzero(np.isnan(memory)).tolist() == [0, 1000, 2000]
    assert set(plant("vocabulary", REQUESTS)["country"].to_pylist()) == {"br", "us", None}


def test_shuffled_labels_are_as_many_and_elsewhere() -> None:
    labels = plant("labels", IMPRESSIONS)["installed"].to_numpy()
    assert labels.sum() == 100
    assert labels[:100].sum() < 15  # of 100 in 3000 rows, 3 are expected there
