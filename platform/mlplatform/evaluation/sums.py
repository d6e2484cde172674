"""The sums of every slice, metric and group of users.

Enters: rows of whole users.  Leaves: a table of sums that are not zero, all integers: `slice,
measure, cell, group, value`.  A slice's number is its place among the slices of all slicings, a
measure is a metric of a model, a cell is `bin * parts + part` of the metric.
"""

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mlplatform.evaluation.bootstrap import GROUPS
from mlplatform.evaluation.plan import Plan
from mlplatform.evaluation.predictions import Block
from mlplatform.evaluation.rows import Floats, Ints, Metric, Rows, Units
from mlplatform.evaluation.survey import Survey
from mlplatform.evaluation.tally import Places, Tally
from mlplatform.evaluation.task import Task

SHARDS = 16  # what is counted at once: a shard is so many groups of users
GROUPS_OF_SHARD = GROUPS // SHARDS
_SHIFT = np.uint64(64 - GROUPS.bit_length() + 1)  # the group is the first bits of the user's hash
# Up to so many places for each row, counting in an array beats sorting.
_PLACES_A_ROW = 4
_WORKERS = len(os.sched_getaffinity(0))

SCHEMA = pa.schema(
    {
        "slice": pa.int32(),
        "measure": pa.int16(),
        "cell": pa.int32(),
        "group": pa.int16(),
        "value": pa.int64(),
    }
)


def shard_of(block: Block) -> Ints:
    return _group_of(block) // GROUPS_OF_SHARD


def _group_of(block: Block) -> Ints:
    return (block.user >> _SHIFT).astype(np.int64)


def sum_up(task: Task, survey: Survey, tally: Tally, block: Block) -> pa.Table:
    """The sums of a shard, whose rows may come in any order.

    Numpy releases the interpreter's lock while it sorts and gathers: each thread takes a slicing.
    """
    plan = Plan.of(task)
    order = np.argsort(block.user) if task.query is None else np.lexsort((block.query, block.user))
    shard = _Shard.of(task, survey, block.take(order))
    all_rows = shard.all_rows()
    plain = {
        number: list(metric.units(shard.rows(model, all_rows, None)))
        for number, (metric, model) in enumerate(plan.measures)
        if not metric.joint
    }
    firsts = np.cumsum([0, *map(len, tally.slicings)])

    def of_slicing(number: int) -> list[tuple[Ints, ...]]:
        return [
            (at + firsts[number] * GROUPS_OF_SHARD, np.full(len(at), measure), cell, value)
            for measure, at, cell, value in _of_slicing(plan, shard, tally, plain, number)
        ]

    with ThreadPoolExecutor(_WORKERS) as pool:
        found = [part for some in pool.map(of_slicing, range(len(firsts) - 1)) for part in some]
    segment, measures, cell, value = (np.concatenate(column) for column in zip(*found, strict=True))
    number, group = np.divmod(segment, GROUPS_OF_SHARD)
    columns = number, measures, cell, group + shard.first_group, value
    arrays = [pa.array(c).cast(f.type) for c, f in zip(columns, SCHEMA, strict=True)]
    return pa.table(arrays, SCHEMA)


def _of_slicing(
    plan: Plan, shard: "_Shard", tally: Tally, plain: Mapping[int, list[Units]], number: int
) -> Iterator[tuple[int, Ints, Ints, Ints]]:
    """Yield measures with segments, which are groups of users in slices, cells and sums."""
    slicing = tally.slicings[number]
    slice_number = slicing.numbers(shard.codes, len(shard.group))
    segments = len(slicing) * GROUPS_OF_SHARD
    # Rows that are in no slice go to a segment past the last.
    segment = np.where(slice_number < 0, segments, slice_number * GROUPS_OF_SHARD + shard.group)
    wanted = plan.of_slicing(number, tally.asked)
    joint: dict[str, list[int]] = {}
    for measure in wanted:
        metric, model = plan.measures[measure]
        if metric.joint:
            joint.setdefault(model, []).append(measure)
        else:
            for unit in plain[measure]:
                yield measure, *_add_up(unit, segment, segments, metric)
    if not joint:
        return
    by_slice = shard.by_slice(slice_number)
    segment = segment[by_slice.at]
    for model, measures in joint.items():
        rows = shard.rows(model, by_slice, tally.places.get((number, model)))
        for measure in measures:
            metric, _ = plan.measures[measure]
            for unit in metric.units(rows):
                yield measure, *_add_up(unit, segment, segments, metric)


@dataclass(frozen=True)
class _Order:
    """Rows of a shard by slice, user and query.   at: which, an index.   slice: that of each."""

    at: Any
    slice: Ints
    label: Ints
    users: Ints
    queries: Ints


@dataclass(frozen=True)
class _Shard:
    """Rows by user and query.   group: of each row, less `first_group`.

    of_model: what each model gave, its rank in the shard, its place among the cuts, `[n]` each.
    """

    block: Block
    group: Ints
    first_group: int
    codes: Mapping[str, NDArray[np.int16]]
    of_model: Mapping[str, tuple[Floats, Ints, Ints]]

    @classmethod
    def of(cls, task: Task, survey: Survey, block: Block) -> "_Shard":
        group = _group_of(block)
        first = int(group[0]) // GROUPS_OF_SHARD * GROUPS_OF_SHARD
        of_model = {}
        for model, given in zip(task.models, block.given, strict=True):
            distinct, rank = np.unique(given, return_inverse=True)
            of_model[model] = given, rank, survey.place(model, distinct)[rank]
        codes = dict(zip(task.slice_columns, block.codes, strict=True))
        return cls(block, group - first, first, codes, of_model)

    def all_rows(self) -> _Order:
        return self._order(slice(None), np.zeros_like(self.group))

    def by_slice(self, number: Ints) -> _Order:
        """Without the rows that are in no slice, whose number is -1."""
        at = np.argsort(_narrow(number), kind="stable")[np.count_nonzero(number < 0) :]
        return self._order(at, number[at])

    def _order(self, at: Any, number: Ints) -> _Order:
        user, query = self.block.user[at], self.block.query[at]
        new_user = np.ones(len(user), bool)
        new_user[1:] = (user[1:] != user[:-1]) | (number[1:] != number[:-1])
        new_query = new_user.copy()
        new_query[1:] |= query[1:] != query[:-1]
        label = self.block.label[at].astype(np.int64)
        return _Order(at, number, label, np.flatnonzero(new_user), np.flatnonzero(new_query))

    def rows(self, model: str, order: _Order, places: Places | None) -> Rows:
        given, rank, place = (column[order.at] for column in self.of_model[model])
        if places is None:
            ordered = np.zeros_like(place)
        else:
            ordered = places.ordered(order.slice, place, order.label)
        return Rows(order.label, given, rank, ordered, order.users, order.queries)


def _narrow(number: Ints) -> NDArray[np.signedinteger[Any]]:
    """As int16 where that holds it: numpy then sorts by radix."""
    return number.astype(np.int16) if number.max(initial=0) < 1 << 15 else number


def _add_up(unit: Units, segment: Ints, segments: int, metric: Metric) -> tuple[Ints, Ints, Ints]:
    """Segments and cells, and the sum of the units in each that is not zero.

    Sums in float64 are exact: they are integers, below 2**53 while a group has less than eight
    million of whatever is summed in fixed point.
    """
    key = segment if unit.at is None else segment[unit.at]
    key = key if metric.bins == 1 else key * metric.bins
    key = key if unit.bin is None else key + unit.bin
    places = segments * metric.bins
    if places <= _PLACES_A_ROW * len(key) + 4096:
        sums = np.bincount(key, unit.value, places)[:places]
        keys = some = np.flatnonzero(sums)
    else:
        keys, inverse = np.unique(key, return_inverse=True)
        sums = np.bincount(inverse, unit.value, len(keys))
        some = np.flatnonzero((sums != 0) & (keys < places))
        keys = keys[some]
    at, in_bin = np.divmod(keys, metric.bins)
    return at, in_bin * metric.parts + unit.part, sums[some].astype(np.int64)
