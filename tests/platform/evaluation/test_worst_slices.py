"""Slices that were made bad are found, those that were not are not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlplatform.evaluation.bootstrap import resampling
from mlplatform.evaluation.evaluate import evaluate
from mlplatform.evaluation.row_metrics import AUC
from mlplatform.evaluation.task import Model, Task
from mlplatform.evaluation.worst_slices import SliceLosses, find_worst_slices
from tests.platform.evaluation import naive
from tests.platform.evaluation.naive import write

TASK = Task(
    user="customer",
    models={"new": Model("new"), "old": Model("old")},
    metrics=(AUC(),),
    label="clicked",
    search=("country", "device", "hour"),
)


@pytest.fixture(autouse=True)
def no_beam(monkeypatch: pytest.MonkeyPatch) -> None:
    naive.without_beam(monkeypatch)


def rows(seed: int = 0) -> dict[str, Any]:
    """Two calibrated models, none of them better anywhere."""
    rng = np.random.default_rng(seed)
    n = 20_000
    odds, noise = rng.normal(-1, 1, n), rng.normal(0, 0.3, (2, n))
    return {
        "customer": rng.integers(0, 2000, n),
        "clicked": (rng.random(n) < 1 / (1 + np.exp(-odds))).astype(np.int8),
        "new": 1 / (1 + np.exp(-odds - noise[0])),
        "old": 1 / (1 + np.exp(-odds - noise[1])),
        "country": np.array(["BR", "DE", "JP", "US"])[rng.integers(0, 4, n)],
        "device": np.array(["phone", "tablet"])[rng.integers(0, 2, n)],
        "hour": rng.integers(0, 6, n),
    }


def spoil(columns: dict[str, Any], where: Any) -> dict[str, Any]:
    """The new model has been told the opposite there."""
    return columns | {"new": np.where(where, 1 - columns["new"], columns["new"])}


def found(columns: dict[str, Any], folder: Path) -> list[tuple[Any, str | None]]:
    worst = evaluate([write(folder / "rows.parquet", columns)], TASK).worst
    assert list(worst) == sorted(worst, key=lambda one: -one.excess.value)
    return [(dict(one.where), one.against) for one in worst]


def test_where_nothing_is_wrong_nothing_is_found(tmp_path: Path) -> None:
    assert sum(bool(found(rows(seed), tmp_path)) for seed in range(8)) <= 2


def test_a_bad_value_is_found_and_no_pair_that_only_repeats_it(tmp_path: Path) -> None:
    columns = rows()
    worst = found(spoil(columns, columns["country"] == "JP"), tmp_path)
    assert sorted(worst, key=str) == [({"country": "JP"}, "old"), ({"country": "JP"}, None)]


def test_a_bad_pair_is_found_beside_its_parts(tmp_path: Path) -> None:
    columns = rows()
    bad = (columns["country"] == "JP") & (columns["device"] == "tablet")
    worst = found(spoil(columns, bad), tmp_path)
    for against in (None, "old"):
        assert next(where for where, who in worst if who == against) == {
            "country": "JP",
            "device": "tablet",
        }
        assert ({"country": "JP"}, against) in worst
        assert not any(len(one) == 2 and "hour" in one for one, who in worst if who == against)


def test_a_slice_that_is_hard_for_all_is_no_fault_beside_the_baseline(tmp_path: Path) -> None:
    columns = rows()
    hard = columns["hour"] == 3
    columns = spoil(columns, hard) | {"old": np.where(hard, 1 - columns["old"], columns["old"])}
    assert found(columns, tmp_path) == [({"hour": "3"}, None)]


def test_the_excess_is_the_difference_of_two_means() -> None:
    rng = np.random.default_rng(0)
    every, part = np.full(256, 10.0), np.full(256, 4.0)
    losses = {"new": rng.normal(5, 0.1, 256), "old": rng.normal(5, 0.1, 256)}
    of_part = {"new": losses["new"] * 0.8, "old": losses["old"] * 0.4}
    whole = SliceLosses((), every, losses)
    worst = find_worst_slices(whole, [SliceLosses((("a", "b"),), part, of_part)], resampling(0))
    by_against = {one.against: one for one in worst}
    total, inside = losses["new"].sum(), of_part["new"].sum()
    assert by_against[None].excess.value == pytest.approx(
        inside / 1024 - (total - inside) / (2560 - 1024)
    )
    assert by_against["old"].excess.value == pytest.approx((inside - of_part["old"].sum()) / 1024)
    assert by_against[None].rows == 1024 and by_against[None].p < 1e-6


def test_of_few_groups_of_users_nothing_is_said() -> None:
    rows_, losses = np.full(256, 10.0), np.full(256, 5.0)
    few = np.where(np.arange(256) < 29, 5.0, 0.0)
    one = SliceLosses((("a", "b"),), few, {"new": few})
    assert find_worst_slices(SliceLosses((), rows_, {"new": losses}), [one], resampling(0)) == ()
