"""What every file format tells of a file before its rows are read.

Enters: nothing.  Leaves: `Contents` and `Part`, in which the formats answer, and the few things
that they share.  A new format is a module with `inspect` and `read`, named in `shards.FORMATS`.
"""

import csv
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from mlplatform.data.files.columns import Kind
from mlplatform.errors import DataCorrupt, NotFound

BATCH_ROWS = 131_072
# What readers raise of a damaged file.
READ_ERRORS = (pa.ArrowException, OSError, EOFError, UnicodeError, csv.Error)


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
    """What an error says, in short."""
    return (str(error).splitlines() or [type(error).__name__])[0]


@contextmanager
def open_file(
    path: Path, what: str, reason: Callable[[BaseException], str] = first_line
) -> Iterator[Any]:
    """A stream of the file's bytes; a name that ends in .gz is decompressed.

    Args:
        what: the format's name.
        reason: what one of READ_ERRORS, raised here or in the body, means for this format.

    Raises:
        NotFound: there is no such file.
        DataCorrupt: it is damaged.
    """
    try:
        with pa.input_stream(path, compression="gzip" if path.suffix == ".gz" else None) as stream:
            yield stream
    except FileNotFoundError as error:
        raise NotFound(f"{path}: expected a {what} file, found nothing; check the path") from error
    except READ_ERRORS as error:
        raise DataCorrupt(
            f"{path}: expected a readable {what} file, got a damaged one ({reason(error)}); "
            "write the file again from its source"
        ) from error
