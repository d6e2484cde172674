"""The supervisor: sees to it that what the registry's labels point at is served, come what may.

Enters: settings; the registry's labels, looked at again and again.  Leaves: a generation of workers
that serves them, and the status file.  It computes nothing and reads no bundle, so there is little
that could end it; all that may fail happens in workers.

    labels move       a new generation loads beside the old one, takes over, and the old one drains
    a load fails      the old generation serves on; it is tried again, three times in all
    labels move back  a generation that still loads is dropped
    a worker dies     its generation replaces it; its connections wait in the shared socket's queue
    the registry is unreadable, a label is gone    what is served stays; the status says why
    the disk is full  the status file is old until there is room; nothing else changes

One thing ends it, apart from `stop`: that at its start there is nothing it can serve.
"""

import asyncio
import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mlplatform.errors import NotFound, PlatformError
from mlplatform.registry.registry import STABLE, Registry
from mlplatform.serving.balance import shared_counts
from mlplatform.serving.child import LoadFailed, Task
from mlplatform.serving.fleet import Fleet
from mlplatform.serving.listening import Address, listen, port_of
from mlplatform.serving.rollout import Failures, suspect, versions_to_serve
from mlplatform.serving.status import Status, write_status

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """What to serve, with what, and where.

    command: what starts a worker, such as (sys.executable, "-m", its module).
    labels: which ones are served; the first must be there, the others where they are.
    workers: how many processes; one a core.
    http, grpc: addresses to listen on; port 0 takes a free one.
    status: the file that says how the server is.
    metrics: a directory for what the workers count together.
    load_timeout_s: how long a worker may load, and as long again open its doors.
    drain_s: how long a worker that stops may finish what it has, before it is killed.
    poll_s: how often the labels are looked at.
    """

    command: Sequence[str]
    registry: Registry
    workers: int
    http: Address
    status: Path
    grpc: Address | None = None
    metrics: Path | None = None
    labels: Sequence[str] = (STABLE, "canary")
    load_timeout_s: float = 300.0
    drain_s: float = 10.0
    poll_s: float = 1.0


class Supervisor:
    """A server, made in a running event loop; its sockets are open from then on.

    Raises:
        FailedPrecondition: an address is taken.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._http = listen(settings.http)
        self._grpc = listen(settings.grpc) if settings.grpc else None
        self._counts = shared_counts(settings.workers)
        task = Task(
            command=settings.command,
            http=self._http.fileno(),
            grpc=self._grpc.fileno() if self._grpc else None,
            counts=self._counts,
            load_timeout_s=settings.load_timeout_s,
            drain_s=settings.drain_s,
            status=settings.status,
            metrics=settings.metrics,
        )
        self._fleet = Fleet(
            task,
            settings.workers,
            verify=self._verify,
            changed=self._publish,
            settled=self.look,
        )
        self._wanted: Mapping[str, int] = {}
        self._failures, self._error, self._reload = Failures(), "", False
        self._published: Status | None = None
        self._is_stale = False
        self._wake = asyncio.Event()
        self._pursuit: asyncio.Task[None] | None = None

    @property
    def registry(self) -> Registry:
        return self._settings.registry

    @property
    def http_port(self) -> int:
        return port_of(self._http)

    @property
    def grpc_port(self) -> int | None:
        return port_of(self._grpc) if self._grpc else None

    async def run(self) -> None:
        """Serve until `stop`; then return when all workers have ended.

        Raises:
            LoadFailed: nothing is served, and what the first label points at cannot be.
            NotFound: nothing is served, and nothing has the first label.
            PlatformError: nothing is served, and the registry cannot be read.
        """
        self._pursuit = asyncio.create_task(self._pursue())
        try:
            with suppress(asyncio.CancelledError):
                await self._pursuit
        finally:
            self._wanted = {}
            await self._fleet.end()
            self._http.close()
            if self._grpc is not None:
                self._grpc.close()
            os.close(self._counts)
            self._publish()

    def stop(self) -> None:
        """Drain all and let `run` return."""
        if self._pursuit is not None:
            self._pursuit.cancel()

    def look(self) -> None:
        """Look at the labels now."""
        self._wake.set()

    def reload(self) -> None:
        """Load a new generation though no label moved, and what was given up once more."""
        self._failures, self._reload = Failures(), True
        self._wake.set()

    def status(self) -> Status:
        """How things are now."""
        failures = self._failures
        return Status(
            labels=self._fleet.served,
            versions=self._fleet.versions(
                self._wanted.values(), failures.given_up(), failures.errors
            ),
            workers=self._fleet.workers(),
            error=self._error,
        )

    async def _pursue(self) -> None:
        while True:
            await self._look_at_labels()
            self._act()
            self._publish()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.poll_s):
                    await self._wake.wait()
            self._wake.clear()

    async def _look_at_labels(self) -> None:
        served = self._fleet.served
        try:
            # On a thread: whoever writes the registry may keep its readers waiting.
            labels = await asyncio.to_thread(self.registry.labels)
            self._failures.keep(set(labels.values()))
            given_up = self._failures.given_up()
            self._wanted = versions_to_serve(self._settings.labels, labels, served, given_up)
            for label in (self._settings.labels[0], *served):
                if label not in labels:
                    raise NotFound(
                        f"{self.registry.root}: no version is labelled {label!r}; push a bundle or "
                        "set the label; what is served stays until then"
                    )
        except (PlatformError, OSError) as error:
            if not served:
                raise
            self._note_error(str(error))
        else:
            self._note_error("")

    def _act(self) -> None:
        """Go on towards what is wanted."""
        fleet = self._fleet
        moved = fleet.loading is not None and fleet.loading != self._wanted
        # Who is first to serve finishes: whoever asked it would wait for a whole load otherwise.
        if moved and not fleet.opens_first:
            fleet.drop()
        try:
            fleet.settle()
        except LoadFailed as error:
            self._note_failure(error)
            self.look()  # what is wanted may be another thing now
        else:
            differs = self._wanted != fleet.served or self._reload
            if fleet.loading is None and differs and self._failures.may_try():
                self._reload = False
                fleet.begin(self._wanted)

    def _verify(self, number: int) -> None:
        with self.registry.serving(self.registry.version(number)):
            pass  # it is whole and blessed; the workers hold it from when they load it

    def _note_failure(self, error: LoadFailed) -> None:
        """Blame one of the versions that are wanted, since just these were loaded."""
        served = self._fleet.served
        guilty = suspect(self._wanted, served, error.version)
        # With nothing to fall back on, a second try would only keep whoever waits from knowing.
        self._failures.note(guilty, str(error), enough=not served)
        logger.warning("version %d was not loaded: %s", guilty, error)
        if not served and guilty == self._wanted[self._settings.labels[0]]:
            raise error

    def _publish(self) -> None:
        status = self.status()
        if status == self._published:
            return
        try:
            write_status(self._settings.status, status)
        except (PlatformError, OSError) as error:
            if not self._is_stale:
                logger.warning("%s", error)
            self._is_stale = True  # tried again at the next look
        else:
            self._published, self._is_stale = status, False

    def _note_error(self, error: str) -> None:
        if error and error != self._error:
            logger.warning("%s", error)
        self._error = error
