"""The fleet: one generation that serves, one that loads, and those that drain.

Enters: the versions to load.  Leaves: the switch from one generation to the next, which comes only
when the next one serves, and how all of them are.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from mlplatform.serving.child import Stage, Task
from mlplatform.serving.cores import cores_of
from mlplatform.serving.generation import Generation
from mlplatform.serving.status import VersionStatus, WorkerStatus, version_states

logger = logging.getLogger(__name__)
_REMEMBERED = 20  # versions that have ended


class Fleet:
    """All processes of a server.

    verify: see `Generation`.
    changed: called whenever a worker is further than it was.
    settled: called when the generation that loads came to an end with that, either way.
    """

    def __init__(
        self,
        task: Task,
        workers: int,
        *,
        verify: Callable[[int], None],
        changed: Callable[[], None],
        settled: Callable[[], None],
    ) -> None:
        self._verify = verify
        self._task, self._workers = task, workers
        self._changed, self._settled = changed, settled
        self._begun = 0
        self._goes_back = False  # the generation that loads
        self._serving: Generation | None = None
        self._loading: tuple[Generation, asyncio.Task[None]] | None = None
        self._draining: dict[Generation, asyncio.Task[None]] = {}
        self._past: dict[int, None] = {}  # versions of generations that ended, the oldest first

    @property
    def served(self) -> Mapping[str, int]:
        """Version by label; none before the first generation serves."""
        return self._serving.versions if self._serving else {}

    @property
    def loading(self) -> Mapping[str, int] | None:
        """Version by label; None where no generation loads."""
        return self._loading[0].versions if self._loading else None

    @property
    def opens_first(self) -> bool:
        """Whether the generation that loads is answering already, and no other one does."""
        if self._serving is not None or self._loading is None:
            return False
        return any(child.is_serving for child in self._loading[0].children)

    def begin(self, versions: Mapping[str, int]) -> None:
        """Load a new generation beside the one that serves.

        Where a label moves back somebody waits for it: it is loaded on all cores then, in half the
        time, and felt by who asks meanwhile.
        """
        self._begun += 1
        self._goes_back = any(
            number < self.served.get(label, number) for label, number in versions.items()
        )
        generation = Generation(
            self._begun,
            versions,
            self._task,
            self._workers,
            verify=self._verify,
            low_priority=self._serving is not None,
            changed=self._note_change,
        )
        load = asyncio.create_task(generation.take_over())
        load.add_done_callback(self._note_end)
        self._loading = generation, load
        self._place()

    def drop(self) -> None:
        """End the generation that loads, if there is one."""
        if self._loading is not None:
            generation, load = self._loading
            load.cancel()
            self._loading = None
            self._drain(generation)
            self._place()

    def settle(self) -> None:
        """Switch to the generation that loads if it serves by now.

        Raises:
            LoadFailed: it does not, and will not; it is dropped.
        """
        if self._loading is None or not self._loading[1].done():
            return
        generation, load = self._loading
        if load.exception() is not None:
            self.drop()
            load.result()
        if self._serving is not None:
            self._drain(self._serving)
        self._serving, self._loading = generation, None
        logger.info("generation %d serves %s", generation.number, dict(generation.versions))

    async def end(self) -> None:
        """Drain all; return when no process is left."""
        self.drop()
        if self._serving is not None:
            self._drain(self._serving)
            self._serving = None
        await asyncio.gather(*self._draining.values())

    def versions(
        self, wanted: Iterable[int], given_up: Iterable[int], errors: Mapping[int, str]
    ) -> Mapping[int, VersionStatus]:
        """How every version is, of these and of the fleet's own."""
        draining = [generation.versions.values() for generation in self._draining]
        return version_states(
            available=self.served.values(),
            loading=(self.loading or {}).values(),
            unloading=[version for versions in draining for version in versions],
            wanted=wanted,
            ended=[*given_up, *self._past],
            errors=errors,
        )

    def workers(self) -> Sequence[WorkerStatus]:
        """How every process is, those of the generation that serves first."""
        serving = [self._serving] if self._serving else []
        loading = [self._loading[0]] if self._loading else []
        return [
            WorkerStatus(child.worker, child.pid, generation.number, child.stage, restarts)
            for generation in (*serving, *loading, *self._draining)
            # A generation that begins has fewer children than places for them.
            for child, restarts in zip(generation.children, generation.restarts, strict=False)
            if child.stage is not Stage.ENDED
        ]

    def _note_change(self) -> None:
        self._place()
        self._changed()

    def _place(self) -> None:
        """Keep apart who serves and who loads (`cores.py`)."""
        cores = frozenset(os.sched_getaffinity(0))
        place = partial(cores_of, cores=cores, workers=self._workers)
        serving = self._serving.children if self._serving else ()
        apart = self._loading is not None and not self._goes_back
        loads = apart or any(child.loads_low for child in serving)
        for child in serving:
            child.keep_to(place(child.worker, beside=False, something_loads=loads))
        for child in self._loading[0].children if self._loading else ():
            beside = child.loads_low and apart
            child.keep_to(place(child.worker, beside=beside, something_loads=False))

    def _drain(self, generation: Generation) -> None:
        self._past |= dict.fromkeys(generation.versions.values())
        for version in list(self._past)[:-_REMEMBERED]:
            del self._past[version]
        drain = asyncio.create_task(generation.stop())
        self._draining[generation] = drain
        drain.add_done_callback(partial(self._note_drained, generation))

    def _note_end(self, load: "asyncio.Task[None]") -> None:
        if not load.cancelled():
            load.exception()  # seen, also where the generation is dropped meanwhile
        self._settled()

    def _note_drained(self, generation: Generation, _: "asyncio.Task[None]") -> None:
        del self._draining[generation]
        self._changed()
