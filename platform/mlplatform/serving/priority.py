"""Work that must not be felt: it runs when a core would idle.

Enters: a function.  Leaves: its value.  The kernel's policy SCHED_IDLE is a thread's own, so a
process can load on one low thread while another stays as it was.  It is not niceness: whatever else
wakes up takes the core at once (man 7 sched).

A thread that lowered itself may not come back without rights, so it is one of its own that ends
with its task.  Threads that it starts inherit the policy: a library's pools, above all, which serve
later.  They are raised afterwards, for which the process needs CAP_SYS_NICE or a RLIMIT_NICE of 20;
without, they stay low, and what is served by them waits while the cores are busy.
"""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


async def run_low(task: Callable[[], T]) -> T:
    """Run `task` on a thread of its own, which runs when nothing else wants the core."""
    with ThreadPoolExecutor(1, "low", initializer=_lower_this_thread) as low:
        return await asyncio.get_running_loop().run_in_executor(low, task)


def raise_threads() -> int:
    """Give every low thread of this process the usual policy; return how many stayed low."""
    return sum(not _raised(int(path.name)) for path in Path("/proc/self/task").iterdir())


def _lower_this_thread() -> None:
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def _raised(thread: int) -> bool:
    try:
        if os.sched_getscheduler(thread) == os.SCHED_IDLE:
            os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))
    except ProcessLookupError:
        return True  # it has ended
    except PermissionError:
        return False
    return True
