"""A generation: the workers that serve one choice of versions, from their start to their end.

Enters: the versions by label.  Leaves: workers that serve, each replaced when it dies.  A
generation loads beside the one that serves and takes over when all of its workers are ready; it
never changes its versions, so nothing is loaded or unloaded inside a serving process.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from mlplatform.errors import PlatformError
from mlplatform.serving.child import Child, LoadFailed, Task
from mlplatform.serving.priority import run_low

logger = logging.getLogger(__name__)
LONGEST_PAUSE_S = 10.0
_FIRST_PAUSE_S = 0.5


def pause_s(failures: int) -> float:
    """How long to wait after so many failures on end: not at all, then twice as long each time."""
    return min(LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(failures - 1, 16)) if failures else 0.0


class Generation:
    """So many workers of one choice of versions.

    number: counts the generations of a supervisor, from 1.
    verify: raises PlatformError if a version may not be served.
    low_priority: others serve meanwhile.
    changed: called whenever a worker is new or further than it was.
    """

    def __init__(
        self,
        number: int,
        versions: Mapping[str, int],
        task: Task,
        workers: int,
        *,
        verify: Callable[[int], None],
        low_priority: bool,
        changed: Callable[[], None],
    ) -> None:
        self.number, self.versions = number, versions
        self.restarts = [0] * workers
        self._task, self._changed, self._low_priority = task, changed, low_priority
        self._verify = verify
        self._keepers: Sequence[asyncio.Task[None]] = []
        self._children: list[Child] = []

    @property
    def children(self) -> Sequence[Child]:
        """The workers there are now; of a dead one the last process, until there is the next."""
        return self._children

    async def take_over(self) -> None:
        """Start the workers, and return when all serve; none opens its doors before all are ready.

        The versions are verified first, once for all workers and those that will replace them.

        Raises:
            LoadFailed: a version may not be served, or a worker did not come so far.
        """
        apart = run_low if self._low_priority else asyncio.to_thread
        for version in dict.fromkeys(self.versions.values()):
            try:
                await apart(partial(self._verify, version))
            except (PlatformError, OSError) as error:
                raise LoadFailed(str(error), version) from error
        for worker in range(len(self.restarts)):
            self._children.append(self._start(worker, low_priority=self._low_priority))
        self._changed()
        await asyncio.gather(*(child.load() for child in self._children))
        await asyncio.gather(*(child.open() for child in self._children))
        self._keepers = [asyncio.create_task(self._keep(i)) for i in range(len(self.restarts))]

    async def stop(self) -> None:
        """End all workers: those that serve finish what they have. Return when none is left."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        await asyncio.gather(*(child.stop() for child in self._children))

    async def _keep(self, worker: int) -> None:
        """Replace a worker that ends: at once, and if that one does not last, after a pause."""
        failures, since = 0, time.monotonic()
        while True:
            child = self._children[worker]
            await child.ended()
            if time.monotonic() - since > LONGEST_PAUSE_S:
                failures = 0
            pause = pause_s(failures)
            failures += 1
            logger.warning(
                "worker %d (process %d) ended; another in %g s", worker, child.pid, pause
            )
            await asyncio.sleep(pause)
            self.restarts[worker] += 1
            try:
                await self._replace(worker)
            except LoadFailed as error:
                logger.warning("%s", error)
                await self._children[worker].stop()
            since = time.monotonic()

    async def _replace(self, worker: int) -> None:
        others = any(child.is_serving for child in self._children)
        self._children[worker] = child = self._start(worker, low_priority=others)
        self._changed()
        await child.load()
        await child.open()

    def _start(self, worker: int, *, low_priority: bool) -> Child:
        try:
            return Child(
                self._task,
                self.versions,
                worker=worker,
                generation=self.number,
                low_priority=low_priority,
                changed=self._changed,
            )
        except OSError as error:  # no memory, no descriptors: there may be some later
            raise LoadFailed(f"{self._task.command[0]}: cannot start a worker ({error})") from error
