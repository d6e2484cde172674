"""The experiment in a world of 2,000 users: its command, its arms, and the service beside it."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks.experiment import add_alarms, add_experiment
from benchmarks.result import Result
from recsys.online.bundle import Bundle
from recsys.online.feature_store import FeatureStore
from recsys.online.recommender import Recommender
from tests.e2e.test_loop import CONFIG
from tests.recsys.services import service

with warnings.catch_warnings():
    # Starlette's preference among HTTP clients.
    warnings.filterwarnings("ignore", "Using `httpx` with `starlette.testclient`")
    from starlette.testclient import TestClient

TEST_DAY = 6


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, command: Any) -> tuple[Path, dict[str, Any]]:
    """The workspace of a seed, and what the command printed."""
    root = tmp_path_factory.mktemp("experiment")
    (root / "world.yaml").write_text(CONFIG)
    done = command(
        "experiment", "skew", "--json", "--config", str(root / "world.yaml"),
        "--workspace", str(root), timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return root / "experiment" / "seed-1", json.loads(done.stdout)


def artifact(workspace: Path, name: str) -> Path:
    (found,) = (one.parent for one in (workspace / "artifacts" / name).glob("*/stage.json"))
    return found


# The arms without a fault read one store.
@pytest.mark.parametrize(("arm", "store"), [("skewed", ".skewed"), ("fixed", "")])
def test_an_arm_and_the_http_service_answer_alike(
    ran: tuple[Path, dict[str, Any]], arm: str, store: str
) -> None:
    workspace, _ = ran
    log = artifact(workspace, f"answer_day@{TEST_DAY}.{arm}") / "log"
    shown = pq.read_table(log / "impressions.parquet").sort_by("position").to_pylist()
    asked = pq.read_table(log / "requests.parquet").to_pylist()
    lists: dict[int, list[dict[str, Any]]] = {row["request_id"]: [] for row in asked}
    for row in shown:
        lists[row["request_id"]].append(row)
    # Lists without an explored place: an explored app has no score.
    whole = [r for r in asked if all(one["score"] is not None for one in lists[r["request_id"]])]
    chosen = whole[::40][:30]
    assert len(chosen) == 30
    bundle = Bundle.load(artifact(workspace, "evaluate") / "bundle")
    with (
        FeatureStore(artifact(workspace, f"build_feature_store@{TEST_DAY}{store}")) as opened,
        TestClient(service(Recommender(bundle, opened), 1)) as client,
    ):
        for row in chosen:
            body = {
                "user_id": row["request_id"] >> 8 & 0xFFFFFFFF,
                "k": 10,
                "context": {"hour_of_day": row["hour_of_day"], "network": row["network"]},
            }
            answer = client.post("/v1/recommendations", json=body)
            assert answer.status_code == 200, answer.text
            told, logged = answer.json()["apps"], lists[row["request_id"]]
            assert [one["app_id"] for one in told] == [one["app_id"] for one in logged]
            scores = [[one["score"] for one in apps] for apps in (told, logged)]
            assert np.allclose(*scores, atol=1e-5)


def test_every_arm_answers_the_same_visits(ran: tuple[Path, dict[str, Any]]) -> None:
    _, printed = ran
    rates = printed["runs"]["1"]["rates"]
    assert {
        "skewed", "fixed", "as-logged", "popular", "random", "oracle", "irrelevant",
        "behaviour-0.0", "behaviour-0.25", "behaviour-0.5", "behaviour-0.75",
    } == set(rates)  # fmt: skip
    assert len({one["requests"] for one in rates.values()}) == 1
    assert rates["oracle"]["expected installs per request"] == max(
        one["expected installs per request"] for one in rates.values()
    )


def test_the_skew_is_found_and_the_same_arm_twice_differs_by_nothing(
    ran: tuple[Path, dict[str, Any]],
) -> None:
    _, printed = ran
    run = printed["runs"]["1"]
    found = {one["name"]: one["share"] for one in run["skews"]["skewed"]["features"]}
    assert min(found[f"recent_{one}"] for one in ("installs", "impressions", "install_rate")) > 0.5
    assert run["skews"]["skewed"]["marginal"].keys() == {
        "history_count", "recent_categories",
        "recent_impressions", "recent_installs", "recent_install_rate",
    }  # fmt: skip
    irrelevant = run["skews"]["irrelevant"]
    assert {one["name"] for one in irrelevant["features"]} >= {"ram_gb"}
    same = run["compared"]["A/A"]
    assert same["paired"]["relative"]["value"] == 0 and same["ratio_p"] > 0.001
    low, high = (same["unpaired"]["relative"][bound] for bound in ("low", "high"))
    assert low < 0 < high
    # A quarter of the apps' counters is lost; an app without them is hardly shown, but by chance.
    lost = run["skews"]["behaviour-0.25"]["apps lost"]
    assert lost["shown"] < 0.1 and 0.15 < lost["by chance"] < 0.35
    assert run["skews"]["behaviour-0.0"]["apps lost"] == {"shown": 0, "by chance": 0}
    nothing = run["removed"]["behaviour-0.0"]
    assert nothing["paired"]["relative"]["high"] == 0
    assert run["skews"]["behaviour-0.0"]["marginal"] == {}


def test_the_benchmark_reads_what_the_command_prints(ran: tuple[Path, dict[str, Any]]) -> None:
    result = Result(settings={})
    add_experiment(result, "tiny", ran[1])
    assert result.figures["tiny: behaviour-0.0 removed, paired, %"] == 0
    assert set(result.limits) <= set(result.figures)
    add_alarms(result, "tiny", ran[1], ran[0].parents[1])
    assert 0.5 < result.figures["tiny, alarm: held-out AUC, high"] < 1
    assert result.met("tiny, alarm: AUC over the oracle's, high")
    lift = ran[1]["runs"]["1"]["compared"]["fixed"]["paired"]["relative"]["value"]
    assert result.figures["tiny, seed 1: fixed, paired, %"] == pytest.approx(100 * lift)
