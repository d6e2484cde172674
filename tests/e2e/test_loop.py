"""Three days of the loop in a world of 2,000 users, with a bad day and a kill in the middle."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mlplatform.registry.registry import Registry

ROOT = Path(__file__).parents[2]
CONFIG = """
world: {initial_apps: 1480, new_apps_per_day: 10, initial_users: 2000, new_users_per_day: 40,
        requests_per_user_day: 3.0, organic_per_user_day: 0.4}
days: {warm_up: 2, training: 3}
retrieval: {batch_size: 128, negatives: 128, epochs: 2}
index: {leaves: 20, leaves_to_search: 15, reorder: 300}
ranking: {batch_requests: 64, wide_buckets: 16384, epochs: 1}
evaluation: {installs: 500, queries: 100, requests: 3000, world_requests: 300, skew_requests: 500}
# A morning of 700 requests is too short to tell a good model from a fair one.
gate:
  thresholds:
  - {evaluation: ranking, figure: "AUC: system", above: 0.5, why: it has to rank}
  - {evaluation: ranking, figure: "AUC: system - baseline", above: -0.3, why: nor much worse}
  - {evaluation: ranking, figure: "AUC: system", below: 0.95, why: nothing honest is this good}
  - {evaluation: index, figure: "recall@100", above: 0.95, why: it has to find}
loop: {requests: 3000, exploration: 0.05, strict: true}
"""
FIRST, BAD, LAST = 5, 5, 7


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """A workspace and its days: killed while the last day's ranker was trained, and run again."""
    root = tmp_path_factory.mktemp("loop")
    (root / "world.yaml").write_text(CONFIG)
    workspace = root / "workspace"
    command = [
        sys.executable, "-m", "recsys.cli", "loop", "--config", str(root / "world.yaml"),
        "--days", "3", "--fault", f"{BAD}:unit", "--workspace", str(workspace), "--json",
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'platform'}"}
    cut = subprocess.Popen(command, env=environment, cwd=ROOT, stderr=subprocess.DEVNULL)
    trained = workspace / "artifacts" / f"train_ranker@{LAST}"
    while not list(trained.glob("*.staging")):
        assert cut.poll() is None, "the loop ended before it could be killed"
        time.sleep(0.05)
    cut.send_signal(signal.SIGKILL)
    assert cut.wait() == -signal.SIGKILL
    done = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    kept = [line.split()[0] for line in done.stderr.splitlines() if "kept from before" in line]
    assert f"train_retrieval@{LAST}" in kept and f"train_ranker@{LAST}" not in kept
    return workspace, json.loads(done.stdout)


def artifact(workspace: Path, stage: str) -> Path:
    (found,) = (workspace / "artifacts" / stage).iterdir()
    return found


def test_a_bad_day_keeps_the_version_and_the_next_one_recovers(
    lived: tuple[Path, list[dict[str, Any]]],
) -> None:
    _, (first, bad, last) = lived
    assert [day["day"] for day in (first, bad, last)] == [5, 6, 7]
    assert [day["version"] for day in (first, bad, last)] == [1, 1, 2]
    assert first["refused"] == [] and first["rows"] == 0
    (drift, joined) = bad["refused"]
    assert "free_storage_mb" in drift and "to the serving data" in drift
    assert joined == "free_storage_mb: served otherwise in 100.0% of the rows"
    assert bad["learned_from"] == [] and bad["figures"] == {}
    assert last["refused"] == [] and last["learned_from"] == [6]
    assert 0.5 < last["figures"]["AUC: system"] < 0.9
    assert all(0 < day["installs_per_request"] < 1 for day in (first, bad, last))


def test_the_days_are_kept_beside_the_artifacts(
    lived: tuple[Path, list[dict[str, Any]]],
) -> None:
    workspace, days = lived
    assert json.loads((workspace / "loop.json").read_text()) == days


def test_the_new_version_says_where_it_comes_from(
    lived: tuple[Path, list[dict[str, Any]]],
) -> None:
    workspace, _ = lived
    registry = Registry(workspace / "registry")
    first, second = registry.list()
    assert registry.labels() == {"stable": 2}
    assert second.manifest["parent"] == 1
    assert (first.manifest["spans"], second.manifest["spans"]) == ([2, 3, 4], [6])
    transform = json.loads((second.path / "transform.json").read_text())
    assert second.manifest["transform"] == transform["fingerprint"]
    registry.verify(second)


@pytest.mark.parametrize("model", ["query_tower", "ranker"])
def test_every_part_of_a_model_begins_where_its_parent_ended(
    lived: tuple[Path, list[dict[str, Any]]], model: str
) -> None:
    workspace, _ = lived
    state = Registry(workspace / "registry").version(2).path / "states" / model
    report = json.loads((state / "warm_start.json").read_text())
    assert report["cold"] == {}
    assert report["copied"] and report["rows"]
    tags = next(name for name in report["rows"] if name.endswith(": tags"))
    assert report["rows"][tags]["kept"] > 100


def test_a_day_shows_apps_by_chance_and_says_how_probable_they_were(
    lived: tuple[Path, list[dict[str, Any]]],
) -> None:
    import pyarrow.parquet as pq

    workspace, _ = lived
    log = artifact(workspace, f"close_day@{LAST}") / "log" / "impressions.parquet"
    shown = pq.read_table(log)
    by_chance = shown["score"].is_null().to_numpy()
    propensity = shown["propensity"].to_numpy()
    assert 0.04 < by_chance.mean() < 0.06
    assert (propensity[by_chance] < 0.001).all()  # one of some 190 others
    assert (propensity[~by_chance] == 0.95).all()
    versions = pq.read_table(log.with_name("requests.parquet"))["bundle_version"]
    assert set(versions.to_pylist()) == {1, 2}  # the first hours, and the rest


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("4:unit", "--fault '4:unit': expected DAY:NAME with a day from 7 to 9 and one of unit,"),
        ("8:rain", "--fault '8:rain': expected DAY:NAME"),
        ("unit", "--fault 'unit': expected DAY:NAME"),
    ],
)
def test_a_drill_that_cannot_be_is_refused_in_one_line(
    command: Any, tmp_path: Path, option: str, message: str
) -> None:
    done = command(
        "loop", "--config", "tiny", "--days", "3", "--fault", option,
        "--workspace", str(tmp_path / "workspace"),
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith(f"storeloop: {message}")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "workspace").exists()
