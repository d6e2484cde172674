"""Work at low priority leaves no low thread behind, as far as the process may raise it."""

import asyncio
import os
import threading
from pathlib import Path

import pytest

from mlplatform.serving.priority import raise_threads, run_low
from tests.platform.serving.small_server import wait_until


def policy(thread: int = 0) -> int:
    return os.sched_getscheduler(thread)


def may_raise() -> bool:
    """Whether a thread of this process that lowered itself may come back."""
    said = []

    def try_it() -> None:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        try:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        except PermissionError:
            said.append(False)
        else:
            said.append(True)

    thread = threading.Thread(target=try_it)
    thread.start()
    thread.join()
    return said[0]


def test_a_task_runs_low_on_a_thread_that_ends_with_it() -> None:
    seen = asyncio.run(run_low(lambda: (policy(), threading.get_native_id())))
    assert seen[0] == os.SCHED_IDLE and policy() == os.SCHED_OTHER
    # The kernel may take a moment more over it than Python: it still is low.
    ended = Path(f"/proc/self/task/{seen[1]}")
    wait_until(lambda: not ended.exists(), "the thread has ended")


def test_an_error_of_the_task_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        asyncio.run(run_low(lambda: 1 / 0))


def test_threads_that_the_task_left_are_raised_or_counted() -> None:
    ended, pool = threading.Event(), []

    def leave_a_thread() -> None:
        begun = threading.Event()
        thread = threading.Thread(target=lambda: (begun.set(), ended.wait()))
        thread.start()
        begun.wait()
        pool.append(thread)

    asyncio.run(run_low(leave_a_thread))
    try:
        assert policy(pool[0].native_id) == os.SCHED_IDLE  # inherited
        stayed_low = raise_threads()
        if may_raise():
            assert stayed_low == 0 and policy(pool[0].native_id) == os.SCHED_OTHER
        else:
            assert stayed_low == 1 and policy(pool[0].native_id) == os.SCHED_IDLE
    finally:
        ended.set()
        pool[0].join()
