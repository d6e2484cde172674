"""The files of a record log: whose they are while they grow, and their names when they are done.

    KIND-FIRST-PID-N.open       growing; its writer, while it lives, holds a lock on it (flock)
    KIND-FIRST-LAST-PID-N.log   sealed: flushed to disk, and never changed again

Enters: a directory, in which any number of processes write.  Leaves: sealed files in time order,
and of killed writers the files too.  What may be changed: nothing by itself, for readers and
writers of several releases meet here.  Times are UTC, to the microsecond.
"""

import fcntl
import itertools
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mlplatform import artifacts
from mlplatform.errors import FailedPrecondition, InvalidArgument
from mlplatform.serving.record_frames import HEAD_BYTES, Loss, read_log

OPEN, SEALED = ".open", ".log"
_TIME = "%Y%m%dT%H%M%S.%fZ"
_KIND, _STAMP = r"[a-z][a-z0-9_]*", r"\d{8}T\d{6}\.\d{6}Z"
_OPEN_NAME = re.compile(rf"({_KIND})-({_STAMP})-(\d+-\d+)\.open", re.ASCII)
_SEALED_NAME = re.compile(rf"({_KIND})-({_STAMP})-({_STAMP})-\d+-\d+\.log", re.ASCII)
_SMALLEST = timedelta(microseconds=1)
# A file's time of change is that of the kernel's last tick, at most this long ago.
_TICK = timedelta(milliseconds=10)
_numbers = itertools.count()


@dataclass(frozen=True, order=True)
class LogFile:
    """A sealed file: its records were appended in [first, last), by its writer's clock."""

    first: datetime
    last: datetime
    path: Path
    kind: str


@dataclass(frozen=True)
class Recovered:
    """A file that its writer could not seal itself; `loss.torn_bytes` are cut off."""

    path: Path
    records: int
    loss: Loss


def sealed_files(directory: Path, kind: str) -> list[LogFile]:
    """The sealed files of a kind, ordered by the time of their first record; [] without any."""
    found = (_SEALED_NAME.fullmatch(path.name) for path in directory.glob(f"{kind}-*{SEALED}"))
    return sorted(
        LogFile(_time(name[2]), _time(name[3]), directory / name[0], kind)
        for name in found
        if name and name[1] == kind
    )


def seal_abandoned(directory: Path) -> list[Recovered]:
    """Seal the open files whose writers are gone; those of living writers are left alone.

    Reads them whole.  May be called at any time, by several processes at once.  A file that the
    disk does not let it seal stays open, for the next call.
    """
    recovered = []
    for path in sorted(directory.glob(f"*{OPEN}")):
        if _OPEN_NAME.fullmatch(path.name):
            with suppress(OSError):
                recovered += _seal_if_abandoned(path)
    return recovered


def require_kind(kind: str) -> None:
    """Raise InvalidArgument unless `kind` can begin the names of files."""
    if not re.fullmatch(_KIND, kind, re.ASCII):
        raise InvalidArgument(
            f"kind of records: expected lower-case letters, digits and _ after a letter, "
            f"got {kind!r}; rename it"
        )


def create(directory: Path, kind: str) -> tuple[Path, int]:
    """Create an open file and lock it; the descriptor appends, and holds the lock until closed."""
    if not directory.is_dir():
        artifacts.make_directories(directory)
    while True:
        first = datetime.now(UTC).strftime(_TIME)
        path = directory / f"{kind}-{first}-{os.getpid()}-{next(_numbers)}{OPEN}"
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:
            os.close(descriptor)
            raise
        if path.exists():
            return path, descriptor
        # Taken for abandoned, and removed, before the lock was there.
        os.close(descriptor)


def seal(path: Path, descriptor: int, last: datetime) -> Path:
    """Flush an open file to disk and give it its final name; waits for the disk.

    Args:
        last: after its last record.
    """
    os.fsync(descriptor)
    name = _OPEN_NAME.fullmatch(path.name)
    assert name, path
    last = max(last, _time(name[2]) + _SMALLEST)  # whatever became of the clock
    sealed = path.with_name(f"{name[1]}-{name[2]}-{last.strftime(_TIME)}-{name[3]}{SEALED}")
    path.rename(sealed)
    sync_directory(path.parent)
    return sealed


def sync_directory(directory: Path) -> None:
    """Flush the names of a directory's files to disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _seal_if_abandoned(path: Path) -> list[Recovered]:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:  # sealed since it was listed
        return []
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return []
        if not path.exists():
            return []
        changed = os.fstat(descriptor)
        if changed.st_size <= HEAD_BYTES:  # its writer had not come to write a record
            path.unlink()
            return []
        last = datetime.fromtimestamp(changed.st_mtime, UTC) + _TICK
        try:
            records, loss = read_log(path)
        except FailedPrecondition:  # of another release, which can read it sealed or not
            records, loss = [], Loss(0, 0)
        if 0 < loss.torn_bytes < changed.st_size:  # of a log without a head nothing is cut
            os.ftruncate(descriptor, changed.st_size - loss.torn_bytes)
        return [Recovered(seal(path, descriptor, last), len(records), loss)]
    finally:
        os.close(descriptor)


def _time(stamp: str) -> datetime:
    return datetime.strptime(stamp, _TIME).replace(tzinfo=UTC)
