"""What a supervisor and its workers tell each other: all of it, and in one place.

    supervisor -> worker   the assignment, once, in the environment; then "go" on the orders' pipe
    worker -> supervisor   a line of JSON each time it has come further: `Report`

Enters and leaves: values, and their JSON.  The pipes' other meaning is their end: a worker reads
the end of its orders when the supervisor is no more, however it died.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from mlplatform.errors import FailedPrecondition

VARIABLE = "MLPLATFORM_WORKER"
GO = b"go\n"


@dataclass(frozen=True)
class Assignment:
    """What one worker is to serve, and where.

    versions: by label, as {"stable": 3, "canary": 4}; a version may have several labels.
    worker: 0, 1, …; the one that replaces a dead worker has its number, and its generation's.
    http, grpc: the descriptors of listening TCP sockets, which all workers share.
    counts: the descriptor of what they have taken of them (`balance.py`).
    reports, orders: the descriptors of the two pipes.
    low_priority: others serve meanwhile, so loading must not be felt.
    drain_s: how long a stopping worker may take to finish what it has.
    status: the file that the supervisor keeps (`status.py`).
    metrics: a directory for what all workers of a server count together.
    """

    versions: Mapping[str, int]
    worker: int
    generation: int
    http: int
    grpc: int | None
    counts: int
    reports: int
    orders: int
    low_priority: bool
    drain_s: float
    status: Path
    metrics: Path | None

    def to_environment(self) -> dict[str, str]:
        return {VARIABLE: msgspec.json.encode(self, enc_hook=str).decode()}

    @classmethod
    def from_environment(cls) -> "Assignment":
        """The assignment of this process.

        Raises:
            FailedPrecondition: it was not started by a supervisor.
        """
        text = os.environ.get(VARIABLE, "")
        try:
            return msgspec.json.decode(text, type=cls, dec_hook=_path)
        except msgspec.DecodeError as error:
            raise FailedPrecondition(
                f"{VARIABLE}: expected a supervisor's assignment, got {text[:80]!r} ({error}); "
                "start the server, which starts its workers itself"
            ) from error


@dataclass(frozen=True)
class Report:
    """How far a worker is.

    ready: loaded and warm, and waiting for "go".  serving: its doors are open.  failed: it ends.
    error: why it failed, one line.  version: which one it was loading then, if it knows.
    """

    stage: Literal["ready", "serving", "failed"]
    error: str = ""
    version: int | None = None

    def to_line(self) -> bytes:
        return msgspec.json.encode(self) + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> "Report":
        return msgspec.json.decode(line, type=cls)


def _path(kind: type, value: Any) -> Any:
    return kind(value)
