"""The experiment: what removing a training-serving skew does to installs, and what each guard is
worth.

The drills in a world of fifty thousand apps, ten such worlds, and one of a million apps, by the
commands that anybody would run.  What is finished is kept, so that a run that was cut goes on.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.result import Result
from mlplatform.artifacts import read_json
from mlplatform.errors import NotFound
from mlplatform.pipeline import Workspace
from recsys.experiment import AS_LOGGED, FAULT, FIXED, IRRELEVANT, SKEWED
from recsys.experiment_figures import AA, over_seeds
from recsys.stages import arms
from recsys.stages.release import FIGURES

KEPT = Path("workspace/benchmarks/experiment")


@dataclass(frozen=True)
class Settings:
    """seeds: worlds, by the configuration that they are made with; `drills` is one."""

    seeds: Mapping[str, int]
    drills: str
    root: Path = KEPT


def measure(settings: Settings = Settings({"small": 10, "full": 1}, "small")) -> Result:
    result = Result(settings={"seeds": dict(settings.seeds), "drills": settings.drills})
    drills = settings.root / Path(settings.drills).stem
    add_drills(result, storeloop("drill", "--config", settings.drills, root=drills))
    for config, seeds in settings.seeds.items():
        root = settings.root / Path(config).stem
        command = ("experiment", "skew", "--config", config, "--seeds", str(seeds))
        printed = storeloop(*command, root=root)
        add_experiment(result, Path(config).stem, printed)
        add_alarms(result, Path(config).stem, printed, root)
    return result


def storeloop(*command: str, root: Path) -> dict[str, Any]:
    """What a command prints as JSON; its progress is for who waits."""
    whole = [sys.executable, "-m", "recsys.cli", *command, "--workspace", str(root), "--json"]
    done = subprocess.run(whole, stdout=subprocess.PIPE, check=True)
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed


def add_experiment(result: Result, scale: str, printed: Mapping[str, Any]) -> None:
    """The headline, of every world and over them, and the controls of the first world."""
    for name, ways in printed["headline over seeds"].items():
        for way, interval in ways.items():
            _add(result, f"{scale}, mean of seeds: {name}, {way}", interval)
    for seed, run in printed["runs"].items():
        for name in (FIXED, AS_LOGGED, AA):
            for way in ("paired", "unpaired"):
                told = run["compared"][name][way]["relative"]
                _add(result, f"{scale}, seed {seed}: {name}, {way}", told)
    run = next(iter(printed["runs"].values()))
    for name, rates in run["rates"].items():
        result.figures[f"{scale}: installs a request, {name}"] = rates["installs per request"]
    for name, compared in run["removed"].items():
        if name == SKEWED:
            continue
        for way in ("paired", "unpaired"):
            _add(result, f"{scale}: {name} removed, {way}", compared[way]["relative"])
        _add(result, f"{scale}: {name}, log loss, nats", run["skews"][name]["together"], 1)
        for rows, share in run["skews"][name]["apps lost"].items():
            result.figures[f"{scale}: {name}, rows {rows} that differ by app"] = share
    share = run["share_of_gap"]["share that the skew costs"]
    _add(result, f"{scale}: of the way from popular to oracle the skew costs", share)
    nothing = f"{scale}: {FAULT}-0.0 removed, unpaired"
    result.limits[f"{nothing}, low, %"] = ("most", 0)
    result.limits[f"{nothing}, high, %"] = ("least", 0)
    seen = {one["name"]: one["share"] for one in run["skews"][IRRELEVANT]["features"]}
    result.figures[f"{scale}: rows in which the irrelevant feature differs"] = seen["ram_gb"]
    result.limits[f"{scale}: rows in which the irrelevant feature differs"] = ("least", 0.5)


def add_alarms(result: Result, scale: str, printed: Mapping[str, Any], workspace: Path) -> None:
    """Whether a world is so easy, or a model so broken, that the figures would mean nothing.

    Of all seeds the worst figure counts, and of that the worse end of its interval; but what the
    deep part adds, some .002 of AUC, is less than what one small world can tell from nothing, so
    that is the mean over the worlds.
    """
    runs = {seed: run["rates"] for seed, run in printed["runs"].items()}
    judged = [_evaluated(workspace / "experiment" / f"seed-{seed}") for seed in runs]

    def expected(arm: str) -> NDArray[np.float64]:
        return np.array([rates[arm]["expected installs per request"] for rates in runs.values()])

    def bounds(name: str, end: str) -> list[float]:
        return [one[name][end] for one in judged]

    room = expected(arms.ORACLE) / expected(arms.POPULAR)
    for name, figure, kind, limit in (
        ("held-out AUC, high", max(bounds("AUC: system", "high")), "most", 0.9),
        ("AUC over the oracle's, high", max(bounds("AUC: system - oracle", "high")), "most", 0),
        ("AUC over the linear model's, low", _low(bounds, "AUC: system - linear"), "least", 0),
        ("AUC of popularity, low", min(bounds("AUC: popular", "low")), "least", 0.5),
        ("popular list over a random one", min(expected(arms.POPULAR) / expected(arms.RANDOM)),
         "least", 1),
        ("oracle's list over the popular one, least", min(room), "least", 2),
        ("oracle's list over the popular one, most", max(room), "most", 8),
    ):  # fmt: skip
        result.figures[f"{scale}, alarm: {name}"] = float(figure)
        result.limits[f"{scale}, alarm: {name}"] = (kind, limit)


def _low(bounds: Callable[[str, str], list[float]], name: str) -> float:
    """Of the mean over seeds; of one seed, over its users."""
    values = bounds(name, "value")
    return over_seeds(values).low if len(values) > 1 else bounds(name, "low")[0]


def _evaluated(workspace: Path) -> dict[str, Any]:
    """Figures of the main job's evaluation."""
    evaluated = Workspace(workspace).latest("evaluate")
    if evaluated is None:
        raise NotFound(f"{workspace}: expected a finished experiment, got none; run it again")
    figures: dict[str, Any] = read_json(evaluated / FIGURES)
    return figures


def add_drills(result: Result, printed: Mapping[str, Any]) -> None:
    """What every fault costs and every guard is worth, and whether each was caught."""
    quiet = sum(map(len, printed["without a fault"].values()))
    result.figures["drills: lines of any guard without a fault"] = quiet
    result.limits["drills: lines of any guard without a fault"] = ("most", 0)
    for one in printed["drills"]:
        name = f"drill {one['name']}"
        result.figures[f"{name}: guards that spoke"] = len(one["caught"])
        result.limits[f"{name}: guards that spoke"] = ("least", 1)
        for what in ("without", "guarded", "worth"):
            if one[what] is not None:
                _add(result, f"{name}: {what}", one[what])


def _add(result: Result, name: str, interval: Mapping[str, float], times: float = 100) -> None:
    unit = ", %" if times == 100 else ""
    for end in ("value", "low", "high"):
        ending = "" if end == "value" else f", {end}"
        result.figures[f"{name}{ending}{unit}"] = times * interval[end]
