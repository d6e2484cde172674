"""The main job at full scale, in a new workspace: the budget of the whole."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.result import Result

FIGURES = (
    "index recall@100",
    "recall@100 of all apps: system - popular",
    "recall@100 of all apps: system - popular in categories",
    "recall@100 of all apps: system - content neighbours",
    "AUC: system - popular",
    "AUC: system - linear",
)


def measure() -> Result:
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder) / "workspace"
        command = ["run", "--config", "full", "--workspace", str(workspace), "--json"]
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "recsys.cli", *command], stdout=subprocess.PIPE, check=True
        )
        seconds = time.perf_counter() - started
    answer = json.loads(done.stdout)
    stages, figures = answer["stages"], answer["figures"]
    result = Result(settings={"command": "storeloop " + " ".join(command)})
    result.figures["wall seconds"] = seconds
    result.figures["peak memory, GiB"] = max(s["peak_mb"] for s in stages.values()) / 1024
    result.figures["apps in the index"] = stages["build_index"]["figures"]["rows"]
    for name, stage in stages.items():
        result.figures[f"seconds of {name}"] = stage["seconds"]
    for name in FIGURES:
        result.figures[f"{name}, low end"] = figures[name]["low"]
    result.figures["AUC: system, high end"] = figures["AUC: system"]["high"]
    result.limits = {
        "wall seconds": ("most", 720.0),
        "peak memory, GiB": ("most", 12.0),
        "apps in the index": ("least", 1_000_000),
        "index recall@100, low end": ("least", 0.95),
        "AUC: system, high end": ("most", 0.9),
    }
    result.limits |= {f"{name}, low end": ("least", 0.0) for name in FIGURES[1:]}
    return result
