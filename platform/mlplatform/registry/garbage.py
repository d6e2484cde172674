"""Which versions may go: neither new, nor labelled, nor one rollback away, nor held.

Enters: the registry's metadata; what servers hold.  Leaves: numbers; locks.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mlplatform.errors import InvalidArgument
from mlplatform.registry.database import COMPLETE, Database
from mlplatform.registry.labels import ways_back
from mlplatform.registry.locks import locked, locked_if_free


def unneeded(database: Database, keep: int) -> Sequence[int]:
    """The versions that may go unless they are held, the oldest first.

    Raises:
        InvalidArgument: `keep` is below 1. The newest version stays, so that numbers go on from
        it even where nothing but the versions' directories is left.
    """
    if keep < 1:
        raise InvalidArgument(f"expected to keep at least 1 version, got {keep}")
    labels = database.labels()
    needed = set(labels.values())
    for label in labels:
        needed |= {move.after for move in ways_back(database, label)[:1]}
    numbers = [number for number, state in database.states().items() if state == COMPLETE]
    return [number for number in numbers[:-keep] if number not in needed]


@dataclass(frozen=True)
class Holds:
    """A lock for each version, on a file outside it: shared by its servers, taken to remove it.

    A file that went with its version does no harm to who still waits for its lock: no version of
    that number comes back, so the waiting one finds it gone.
    """

    path: Path

    @contextmanager
    def hold(self, number: int) -> Iterator[None]:
        self.path.mkdir(exist_ok=True)
        with locked(self.path / str(number), shared=True):
            yield

    @contextmanager
    def taken_if_free(self, number: int) -> Iterator[bool]:
        self.path.mkdir(exist_ok=True)
        with locked_if_free(self.path / str(number)) as free:
            yield free

    def is_free(self, number: int) -> bool:
        if not (self.path / str(number)).exists():
            return True
        with self.taken_if_free(number) as free:
            return free

    def sweep(self, numbers: set[int]) -> None:
        """Remove the files of all versions but these."""
        for path in self.path.glob("*"):
            if path.name.isdecimal() and int(path.name) not in numbers:
                path.unlink(missing_ok=True)
