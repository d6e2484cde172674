"""Serving: how long answers take at set rates over HTTP and gRPC, and how many a second there are
within 50 ms, beside a plain server.

Every figure is of an open loop (see `load`), from the same two cores.  A level is warmed up with
the first day's visits and measured with the second's, each of another user (see `served`).  The
highest rate is searched with short runs, and holds when a minute of it has no error and 99 of 100
answers within 50 ms.  It is sought in steps of a twentieth.

Stages are times of the one thread that computes, so where cores are scarce they hold waiting too;
what a query costs in all is the processes' own time, from the kernel.
"""

import math
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import httpx
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.load import GRPC, HTTP, Generator, Outcome, Plan, percentile
from benchmarks.plain_server import WORKSPACE
from benchmarks.result import Result
from benchmarks.served import PATHS, WORKERS, Door, Served, Visits, serve, stop, two_days

TRIES = 2
BUDGET_MS, LOW_MS = 50.0, 15.0  # p99 at the peak, and at the lowest rate
PEAK = 2000  # requests a second
DOORS: Sequence[Door] = ("http", "grpc")
NAMES = {HTTP: "HTTP", GRPC: "gRPC"}
PLAIN = "plain server"
PLAIN_START_S = 600  # every worker builds an index of its own
Run = Callable[[float, float], Outcome]  # rate, seconds


@dataclass(frozen=True)
class Settings:
    """rates: of the levels.  Seconds: before a level, of a level, of a step of the search, and of
    what confirms it, and of rest after what was too much.  first: the rates at which the search
    begins, ours and the plain server's.
    """

    rates: Sequence[float] = (200, 500, 1000, PEAK)
    warm_up_s: float = 3.0
    level_s: float = 20.0
    step_s: float = 10.0
    confirm_s: float = 60.0
    rest_s: float = 5.0
    first: tuple[float, float] = (2000.0, 100.0)
    resolution: float = 0.05


def measure(settings: Settings = Settings()) -> Result:
    from benchmarks.full_run import full_workspace

    return measure_on(full_workspace(), settings)


def measure_on(workspace: Path, settings: Settings) -> Result:
    days = two_days(workspace)
    result = Result(
        settings={
            **vars(settings),
            "users of each day": len(days[0].queries),
            "workers": WORKERS,
            "plain server": "FastAPI, uvicorn, tfrs ScaNN with its defaults, "
            "exported SavedModels, a request at a time",
        }
    )
    curves: dict[str, list[Outcome]] = {}
    with Generator() as generator:
        with serve(workspace) as served:
            for door in DOORS:
                curves[NAMES[door]] = measure_door(result, generator, served, door, days, settings)
        with serve_plain(workspace) as port:
            curves[PLAIN] = measure_plain(result, generator, port, days, settings)
    compare(result)
    result.picture = picture(curves)
    return result


def measure_door(
    result: Result,
    generator: Generator,
    served: Served,
    door: Door,
    days: tuple[Visits, Visits],
    settings: Settings,
) -> list[Outcome]:
    """Add a door's figures; -> every run, for the picture."""
    runs: list[Outcome] = []

    def load(rate: float, seconds: float) -> Outcome:
        outcome = warm_and_run(
            generator,
            lambda day, seconds: served.plan(door, days[day], rate, seconds, seed=len(runs) + 1),
            settings,
            seconds,
        )
        runs.append(outcome)
        return outcome

    for rate in settings.rates:
        cpu, stages = served.cpu_seconds(), served.stage_seconds()
        outcome = load(rate, settings.level_s)
        # The warm-up counts too: of it all is known but what it is measured with.
        n = len(outcome) * (1 + settings.warm_up_s / settings.level_s)
        name = f"{NAMES[door]} at {rate:g} a second"
        add_latencies(result, name, outcome)
        result.figures[f"{name}: CPU, ms a query"] = 1000 * (served.cpu_seconds() - cpu) / n
        for stage, seconds in served.stage_seconds().items():
            spent = seconds - stages.get(stage, 0.0)
            result.figures[f"{name}: spent in {stage}, ms a query"] = 1000 * spent / n
    add_peak(result, NAMES[door], load, settings.first[0], settings)
    return runs


def measure_plain(
    result: Result, generator: Generator, port: int, days: tuple[Visits, Visits], settings: Settings
) -> list[Outcome]:
    """As `measure_door`, of the plain server: what it can, and latencies at half of that."""
    runs: list[Outcome] = []

    def load(rate: float, seconds: float) -> Outcome:
        def plan(day: int, seconds: float) -> Plan:
            messages = days[day].messages[HTTP]
            seed = len(runs) + 1
            return Plan("http", "127.0.0.1", port, PATHS[HTTP], messages, rate, seconds, seed)

        runs.append(warm_and_run(generator, plan, settings, seconds))
        return runs[-1]

    peak = add_peak(result, PLAIN, load, settings.first[1], settings)
    if peak:
        outcome = load(peak / 2, settings.level_s)
        add_latencies(result, f"{PLAIN} at half its highest rate", outcome)
    return runs


def warm_and_run(
    generator: Generator,
    plan: Callable[[int, float], Plan],
    settings: Settings,
    seconds: float,
) -> Outcome:
    """One load after another of the same rate: the first day's visits, then the second's.

    plan: of a day, 0 or 1, and seconds.
    """
    generator.run(plan(0, settings.warm_up_s))
    outcome = generator.run(plan(1, seconds))
    if not sustained(outcome):
        time.sleep(settings.rest_s)  # what was given up may still be computed
    return outcome


def add_latencies(result: Result, name: str, outcome: Outcome) -> None:
    """What an answer took, how many failed, and what the generator itself was like."""
    for percent in (50, 99, 99.9):
        result.figures[f"{name}: p{percent:g}, ms"] = outcome.percentile_ms(percent)
    result.figures[f"{name}: errors"] = int((~outcome.ok).sum())
    for percent in (50, 99):
        lag = percentile(outcome.lag_ms, percent)
        result.figures[f"{name}: the generator's own lag, p{percent}, ms"] = lag
    result.figures[f"{name}: the generator's CPU, us a query"] = outcome.cpu_us


def sustained(outcome: Outcome) -> bool:
    """Whether a rate was met: no error, and 99 of 100 answers in time."""
    return bool(outcome.ok.all()) and outcome.percentile_ms(99) <= BUDGET_MS


def add_peak(result: Result, name: str, load: Run, first: float, settings: Settings) -> float:
    """Search a server's highest rate, and add it with what it was like."""
    peak, outcome = highest_rate(
        load, first, settings.resolution, settings.step_s, settings.confirm_s
    )
    result.figures[f"{name}: highest rate within {BUDGET_MS:g} ms"] = peak
    if outcome is not None:
        add_latencies(result, f"{name} at its highest rate", outcome)
    return peak


def highest_rate(
    load: Run, first: float, resolution: float, step_s: float, confirm_s: float
) -> tuple[float, Outcome | None]:
    """The highest rate that is sustained for `confirm_s`, and that run; 0 and None if none is.

    From `first` upward (or downward) by halves as long as it goes, then between the last that went
    and the first that did not, until they are within `resolution` of each other.  A rate that fails
    is tried once more: a machine that stands still for a moment says nothing of the rate.  What
    comes of each try goes to standard error, for this takes long.
    """

    def tried(rate: float, seconds: float) -> Outcome:
        outcome = load(rate, seconds)
        print(
            f"{rate:,.0f} a second for {seconds:g} s: p99 {outcome.percentile_ms(99):.1f} ms, "
            f"{sum(outcome.errors().values())} errors",
            file=sys.stderr, flush=True,
        )  # fmt: skip
        return outcome

    def goes(rate: float) -> bool:
        return any(sustained(tried(rate, step_s)) for _ in range(TRIES))

    low, high = (first, math.inf) if goes(first) else (0.0, first)
    while math.isinf(high):
        rate = 1.5 * low
        low, high = (rate, high) if goes(rate) else (low, rate)
    while low == 0:
        rate = high / 1.5
        if rate < 1:
            return 0.0, None
        low, high = (rate, high) if goes(rate) else (0.0, rate)
    while high > (1 + resolution) * low:
        rate = (low + high) / 2
        low, high = (rate, high) if goes(rate) else (low, rate)
    while low >= 1:
        for _ in range(TRIES):
            outcome = tried(low, confirm_s)
            if sustained(outcome):
                return low, outcome
        low /= 1 + resolution
    return 0.0, None


def compare(result: Result) -> None:
    """Ours beside the plain server, and the budgets."""
    figures, limits = result.figures, result.limits
    rate = f"highest rate within {BUDGET_MS:g} ms"
    plain = figures[f"{PLAIN}: {rate}"]
    for name in NAMES.values():
        times = figures[f"{name}: {rate}"] / plain if plain else math.inf
        figures[f"{name}: {rate}, times the plain server's"] = times
        limits[f"{name}: {rate}"] = ("least", PEAK)
        for at, most in ((PEAK, BUDGET_MS), (200, LOW_MS)):
            if f"{name} at {at} a second: errors" in figures:
                limits[f"{name} at {at} a second: p99, ms"] = ("most", most)
                limits[f"{name} at {at} a second: errors"] = ("most", 0)


@contextmanager
def serve_plain(workspace: Path) -> Iterator[int]:
    """The plain server in processes of its own; -> its port.

    Raises:
        RuntimeError: it does not come to serve; what it said is in the message.
    """
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    with tempfile.TemporaryFile("w+") as said:  # ScaNN says much while it builds its index
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "uvicorn", "benchmarks.plain_server:app"),
                *("--workers", str(WORKERS)),
                *("--port", str(port), "--log-level", "error", "--no-access-log"),
                # It builds its index without a sign of life, and must not be killed for that.
                *("--timeout-worker-healthcheck", str(PLAIN_START_S)),
            ],
            env=os.environ | {WORKSPACE: str(workspace.absolute())},
            stdout=subprocess.DEVNULL,
            stderr=said,
            text=True,
        )
        try:
            if not are_ready(process, f"http://127.0.0.1:{port}/readyz"):
                said.seek(0)
                raise RuntimeError(f"the plain server is not ready; it said: {said.read()[-2000:]}")
            yield port
        finally:
            stop(process)


def are_ready(process: "subprocess.Popen[str]", url: str) -> bool:
    """Wait until both workers have answered, each by its own process."""
    give_up, answered = time.monotonic() + PLAIN_START_S, set[int]()
    while len(answered) < WORKERS and process.poll() is None and time.monotonic() < give_up:
        with suppress(httpx.TransportError):
            answered.add(httpx.get(url, timeout=5).raise_for_status().json()["process"])
        time.sleep(0.05)
    return len(answered) == WORKERS


def picture(curves: Mapping[str, Sequence[Outcome]]) -> bytes:
    """p50 and p99 by rate, both axes by powers: a PNG."""
    figure = Figure(figsize=(9, 5))
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for number, (name, runs) in enumerate(curves.items()):
        by_rate = sorted(runs, key=lambda run: run.plan.rate)
        rates = [run.plan.rate for run in by_rate]
        for percent, style in ((50, "--"), (99, "-")):
            latencies = [run.percentile_ms(percent) for run in by_rate]
            axes.plot(
                rates, latencies, style, color=f"C{number}", marker=".", label=f"{name}, p{percent}"
            )
    axes.axhline(BUDGET_MS, color="gray", linewidth=0.8)
    axes.set(xscale="log", yscale="log", xlabel="requests a second", ylabel="latency, ms")
    axes.legend()
    figure.tight_layout()
    content = BytesIO()
    figure.savefig(content, format="png", dpi=120)
    return content.getvalue()
