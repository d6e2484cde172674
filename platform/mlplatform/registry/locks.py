"""Locks between processes, which the kernel releases when their holder dies, however it dies.

Enters: the path of a file, created when absent, whose content means nothing.  Leaves: an advisory
lock on it (`flock`) for as long as the block runs.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

WRITERS = "registry.lock"  # whoever changes a registry has this one; readers need none


@contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Wait for the lock and hold it: alone, or with others who share it."""
    with path.open("ab") as stream:
        fcntl.flock(stream, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield


@contextmanager
def locked_if_free(path: Path) -> Iterator[bool]:
    """Hold the lock alone if nobody has it; yield whether that is so, without waiting."""
    with path.open("ab") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        except BlockingIOError:
            free = False
        yield free
