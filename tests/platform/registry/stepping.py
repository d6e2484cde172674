"""Kill an action at each of its steps, one process a step.

A step is a line of the registry's code, or an operation that Python announces to its audit hooks
(open, rename, link, mkdir, remove, connect): so it also dies inside the standard library's loops.
Processes are forked, since a new interpreter for each of a thousand deaths would take minutes.
"""

import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from mlplatform import artifacts
from mlplatform.registry import registry

FOLDERS = (str(Path(registry.__file__).parent), artifacts.__file__)
EVENTS = ("open", "os.", "shutil.", "sqlite3.", "fcntl.")


def kill_at_step(action: Callable[[], object], step: int) -> bool:
    """Run `action` in a process that dies by SIGKILL at a step; False: it ended before it."""

    def arm() -> None:
        left = step

        def count() -> None:
            nonlocal left
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

        def on_line(frame: FrameType, event: str, argument: Any) -> Any:
            if not frame.f_code.co_filename.startswith(FOLDERS):
                return None
            if event == "line":
                count()
            return on_line

        def on_event(event: str, arguments: Any) -> None:
            if event.startswith(EVENTS):
                count()

        sys.addaudithook(on_event)  # for good, which in a process that ends is no matter
        sys.settrace(on_line)

    return _end_of(action, arm) == signal.SIGKILL


def kill_at_write(action: Callable[[], object], size: int) -> bool:
    """Run `action` in a process that dies when a file of it would grow beyond `size` bytes.

    The write that goes too far is cut off there: in the middle of a manifest, of a page of the
    database, of its journal.
    """

    def arm() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)

    return _end_of(action, arm) == signal.SIGXFSZ


def after_every_death(
    action: Callable[[], object],
    prepare: Callable[[], object],
    disk: Path,
    check: Callable[[], object],
) -> int:
    """Kill `action` at each of its steps; return how many there are.

    Every time it begins where `prepare` leads. `check` is called after each death that left the
    files below `disk` as no earlier one did: where they are the same, so is all that follows.
    """
    seen = set()
    step = 1
    prepare()
    while kill_at_step(action, step):
        left = _snapshot(disk)
        if left not in seen:
            seen.add(left)
            check()
        step += 1
        prepare()
    return step - 1


def _snapshot(root: Path) -> frozenset[tuple[str, bytes | None]]:
    return frozenset(
        (str(path.relative_to(root)), path.read_bytes() if path.is_file() else None)
        for path in root.rglob("*")
    )


def _end_of(action: Callable[[], object], arm: Callable[[], None]) -> int:
    """The signal that ended a process of its own; 0: it came to its end."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            arm()
            action()
            sys.settrace(None)
            code = 0
        except BaseException:
            sys.settrace(None)
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status)
    assert os.WEXITSTATUS(status) == 0, "the action failed; its trace is above"
    return 0
