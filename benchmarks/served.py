"""`storeloop serve` for the benchmarks, from its start to its end, and what it is asked.

Enters: a workspace that a main job has filled.  Leaves: `Served`, a server in processes of its own:
where its doors are, what it costs, how its workers are, what it logged; and `Visits`, ready as
bytes for a door.

The users are those of the workspace's feature store, in two halves, one for each of two days.
Either half comes in an order of its own, at hours and over networks of its own, so what the first
day's visits have brought into a processor's cache is none of the second's, unless every server
would have it there.
"""

import os
import re
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any, Literal

import httpx
import msgspec
import numpy as np
import psutil

from benchmarks.load import GRPC, HTTP, Plan
from mlplatform.serving.child import Stage
from mlplatform.serving.record_files import seal_abandoned, sealed_files
from mlplatform.serving.record_frames import read_log
from mlplatform.serving.status import Status, read_status
from recsys.online.feature_store import FeatureStore, latest_feature_store
from recsys.online.request_log import KIND, read_requests
from recsys.online.server import LOG, STATUS

Door = Literal["http", "grpc"]
PATHS = {HTTP: "/v1/recommendations", GRPC: "/storeloop.v1.Recommendations/Recommend"}
CONNECTIONS = {HTTP: 64, GRPC: 32}
K = 10  # apps that are asked for
MOST_VISITS = 100_000  # of a day, of as many users at most
WORKERS = 2
START_S, END_S = 180.0, 60.0
_LOCAL = "127.0.0.1"


@dataclass(frozen=True)
class Visits:
    """A day's requests, as each door takes them."""

    queries: Sequence[dict[str, Any]]
    messages: dict[str, Sequence[bytes]]


def two_days(workspace: Path) -> tuple[Visits, Visits]:
    """Of each half of the users, every one once, `MOST_VISITS` at most."""
    with FeatureStore(latest_feature_store(workspace)) as store:
        users = np.fromiter(store.user_ids(), np.int64)
    users = np.random.default_rng(0).permutation(users)
    middle = len(users) // 2
    return _day(users[:middle], seed=1), _day(users[middle:], seed=2)


def _day(users: Any, seed: int) -> Visits:
    from recsys.online.recommendations_pb2 import Context, RecommendRequest

    rng = np.random.default_rng(seed)
    users = users[:MOST_VISITS]
    hours = np.clip(rng.normal(12 + 4 * seed, 4, len(users)), 0, 23).astype(int)
    networks = np.where(rng.random(len(users)) < 0.3 * seed, "metered", "wifi")
    visits = list(zip(users.tolist(), hours.tolist(), networks.tolist(), strict=True))
    queries = [
        {"user_id": user, "k": K, "context": {"hour_of_day": hour, "network": network}}
        for user, hour, network in visits
    ]
    calls = [
        RecommendRequest(user_id=user, k=K, context=Context(hour_of_day=hour, network=network))
        for user, hour, network in visits
    ]
    return Visits(
        queries,
        {
            HTTP: [msgspec.json.encode(query) for query in queries],
            GRPC: [call.SerializeToString() for call in calls],
        },
    )


def answer_of(door: str, body: bytes) -> dict[str, Any]:
    """A kept body, as over HTTP; what a message leaves out is left out."""
    if door == HTTP:
        read: dict[str, Any] = msgspec.json.decode(body)
        return read
    from google.protobuf.json_format import MessageToDict

    from recsys.online.recommendations_pb2 import RecommendResponse

    response = RecommendResponse.FromString(body)
    return MessageToDict(response, preserving_proto_field_name=True)


@dataclass(frozen=True)
class Served:
    """A server that serves.

    ports: by door.  directory: its state; the log is below.
    """

    process: "subprocess.Popen[str]"
    ports: dict[str, int]
    directory: Path

    def plan(self, door: Door, visits: Visits, rate: float, seconds: float, **changes: Any) -> Plan:
        """A load on a door.

        It has so few connections that each is used thrice a second: who drains closes one that is
        quiet, and HTTP/1.1 cannot take back what a client says at just that moment.
        """
        return Plan(
            door=door,
            host=_LOCAL,
            port=self.ports[door],
            path=PATHS[door],
            messages=visits.messages[door],
            rate=rate,
            seconds=seconds,
            **{"connections": min(CONNECTIONS[door], ceil(rate / 3))} | changes,
        )

    def status(self) -> Status:
        return read_status(self.directory / STATUS)

    def serving(self) -> list[int]:
        """Processes of the workers that serve."""
        workers = self.status().workers
        return [worker.pid for worker in workers if worker.stage is Stage.SERVING]

    def wait_for(self, what: Callable[[Status], bool], seconds: float = START_S) -> float:
        """Until the server's state is so; -> when that was, by `time.monotonic`.

        Raises:
            TimeoutError: it was not within so many seconds.
        """
        give_up = time.monotonic() + seconds
        while not what(self.status()):
            if time.monotonic() > give_up:
                raise TimeoutError(
                    f"{self.directory / STATUS}: expected another state within {seconds:g} s, "
                    f"still got {self.status()}"
                )
            time.sleep(0.02)
        return time.monotonic()

    def processes(self) -> list[psutil.Process]:
        """The supervisor and every worker there is."""
        own = psutil.Process(self.process.pid)
        return [own, *own.children(recursive=True)]

    def cpu_seconds(self) -> float:
        """Spent by the server so far, in user and system; of a worker that ended, no more."""
        total = 0.0
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def memory_mb(self) -> float:
        """Anonymous memory: mapped files of bundles, which all share, do not count.

        It is the kernel's own count.  To look at every page, as for USS, would keep a server of
        900 MB from its work for tens of ms, and that is what would be measured.
        """
        kb = 0
        for process in self.processes():
            with suppress(FileNotFoundError, ProcessLookupError):
                status = Path(f"/proc/{process.pid}/status").read_text()
                kb += sum(map(int, re.findall(r"^RssAnon:\s+(\d+) kB$", status, re.M)))
        return kb / 1024

    def stage_seconds(self) -> dict[str, float]:
        """Spent by all workers so far in each stage of the computation, by its name."""
        text = httpx.get(f"http://{_LOCAL}:{self.ports[HTTP]}/metrics", timeout=30).text
        found = re.findall(r'^mlplatform_stage_seconds_total\{stage="(\w+)"\} (\S+)', text, re.M)
        return {stage: float(seconds) for stage, seconds in found}

    def end(self) -> None:
        """End the server in good order; what it left can be read until the block ends."""
        stop(self.process)

    def logged_ids(self) -> set[int]:
        """Ids of all requests in the log; to be asked when the server has ended."""
        directory = self.directory / LOG
        seal_abandoned(directory)
        ids: set[int] = set()
        for file in sealed_files(directory, KIND):
            records, _ = read_log(file.path)
            ids.update(read_requests(records).requests["request_id"].to_pylist())
        return ids


@contextmanager
def serve(
    workspace: Path,
    *options: str,
    command: Sequence[str] = (sys.executable, "-m", "recsys.cli", "serve"),
) -> Iterator[Served]:
    """A server of the workspace; it is ready, and ended with the block.

    Args:
        options: more of the command's.
        command: what takes the options of `storeloop serve`.

    Raises:
        RuntimeError: it does not come to serve; what it said is in the message.
    """
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "serving"
        said = Path(folder) / "said"
        with said.open("w") as errors:
            process = subprocess.Popen(
                [
                    *command,
                    *("--workspace", str(workspace), "--workers", str(WORKERS)),
                    *("--port", "0", "--grpc-port", "0", "--state", str(directory), *options),
                ],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
            )
        try:
            ports = _ports(process, said)
            served = Served(process, ports, directory)
            _wait_until_ready(served, said)
            yield served
        finally:
            stop(process)


def stop(process: "subprocess.Popen[str]") -> None:
    """End a server in good order, and in any way if it takes too long."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        for one in psutil.Process(process.pid).children(recursive=True):
            one.kill()
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _ports(process: "subprocess.Popen[str]", said: Path) -> dict[str, int]:
    """From the line that a server prints when its sockets are open."""
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        line = process.stdout.readline() if selector.select(START_S) else ""
    http = re.search(r"http://[^ /]*:(\d+)", line)
    grpc = re.search(r"gRPC [^ ,;]*:(\d+)", line)
    if http is None or grpc is None:
        raise RuntimeError(
            f"expected a server's line with its addresses, got {line!r}; it said: "
            f"{said.read_text()[-2000:]}"
        )
    return {HTTP: int(http[1]), GRPC: int(grpc[1])}


def _wait_until_ready(served: Served, said: Path) -> None:
    url, give_up = f"http://{_LOCAL}:{served.ports[HTTP]}/readyz", time.monotonic() + START_S
    while True:
        with suppress(httpx.TransportError):
            if httpx.get(url, timeout=5).status_code == httpx.codes.OK:
                break
        if served.process.poll() is not None or time.monotonic() > give_up:
            raise RuntimeError(f"{url}: the server is not ready: {said.read_text()[-2000:]}")
        time.sleep(0.1)
    # One worker is; the load is for all of them.
    served.wait_for(lambda status: bool(status.labels))
