"""Evaluation: rows a second, and how often its intervals hold the truth.

Speed: four million rows of made-up users, two models, their figures on all rows and on every slice
of four columns.  Intervals: data whose truth is known in closed form, made a thousand times, of few
users and of many; an interval of 95 % has to hold it in 93 to 97 of a hundred.
"""

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.stats import norm

from benchmarks.result import Result
from mlplatform.data.files.spans import write_parquet
from mlplatform.evaluation.evaluate import evaluate
from mlplatform.evaluation.list_metrics import UserAUC
from mlplatform.evaluation.row_metrics import AUC, Calibration, LogLoss, MeanLabel
from mlplatform.evaluation.task import Model, Task

ROWS = 4_000_000
FILE_ROWS = 1_000_000
SIMULATIONS = 1000
USERS = (60, 600)
SIMULATIONS_AT_ONCE = 250
COLUMNS = {"country": 30, "device": 4, "age": 6, "genre": 15}
TASK = Task(
    "user",
    {"candidate": Model("candidate"), "baseline": Model("baseline")},
    (AUC(), LogLoss(), Calibration()),
    "label",
    slices=tuple((name,) for name in COLUMNS),
)
SIMULATED = Task(
    "user", {"model": Model("model", "score")}, (AUC(), MeanLabel(), UserAUC()), "label",
    slices=(("simulation",),),
)  # fmt: skip


def measure() -> Result:
    result = Result(settings={"rows": ROWS, "simulations": SIMULATIONS, "users": USERS})
    with tempfile.TemporaryDirectory() as folder:
        measure_speed(result, Path(folder), ROWS)
        for users in USERS:
            measure_coverage(result, Path(folder), users, SIMULATIONS)
    return result


def measure_speed(result: Result, folder: Path, rows: int) -> None:
    rng = np.random.default_rng(0)
    files = [folder / f"rows-{at}.parquet" for at in range(0, rows, FILE_ROWS)]
    for at, path in enumerate(files):
        write_parquet(scored_rows(rng, min(FILE_ROWS, rows - at * FILE_ROWS), rows // 20), path)
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        found = evaluate(files, TASK)
        seconds.append(time.perf_counter() - started)
    result.figures["rows a second, median of 3"] = rows / float(np.median(seconds))
    result.figures["slices"] = len(found.slices)


def scored_rows(rng: np.random.Generator, rows: int, users: int) -> pa.Table:
    log_odds = rng.normal(-2, 1.2, rows)
    label = rng.random(rows) < 1 / (1 + np.exp(-log_odds))
    columns: dict[str, Any] = {
        "user": rng.integers(0, users, rows),
        "label": label.astype(np.int8),
    }
    for model, noise in (("candidate", 0.3), ("baseline", 0.6)):
        columns[model] = 1 / (1 + np.exp(-log_odds - rng.normal(0, noise, rows)))
    for name, values in COLUMNS.items():
        words = pa.array([f"{name} {value}" for value in range(values)])
        columns[name] = words.take(pa.array(rng.integers(0, values, rows)))
    return pa.table(columns)


def measure_coverage(result: Result, folder: Path, users: int, simulations: int) -> None:
    """Every simulation is a slice of one evaluation, and its users are in no other."""
    # A positive scores 1 more, and the standard deviation of a difference is 2 between users and
    # sqrt(2) within one.
    truth = {
        "mean label": 0.5,
        "AUC: model": float(norm.cdf(0.5)),
        "AUC within users: model": float(norm.cdf(1 / np.sqrt(2))),
    }
    rng = np.random.default_rng(users)
    path = folder / f"simulated-{users}.parquet"
    held: dict[str, list[bool]] = {name: [] for name in truth}
    for at in range(0, simulations, SIMULATIONS_AT_ONCE):
        several = range(at, min(at + SIMULATIONS_AT_ONCE, simulations))
        write_parquet(pa.concat_tables([simulated_rows(rng, users, one) for one in several]), path)
        found = evaluate([path], replace(SIMULATED, seed=at)).slices.values()
        for name, value in truth.items():
            some = (one.figures[name] for one in found)
            held[name] += [figure.low <= value <= figure.high for figure in some]
    for name, every in held.items():
        share = sum(every) / simulations
        figure = f"{users} users, {name}: intervals that hold the truth"
        result.figures[figure] = share
        result.figures[f"{figure}, off 95 % by"] = abs(share - 0.95)
        result.limits[f"{figure}, off 95 % by"] = ("most", 0.02)


def simulated_rows(rng: np.random.Generator, users: int, simulation: int) -> pa.Table:
    """Users of 1 to 30 rows, alike among themselves: half of a score is the user's."""
    rows = rng.integers(1, 31, users)
    user = np.repeat(simulation * users + np.arange(users), rows)
    own = np.repeat(rng.normal(0, 1, users), rows)
    label = np.repeat(rng.random(users), rows) * 0.6 + 0.2 > rng.random(rows.sum())
    score = own + rng.normal(0, 1, rows.sum()) + label
    return pa.table(
        {
            "user": user,
            "label": label.astype(np.int8),
            "model": score,
            "simulation": np.full(len(user), simulation),
        }
    )
