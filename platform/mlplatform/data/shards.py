"""The Parquet files of a data set: checked by their footers, cut into pieces, read in batches.

Enters: paths.  Leaves: `Shards`, whose pieces can be read anywhere, in any order.  A file is
trusted only after its footer was read, and every failure to read is one line that names the file.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mlplatform.data.columns import Kind, kind_of, leaf_values, to_numpy
from mlplatform.errors import DataCorrupt, InvalidArgument, NotFound

BATCH_ROWS = 131_072
_PIECE_ROWS = 4 * BATCH_ROWS
READ_ERRORS = (pa.ArrowException, OSError, UnicodeDecodeError)


@dataclass(frozen=True)
class Piece:
    """Consecutive row groups of one file: what one worker reads at a time.

    ordinal: the file's rank among the data set's files; with a row number it names a place.
    """

    dataset: str
    path: Path
    ordinal: int
    first_row: int
    row_groups: tuple[int, ...]
    kinds: Mapping[str, Kind]


@dataclass(frozen=True)
class Shards:
    """All files of one data set, and the kind of every feature in the order of the columns."""

    dataset: str
    num_rows: int
    kinds: Mapping[str, Kind]
    pieces: tuple[Piece, ...]

    @classmethod
    def open(cls, dataset: str, paths: Sequence[Path]) -> "Shards":
        """Read the footers of `paths`, whose order does not matter.

        Raises:
            NotFound: a file does not exist.
            DataCorrupt: a file is not Parquet, is cut off, or has a column twice.
            InvalidArgument: there is no file, or the files' columns cannot be described together.
        """
        if not paths:
            raise InvalidArgument(
                f"data set {dataset!r}: expected at least one Parquet file, got none"
            )
        # Sorted, so that places, and with them the samples, do not depend on the order given.
        files = [(path, *_read_footer(path)) for path in sorted(paths)]
        kinds = _common_kinds({path: schema for path, _, schema in files})
        pieces = [
            Piece(dataset, path, ordinal, first_row, row_groups, kinds)
            for ordinal, (path, metadata, _) in enumerate(files)
            for first_row, row_groups in _cut(metadata)
        ]
        num_rows = sum(metadata.num_rows for _, metadata, _ in files)
        return cls(dataset, num_rows, kinds, tuple(pieces))


def read_batches(piece: Piece) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield (number of the first row in the file, batch of at most `BATCH_ROWS` rows).

    Strings come dictionary-encoded: that is several times faster to read and to count.  A batch
    never spans row groups, for Arrow cannot join lists of strings encoded by two dictionaries.

    Raises:
        DataCorrupt: the file's content does not match its footer or its checksums.
    """
    first_row = piece.first_row
    try:
        footer = pq.read_metadata(piece.path)
        with pq.ParquetFile(
            piece.path,
            metadata=footer,
            read_dictionary=_string_leaves(footer.schema),
            page_checksum_verification=True,
        ) as file:
            for row_group in piece.row_groups:
                for batch in file.iter_batches(BATCH_ROWS, [row_group], use_threads=False):
                    _require_valid_codes(batch)
                    yield first_row, batch
                    first_row += len(batch)
    except READ_ERRORS as error:
        raise DataCorrupt(
            f"{piece.path}: expected readable row groups {_range(piece.row_groups)}, got a damaged "
            f"one ({first_line(error)}); write the file again from its source"
        ) from error


def _read_footer(path: Path) -> tuple[pq.FileMetaData, pa.Schema]:
    try:
        metadata = pq.read_metadata(path)
        schema = metadata.schema.to_arrow_schema()
        occurrences = Counter(schema.names)
    except FileNotFoundError as error:
        raise NotFound(f"{path}: expected a Parquet file, found nothing; check the path") from error
    except READ_ERRORS as error:
        raise DataCorrupt(
            f"{path}: expected a Parquet file, got one without a readable footer "
            f"({first_line(error)}); write the file again from its source"
        ) from error
    twice = [name for name, count in occurrences.items() if count > 1]
    if twice:
        raise DataCorrupt(
            f"{path}: expected distinct column names, got {', '.join(map(repr, twice))} more than "
            "once; rename or drop the copies and write the file again"
        )
    return metadata, schema


def _common_kinds(schemas: Mapping[Path, pa.Schema]) -> dict[str, Kind]:
    """The kind of every column of any file; a column that is null in all files becomes STRING."""
    known: dict[str, tuple[Kind | None, Path]] = {}
    for path, schema in schemas.items():
        for field in schema:
            try:
                kind = kind_of(field.type)
            except TypeError as error:
                raise InvalidArgument(
                    f"{path}: column {field.name!r} cannot be a feature: {error}; "
                    "convert it or leave it out"
                ) from error
            before, elsewhere = known.setdefault(field.name, (kind, path))
            if before is None:
                known[field.name] = (kind, path)
            elif kind not in (None, before):
                raise InvalidArgument(
                    f"{path}: expected column {field.name!r} to be {before} as in {elsewhere}, "
                    f"got {kind}; write all files of a data set with the same types"
                )
    return {name: kind or "STRING" for name, (kind, _) in known.items()}


def _cut(metadata: pq.FileMetaData) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yield (first row, row groups) of pieces of about `_PIECE_ROWS` rows."""
    first_row, rows, groups = 0, 0, list[int]()
    for group in range(metadata.num_row_groups):
        groups.append(group)
        rows += metadata.row_group(group).num_rows
        if rows >= _PIECE_ROWS or group == metadata.num_row_groups - 1:
            yield first_row, tuple(groups)
            first_row, rows, groups = first_row + rows, 0, []


def _require_valid_codes(batch: pa.RecordBatch) -> None:
    """Arrow reads a damaged page of dictionary codes without a look at the dictionary."""
    for column in batch.columns:
        values = leaf_values(column)
        if pa.types.is_dictionary(values.type):
            codes = to_numpy(values.indices)
            if len(codes) and not 0 <= codes.min() <= codes.max() < len(values.dictionary):
                raise pa.ArrowInvalid("a string's code is not in the dictionary")


def _string_leaves(schema: pq.ParquetSchema) -> list[str]:
    columns = [schema.column(index) for index in range(len(schema))]
    return [column.path for column in columns if column.physical_type == "BYTE_ARRAY"]


def _range(row_groups: tuple[int, ...]) -> str:
    return f"{row_groups[0]} to {row_groups[-1]}"


def first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
