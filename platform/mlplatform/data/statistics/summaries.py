"""One piece of a data set, summarised: the rows and every column, of the whole and of its slices.

Enters: a piece, and what weighs and slices its rows.  Leaves: keyed summaries that can be merged
in any order.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from mlplatform.data.files.shards import Piece, read_batches
from mlplatform.data.statistics.accumulators import Examples, FeatureAccumulator
from mlplatform.data.statistics.slices import Rows, require_few, slice_rows
from mlplatform.data.statistics.weights import Weights, read_weights

# Data set or slice, and feature; None stands for the rows themselves.
Key = tuple[str, str | None]
Summary = Examples | FeatureAccumulator

# To merge is to sort what is kept: rarely is fast, and often saves memory.
_MERGED_AT_ONCE = 8
_WORKERS = len(os.sched_getaffinity(0))


def summarise(
    weight: str | None, slice_by: Sequence[str], piece: Piece
) -> Iterator[tuple[Key, Summary]]:
    """Yield (key, summary) of all batches of a piece.

    Arrow and numpy release the interpreter's lock, so threads read the next batch while others
    summarise this one, a column each.  A key's summaries are merged in the order of the batches,
    however many threads there are.

    Raises:
        DataCorrupt, InvalidArgument: as `read_batches`, `read_weights` and `require_few` do.
    """
    summaries: dict[Key, list[Summary]] = {}
    with ThreadPoolExecutor(_WORKERS) as pool:
        for first_row, batch in _read_ahead(pool, read_batches(piece)):
            place = (piece.ordinal << 40) + first_row
            weights = None if weight is None else read_weights(batch, weight, piece.path, first_row)
            groups: list[tuple[str, Rows | None]] = [(piece.dataset, None)]
            groups += slice_rows(piece.dataset, batch, slice_by)
            tasks = [
                (name, feature, rows)
                for feature in (None, *batch.schema.names)
                for name, rows in groups
            ]

            def add(
                task: tuple[str, str | None, Rows | None],
                batch: pa.RecordBatch = batch,
                weights: Weights | None = weights,
                place: int = place,
            ) -> None:
                name, feature, rows = task
                some = weights if rows is None or weights is None else weights[rows]
                new: Summary
                if feature is None:
                    new = Examples.of(len(batch) if rows is None else len(rows), some)
                else:
                    column: Any = batch.column(feature)
                    column = column if rows is None else column.take(pa.array(rows))
                    new = FeatureAccumulator.of(column, piece.kinds[feature], place, some)
                parts = summaries.setdefault((name, feature), [])
                parts.append(new)
                if len(parts) == _MERGED_AT_ONCE:
                    parts[:] = [merge(parts)]

            list(pool.map(add, tasks))
            require_few(piece.dataset, sum(feature is None for _, feature in summaries) - 1)
        yield from zip(summaries, pool.map(merge, summaries.values()), strict=True)


def merge(summaries: Iterable[Any]) -> Any:
    """Summaries of one key, and so of one type."""
    parts = list(summaries)
    return type(parts[0]).merge(parts)


def _read_ahead(
    pool: ThreadPoolExecutor, batches: Iterator[tuple[int, pa.RecordBatch]]
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield batches, while a thread reads the one after."""
    coming = pool.submit(next, batches, None)
    while (batch := coming.result()) is not None:
        coming = pool.submit(next, batches, None)
        yield batch
