"""How many rows each slice has, and how the scores of each model are spread in it.

Enters: pieces of files, and what the survey found.  Leaves: which slices are evaluated, and for
each score where it stands among the rows of its slice that have the other label.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Self

import numpy as np
import pyarrow as pa

from mlplatform.data.files.shards import Piece
from mlplatform.data.statistics.pieces import combine_over_pieces
from mlplatform.errors import InvalidArgument
from mlplatform.evaluation.encoded import decode, encode
from mlplatform.evaluation.predictions import read_blocks
from mlplatform.evaluation.row_metrics import AUC
from mlplatform.evaluation.rows import Floats, Ints, ratio
from mlplatform.evaluation.slicing import MOST_SLICES, Slicing
from mlplatform.evaluation.survey import MOST_CUTS, Survey
from mlplatform.evaluation.task import Task

_PLACES = 2 * MOST_CUTS + 1
Counts = tuple[Ints, Ints]  # distinct keys, ascending, and how often each occurs
Key = tuple[int, str]  # a cross, and the model whose scores are counted or "": the rows are


@dataclass(frozen=True)
class Places:
    """Rows of each slice at each place among the cuts, `[slices, places]`."""

    positives: Ints
    negatives: Ints

    @classmethod
    def of(cls, slicing: Slicing, counts: Counts) -> Self:
        keys, rows = counts
        code, rest = np.divmod(keys, _PLACES * 2)
        at = np.searchsorted(slicing.kept, code)
        kept = np.append(slicing.kept, -1)[at] == code
        at, rest, rows = at[kept], rest[kept], rows[kept]
        tables = np.zeros((2, len(slicing), _PLACES), np.int64)
        tables[rest % 2, at, rest // 2] = rows
        return cls(tables[1], tables[0])

    @cached_property
    def _ordered(self) -> Ints:
        """`[labels * slices * places]`: one gather a row is what it costs to look up."""
        total = self.positives.sum(axis=1, keepdims=True)
        of_negatives = 2 * (total - np.cumsum(self.positives, axis=1)) + self.positives
        of_positives = 2 * np.cumsum(self.negatives, axis=1) - self.negatives
        return np.stack([of_negatives, of_positives]).ravel()

    def ordered(self, number: Ints, place: Ints, label: Ints) -> Ints:
        """Twice the rows of the other label that are ordered rightly to each, ties once; `[n]`."""
        return self._ordered[(label * len(self.positives) + number) * _PLACES + place]

    def roc(self, number: int) -> tuple[Floats, Floats]:
        """False and true positive rates of a slice, rising, `[places]`; NaN without a label."""
        rates = []
        for counts in (self.negatives[number], self.positives[number]):
            above = np.cumsum(counts[::-1])
            rates.append(ratio(above, np.full(len(above), above[-1])))
        return rates[0], rates[1]


@dataclass(frozen=True)
class Tally:
    """slicings: all rows, the task's slices, then those that are only searched.

    asked: how many of the slicings come before those.
    places: of each of these, by its number and the model.
    """

    slicings: tuple[Slicing, ...]
    asked: int
    places: Mapping[tuple[int, str], Places]


def tally(
    task: Task, survey: Survey, pieces: Sequence[Piece], beam_options: Sequence[str] | None
) -> Tally:
    """Count all rows.

    Raises:
        InvalidArgument: there are too many slices.
    """
    content = combine_over_pieces(
        pieces, partial(_count, task, survey), _merge, _encode, beam_options
    )
    found: dict[Key, Counts] = {}
    for table in decode(content):
        cross, _, model = table.schema.names[0].partition(" ")
        found[int(cross), model] = table[0].to_numpy(), table[1].to_numpy()
    nothing = (np.zeros(0, np.int64), np.zeros(0, np.int64))
    slicings = []
    for number, columns in enumerate(task.crosses):
        codes, rows = found.get((number, ""), nothing)
        enough = rows >= (task.least_rows if columns else 0)
        kept = codes[enough] if columns else np.zeros(1, np.int64)
        slicings.append(Slicing(survey.cross(columns), kept, int((~enough).sum())))
    slices = sum(map(len, slicings[1 : task.asked]))
    if slices > MOST_SLICES:
        raise InvalidArgument(
            f"expected at most {MOST_SLICES} slices of {task.least_rows} rows or more, got "
            f"{slices:,}; slice by columns of fewer values or ask for more rows"
        )
    places = {
        (number, model): Places.of(slicings[number], found.get((number, model), nothing))
        for number in range(task.asked)
        for model in _scored(task)
    }
    return Tally(tuple(slicings), task.asked, places)


def _scored(task: Task) -> list[str]:
    return task.models_of(AUC()) if AUC() in task.metrics else []


def _count(task: Task, survey: Survey, piece: Piece) -> Iterator[tuple[Key, Counts]]:
    crosses = [survey.cross(columns) for columns in task.crosses]
    counts: dict[Key, list[Counts]] = {}
    for block in read_blocks(task, survey.values, piece):
        rows = len(block.label)
        column_codes = dict(zip(task.slice_columns, block.codes, strict=True))
        given = dict(zip(task.models, block.given, strict=True))
        within = {
            model: survey.place(model, given[model]) * 2 + block.label for model in _scored(task)
        }
        for number, cross in enumerate(crosses):
            code = cross.codes(column_codes, rows)
            inside = code >= 0
            if not inside.all():
                code = code[inside]
            counts.setdefault((number, ""), []).append(_count_keys(code, len(cross)))
            if number < task.asked:
                for model, place in within.items():
                    key = code * (2 * _PLACES) + (place if inside.all() else place[inside])
                    found = _count_keys(key, len(cross) * 2 * _PLACES)
                    counts.setdefault((number, model), []).append(found)
    yield from ((key, _merge(parts)) for key, parts in counts.items())


def _count_keys(keys: Ints, most: int) -> Counts:
    """Of keys below `most`: where these are few, counting in an array beats sorting."""
    if most <= 4 * len(keys) + 4096:
        counts = np.bincount(keys)
        distinct = np.flatnonzero(counts)
        return distinct, counts[distinct].astype(np.int64)
    distinct, counts = np.unique(keys, return_counts=True)
    return distinct, counts.astype(np.int64)


def _merge(parts: Iterable[Counts]) -> Counts:
    every = list(parts)
    keys, at = np.unique(np.concatenate([keys for keys, _ in every]), return_inverse=True)
    counts = np.zeros(len(keys), np.int64)
    np.add.at(counts, at, np.concatenate([counts for _, counts in every]))
    return keys, counts


def _encode(key: Key, counts: Counts) -> bytes:
    number, model = key
    return encode(pa.table({f"{number} {model}": counts[0], "": counts[1]}))
