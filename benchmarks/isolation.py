"""What answers take while a new version loads, beside what they take when none does.

Twice: as ours does, in new processes that run where the others leave the cores idle, until they
take over; and inside the serving processes, in a thread, as most servers do (`loading_inside`).
Both are asked the same.  In each round the server first idles, that is: only answers; then it
loads.  What is due from the load's begin to a second after its end counts as "while it loads", so
that taking over is in it.

Rounds are held against their own idle time, and the median of the rounds' quotients counts.
"""

import os
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.load import Generator, Outcome, percentile
from benchmarks.loading_inside import loaded_file
from benchmarks.result import Result
from benchmarks.served import START_S, Served, Visits, serve, two_days
from benchmarks.swaps import marked_versions
from mlplatform.registry.registry import STABLE, Registry

OURS, INSIDE = "loading as ours does", "loading inside"
MUST = 1.3  # p99 while it loads, times p99 idle
PERCENTS = (50, 99, 99.9)
_TURN_S = 1.0


@dataclass(frozen=True)
class Settings:
    """rate: requests a second.  rounds: of each way.  Seconds: before a round, of idling, and of a
    run of the generator while it loads; of these there are as many as it takes."""

    rate: float = 500.0
    rounds: int = 5
    warm_up_s: float = 3.0
    idle_s: float = 15.0
    run_s: float = 5.0


@dataclass(frozen=True)
class Round:
    """Latencies of one round, by percent, in ms; how long it loaded; how many failed, by kind."""

    idle: dict[float, float]
    loading: dict[float, float]
    load_s: float
    requests: int
    errors: Counter[str]


Load = Callable[[], None]  # load a version, and return when that is done


def measure(settings: Settings = Settings()) -> Result:
    from benchmarks.full_run import full_workspace

    return measure_on(full_workspace(), settings)


def measure_on(workspace: Path, settings: Settings) -> Result:
    result = Result(settings=dict(vars(settings)))
    days = two_days(workspace)
    with marked_versions(workspace) as (root, numbers), Generator() as generator:
        registry, options = Registry(root), ("--registry", str(root))
        with serve(workspace, *options) as served:

            def swap() -> None:
                there = registry.labels()[STABLE]
                to = next(number for number in numbers if number != there)
                registry.set_label(STABLE, to, "a benchmark")
                served.wait_for(lambda status: status.labels.get(STABLE) == to)

            add_rounds(result, OURS, run_rounds(generator, served, days, swap, settings))
        inside = (sys.executable, "-m", "benchmarks.loading_inside")
        with serve(workspace, *options, command=inside) as served:
            rounds = run_rounds(generator, served, days, lambda: load_inside(served), settings)
            add_rounds(result, INSIDE, rounds)
    result.limits[f"{OURS}: p99, times idle's"] = ("most", MUST)
    result.limits[f"{OURS}: errors"] = ("most", 0)
    return result


def load_inside(served: Served) -> None:
    """Have each worker load the newest version, both at once, as a fleet of two would."""
    workers = served.serving()
    for pid in workers:
        os.kill(pid, signal.SIGUSR1)
    files = [loaded_file(served.directory, pid) for pid in workers]
    give_up = time.monotonic() + START_S
    while not all(file.exists() for file in files):
        if time.monotonic() > give_up:
            raise TimeoutError(f"{served.directory}: no new version was loaded")
        time.sleep(0.02)
    for file in files:
        file.unlink()


def run_rounds(
    generator: Generator,
    served: Served,
    days: tuple[Visits, Visits],
    load: Load,
    settings: Settings,
) -> list[Round]:
    rounds = []
    for number in range(settings.rounds):
        generator.run(served.plan("http", days[0], settings.rate, settings.warm_up_s))
        plan = served.plan(
            "http", days[1], settings.rate, settings.idle_s, seed=number,
            first=round(number * settings.rate * settings.idle_s),
        )  # fmt: skip
        idle = generator.run(plan)
        runs, begin, end = run_while_it_loads(generator, served, days[1], load, settings)
        latency_ms = np.concatenate(
            [one.latency_ms[one.between(begin - one.started, end - one.started)] for one in runs]
        )
        rounds.append(
            Round(
                {percent: idle.percentile_ms(percent) for percent in PERCENTS},
                {percent: percentile(latency_ms, percent) for percent in PERCENTS},
                load_s=end - _TURN_S - begin,
                requests=len(latency_ms),
                errors=sum((Counter(one.errors()) for one in (idle, *runs)), Counter()),
            )
        )
    return rounds


def run_while_it_loads(
    generator: Generator, served: Served, visits: Visits, load: Load, settings: Settings
) -> tuple[list[Outcome], float, float]:
    """-> what became of requests; from when to when they count, by `time.monotonic`."""

    def timed() -> tuple[float, float]:
        time.sleep(_TURN_S)  # the generator's connections are open by then
        began = time.monotonic()
        load()
        return began, time.monotonic() + _TURN_S

    runs: list[Outcome] = []
    with ThreadPoolExecutor(1) as other:
        loading = other.submit(timed)
        while not (loading.done() and time.monotonic() >= loading.result()[1]):
            plan = served.plan(
                "http", visits, settings.rate, settings.run_s, seed=1000 + len(runs),
                first=round(len(runs) * settings.rate * settings.run_s),
            )  # fmt: skip
            runs.append(generator.run(plan))
    return runs, *loading.result()


def add_rounds(result: Result, way: str, rounds: Sequence[Round]) -> None:
    """Add medians over the rounds."""
    median = statistics.median
    figures = result.figures
    for percent in PERCENTS:
        name = f"{way}: p{percent:g}"
        figures[f"{name} idle, ms"] = median(one.idle[percent] for one in rounds)
        figures[f"{name} while it loads, ms"] = median(one.loading[percent] for one in rounds)
        quotients = [one.loading[percent] / one.idle[percent] for one in rounds]
        figures[f"{name}, times idle's"] = median(quotients)
    figures[f"{way}: a load, median, s"] = median(one.load_s for one in rounds)
    figures[f"{way}: requests while it loads"] = sum(one.requests for one in rounds)
    errors = sum((one.errors for one in rounds), Counter[str]())
    figures[f"{way}: errors"] = errors.total()
    for kind, count in errors.items():
        figures[f"{way}: {kind}"] = count
