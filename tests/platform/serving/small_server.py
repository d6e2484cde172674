"""A server of small workers, in a process of its own, and the handle that tests have of it.

    python -m tests.platform.serving.small_server FOLDER '{"drain_s": 1, …}'

prints its HTTP port and its administrator's, and serves until a signal.
"""

import http.client
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from mlplatform.errors import NotFound, PlatformError
from mlplatform.registry.registry import Registry
from mlplatform.serving.child import Stage
from mlplatform.serving.launch import serve
from mlplatform.serving.status import Status, read_status
from mlplatform.serving.supervisor import Settings, Supervisor
from tests.platform.registry.bundles import make_bundle, push

ROOT = Path(__file__).parents[3]
TOKEN = "a token long enough"
LIMIT_S = 30.0


def wait_until(true: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + LIMIT_S
    while not true():
        assert time.monotonic() < end, f"waited {LIMIT_S} s until {what}"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Server:
    """A running server; its registry's labels may be moved and its workers killed."""

    def __init__(self, folder: Path, process: "subprocess.Popen[str]") -> None:
        self.folder, self.process = folder, process
        self.registry = Registry(folder / "registry")
        assert process.stdout is not None
        line = process.stdout.readline()
        ports = json.loads(line) if line else {"http": 0, "admin": 0}
        self.port, self.admin_port = ports["http"], ports["admin"]

    def push(self, word: str, label: str = "stable") -> int:
        """Push a version whose model is `word`; return its number."""
        bundle = self.folder / f"bundle-{len(list(self.folder.glob('bundle-*')))}"
        (make_bundle(bundle, word) / "name").write_text(bundle.name)
        return push(self.registry.root, bundle, label).number

    def status(self) -> Status:
        try:
            return read_status(self.folder / "status.json")
        except NotFound:
            return Status({}, {}, [])

    def pids(self) -> list[int]:
        return [worker.pid for worker in self.status().workers]

    def serves(self, **labels: int) -> bool:
        """Whether these labels are served, by two workers and nobody else."""
        status = self.status()
        stages = [worker.stage for worker in status.workers]
        return dict(status.labels) == labels and stages == [Stage.SERVING] * 2

    def wait_for(self, **labels: int) -> None:
        wait_until(lambda: self.serves(**labels), f"{labels} are served: {self.status()}")

    def loads(self) -> list[int]:
        """The generations that began to load, in order, each once."""
        return sorted(set(map(int, (self.registry.root / "loads").read_text().split())))

    def get(self, path: str = "/") -> dict[str, Any]:
        """The answer of whichever worker takes a new connection."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT_S)
        try:
            connection.request("GET", path)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    def last_words(self) -> str:
        """What it wrote to stderr, when it has ended."""
        _, said = self.process.communicate(timeout=LIMIT_S)
        return said


@contextmanager
def server(folder: Path, *words: str, **settings: Any) -> Iterator[Server]:
    """A server of the registry in `folder`, whose versions 1, 2, … are `words`; stable is the last.

    It is not yet serving.  Settings: of `Settings`, where it should be otherwise.
    """
    root = folder / "registry"
    for word in words:
        bundle = folder / f"bundle-{len(list(folder.glob('bundle-*')))}"
        (make_bundle(bundle, word) / "name").write_text(bundle.name)
        push(root, bundle)
    module = "tests.platform.serving.small_server"
    process = subprocess.Popen(
        [sys.executable, "-m", module, str(folder), json.dumps(settings)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ
        | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'platform'}"}
        | {"MLPLATFORM_ADMIN_TOKEN": TOKEN},
    )
    workers: list[int] = []
    try:
        running = Server(folder, process)
        yield running
        workers = running.pids()
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
        for pid in workers:
            wait_until(lambda pid=pid: not is_running(pid), f"worker {pid} has ended")


class Client(threading.Thread):
    """Asks without pause, on one connection for as long as the server keeps it, or on many.

    versions: the stable version of every answer.  failures: what went wrong.
    """

    def __init__(self, port: int, *, keep_alive: bool) -> None:
        super().__init__()
        self.versions: list[int] = []
        self.failures: list[str] = []
        self._port, self._keep_alive, self._ended = port, keep_alive, threading.Event()

    def __enter__(self) -> "Client":
        self.start()
        wait_until(lambda: len(self.versions) > 0, "the client has an answer")
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=LIMIT_S)
        while not self._ended.is_set():
            try:
                connection.request("GET", "/")  # opens a connection if the last one was closed
                answer = connection.getresponse()
                self.versions.append(json.loads(answer.read())["versions"]["stable"])
                if not self._keep_alive:
                    connection.close()
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                connection.close()
            time.sleep(0.002)
        connection.close()


def main() -> None:
    folder, changed = Path(sys.argv[1]), json.loads(sys.argv[2])
    logging.basicConfig(level=logging.INFO)

    def opened(supervisor: Supervisor, admin: int | None) -> None:
        print(json.dumps({"http": supervisor.http_port, "admin": admin}), flush=True)

    address = ("127.0.0.1", 0)
    registry = Registry(folder / "registry")
    worker = [sys.executable, "-m", "tests.platform.serving.small_worker", str(registry.root)]
    settings = {
        "command": worker,
        "workers": 2,
        "http": address,
        "grpc": address,
        "drain_s": 2.0,
        "poll_s": 0.05,
        **changed,
        "status": Path(changed.get("status", folder / "status.json")),
    }
    try:
        serve(Settings(registry=registry, **settings), address, opened)
    except PlatformError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
