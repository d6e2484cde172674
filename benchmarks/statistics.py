"""Statistics: cells a second and peak memory, on the tables of the store and on plain columns.

A cell is a value: a list counts as many as it has.  The tables are synthetic, with the columns,
types and numbers of distinct values of the spans `impressions` and `requests`; a file is a day.
"""

import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.result import Result
from mlplatform.data.files.spans import span_files, write_span
from mlplatform.data.statistics.compute import compute_statistics

DAY_ROWS = 1_000_000
DAYS = 8
REPEATS = 3
GROWTH = 10  # times as many days, for the memory


def measure() -> Result:
    result = Result(settings={"rows a day": DAY_ROWS, "days": DAYS, "repeats, best of": REPEATS})
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name, makers in TABLES.items():
            for dataset, make in makers.items():
                for day in range(DAYS * GROWTH):
                    if day < DAYS:
                        write_span(root, dataset, day, make(np.random.default_rng(day)))
                    else:  # the memory depends on the rows, not on their being different
                        files = span_files(root, dataset, [day % DAYS])
                        span = files[0].parent.parent / f"day={day:03d}"
                        span.mkdir()
                        (span / files[0].name).hardlink_to(files[0])
            once = [_in_new_process(root, tuple(makers), DAYS) for _ in range(REPEATS)]
            best = min(once, key=lambda figures: figures["seconds"])
            longer = _in_new_process(root, tuple(makers), DAYS * GROWTH)
            result.figures[f"{name}: rows"] = best["rows"]
            result.figures[f"{name}: cells"] = best["cells"]
            result.figures[f"{name}: rows a second"] = best["rows"] / best["seconds"]
            result.figures[f"{name}: cells a second"] = best["cells"] / best["seconds"]
            result.figures[f"{name}: peak memory, MB"] = best["peak MB"]
            result.figures[f"{name}: peak memory at {GROWTH} times the rows, MB"] = longer[
                "peak MB"
            ]
            growth = longer["peak MB"] / best["peak MB"]
            result.figures[f"{name}: growth of the memory"] = growth
            result.limits[f"{name}: growth of the memory"] = ("most", 1.5)
    result.limits["store: cells a second"] = ("least", 10e6)
    return result


def _in_new_process(root: Path, datasets: tuple[str, ...], days: int) -> Mapping[str, float]:
    """Peak memory is that of a process, so every measurement has one of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_describe, (root, datasets, days))


def _describe(root: Path, datasets: tuple[str, ...], days: int) -> Mapping[str, float]:
    files = {name: span_files(root, name, range(days)) for name in datasets}
    compute_statistics({name: paths[:1] for name, paths in files.items()})  # Beam warms up
    started = time.perf_counter()
    statistics = compute_statistics(files)
    seconds = time.perf_counter() - started
    cells = 0
    for dataset in statistics.datasets:
        for feature in dataset.features:
            common = getattr(feature, feature.WhichOneof("stats")).common_stats
            cells += common.tot_num_values + common.num_missing
    return {
        "seconds": seconds,
        "rows": sum(dataset.num_examples for dataset in statistics.datasets),
        "cells": cells,
        "peak MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _impressions(random: np.random.Generator) -> pa.Table:
    n = DAY_ROWS
    return pa.table(
        {
            "request_id": np.repeat(random.integers(1 << 40, 1 << 43, n // 10), 10),
            "position": np.tile(np.arange(1, 11), n // 10),
            "app_id": (1e6 * random.random(n) ** 4).astype(np.int64),
            "propensity": random.lognormal(-10, 2, n),
            "app_age_days": random.integers(0, 2_200, n),
            "recent_impressions": random.geometric(0.01, n) - 1,
            "recent_installs": random.geometric(0.1, n) - 1,
            "recent_install_rate": (random.integers(0, 2_000, n) / 50_000).astype(np.float32),
            "installed": (random.random(n) < 0.02).astype(np.int64),
        }
    )


def _requests(random: np.random.Generator) -> pa.Table:
    n = DAY_ROWS // 10
    categories = [f"CATEGORY_{number}" for number in range(33)]
    return pa.table(
        {
            "request_id": random.integers(1 << 40, 1 << 43, n),
            "user_id": random.integers(0, 200_000, n),
            "hour": np.sort(random.random(n) * 24),
            "country": _strings(random, [f"C{number}" for number in range(12)], n),
            "language": _strings(random, [f"l{number}" for number in range(10)], n),
            "device_tier": _strings(random, ["low", "mid", "high"], n),
            "ram_gb": (2.0 ** random.integers(0, 6, n)).astype(np.float32),
            "free_storage_mb": np.round(random.lognormal(8, 1, n)).astype(np.float32),
            "os_version": random.integers(5, 15, n),
            "age_band": _strings(random, ["18-24", "25-34", "35-44", "45-54", "55+", None], n),
            "account_age_days": random.integers(0, 1_500, n),
            "hour_of_day": random.integers(0, 24, n),
            "network": _strings(random, ["wifi", "metered"], n),
            "history_count": random.geometric(0.1, n) - 1,
            "recent_categories": _lists(random, n, 5, lambda k: _strings(random, categories, k)),
            "history": _lists(random, n, 20, lambda k: random.integers(0, 1_000_000, k)),
        }
    )


def _plain(random: np.random.Generator) -> pa.Table:
    n = DAY_ROWS
    return pa.table(
        {
            "int": random.integers(-(1 << 40), 1 << 40, n),
            "float": random.normal(size=n),
            "few strings": _strings(random, [f"value {number}" for number in range(50)], n),
            "many strings": pa.array(random.integers(0, 1 << 40, n)).cast(pa.string()),
        }
    )


def _strings(random: np.random.Generator, values: Sequence[str | None], n: int) -> Any:
    return pa.array(values).take(pa.array(random.integers(0, len(values), n)))


def _lists(random: np.random.Generator, n: int, most: int, make: Callable[[int], Any]) -> Any:
    offsets = np.concatenate([[0], np.cumsum(random.integers(0, most + 1, n))])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(make(offsets[-1])))


TABLES: Mapping[str, Mapping[str, Callable[[np.random.Generator], pa.Table]]] = {
    "store": {"impressions": _impressions, "requests": _requests},
    "plain": {"plain": _plain},
}
