"""Retrieval: recall@100 against CPU a query, our index beside those of other libraries.

On a million apps as the towers of a full run see them, asked by users of the next day.  All look
for the largest dot product, in batches of 8, with one thread.  CPU is the process's own, so that a
thread too many is no advantage and a neighbour on the machine little harm.  Each contestant is a
process of its own, built with all cores one after the other, and all are asked in turn.

Ours turns the space by what is known of queries (`recsys.models.index`), which helps others too: so
some are measured on the vectors as they are, and once more with the same turn ('turned').

A contestant's figure is its CPU at recall 0.95, read off its curve.  What our server asks (220 apps
in batches of what has come in) is measured beside it.  About half an hour.
"""

import gc
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import psutil

from benchmarks.curves import Point, cpu_at, picture
from benchmarks.full_run import full_workspace
from benchmarks.indexes import OURS, Float, Found, Index, contestants
from benchmarks.result import Result
from benchmarks.rounds import Rounds
from mlplatform.data.files.spans import read_span
from mlplatform.pipeline import Workspace
from mlplatform.quiet import silenced_stderr
from recsys import evaluation
from recsys.config import load_config
from recsys.models.index import IndexSettings, exact_search, recall
from recsys.online.bundle import Bundle
from recsys.stages.data import SPANS
from recsys.stages.release import BUNDLE
from recsys.training_data import Positives

K = 100
BATCH = 8
RECALL = 0.95
ROUNDS = 3
JUDGED, TIMED = 2_000, 1_000  # queries: whose recall is taken, and which are timed in a round
SAMPLED = 10_000  # queries of the day before, for an index that wants to know some
SERVED_K, SERVED_BATCHES = 220, (1, 4, 8, 16)  # as our server asks
MUST_US, MUST_RATIO = 200.0, 1.0
AT = f"CPU us a query at recall {RECALL}"
RATIO = "next best, times ours"


@dataclass(frozen=True)
class Built:
    """seconds: of wall time, with all cores.  grown_bytes: of the process's resident memory."""

    seconds: float
    size_bytes: int
    grown_bytes: int


def measure() -> Result:
    settings = IndexSettings(**load_config("full").index.model_dump())
    result = Result(
        settings={"queries": JUDGED, "batch": BATCH, "threads": 1, "rounds, median of": ROUNDS}
    )
    with tempfile.TemporaryDirectory() as folder:
        write_vectors(full_workspace(), Path(folder))
        measure_indexes(result, Path(folder), settings, rounds=ROUNDS)
    return result


def write_vectors(workspace: Path, folder: Path) -> None:
    """apps.npy, sample.npy (earlier queries) and queries.npy, of a finished run; true.npy."""
    days = load_config("full").days
    opened = Workspace(workspace)
    evaluated, joined = opened.latest("evaluate"), opened.latest("join_examples")
    assert evaluated is not None and joined is not None
    bundle, root = Bundle.load(evaluated / BUNDLE), joined / SPANS

    def queries(day: int, most: int) -> Float:
        every = Positives.of(read_span(root, "positives", [day]), bundle.transform, bundle.apps)
        return evaluation.query_vectors(bundle, every.take(evaluation.sample(len(every), most, 0)))

    judged = queries(days.evaluate, JUDGED)
    save_vectors(folder, np.asarray(bundle.vectors), queries(days.train[-1], SAMPLED), judged)


def save_vectors(folder: Path, apps: Float, sample: Float, queries: Float) -> None:
    """All float32 `[n, dim]`, as contestants read them."""
    for name, array in (("apps", apps), ("sample", sample), ("queries", queries)):
        np.save(folder / name, array, allow_pickle=False)
    np.save(folder / "true", exact_search(apps, queries, K), allow_pickle=False)


def measure_indexes(
    result: Result,
    folder: Path,
    settings: IndexSettings,
    *,
    rounds: int,
    names: Sequence[str] | None = None,
) -> None:
    """Add the figures of all contestants that are installed, or of those named, and the picture."""
    every = contestants(settings)
    chosen = {name: every[name] for name in names or every}
    missing = sorted({one.needs for one in chosen.values() if not one.installed})
    if missing:
        print(
            f"not measured, since not installed: {', '.join(missing)}; run make comparison",
            file=sys.stderr,
        )
    chosen = {name: one for name, one in chosen.items() if one.installed}
    result.settings |= {"missing": missing, "contestants": {n: c.how for n, c in chosen.items()}}
    with ExitStack() as stack:
        processes: dict[str, ProcessPoolExecutor] = {}
        for name in chosen:
            process = ProcessPoolExecutor(1, get_context("spawn"), _enter, (folder, name, settings))
            processes[name] = stack.enter_context(process)
            built: Built = process.submit(_built).result()
            result.figures[f"{name}: seconds to build"] = built.seconds
            result.figures[f"{name}: MB in files"] = built.size_bytes / 1e6
            result.figures[f"{name}: MB of memory"] = built.grown_bytes / 1e6

        def cpu(name: str, effort: int) -> float:
            return processes[name].submit(_cpu_us, K, effort, BATCH).result()

        asked = {f"{n} {e}": partial(cpu, n, e) for n, c in chosen.items() for e in c.efforts}
        costs = Rounds.run(rounds, asked)
        curves = {
            name: [
                Point(
                    e, processes[name].submit(_recall, K, e).result(), costs.median(f"{name} {e}")
                )
                for e in one.efforts
            ]
            for name, one in chosen.items()
        }
        add_served(result, processes[OURS], settings, rounds)
    result.settings["curves"] = {n: [asdict(p) for p in points] for n, points in curves.items()}
    add_comparison(result, curves)
    result.picture = picture(curves, RECALL)


def add_served(
    result: Result, ours: ProcessPoolExecutor, settings: IndexSettings, rounds: int
) -> None:
    """What our server asks, at the effort of the configuration."""
    effort = settings.leaves_to_search

    def cpu(batch: int) -> float:
        return ours.submit(_cpu_us, SERVED_K, effort, batch).result()

    costs = Rounds.run(rounds, {str(batch): partial(cpu, batch) for batch in SERVED_BATCHES})
    for batch in SERVED_BATCHES:
        result.figures[f"as served: CPU us a query, batches of {batch}"] = costs.median(str(batch))
    result.figures["as served: recall@100"] = ours.submit(_recall, SERVED_K, effort).result()
    result.limits["as served: recall@100"] = ("least", RECALL)
    result.limits[f"as served: CPU us a query, batches of {BATCH}"] = ("most", MUST_US)


def add_comparison(result: Result, curves: dict[str, list[Point]]) -> None:
    """CPU at the recall that all are compared at; who never has it is told by its highest."""
    costs = {}
    for name, curve in curves.items():
        result.figures[f"{name}: highest recall"] = max(point.recall for point in curve)
        cost = cpu_at(RECALL, curve)
        if cost is not None:
            costs[name] = result.figures[f"{name}: {AT}"] = cost
    # An index of ours that never has the recall misses both.
    own = costs.pop(OURS, float("inf"))
    result.figures.setdefault(f"{OURS}: {AT}", own)
    result.limits[f"{OURS}: {AT}"] = ("most", MUST_US)
    if costs:
        result.figures[RATIO] = min(costs.values()) / own
        result.limits[RATIO] = ("least", MUST_RATIO)


@dataclass(frozen=True)
class _Own:
    index: Index
    queries: Float
    true: Found
    built: Built


# A process has one contestant for its life; in the process that measures there is none.
_own: list[_Own] = []


def _enter(folder: Path, name: str, settings: IndexSettings) -> None:
    entrant, process = contestants(settings)[name], psutil.Process()
    entrant.load_library()
    before = process.memory_info().rss
    apps, sample, queries, true = (
        np.load(folder / f"{file}.npy", allow_pickle=False)
        for file in ("apps", "sample", "queries", "true")
    )
    started = time.perf_counter()
    with silenced_stderr():  # ScaNN reports its clustering there
        index = entrant.build(apps, sample)
    seconds = time.perf_counter() - started
    del apps, sample
    gc.collect()
    grown = process.memory_info().rss - before
    _own.append(_Own(index, queries, true, Built(seconds, index.size_bytes(), grown)))


def _built() -> Built:
    return _own[0].built


def _recall(k: int, effort: int) -> float:
    own = _own[0]
    found = [
        own.index.search(own.queries[at : at + BATCH], k, effort)[:, :K]
        for at in range(0, len(own.queries), BATCH)
    ]
    return float(recall(np.concatenate(found), own.true).mean())


def _cpu_us(k: int, effort: int, batch: int) -> float:
    own, queries = _own[0], _own[0].queries[:TIMED]
    own.index.search(queries[:batch], k, effort)  # what is made at the first call is not counted
    started = time.process_time()
    for at in range(0, len(queries), batch):
        own.index.search(queries[at : at + batch], k, effort)
    return 1e6 * (time.process_time() - started) / len(queries)
