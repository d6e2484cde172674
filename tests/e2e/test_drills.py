"""Some drills in a world of 2,000 users: what is caught, by whom, and nothing without a fault."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks.experiment import add_drills
from benchmarks.result import Result
from tests.e2e.test_loop import CONFIG

NAMES = ("judged-leak", "served-behaviour", "half-pushed", "stale-model")


def drill(command: Any, root: Path, *names: str) -> "subprocess.CompletedProcess[str]":
    (root / "world.yaml").write_text(CONFIG)
    done: subprocess.CompletedProcess[str] = command(
        "drill", *names, "--json", "--days", "2", "--config", str(root / "world.yaml"),
        "--workspace", str(root), timeout=900,
    )  # fmt: skip
    return done


@pytest.fixture(scope="module")
def drilled(tmp_path_factory: pytest.TempPathFactory, command: Any) -> dict[str, Any]:
    done = drill(command, tmp_path_factory.mktemp("drills"), *NAMES)
    assert done.returncode == 0, done.stderr[-3000:]
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed


def test_without_a_fault_no_guard_says_anything(drilled: dict[str, Any]) -> None:
    quiet = drilled["without a fault"]
    assert quiet == {"validation": [], "gate": [], "the log's skew": [], "loading": []}


def test_each_fault_is_caught_by_the_guard_that_is_there_for_it(drilled: dict[str, Any]) -> None:
    caught = {one["name"]: one["caught"] for one in drilled["drills"]}
    # What a leak does to the rows that a model is judged by looks like a very good model.
    (leak,) = (one for one in drilled["drills"] if one["name"] == "judged-leak")
    assert leak["caught"] == ["validation", "gate"]
    assert leak["said"][-1].endswith("must be below 0.95: nothing honest is this good")
    assert caught["served-behaviour"] == ["the log's skew"]
    assert caught["half-pushed"] == ["loading"]
    assert caught["stale-model-2-days"] == ["the version's age"]


def test_a_price_is_of_the_day_without_a_guard_and_with_it(drilled: dict[str, Any]) -> None:
    prices = {one["name"]: one for one in drilled["drills"]}
    for one in prices.values():
        assert one["without"]["low"] <= one["without"]["value"] <= one["without"]["high"]
    late = prices["served-behaviour"]
    assert late["guarded"] == late["without"]  # the log is looked at when the day is over
    assert late["worth"]["value"] == pytest.approx(-late["without"]["value"])
    # What 2,000 users can tell from chance on any day; a lost feature of a young model is not.
    leak = prices["judged-leak"]
    assert leak["without"]["high"] < leak["guarded"]["low"]
    assert leak["without"]["high"] < 0 < leak["worth"]["low"]
    stale = prices["stale-model-2-days"]
    assert stale["guarded"] == {"value": 0, "low": 0, "high": 0}
    assert stale["worth"]["value"] == pytest.approx(-stale["without"]["value"])


def test_the_benchmark_reads_what_the_command_prints(drilled: dict[str, Any]) -> None:
    result = Result(settings={})
    add_drills(result, drilled)
    assert result.figures["drills: lines of any guard without a fault"] == 0
    assert result.figures["drill half-pushed: guards that spoke"] == 1


def test_a_drill_that_is_none_is_told(tmp_path: Path, command: Any) -> None:
    done = drill(command, tmp_path, "learned-nothing")
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("storeloop: drill 'learned-nothing': expected one of learned-leak, ")
