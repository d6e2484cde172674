"""The files of a data set: checked, cut into pieces, read in batches.

Enters: paths.  Leaves: `Shards`, whose pieces can be read anywhere, in any order.  A file is
trusted only after it was inspected, and every failure to read is one line that names the file.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pyarrow as pa

from mlplatform.data.files import csv_files, parquet_files, tfrecord_files
from mlplatform.data.files.columns import Kind
from mlplatform.data.files.contents import BATCH_ROWS, Contents, Part
from mlplatform.errors import InvalidArgument

# Each module has `inspect(path)` and `read(path, parts, kinds)`.
FORMATS: Mapping[str, ModuleType] = {
    ".parquet": parquet_files,
    ".csv": csv_files,
    ".csv.gz": csv_files,
    ".tfrecord": tfrecord_files,
    ".tfrecord.gz": tfrecord_files,
}
_PIECE_ROWS = 4 * BATCH_ROWS


@dataclass(frozen=True)
class Piece:
    """Consecutive parts of one file: what one worker reads at a time.

    ordinal: the file's rank among the data set's files; with a row number it names a place.
    """

    dataset: str
    path: Path
    ordinal: int
    first_row: int
    parts: tuple[Part, ...]
    kinds: Mapping[str, Kind]


@dataclass(frozen=True)
class Shards:
    """All files of one data set, and the kind of every feature in the order of the columns.

    filled: the columns of those files that have rows.
    """

    dataset: str
    num_rows: int
    kinds: Mapping[str, Kind]
    filled: frozenset[str]
    pieces: tuple[Piece, ...]

    @classmethod
    def open(cls, dataset: str, paths: Sequence[Path]) -> "Shards":
        """Inspect `paths`, whose order does not matter and whose endings name one format.

        Raises:
            NotFound: a file does not exist.
            DataCorrupt: a file is not what its ending says, is cut off, or has a column twice.
            InvalidArgument: there is no file, the files are of several formats or of none that is
                known, or their columns cannot be described together.
        """
        if not paths:
            raise InvalidArgument(f"data set {dataset!r}: expected at least one file, got none")
        formats = {_format_of(path): path for path in paths}
        if len(formats) > 1:
            raise InvalidArgument(
                f"data set {dataset!r}: expected files of one format, got "
                f"{' and '.join(str(path) for path in formats.values())}; describe them apart"
            )
        (file_format,) = formats
        # Sorted, so that places, and with them the samples, do not depend on the order given.
        files: list[tuple[Path, Contents]] = [
            (path, file_format.inspect(path)) for path in sorted(paths)
        ]
        kinds = _common_kinds(files, may_widen=file_format is csv_files)
        pieces = [
            Piece(dataset, path, ordinal, first_row, parts, kinds)
            for ordinal, (path, contents) in enumerate(files)
            for first_row, parts in _cut(contents.parts)
        ]
        num_rows = sum(contents.num_rows for _, contents in files)
        filled = frozenset(n for _, contents in files if contents.num_rows for n in contents.kinds)
        return cls(dataset, num_rows, kinds, filled, tuple(pieces))


def read_batches(piece: Piece) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield (number of the first row in the file, batch of a bounded number of rows).

    Raises:
        DataCorrupt: the file's content is not what it was found to be.
    """
    first_row = piece.first_row
    for batch in _format_of(piece.path).read(piece.path, piece.parts, piece.kinds):
        yield first_row, batch
        first_row += len(batch)


def _format_of(path: Path) -> ModuleType:
    for ending, file_format in FORMATS.items():
        if path.name.lower().endswith(ending):
            return file_format
    raise InvalidArgument(
        f"{path}: expected a name that ends in {', '.join(FORMATS)}, got none of these; "
        "convert the file or give it the ending of what it is"
    )


def _common_kinds(files: Sequence[tuple[Path, Contents]], *, may_widen: bool) -> dict[str, Kind]:
    """The kind of every column of any file; a column whose kind no file tells becomes STRING.

    may_widen: the files are text, in which every INT is also a FLOAT, and all is a STRING.
    """
    known: dict[str, tuple[Kind | None, Path]] = {}
    for path, contents in files:
        for name, kind in contents.kinds.items():
            before, elsewhere = known.setdefault(name, (kind, path))
            if before is None:
                known[name] = (kind, path)
            elif may_widen:
                known[name] = (csv_files.widest(before, kind), path)
            elif kind not in (None, before):
                raise InvalidArgument(
                    f"{path}: expected column {name!r} to be {before} as in {elsewhere}, "
                    f"got {kind}; write all files of a data set with the same types"
                )
    return {name: kind or "STRING" for name, (kind, _) in known.items()}


def _cut(parts: Sequence[Part]) -> Iterator[tuple[int, tuple[Part, ...]]]:
    """Yield (first row, parts) of pieces of about `_PIECE_ROWS` rows."""
    first_row, rows, taken = 0, 0, list[Part]()
    for part in parts:
        taken.append(part)
        rows += part.rows
        if rows >= _PIECE_ROWS or part is parts[-1]:
            yield first_row, tuple(taken)
            first_row, rows, taken = first_row + rows, 0, []
