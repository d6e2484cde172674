"""Parquet files: checked by their footers, read by row groups.

Enters: paths.  Leaves: `Contents`, and record batches whose strings are dictionary-encoded, which
is several times faster to read and to count.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mlplatform.data.files.columns import Kind, kind_of, leaf_values, to_numpy
from mlplatform.data.files.contents import (
    BATCH_ROWS,
    READ_ERRORS,
    Contents,
    Part,
    first_line,
    require_distinct,
)
from mlplatform.errors import DataCorrupt, InvalidArgument, NotFound


def inspect(path: Path) -> Contents:
    """Read a file's footer.

    Raises:
        NotFound: the file does not exist.
        DataCorrupt: it is not Parquet, is cut off, or has a column twice.
        InvalidArgument: a column is of a type that no feature can have.
    """
    try:
        metadata = pq.read_metadata(path)
        schema = metadata.schema.to_arrow_schema()
        names = schema.names
    except FileNotFoundError as error:
        raise NotFound(f"{path}: expected a Parquet file, found nothing; check the path") from error
    except READ_ERRORS as error:
        raise DataCorrupt(
            f"{path}: expected a Parquet file, got one without a readable footer "
            f"({first_line(error)}); write the file again from its source"
        ) from error
    require_distinct(names, path)
    groups = range(metadata.num_row_groups)
    return Contents(
        {field.name: _kind_of(field, path) for field in schema},
        tuple(Part(group, metadata.row_group(group).num_rows) for group in groups),
    )


def read(path: Path, parts: Sequence[Part], kinds: Mapping[str, Kind]) -> Iterator[pa.RecordBatch]:
    """Yield the rows of some row groups in batches of at most `BATCH_ROWS`.

    A batch never spans row groups, for Arrow cannot join lists of strings encoded by two
    dictionaries.

    Raises:
        DataCorrupt: the file's content does not match its footer or its checksums.
    """
    row_groups = [part.at for part in parts]
    try:
        footer = pq.read_metadata(path)
        with pq.ParquetFile(
            path,
            metadata=footer,
            read_dictionary=_string_leaves(footer.schema),
            page_checksum_verification=True,
        ) as file:
            for row_group in row_groups:
                for batch in file.iter_batches(BATCH_ROWS, [row_group], use_threads=False):
                    _require_valid_codes(batch)
                    yield batch
    except READ_ERRORS as error:
        raise DataCorrupt(
            f"{path}: expected readable row groups {row_groups[0]} to {row_groups[-1]}, got a "
            f"damaged one ({first_line(error)}); write the file again from its source"
        ) from error


def _kind_of(field: pa.Field, path: Path) -> Kind | None:
    try:
        return kind_of(field.type)
    except TypeError as error:
        raise InvalidArgument(
            f"{path}: column {field.name!r} cannot be a feature: {error}; "
            "convert it or leave it out"
        ) from error


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
