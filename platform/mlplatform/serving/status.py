"""What a server serves and how its processes are: one small file, for its workers and for people.

Enters: the facts, from the supervisor.  Leaves: JSON, replaced as a whole; and `Status`, read from
it.  The states of a version are those of TensorFlow Serving's GetModelStatus, in its names.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path

import msgspec

from mlplatform import artifacts
from mlplatform.errors import DataCorrupt, NotFound
from mlplatform.serving.child import Stage


class State(StrEnum):
    """START: to be loaded.  END: no longer served, or given up."""

    START = "START"
    LOADING = "LOADING"
    AVAILABLE = "AVAILABLE"
    UNLOADING = "UNLOADING"
    END = "END"


@dataclass(frozen=True)
class VersionStatus:
    """error: why its last load failed, one line; empty where it did not."""

    state: State
    error: str = ""


@dataclass(frozen=True)
class WorkerStatus:
    """worker: its number, which its successor inherits.  restarts: how often it had one."""

    worker: int
    pid: int
    generation: int
    stage: Stage
    restarts: int


@dataclass(frozen=True)
class Status:
    """labels: what each of them serves.  versions: by number.  error: why labels are not heeded."""

    labels: Mapping[str, int]
    versions: Mapping[int, VersionStatus]
    workers: Sequence[WorkerStatus]
    error: str = ""


def version_states(
    *,
    available: Iterable[int],
    loading: Iterable[int],
    unloading: Iterable[int],
    wanted: Iterable[int],
    ended: Iterable[int],
    errors: Mapping[int, str],
) -> dict[int, VersionStatus]:
    """The state of every version, by its number; one that is in several takes the first of them."""
    states: dict[int, State] = {}
    for numbers, state in (
        (available, State.AVAILABLE),
        (loading, State.LOADING),
        (unloading, State.UNLOADING),
        (wanted, State.START),
        (ended, State.END),
    ):
        for number in numbers:
            states.setdefault(number, state)
    return {n: VersionStatus(states[n], errors.get(n, "")) for n in sorted(states)}


def write_status(path: Path, status: Status) -> None:
    """Replace the file. Raises: ResourceExhausted: the disk is full."""
    artifacts.write_file_atomically(path, msgspec.json.format(msgspec.json.encode(status)))


def read_status(path: Path) -> Status:
    """What the supervisor wrote last; cheap where that has not changed.

    Raises:
        NotFound: there is no such file.
        DataCorrupt: it is not what a supervisor writes.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        raise NotFound(f"{path}: no server's status; start the server first") from None
    return _read(path, found.st_ino, found.st_mtime_ns)


@lru_cache(maxsize=4)
def _read(path: Path, inode: int, modified: int) -> Status:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Status)
    except msgspec.DecodeError as error:
        raise DataCorrupt(
            f"{path}: expected a server's status, got a file that does not parse ({error}); "
            "restart the server, which writes it anew"
        ) from error
