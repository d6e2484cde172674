"""Load: requests at a set rate, whether or not the server keeps up, and what became of each.

Enters: a `Plan`: where to, what to say, how often.  Leaves: an `Outcome`, arrays of one entry a
request.  The loop is open: arrivals are a Poisson process whose times are known before the first
request is sent, and a latency counts from that time.  So a server that stands still for a second
is charged with all that would have come in that second, and not with the few requests that a
client who waits for answers would have sent (Tene's "coordinated omission").

The generator is a process of its own (`Generator`), made to take little of the machine it shares
with the server: one thread, one epoll, requests ready as bytes, answers parsed no further than
their status and length.  How late it was itself, and what it cost, is part of the outcome.
"""

import gc
import time
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

HTTP, GRPC = "http", "grpc"
SUCCESS = {HTTP: 200, GRPC: 0}
# What became of a request that got no status, in the place of one.
REFUSED, LOST, TIMED_OUT, GARBLED = -1, -2, -3, -4
KINDS = {
    REFUSED: "no connection",
    LOST: "connection lost",
    TIMED_OUT: "no answer in time",
    GARBLED: "answer not understood",
}
LATE_MS = 5.0  # a generator that is later than this measures itself

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Plan:
    """What to send, where to, and when.

    path: of the resource, or `/package.Service/Method`.
    messages: JSON bodies or serialized messages; taken in turn, from `first` on.
    rate: requests a second, on average; seconds: how long arrivals go on.
    connections: opened before the first request and kept alive; more are opened, up to
        `most_connections`, where all are taken, and then requests wait, which counts as latency.
    streams: requests under way at once on a connection, over gRPC.
    timeout: seconds from the intended time, after which a request is given up.
    keep_one_in: of which answers the body is kept; 0 keeps none.
    """

    door: Literal["http", "grpc"]
    host: str
    port: int
    path: str
    messages: Sequence[bytes]
    rate: float
    seconds: float
    seed: int = 1
    first: int = 0
    connections: int = 64
    most_connections: int = 512
    streams: int = 32
    timeout: float = 5.0
    keep_one_in: int = 0

    @property
    def slots(self) -> int:
        """How many requests a connection takes at once."""
        return self.streams if self.door == GRPC else 1

    def arrivals(self) -> Floats:
        """Seconds from the start at which requests are due, in order."""
        rng = np.random.default_rng(self.seed)
        # So many that the time is over before them: ten standard deviations beyond the mean.
        mean = self.rate * self.seconds
        gaps = rng.exponential(1 / self.rate, int(mean + 10 * mean**0.5 + 10))
        times = np.cumsum(gaps)
        return times[times < self.seconds]


@dataclass(frozen=True)
class Outcome:
    """What became of a plan's requests, in the order of their arrivals.

    intended, taken, ended: seconds after `started`: when each was due, when the generator turned
        to it, when it was known what became of it.
    status: the answer's own, or a negative one of `KINDS`.
    length: bytes of the answer's body.
    bodies: those that were kept, by the request's number.
    started: by `time.monotonic`, which all processes of a machine share.
    cpu_seconds: of the generator, while it drove.
    """

    plan: Plan
    started: float
    intended: Floats
    taken: Floats
    ended: Floats
    status: NDArray[np.int64]
    length: NDArray[np.int64]
    cpu_seconds: float
    connections: int
    bodies: dict[int, bytes] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.intended)

    @property
    def ok(self) -> Bools:
        return self.status == SUCCESS[self.plan.door]

    @property
    def latency_ms(self) -> Floats:
        """From the time a request was due to the time its end was known."""
        return 1000 * (self.ended - self.intended)

    @property
    def lag_ms(self) -> Floats:
        """How late the generator turned to each request: its own doing, and part of latency."""
        return 1000 * (self.taken - self.intended)

    @property
    def cpu_us(self) -> float:
        """The generator's own processor time, a request."""
        return 1e6 * self.cpu_seconds / max(1, len(self))

    def percentile_ms(self, percent: float, of: Bools | None = None) -> float:
        """A latency that so many per cent are within; NaN of nothing."""
        return percentile(self.latency_ms if of is None else self.latency_ms[of], percent)

    def errors(self) -> dict[str, int]:
        """How many requests failed, by kind: "connection lost", "status 503"."""
        values, counts = np.unique(self.status[~self.ok], return_counts=True)
        return {
            KINDS.get(int(value), f"status {value}"): int(count)
            for value, count in zip(values, counts, strict=True)
        }

    def goodput(self, within_ms: float) -> float:
        """Good answers a second that came in time."""
        good = self.ok & (self.latency_ms <= within_ms)
        return float(np.count_nonzero(good)) / self.plan.seconds

    def between(self, start: float, stop: float) -> Bools:
        """Which requests were due in a stretch of time, seconds after the start."""
        return (self.intended >= start) & (self.intended < stop)

    @property
    def doubt(self) -> str:
        """What speaks against the figures; empty if nothing does."""
        lag = percentile(self.lag_ms, 99)
        if lag <= LATE_MS:
            return ""
        return (
            f"the generator was {lag:.1f} ms late itself (p99) at {self.plan.rate:g} a second, "
            "and latencies are too high by that"
        )


def percentile(values: Floats, percent: float) -> float:
    """The smallest value that at least so many per cent of them do not exceed."""
    if not len(values):
        return float("nan")
    return float(np.percentile(values, percent, method="inverted_cdf"))


def drive(plan: Plan) -> Outcome:
    """Carry out a plan in this process.

    Raises:
        ConnectionError: nobody listens there.
    """
    from benchmarks import load_grpc, load_http, load_loop

    intended = plan.arrivals()
    door = (load_grpc if plan.door == GRPC else load_http).door(plan)
    loop = load_loop.Loop(plan, door, len(intended))
    gc.collect()
    gc.disable()  # a collection would be a pause, and be measured as the server's
    try:
        loop.connect()
        cpu, started = time.process_time(), time.monotonic()
        loop.run((started + intended).tolist())
        cpu = time.process_time() - cpu
    finally:
        gc.enable()
        loop.close()
    return Outcome(
        plan=plan,
        started=started,
        intended=intended,
        taken=np.array(loop.taken) - started,
        ended=np.array(loop.ended) - started,
        status=np.array(loop.status, dtype=np.int64),
        length=np.array(loop.length, dtype=np.int64),
        cpu_seconds=cpu,
        connections=loop.opened,
        bodies=loop.bodies,
    )


class Generator:
    """A process that drives plans, one after the other; it ends with the `with`."""

    def __init__(self) -> None:
        self._pool = ProcessPoolExecutor(1, get_context("spawn"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def start(self, plan: Plan) -> "Future[Outcome]":
        """Begin; what happens to the server meanwhile is the caller's."""
        return self._pool.submit(drive, plan)

    def run(self, plan: Plan) -> Outcome:
        return self.start(plan).result()
