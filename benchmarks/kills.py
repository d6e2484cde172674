"""A worker is killed under load, again and again: the other one answers on, the killed one comes
back by itself, and nothing that anyone was told is missing from the log.

What was under way in the killed process is lost, and its client knows; that is all that may be.
"""

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.load import Generator, Outcome
from benchmarks.result import Result
from benchmarks.served import WORKERS, Served, answer_of, serve, two_days
from mlplatform.serving.child import Stage
from mlplatform.serving.status import Status

GRACE_S = 1.0  # after a kill, in which what was under way may fail


@dataclass(frozen=True)
class Settings:
    """rate: requests a second.  Seconds: before the first kill, and after each worker's return."""

    rate: float = 500.0
    kills: int = 4
    pause_s: float = 5.0
    run_s: float = 10.0


def measure(settings: Settings = Settings()) -> Result:
    from benchmarks.full_run import full_workspace

    return measure_on(full_workspace(), settings)


def measure_on(workspace: Path, settings: Settings) -> Result:
    result = Result(settings=dict(vars(settings)))
    _, visits = two_days(workspace)
    outcomes: list[Outcome] = []
    killed: list[float] = []
    back_s: list[float] = []
    with Generator() as generator, serve(workspace) as served:
        for number in range(settings.kills):
            plan = served.plan(
                "http", visits, settings.rate, settings.run_s, seed=number, keep_one_in=1,
                first=round(number * settings.rate * settings.run_s),
            )  # fmt: skip
            running = generator.start(plan)
            time.sleep(settings.run_s / 3)
            killed.append(kill(served, number))
            outcomes.append(running.result())
            back_s.append(wait_until_back(served, number + 1) - killed[-1])
            time.sleep(settings.pause_s)
        served.end()
        logged = served.logged_ids()
    add_figures(result, outcomes, killed, back_s, logged)
    return result


def kill(served: Served, number: int) -> float:
    """Kill a worker, each in its turn; -> when, by `time.monotonic`."""
    pids = served.serving()
    now = time.monotonic()
    os.kill(pids[number % len(pids)], signal.SIGKILL)
    return now


def wait_until_back(served: Served, times: int) -> float:
    """Until all workers serve, after so many restarts in all; -> when that was seen."""

    def is_back(status: Status) -> bool:
        serving = [worker for worker in status.workers if worker.stage is Stage.SERVING]
        return len(serving) == WORKERS and sum(one.restarts for one in serving) == times

    return served.wait_for(is_back)


def add_figures(
    result: Result,
    outcomes: Sequence[Outcome],
    killed: Sequence[float],
    back_s: Sequence[float],
    logged: set[int],
) -> None:
    """Add what failed, when, and whether the log has all that was told.

    killed: when, of each outcome's worker.
    """
    figures, limits = result.figures, result.limits
    told: set[int] = set()
    lost = later = 0
    for outcome, moment in zip(outcomes, killed, strict=True):
        at = moment - outcome.started
        soon = outcome.between(at - GRACE_S, at + GRACE_S)
        lost += int((~outcome.ok & soon).sum())
        later += int((~outcome.ok & ~soon).sum())
        told |= {
            int(answer_of("http", outcome.bodies[number])["request_id"])
            for number in np.flatnonzero(outcome.ok).tolist()
        }
    figures["kills"] = len(killed)
    figures["requests"] = sum(map(len, outcomes))
    figures["answers"] = len(told)
    figures["failed within a second of a kill"] = lost
    figures["failed at another time"] = later
    limits["failed at another time"] = ("most", 0)
    figures["a worker is back, median, s"] = float(np.median(back_s))
    figures["a worker is back, longest, s"] = max(back_s)
    figures["p99 of all, ms"] = float(
        np.percentile(np.concatenate([one.latency_ms[one.ok] for one in outcomes]), 99)
    )
    figures["answers that the log does not have"] = len(told - logged)
    limits["answers that the log does not have"] = ("most", 0)
