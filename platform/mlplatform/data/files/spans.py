"""Spans: one day of one dataset, immutable, in Parquet.

Enters: an Arrow table.  Leaves: `ROOT/DATASET/day=NNN/part-0.parquet`, whole or absent.
"""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mlplatform.artifacts import staged_directory
from mlplatform.data.files.contents import READ_ERRORS, first_line
from mlplatform.errors import DataCorrupt, NotFound

ROW_GROUP_ROWS = 131_072


def span_path(root: Path, dataset: str, day: int) -> Path:
    return root / dataset / f"day={day:03d}"


def write_span(root: Path, dataset: str, day: int, table: pa.Table) -> Path:
    """Write a span; what stood under that name is replaced in one step."""
    target = span_path(root, dataset, day)
    target.parent.mkdir(parents=True, exist_ok=True)
    with staged_directory(target) as staging:
        write_parquet(table, staging / "part-0.parquet")
    return target


def write_parquet(table: pa.Table, path: Path) -> None:
    """The one way that tables are stored: Zstandard, row groups that can be read in parallel."""
    pq.write_table(
        table, path, row_group_size=ROW_GROUP_ROWS, compression="zstd", write_page_checksum=True
    )


def span_files(root: Path, dataset: str, days: Sequence[int]) -> list[Path]:
    """The Parquet files of some days of a dataset.

    Raises:
        NotFound: a day has no span.
    """
    files: list[Path] = []
    for day in days:
        found = sorted(span_path(root, dataset, day).glob("*.parquet"))
        if not found:
            raise NotFound(
                f"{span_path(root, dataset, day)}: expected a span of dataset {dataset!r}, "
                "found none; run the stage that writes it"
            )
        files += found
    return files


def read_span(
    root: Path, dataset: str, days: Sequence[int], columns: list[str] | None = None
) -> pa.Table:
    """All rows of some days of a dataset, day by day.

    Raises:
        NotFound: a day has no span.
        DataCorrupt: a file cannot be read.
    """
    return pa.concat_tables(
        [read_parquet(path, columns) for path in span_files(root, dataset, days)]
    )


def read_parquet(path: Path, columns: list[str] | None = None) -> pa.Table:
    """One Parquet file.

    Raises:
        DataCorrupt: it is damaged; the message says which file and what to do.
    """
    try:
        return pq.ParquetFile(path, page_checksum_verification=True).read(columns=columns)
    except FileNotFoundError as error:
        raise NotFound(f"{path}: expected a Parquet file, found nothing") from error
    except READ_ERRORS as error:
        reason = first_line(error)
        raise DataCorrupt(
            f"{path}: expected a Parquet file, got one that cannot be read ({reason}); "
            "delete the artifact it belongs to and run the command again"
        ) from error
