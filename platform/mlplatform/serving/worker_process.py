"""A worker's side: it loads, waits for its turn, serves, drains, and ends.

Enters: the assignment, from the environment.  Leaves: reports to the supervisor, and the word to
stop.  An application's worker is a module of two functions:

    def load(worker: Worker) -> Service: ...                  # on a thread; imports what it needs
    async def serve(service: Service, worker: Worker) -> None: ...
        # open the doors; worker.serving(); await worker.stopping.wait(); drain within
        # worker.assignment.drain_s; close what must be; return

    if __name__ == "__main__":
        run(load, serve)

The word comes as SIGTERM, or as the end of the supervisor.  Before its turn a worker has nothing to
finish, so then it ends at once, in the middle of whatever it loads.
"""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import uvloop

from mlplatform.errors import PlatformError
from mlplatform.serving.assignment import Assignment, Report
from mlplatform.serving.balance import Balance, Door
from mlplatform.serving.priority import lower_process, raise_threads, run_low

T = TypeVar("T")
_LONGEST_ERROR = 2000  # characters; a report must go through the pipe in one piece


class Worker:
    """This process, towards its supervisor; made in a running event loop, by its thread.

    assignment: what to serve and where.
    stopping: set when the worker is to take nothing new and to finish what it has.
    """

    def __init__(self, assignment: Assignment) -> None:
        self.assignment = assignment
        self.stopping = asyncio.Event()
        self._turn = asyncio.Event()
        self._suspect: int | None = None
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop)
        loop.add_reader(assignment.orders, self._obey)

    @classmethod
    def from_environment(cls) -> "Worker":
        """Raises: FailedPrecondition: no supervisor started this process."""
        return cls(Assignment.from_environment())

    def http_socket(self) -> socket.socket:
        """The listening socket, this process's own descriptor of it: closing it ends no other's."""
        return socket.socket(fileno=self.assignment.http)

    def grpc_socket(self) -> socket.socket | None:
        """As `http_socket`; None where gRPC is not served."""
        descriptor = self.assignment.grpc
        return None if descriptor is None else socket.socket(fileno=descriptor)

    def balance(self, door: Door) -> Balance:
        """What this worker has taken at a door, beside the others."""
        return Balance(self.assignment.counts, door, self.assignment.worker)

    async def load_quietly(self, load: Callable[[], T]) -> T:
        """Run `load` on a thread, so that the loop hears a stop; low where others serve.

        The threads that it leaves are raised again if the process may (`priority.py`).
        """
        if not self.assignment.low_priority:
            return await asyncio.to_thread(load)
        loaded = await run_low(load)
        if low := raise_threads():
            print(
                f"worker {os.getpid()}: {low} threads stay at low priority, since it may not raise "
                "them; give it CAP_SYS_NICE or a RLIMIT_NICE of 20",
                file=sys.stderr,
            )
        return loaded

    @contextmanager
    def loading(self, version: int) -> Iterator[None]:
        """Around what loads one version: if it fails, that one is to blame, not another."""
        self._suspect = version
        yield
        self._suspect = None

    async def ready(self) -> None:
        """Say that everything is loaded and warm; return when it is this worker's turn to serve."""
        self._report(Report("ready"))
        await self._turn.wait()

    def serving(self) -> None:
        """Say that the doors are open: those of the generation before may close theirs."""
        self._report(Report("serving"))

    def failed(self, error: BaseException) -> None:
        """Say why this worker cannot serve; it is to end then."""
        kind = "" if isinstance(error, PlatformError) else f"{type(error).__name__}: "
        line = " ".join(f"{kind}{error}".split())[:_LONGEST_ERROR]
        self._report(Report("failed", line, self._suspect))

    def _report(self, report: Report) -> None:
        try:
            os.write(self.assignment.reports, report.to_line())
        except BrokenPipeError:
            self._stop()

    def _obey(self) -> None:
        if os.read(self.assignment.orders, 64):
            self._turn.set()
        else:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self.assignment.orders)
            loop.call_later(self.assignment.drain_s, os._exit, 1)  # nobody is left to kill it
            self._stop()

    def _stop(self) -> None:
        if not self._turn.is_set():
            os._exit(0)  # a thread that loads could not be interrupted in any other way
        self.stopping.set()


def run(load: Callable[[Worker], T], serve: Callable[[T, Worker], Awaitable[None]]) -> None:
    """Be a worker until told to stop; an error of `load` is reported, and ends the process.

    When `serve` returns the process ends at low priority, and as it is: to take apart what was
    loaded, object by object, takes time that those who serve by then have a better use for.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_work(load, serve))
        lower_process()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


async def _work(load: Callable[[Worker], T], serve: Callable[[T, Worker], Awaitable[None]]) -> None:
    worker = Worker.from_environment()
    try:
        loaded = await worker.load_quietly(lambda: load(worker))
    except Exception as error:
        worker.failed(error)
        raise SystemExit(1) from None
    await worker.ready()
    await serve(loaded, worker)
