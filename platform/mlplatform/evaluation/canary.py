"""The canary: is a server safe to serve with?  The real one is started and asked real questions.

Enters: the command that starts a server, requests, the answers expected, limits.  Leaves: a report
that it passed, or of the first thing that it did wrong, in one line.  TFX's infra validation, for
any HTTP server that speaks JSON: a model can be good by every figure and still not load, crash on
its first request, answer NaN, or answer too late (Baylor et al., TFX, KDD 2017, section 5.1, "safe
to serve").

The server listens on a port of its choice of 127.0.0.1, prints it as the first line of its standard
output, and answers `GET /readyz` with 200 once it is ready.
"""

import http.client
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlplatform.errors import InvalidArgument
from mlplatform.evaluation.canary_answers import fault_of
from mlplatform.evaluation.canary_process import Refused, Watched, one_line, watched

READY = "/readyz"
MAX_ANSWER_BYTES = 16 << 20
_POLL_S = 0.02


@dataclass(frozen=True)
class Request:
    """One request; `body` is anything that JSON can say, None for no body."""

    method: str
    path: str
    body: Any = None


@dataclass(frozen=True)
class Limits:
    """What is asked of a server.

    The requests are sent one after another, in `rounds`.  The first round warms up: its answers
    are judged, their time is not.  A request is too slow if it is over `budget_ms` in more than
    half of the other rounds.  A hiccup of the machine meets a request in one round and is forgiven;
    a request that is slow every time is not, be it one among many.
    """

    budget_ms: float  # of one request, its connection included
    memory_mb: float  # in units of 2**20 bytes; resident, of all its processes
    ready_s: float = 60.0  # from its start until it is ready
    answer_s: float = 5.0  # an answer that takes longer never comes
    rounds: int = 6
    rtol: float = 1e-4  # of a number that is not whole, see `fault_of`
    atol: float = 1e-6


@dataclass(frozen=True)
class Report:
    """`reason` is a line: what it passed, or the first thing that went wrong and where.

    `figures` are what was measured until then, see `examine`.
    """

    passed: bool
    reason: str
    figures: Mapping[str, float]


def examine(
    command: Sequence[str], requests: Sequence[Request], expected: Sequence[Any], limits: Limits
) -> Report:
    """Run a server, ask it, judge its answers, its speed and its memory, and kill it.

    Figures: ready_s; median_ms, p95_ms and slowest_ms of the rounds after the first; first_ms, the
    slowest of the first; answers; peak_memory_mb.

    Args:
        command: a program and its arguments; no shell sees it.
        expected: the golden answer to each request, parsed JSON.

    Raises:
        InvalidArgument: there is nothing to ask, not one answer for each request, a round too few,
            or the command cannot be started.
    """
    if not requests or len(requests) != len(expected) or limits.rounds < 2:
        raise InvalidArgument(
            "the canary: expected requests, an answer to each and 2 rounds or more, got "
            f"{len(requests)} requests, {len(expected)} answers and {limits.rounds} rounds"
        )
    rounds: list[list[float]] = []  # of each round, how long its answers took, in ms
    figures: dict[str, float] = {}
    refusal = None
    with watched(command, limits.memory_mb) as server:
        try:
            started = time.monotonic()
            port = _wait_until_ready(server, limits)
            figures["ready_s"] = time.monotonic() - started
            for _ in range(limits.rounds):
                rounds.append([])
                for at, (request, golden) in enumerate(zip(requests, expected, strict=True)):
                    try:
                        rounds[-1].append(_ask(server, port, request, golden, limits))
                        _judge_speed([r[at] for r in rounds[1:]], limits)
                    except Refused as refused:
                        raise Refused(f"request {at + 1} of {len(requests)}: {refused}") from None
        except Refused as refused:
            refusal = str(refused)
    figures |= _times(rounds) | {"peak_memory_mb": server.peak_mb}
    return Report(
        refusal is None,
        refusal or f"{len(requests)} requests, {limits.rounds} rounds: all as expected",
        figures,
    )


def _wait_until_ready(server: Watched, limits: Limits) -> int:
    """The port of a server that is ready."""
    give_up = time.monotonic() + limits.ready_s
    with server.within(limits.ready_s, "a port on its standard output"):
        while (port := server.port()) is None:
            server.check()
            time.sleep(_POLL_S)
    probe = Request("GET", READY)
    with server.within(give_up - time.monotonic(), f"status 200 from GET {READY}"):
        while _status_of(port, probe, limits.ready_s) != 200:
            server.check()
            time.sleep(_POLL_S)
    return port


def _status_of(port: int, request: Request, timeout: float) -> int | None:
    """None while nobody listens."""
    try:
        return _send(port, request, timeout)[0]
    except (OSError, http.client.HTTPException):
        return None


def _ask(server: Watched, port: int, request: Request, golden: Any, limits: Limits) -> float:
    """How long the answer took, in ms, from the first packet to its last byte."""
    with server.within(limits.answer_s, f"an answer within {limits.budget_ms:g} ms"):
        started = time.perf_counter()
        status, body = _send(port, request, limits.answer_s)
        elapsed = time.perf_counter() - started
    if status != 200:
        raise Refused(f"expected status 200, got {status}: {one_line(body)}")
    if len(body) > MAX_ANSWER_BYTES:
        raise Refused(f"expected an answer of at most {MAX_ANSWER_BYTES:,} bytes, got a longer one")
    if fault := fault_of(body, golden, limits.rtol, limits.atol):
        raise Refused(fault)
    return 1e3 * elapsed


def _send(port: int, request: Request, timeout: float) -> tuple[int, bytes]:
    """Status and body over a connection of its own: one kept open may be closed by either side."""
    body = None if request.body is None else json.dumps(request.body).encode()
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)) as connection:
        headers = {"content-type": "application/json"}
        connection.request(request.method, request.path, body, headers)
        response = connection.getresponse()
        content = response.read(MAX_ANSWER_BYTES + 1)
        missing = response.length or 0
        if missing and len(content) <= MAX_ANSWER_BYTES:
            raise http.client.IncompleteRead(content, missing)
        return response.status, content


def _judge_speed(times: Sequence[float], limits: Limits) -> None:
    """Refuse a request that took `times` so far, in ms, in the rounds that count."""
    late, counted = sum(ms > limits.budget_ms for ms in times), limits.rounds - 1
    if 2 * late > counted:
        raise Refused(
            f"expected an answer within {limits.budget_ms:g} ms, got one after {times[-1]:.0f} ms, "
            f"late in {late} of {counted} rounds"
        )


def _times(rounds: Sequence[Sequence[float]]) -> dict[str, float]:
    first, later = [ms for r in rounds[:1] for ms in r], [ms for r in rounds[1:] for ms in r]
    figures = {"answers": float(len(first) + len(later))}
    if first:
        figures["first_ms"] = max(first)
    if later:
        median, p95 = np.percentile(later, [50, 95]).tolist()
        figures |= {"median_ms": median, "p95_ms": p95, "slowest_ms": max(later)}
    return figures
