"""One worker, as its supervisor sees it: started, heard, told to go, stopped.

Enters: a command and an assignment.  Leaves: a process whose end and whose reports are noticed in
the event loop; nothing is polled and no thread waits.

Pools of threads are set to one thread by the environment, before the process imports anything,
since the libraries read it then.  There is a worker for each core, and what it computes for a
request is shorter than waking a second thread; more threads than cores only take turns.
"""

import asyncio
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import msgspec

from mlplatform.errors import FailedPrecondition
from mlplatform.serving.assignment import GO, Assignment, Report
from mlplatform.serving.cores import confine
from mlplatform.serving.priority import lower, may_raise

_ONE_THREAD = dict.fromkeys(
    (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "NUMBA_NUM_THREADS",
        "TF_NUM_INTRAOP_THREADS",
        "TF_NUM_INTEROP_THREADS",
    ),
    "1",
)
_OURS = "MLPLATFORM_"  # the supervisor's own variables: the administrator's token, the key
_MARGIN_S = 2.0  # over the time that a worker has to drain


class Stage(StrEnum):
    """How far a worker is."""

    LOADING = "loading"
    READY = "ready"
    SERVING = "serving"
    DRAINING = "draining"
    ENDED = "ended"


class LoadFailed(FailedPrecondition):
    """A worker did not come to serve.  version: the one it was loading, if it said."""

    def __init__(self, message: str, version: int | None = None) -> None:
        super().__init__(message)
        self.version = version


@dataclass(frozen=True)
class Task:
    """What the workers of a generation have in common.

    command: what starts a worker, which reads its assignment in the environment.
    http, grpc, counts: see `Assignment`.
    load_timeout_s: for loading, and again for opening the doors.
    """

    command: Sequence[str]
    http: int
    grpc: int | None
    counts: int
    load_timeout_s: float
    drain_s: float
    status: Path
    metrics: Path | None


class Child:
    """A worker process, started when this is made; `changed` is called when its stage is new.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(
        self,
        task: Task,
        versions: Mapping[str, int],
        *,
        worker: int,
        generation: int,
        low_priority: bool,
        changed: Callable[[], None],
    ) -> None:
        self.worker, self.stage = worker, Stage.LOADING
        self._task, self._changed, self._low_priority = task, changed, low_priority
        self._cores = frozenset(os.sched_getaffinity(0))
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._serving: asyncio.Future[None] = self._loop.create_future()
        self._ended = asyncio.Event()
        self._heard = b""
        with ExitStack() as ours, ExitStack() as theirs:
            self._reports, reports = os.pipe()
            ours.callback(os.close, self._reports)
            theirs.callback(os.close, reports)
            orders, self._orders = os.pipe()
            ours.callback(os.close, self._orders)
            theirs.callback(os.close, orders)
            doors = [task.http] if task.grpc is None else [task.http, task.grpc]
            assignment = Assignment(
                versions=versions,
                worker=worker,
                generation=generation,
                http=task.http,
                grpc=task.grpc,
                counts=task.counts,
                reports=reports,
                orders=orders,
                low_priority=low_priority,
                drain_s=task.drain_s,
                status=task.status,
                metrics=task.metrics,
            )
            self._process = subprocess.Popen(
                task.command,
                stdin=subprocess.DEVNULL,
                env=_unsecret(os.environ) | _ONE_THREAD | assignment.to_environment(),
                pass_fds=(*doors, task.counts, reports, orders),
                # A terminal's Ctrl-C is the supervisor's to answer.  Not a session of its own: the
                # kernel shares cores by session (autogroup, man 7 sched), and a loading worker
                # that is alone in one has half of them, however low its threads are.
                process_group=0,
            )
            self.pid = self._process.pid
            if low_priority and may_raise():
                lower(self.pid)  # from its first import on; it raises itself when it is ready
            self._pidfd = os.pidfd_open(self.pid)
            ours.callback(os.close, self._pidfd)
            self._descriptors = ours.pop_all()
        os.set_blocking(self._reports, False)
        self._loop.add_reader(self._reports, self._hear)
        self._loop.add_reader(self._pidfd, self._end)

    @property
    def is_serving(self) -> bool:
        return self.stage is Stage.SERVING

    @property
    def loads_low(self) -> bool:
        """Whether it loads while others serve."""
        return self._low_priority and self.stage is Stage.LOADING

    def keep_to(self, cores: frozenset[int]) -> None:
        """Have it run on these cores alone."""
        if cores != self._cores and self.stage is not Stage.ENDED:
            confine(self.pid, cores)
            self._cores = cores

    async def load(self) -> None:
        """Wait until it is ready.

        Raises:
            LoadFailed: it ended, said why it cannot serve, or took longer than it may.
        """
        await self._reach(self._ready, "load")

    async def open(self) -> None:
        """Give it its turn and wait until its doors are open.

        Raises:
            LoadFailed: as `load`.
        """
        if self.stage is Stage.READY:
            with suppress(BrokenPipeError):  # it has just died, which the next line tells
                os.write(self._orders, GO)
        await self._reach(self._serving, "open its doors")

    async def ended(self) -> None:
        await self._ended.wait()

    async def stop(self) -> None:
        """Let it finish what it has, or kill it if that takes long; return when it has ended."""
        if self.stage is not Stage.ENDED:
            self._advance(Stage.DRAINING)
            self._process.terminate()
        try:
            async with asyncio.timeout(self._task.drain_s + _MARGIN_S):
                await self._ended.wait()
        except TimeoutError:
            self._process.kill()
            await self._ended.wait()

    async def _reach(self, stage: "asyncio.Future[None]", what: str) -> None:
        limit = self._task.load_timeout_s
        try:
            async with asyncio.timeout(limit):
                await asyncio.shield(stage)
        except TimeoutError:
            raise LoadFailed(f"worker {self.pid}: did not {what} within {limit:g} s") from None

    def _hear(self) -> None:
        try:
            more = os.read(self._reports, 1 << 16)
        except BlockingIOError:
            return
        if not more:
            self._loop.remove_reader(self._reports)
        *lines, self._heard = (self._heard + more).split(b"\n")
        for line in lines:
            try:
                self._note(Report.from_line(line))
            except msgspec.DecodeError:
                self._fail(LoadFailed(f"worker {self.pid}: reported {line[:80]!r}"))

    def _note(self, report: Report) -> None:
        if report.stage == "failed":
            self._fail(LoadFailed(report.error, report.version))
        elif self.stage is Stage.LOADING and report.stage == "ready":
            self._advance(Stage.READY)
            self._ready.set_result(None)
        elif self.stage is Stage.READY and report.stage == "serving":
            self._advance(Stage.SERVING)
            self._serving.set_result(None)

    def _end(self) -> None:
        self._hear()  # its last words may lie in the pipe still
        code = self._process.wait()
        self._loop.remove_reader(self._pidfd)
        self._loop.remove_reader(self._reports)
        self._descriptors.close()
        how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
        self._fail(LoadFailed(f"worker {self.pid}: {how} before it served"))
        self._advance(Stage.ENDED)
        self._ended.set()

    def _fail(self, error: LoadFailed) -> None:
        for stage in (self._ready, self._serving):
            if not stage.done():
                stage.set_exception(error)
                stage.exception()  # seen: nobody may be waiting for it

    def _advance(self, stage: Stage) -> None:
        self.stage = stage
        self._changed()


def _unsecret(environment: Mapping[str, str]) -> dict[str, str]:
    """Without what no worker needs to know."""
    return {name: value for name, value in environment.items() if not name.startswith(_OURS)}
