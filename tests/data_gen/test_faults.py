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
        "user_id": np.arange(ROWS) // 3,
        "recent_categories": pa.array([["GAME"], [], ["TOOLS", "GAME"]] * (ROWS // 3)),
    }
)
IMPRESSIONS = pa.table(
    {
        "request_id": np.arange(ROWS),
        "installed": (np.arange(ROWS) < 100).astype(np.int64),
        "app_id": np.arange(ROWS) % 500,
        "recent_installs": np.arange(ROWS) + 1,
        "recent_install_rate": pa.array(np.full(ROWS, 0.25), pa.float32()),
    }
)
CHANGED = {
    "behaviour": ("recent_categories", "recent_installs", "recent_install_rate"),
    "irrelevant": ("ram_gb",),
    "unit": ("free_storage_mb",),
    "nan": ("ram_gb",),
    "vocabulary": ("country",),
    "labels": ("installed",),
    "leak": ("recent_install_rate",),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("table", [REQUESTS, IMPRESSIONS])
@pytest.mark.parametrize("severity", [0.3, 1.0])
def test_a_fault_changes_its_own_columns_alone(
    fault: str, table: pa.Table, severity: float
) -> None:
    planted = plant(fault, table, severity)
    assert planted.schema == table.schema
    changed = [name for name in table.column_names if not planted[name].equals(table[name])]
    assert changed == [name for name in CHANGED[fault] if name in table.column_names]


def test_what_a_fault_writes() -> None:
    assert set(plant("unit", REQUESTS)["free_storage_mb"].to_pylist()) == {2.0}
    memory = plant("nan", REQUESTS)["ram_gb"].to_numpy()
    assert np.flatnonzero(np.isnan(memory)).tolist() == [0, 1000, 2000]
    assert set(plant("vocabulary", REQUESTS)["country"].to_pylist()) == {"br", "us", None}


def test_a_leak_tells_the_label() -> None:
    leaked = plant("leak", IMPRESSIONS)["recent_install_rate"].to_numpy()
    assert leaked[:100].tolist() == [1.25] * 100 and leaked[100:].tolist() == [0.25] * (ROWS - 100)


def test_lost_behaviour_reads_as_nothing() -> None:
    assert plant("behaviour", REQUESTS)["recent_categories"].to_pylist() == [[]] * ROWS
    assert plant("behaviour", IMPRESSIONS)["recent_installs"].to_pylist() == [0] * ROWS
    assert set(plant("irrelevant", REQUESTS)["ram_gb"].to_pylist()) == {4096.0}


def test_a_severity_is_a_share_of_ids_and_a_higher_one_has_them_too() -> None:
    def hit(severity: float) -> set[int]:
        lost = plant("behaviour", IMPRESSIONS, severity)
        apps = np.flatnonzero(lost["recent_installs"].to_numpy() == 0) % 500
        ids, counts = np.unique(apps, return_counts=True)
        assert set(counts) <= {ROWS // 500}  # all rows of an app, or none
        return set(ids.tolist())

    shares = [len(hit(severity)) / 500 for severity in (0.25, 0.5, 0.75)]
    # Five standard deviations of a binomial: 5 * sqrt(0.25 / 500) = 0.11.
    assert np.allclose(shares, [0.25, 0.5, 0.75], atol=0.11)
    assert hit(0.0) == set() and hit(0.25) < hit(0.5) < hit(1.0) == set(range(500))


def test_shuffled_labels_are_as_many_and_elsewhere() -> None:
    labels = plant("labels", IMPRESSIONS)["installed"].to_numpy()
    assert labels.sum() == 100
    assert labels[:100].sum() < 15  # of 100 in 3000 rows, 3 are expected there
