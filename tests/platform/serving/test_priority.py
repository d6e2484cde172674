"""Work at low priority leaves no low thread behind, as far as the process may raise it."""

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mlplatform.serving.priority import lower, lower_process, may_raise, raise_threads, run_low
from tests.platform.serving.small_server import wait_until


def policy(thread: int = 0) -> int:
    return os.sched_getscheduler(thread)


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


def policies(process: int) -> set[int]:
    return {policy(int(path.name)) for path in Path(f"/proc/{process}/task").iterdir()}


def test_a_process_is_lowered_with_what_it_starts() -> None:
    # It says its child's policy, then waits to be told to end.
    program = (
        "import os, sys, threading; sys.stdin.readline()\n"
        "thread = threading.Thread(target=lambda: print(os.sched_getscheduler(0), flush=True))\n"
        "thread.start(); sys.stdin.readline()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        lower(process.pid)
        process.stdin.write("\n")
        process.stdin.flush()
        assert int(process.stdout.readline()) == os.SCHED_IDLE
        assert policies(process.pid) == {os.SCHED_IDLE}
        process.stdin.write("\n")
    lower(process.pid)  # it has ended: nothing is left to lower


def test_all_threads_of_a_process_are_lowered_for_good_and_no_other_process() -> None:
    child = os.fork()
    if child == 0:
        failed = 1
        try:
            threading.Thread(target=threading.Event().wait, daemon=True).start()
            lower_process()
            failed = int(policies(os.getpid()) != {os.SCHED_IDLE})
        finally:
            os._exit(failed)
    assert os.waitpid(child, 0)[1] == 0
    assert policy() == os.SCHED_OTHER


def test_who_may_raise_is_found_out_without_harm() -> None:
    assert may_raise() in (True, False)
    assert policy() == os.SCHED_OTHER and raise_threads() == 0
