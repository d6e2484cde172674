"""What every file format tells of a file before its rows are read.

Enters: nothing.  Leaves: `Contents` and `Part`, in which the formats answer, and the few things
that they share.  A new format is a module with `inspect` and `read`, named in `shards.FORMATS`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from mlplatform.data.files.columns import Kind
from mlplatform.errors import DataCorrupt

BATCH_ROWS = 131_072
READ_ERRORS = (pa.ArrowException, OSError, EOFError, UnicodeDecodeError)


@dataclass(frozen=True)
class Part:
    """Consecutive rows of a file that can be read by themselves.

    at: where the part stands, in the format's own terms: a row group's number, a byte's offset.
    rows: how many rows it has.
    """

    at: int
    rows: int


@dataclass(frozen=True)
class Contents:
    """The kind of every column, None where the file does not tell, and the parts in their order."""

    kinds: Mapping[str, Kind | None]
    parts: tuple[Part, ...]

    @property
    def num_rows(self) -> int:
        return sum(part.rows for part in self.parts)


def require_distinct(names: Sequence[str], path: Path) -> None:
    """Raise DataCorrupt if a column's name stands there twice."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataCorrupt(
            f"{path}: expected distinct column names, got {', '.join(map(repr, twice[:5]))} more "
            "than once; rename or drop the copies and write the file again"
        )


def first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
