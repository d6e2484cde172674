"""Five times what the server can do, for a minute: what it still does, and how it is afterwards.

The peak is searched first, as `serving` does but in less time.  Then a generator asks for half of
it all the while, and another adds the rest of five peaks for a minute.  The first one tells how the
server was before, and how soon it is so again.  Good answers are those within 50 ms, of both.

The generators run on the server's cores, and take more of them than at the peak.  So good answers
are also told a second of the processor time that the server did get, beside what it makes of a
second at the peak.  That is its own doing.
"""

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.load import Generator, Outcome
from benchmarks.result import Result
from benchmarks.served import Served, serve, two_days
from benchmarks.serving import BUDGET_MS, highest_rate

SHARE = 0.5  # of the peak, before and after
_WARM_UP_S = 2.0
GOODPUT, GROWTH = 0.9, 1.05


@dataclass(frozen=True)
class Settings:
    """times: the peak.  Seconds: before, of the burst, after; of the search's steps and its end."""

    times: float = 5.0
    before_s: float = 10.0
    burst_s: float = 60.0
    after_s: float = 10.0
    first: float = 2000.0
    resolution: float = 0.1
    step_s: float = 6.0
    confirm_s: float = 15.0


def measure(settings: Settings = Settings()) -> Result:
    from benchmarks.full_run import full_workspace

    return measure_on(full_workspace(), settings)


def measure_on(workspace: Path, settings: Settings) -> Result:
    result = Result(settings=dict(vars(settings)))
    before, during = two_days(workspace)
    with Generator() as usual, Generator() as more, serve(workspace) as served:

        def load(rate: float, seconds: float) -> Outcome:
            usual.run(served.plan("http", before, rate, _WARM_UP_S))
            return usual.run(served.plan("http", before, rate, seconds))

        peak, _ = highest_rate(
            load, settings.first, settings.resolution, settings.step_s, settings.confirm_s
        )
        if not peak:
            raise RuntimeError(f"no rate at all was met within {BUDGET_MS:g} ms")
        result.figures["peak, requests a second"] = peak
        cpu = served.cpu_seconds()
        at_peak = len(load(peak, settings.confirm_s)) * (1 + _WARM_UP_S / settings.confirm_s)
        at_peak /= served.cpu_seconds() - cpu
        more.run(served.plan("http", during, SHARE * peak, _WARM_UP_S))  # its process is there now
        seconds = settings.before_s + settings.burst_s + settings.after_s
        running = usual.start(served.plan("http", before, SHARE * peak, seconds, seed=2))
        time.sleep(settings.before_s)
        with Memory(served) as memory:
            rate = (settings.times - SHARE) * peak
            cpu = served.cpu_seconds()
            burst = more.run(served.plan("http", during, rate, settings.burst_s, seed=3))
            cpu = served.cpu_seconds() - cpu
        good = add_figures(result, running.result(), burst, peak, settings)
        result.figures["cores that the server had during it"] = cpu / settings.burst_s
        result.figures["good answers a second of its processor time, of that at the peak"] = (
            good / cpu / at_peak
        )
    result.figures["memory at the burst's begin, MB"] = memory.begin
    result.figures["memory at its end, times that"] = memory.end / memory.begin
    result.limits["memory at its end, times that"] = ("most", GROWTH)
    return result


def add_figures(
    result: Result, usual: Outcome, burst: Outcome, peak: float, settings: Settings
) -> int:
    """Add what happened before, during and after a burst; both ran by the same clock.

    -> how many good answers there were during it.
    """
    begin = burst.started - usual.started
    end = begin + settings.burst_s
    within = usual.between(begin, end)
    good = sum(
        int((one.ok & (one.latency_ms <= BUDGET_MS))[among].sum())
        for one, among in ((usual, within), (burst, slice(None)))
    )
    accepted = np.concatenate([usual.latency_ms[within & usual.ok], burst.latency_ms[burst.ok]])
    after = usual.between(end, end + 1)
    figures, limits = result.figures, result.limits
    figures["offered during it, a second"] = (within.sum() + len(burst)) / settings.burst_s
    figures["good answers a second during it, of the peak"] = good / settings.burst_s / peak
    limits["good answers a second during it, of the peak"] = ("least", GOODPUT)
    figures["p99 of what was accepted, ms"] = float(np.percentile(accepted, 99))
    limits["p99 of what was accepted, ms"] = ("most", BUDGET_MS)
    for kind, count in burst.errors().items():
        figures[f"refused or failed during it: {kind}"] = count
    figures["p99 before, ms"] = usual.percentile_ms(99, usual.between(0, begin))
    figures["p99 in the second after, ms"] = usual.percentile_ms(99, after)
    limits["p99 in the second after, ms"] = ("most", BUDGET_MS)
    figures["errors in the second after"] = int((~usual.ok[after]).sum())
    limits["errors in the second after"] = ("most", 0)
    late = usual.intended[after & ~usual.ok]
    figures["the last error after it, ms"] = float(np.max(late - end, initial=0.0)) * 1e3
    # Whoever comes before what was let in is answered meets a full queue still.
    limits["the last error after it, ms"] = ("most", BUDGET_MS)
    figures["p99 from then on, ms"] = usual.percentile_ms(99, usual.between(end + 1, np.inf))
    figures["the burst's generator's own lag, p99, ms"] = float(np.percentile(burst.lag_ms, 99))
    figures["the burst's generator's CPU, us a query"] = burst.cpu_us
    # They run on the server's cores, and at the peak alone they took less of them.
    share = burst.cpu_seconds / settings.burst_s / (os.cpu_count() or 1)
    figures["the burst's generator's share of the cores"] = share
    return good


class Memory:
    """A server's memory in MB, looked at every second; medians of the first and last looks."""

    LOOKS = 5

    def __init__(self, served: Served) -> None:
        self._served = served
        self._seen: list[float] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> "Memory":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def begin(self) -> float:
        return float(np.median(self._seen[: self.LOOKS]))

    @property
    def end(self) -> float:
        return float(np.median(self._seen[-self.LOOKS :]))

    def _look(self) -> None:
        while True:
            self._seen.append(self._served.memory_mb())
            if self._over.wait(1):
                break
