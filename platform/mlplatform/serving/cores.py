"""Which cores a worker runs on, so that one that loads is not felt by those that serve.

Enters: how many workers there are, and what they are at.  Leaves: sets of cores.

As a rule every worker may run on any core, and the kernel sees to it that none waits where another
core has nothing to do.  A core that runs what is low (`priority.py`) has something to do, though:
two workers that meet on the other one then share it until a tick of the clock, or several.  And
what loads empties the caches of the core it runs on.  So while something loads, each worker of the
generation that serves keeps to a core of its own, and a generation that loads beside it to one of
them.  One that loads in the place of a dead worker has that one's core, where nobody waits for it.
"""

import os
from contextlib import suppress
from pathlib import Path


def cores_of(
    worker: int, cores: frozenset[int], workers: int, *, beside: bool, something_loads: bool
) -> frozenset[int]:
    """Those, of all, that a worker may run on.

    Where there are not as many cores as workers, these are all: the kernel knows better.

    Args:
        worker: which one, from 0.
        beside: it loads, and is of a generation that serves when all of it has loaded.
        something_loads: it is of the generation that serves, while a worker loads, be it itself.
    """
    if len(cores) != workers:
        return cores
    if beside:
        return frozenset({max(cores)})
    return frozenset({sorted(cores)[worker]}) if something_loads else cores


def confine(process: int, cores: frozenset[int]) -> None:
    """Have a process's threads, and those that they will start, run on these cores alone."""
    with suppress(FileNotFoundError):  # the process has ended
        for path in Path(f"/proc/{process}/task").iterdir():
            with suppress(ProcessLookupError):  # the thread has; the others have not
                os.sched_setaffinity(int(path.name), cores)
