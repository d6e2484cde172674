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
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


async def run_low(task: Callable[[], T]) -> T:
    """Run `task` on a thread of its own, which runs when nothing else wants the core.

    Whoever no longer waits for it leaves it to itself.
    """
    low = ThreadPoolExecutor(1, "low", initializer=_lower)
    try:
        return await asyncio.get_running_loop().run_in_executor(low, task)
    finally:
        low.shutdown(wait=False)


def lower_process() -> None:
    """Lower every thread that there is, for good: what is left to do is nobody's business."""
    for path in Path("/proc/self/task").iterdir():
        lower(int(path.name))


def lower(thread: int) -> None:
    """Lower a thread, of another process too, and with it those that it will start."""
    with suppress(ProcessLookupError):  # it has ended
        _lower(thread)


@cache
def may_raise() -> bool:
    """Whether a process like this one may raise its threads."""
    with ThreadPoolExecutor(1) as other:  # a thread of its own: it could not come back
        return other.submit(_comes_back).result()


def _comes_back() -> bool:
    _lower()
    return _raised(threading.get_native_id())


def raise_threads() -> int:
    """Give every low thread of this process the usual policy; return how many stayed low."""
    return sum(not _raised(int(path.name)) for path in Path("/proc/self/task").iterdir())


def _lower(thread: int = 0) -> None:
    os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))


def _raised(thread: int) -> bool:
    try:
        if os.sched_getscheduler(thread) == os.SCHED_IDLE:
            os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))
    except ProcessLookupError:
        return True  # it has ended
    except PermissionError:
        return False
    return True
