"""What a killed writer left is finished or undone, by the next one, before it begins.

    a staging directory                     undone: the push that was filling it begins again
    a version that the database lacks       finished: it is whole, or it would not have its name
    files of a version marked as removed    removed
    a hold's file of such a version         removed

Enters: a registry whose lock is held.  Leaves: a directory for every complete version and nothing
else by such a name; files of other names are not the registry's, and stay.
"""

import re
from pathlib import Path

from mlplatform import artifacts
from mlplatform.errors import DataCorrupt
from mlplatform.registry.database import COMPLETE, Database
from mlplatform.registry.garbage import Holds
from mlplatform.registry.version import read_version

# N, N.staging, N.old, and what removing one of the latter two goes through.
_OWN_NAME = re.compile(r"([1-9][0-9]*)((?:\.staging)?(?:\.old)?)", re.ASCII)


def recover(versions: Path, holds: Holds, database: Database) -> None:
    """Finish or undo, as above; without effect where every writer came to its end."""
    states = database.states()
    for path in _directories(versions):
        number = number_of(path)
        if number is not None and number not in states and _adopt(path, number, database):
            states[number] = COMPLETE
        # Of `N` and `N.old` the first one's removal takes the other along.
        if (number is None or states.get(number) != COMPLETE) and path.exists():
            artifacts.remove_tree(path)
    holds.sweep({number for number, state in states.items() if state == COMPLETE})


def read_all(versions: Path) -> dict[int, bytes]:
    """The manifest of every version on the disk, as it lies there.

    Raises:
        DataCorrupt: one of them is damaged.
    """
    paths = {number: path for path in _directories(versions) if (number := number_of(path))}
    return {number: read_version(paths[number], number)[1] for number in sorted(paths)}


def number_of(path: Path) -> int | None:
    """The number of a version's directory; None for one that is being made or removed."""
    found = _OWN_NAME.fullmatch(path.name)
    return int(found[1]) if found and not found[2] else None


def _adopt(path: Path, number: int, database: Database) -> bool:
    try:
        _, content = read_version(path, number)
    except DataCorrupt:
        return False
    database.add_version(number, content)
    return True


def _directories(versions: Path) -> list[Path]:
    if not versions.exists():
        return []
    own = [path for path in versions.iterdir() if _OWN_NAME.fullmatch(path.name)]
    return [path for path in own if path.is_dir()]
