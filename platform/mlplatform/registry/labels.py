"""Labels move between versions, and remember the way back.

Enters: a label's moves.  Leaves: its next move, and where a rollback may take it.  A move keeps the
id of the one before it, and a rollback the id that the move it returns to kept; so the way back is
a chain that every rollback shortens, and a version that was rolled back is not on it.
"""

import re
from collections.abc import Sequence

from mlplatform.errors import InvalidArgument
from mlplatform.registry.database import COMPLETE, Database, Move

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}", re.ASCII)


def require_label(label: str) -> None:
    """See that a name can be a label's.

    Raises:
        InvalidArgument: it cannot.
    """
    if not _NAME.fullmatch(label):
        raise InvalidArgument(
            f"label {label!r}: expected a lower-case letter, then at most 31 lower-case letters, "
            "digits, '-' or '_'"
        )


def move_label(database: Database, label: str, number: int, why: str) -> None:
    """Point a label at a version; where it already stands is no move."""
    last = database.moves(label)[-1:]
    before, back = (last[0].after, last[0].id) if last else (None, None)
    if number != before:
        database.add_move(label, before, number, back, why)


def ways_back(database: Database, label: str) -> Sequence[Move]:
    """The moves that a label can return to, the nearest first: their versions are still there."""
    states = database.states()
    moves = {move.id: move for move in database.moves(label)}
    move = current = moves[max(moves)]
    ways = []
    while move.back is not None:
        move = moves[move.back]
        if states[move.after] == COMPLETE and move.after != current.after:
            ways.append(move)
    return ways
