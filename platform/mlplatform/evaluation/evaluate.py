"""Evaluate models on rows they were scored on: figures with intervals, of the whole and of slices.

Enters: files of rows, and a `Task` that says what their columns are and what is wanted.  Leaves: an
`Evaluation`.  Importing this module imports Beam, which takes about a second.

Three passes over the files.  The first looks for what is wrong, which values slices have and where
scores are to be cut (`survey`).  The second counts the rows and the scores of each slice (`tally`).
The third brings all rows of a user together, by the first bits of a hash of the user, and adds up
what each metric asks for, for each of 256 groups of users (`sums`).  All else, intervals,
differences, worst slices, is computed from these sums (`totals`).
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from mlplatform.data.files.shards import Piece, Shards
from mlplatform.data.statistics.pieces import combine_over_pieces
from mlplatform.errors import InvalidArgument, Unavailable
from mlplatform.evaluation.encoded import decode, encode
from mlplatform.evaluation.figures import Evaluation
from mlplatform.evaluation.predictions import Block, read_blocks
from mlplatform.evaluation.sums import SCHEMA, SHARDS, shard_of, sum_up
from mlplatform.evaluation.survey import Survey, survey
from mlplatform.evaluation.tally import Tally, tally
from mlplatform.evaluation.task import Task
from mlplatform.evaluation.totals import Totals


def evaluate(
    files: Sequence[Path], task: Task, beam_options: Sequence[str] | None = None
) -> Evaluation:
    """Every metric of every model, over all rows and over each slice, and its 95 % interval.

    The result is the same to the last bit however the rows are spread over files and in what
    order, on any runner.  See `bootstrap` for how intervals come about, the metrics for what they
    are and `worst_slices` for what is searched.

    Args:
        files: of rows, with the task's columns and perhaps others; see `shards.FORMATS`.
        beam_options: the options of any Beam runner; a local one by default.

    Raises:
        NotFound: a file does not exist.
        DataCorrupt: a file cannot be read or has a column twice.
        InvalidArgument: a column is missing or of the wrong kind, a label is neither 0 nor 1, a
            score is not finite, a column to slice by has too many values, there are too many
            slices; the message names the file and the row.
        Unavailable: the runner lost rows.
    """
    shards = Shards.open("predictions", files)
    if missing := [name for name in task.columns if name not in shards.kinds]:
        raise InvalidArgument(
            f"{min(files)}: expected columns {', '.join(map(repr, task.columns))}, got none named "
            f"{', '.join(map(repr, missing))}; write them or correct the task"
        )
    found = survey(task, shards.pieces, beam_options)
    counted = tally(task, found, shards.pieces, beam_options)
    content = combine_over_pieces(
        shards.pieces,
        partial(_by_shard, task, found),
        _merge,
        partial(_encode_sums, task, found, counted),
        beam_options,
    )
    table = pa.concat_tables([SCHEMA.empty_table(), *decode(content)])
    result = Totals.of(task, counted, table).evaluation()
    if result.overall.rows != shards.num_rows:
        raise Unavailable(
            f"the Beam runner lost rows: expected {shards.num_rows:,} rows, got "
            f"{result.overall.rows:,}; run the command again, or name another runner"
        )
    return result


def _by_shard(task: Task, found: Survey, piece: Piece) -> Iterator[tuple[int, list[Block]]]:
    """The rows of a piece, apart by shard."""
    parts = list(read_blocks(task, found.values, piece))
    if not parts:
        return
    block = Block.concatenate(parts)
    shard = shard_of(block)
    block = block.take(np.argsort(shard.astype(np.uint8), kind="stable"))
    ends = np.cumsum(np.bincount(shard, minlength=SHARDS))
    for number, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        if end > start:
            yield number, [block.take(slice(start, end))]


def _merge(parts: Iterable[list[Block]]) -> list[Block]:
    """Not yet in one: a runner may merge again and again, and copies add up."""
    return [block for part in parts for block in part]


def _encode_sums(
    task: Task, found: Survey, counted: Tally, shard: int, blocks: list[Block]
) -> bytes:
    return encode(sum_up(task, found, counted, Block.concatenate(blocks)))
