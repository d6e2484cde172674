"""What has to be known of all rows before any of them is counted.

Enters: pieces of files.  Leaves: a `Survey`: the values of which slices are made, and cuts of the
scores of each model.  Every value is checked on the way, so that later passes meet none that is
wrong.

Where a score stands among others is told by the cuts: it is at one, or between two.  They are
those distinct scores, 1,024 of positives and as many of negatives, whose hashes are smallest (the
bottom-k sketch; Cohen and Kaplan, Summarizing Data Using Bottom-k Sketches, 2007).  Sketches merge
in any order, and the sample depends on which scores there are and on nothing else.  While either
label has no more distinct scores than that an AUC is exact.  Beyond that pairs between two cuts
count as ties: one in a thousand or two, and ordered almost evenly, so that the error of the AUC is
of the order of 1e-6.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from mlplatform.data.files.shards import Piece, read_batches
from mlplatform.data.statistics.pieces import combine_over_pieces
from mlplatform.evaluation.encoded import decode, encode
from mlplatform.evaluation.predictions import hash_keys, read_block
from mlplatform.evaluation.rows import Floats, Ints
from mlplatform.evaluation.slicing import Cross, distinct_values, require_few_values
from mlplatform.evaluation.task import Task

MOST_CUTS = 2_048

Key = tuple[str, str]  # "values" and a column, or "scores of LABEL" and a model


@dataclass(frozen=True)
class Survey:
    """values: of each column to slice by, in order.   cuts: of each model's scores, ascending."""

    values: Mapping[str, tuple[str, ...]]
    cuts: Mapping[str, Floats]

    def cross(self, columns: tuple[str, ...]) -> Cross:
        return Cross(columns, tuple(self.values[column] for column in columns))

    def place(self, model: str, scores: Floats) -> Ints:
        """Twice the cuts below each score, and one more at a cut: `[n]`, to 2 * `MOST_CUTS`."""
        cuts = self.cuts[model]
        below = np.searchsorted(cuts, scores)
        at_cut = np.append(cuts, np.nan)[below] == scores
        return 2 * below + at_cut


def survey(task: Task, pieces: Sequence[Piece], beam_options: Sequence[str] | None) -> Survey:
    """Look at all rows once.

    Raises:
        DataCorrupt, InvalidArgument: as `read_batches`, `read_block` and `distinct_values` do.
    """
    content = combine_over_pieces(pieces, partial(_look, task), _merge, _encode, beam_options)
    values: dict[str, tuple[str, ...]] = dict.fromkeys(task.slice_columns, ())
    cuts = {name: np.zeros(0) for name in task.models}
    for table in decode(content):
        (name,) = table.schema.names
        if table.schema.field(0).type == pa.string():
            require_few_values(name, len(table))
            values[name] = tuple(table[name].to_pylist())
        else:
            cuts[name] = np.union1d(cuts[name], table[name].to_numpy())
    return Survey(values, cuts)


def _look(task: Task, piece: Piece) -> Iterator[tuple[Key, Any]]:
    values: dict[str, set[str]] = {name: set() for name in task.slice_columns}
    samples: dict[Key, list[Floats]] = {}
    for first_row, batch in read_batches(piece):
        none = np.zeros((0, len(batch)), np.int16)
        block = read_block(task, batch, piece.path, first_row, none)
        for name in values:
            values[name] |= distinct_values(batch.column(name), name, piece.path)
            require_few_values(name, len(values[name]))
        for model, given in zip(task.models, block.given, strict=True):
            for label in (0, 1):
                scores = given[block.label == label]
                samples.setdefault((f"scores of {label}", model), []).append(_sample(scores))
    yield from ((("values", name), found) for name, found in values.items())
    yield from ((key, _sample(np.concatenate(parts))) for key, parts in samples.items())


def _merge(parts: Iterable[Any]) -> Any:
    every = list(parts)
    return set().union(*every) if isinstance(every[0], set) else _sample(np.concatenate(every))


def _encode(key: Key, merged: Any) -> bytes:
    kind, name = key
    if kind == "values":
        merged = pa.array(sorted(merged), pa.string())
    return encode(pa.table({name: merged}))


def _sample(scores: Floats) -> Floats:
    """Of the distinct scores the `MOST_CUTS` / 2 with the smallest hashes."""
    most = MOST_CUTS // 2
    scores = scores + 0.0  # so that -0.0, which equals 0.0, has its hash
    hashes = hash_keys(pa.array(scores.view(np.int64)), "scores")
    while True:
        # Nearly all scores are ruled out by what a few of them say, without a sort.
        few, first = np.unique(hashes[: 4 * most], return_index=True)
        if len(hashes) <= 4 * most:
            return scores[first[:most]]
        below = hashes <= few[min(most, len(few)) - 1]
        if len(few) < most or below.sum() == len(hashes):
            _, first = np.unique(hashes, return_index=True)
            return scores[first[:most]]
        scores, hashes = scores[below], hashes[below]
