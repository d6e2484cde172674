"""From the sums of all groups to figures with intervals.

Enters: the table of `sums`.  Leaves: an `Evaluation`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa

from mlplatform.evaluation.bootstrap import GROUPS, resampling
from mlplatform.evaluation.figures import CalibrationBin, Evaluation, Point, Slice, WorstSlice
from mlplatform.evaluation.metrics import Interval
from mlplatform.evaluation.plan import ROWS, USERS, CalibrationCurve, Plan
from mlplatform.evaluation.rows import ONE, Floats, Ints
from mlplatform.evaluation.slicing import Where, name_of
from mlplatform.evaluation.tally import Tally
from mlplatform.evaluation.task import Task
from mlplatform.evaluation.worst_slices import SliceLosses, find_worst_slices

_ROC_POINTS = 101
_ALL = 0  # the first slice of all


@dataclass(frozen=True)
class Totals:
    """columns: of the table, by slice and measure.   places: where those of each stand.

    weights: of the groups in every resample, the first of them ones.
    """

    task: Task
    plan: Plan
    tally: Tally
    columns: Mapping[str, Ints]
    places: Mapping[tuple[int, int], slice]
    weights: Floats

    @classmethod
    def of(cls, task: Task, tally: Tally, table: pa.Table) -> Self:
        plan = Plan.of(task)
        columns = {name: table[name].to_numpy() for name in table.schema.names}
        measures = len(plan.measures)
        key = columns["slice"].astype(np.int64) * measures + columns["measure"]
        order = np.argsort(key)
        keys, starts = np.unique(key[order], return_index=True)
        ends = [*starts.tolist(), len(key)][1:]
        places = {
            divmod(one, measures): slice(start, end)
            for one, start, end in zip(keys.tolist(), starts.tolist(), ends, strict=True)
        }
        columns = {name: column[order] for name, column in columns.items()}
        return cls(task, plan, tally, columns, places, resampling(task.seed))

    def evaluation(self) -> Evaluation:
        asked = self.tally.slicings[: self.tally.asked]
        wheres = [where for slicing in asked for where in slicing.wheres]
        overall, *slices = (self._describe(number, where) for number, where in enumerate(wheres))
        return Evaluation(
            models=tuple(self.task.models),
            overall=overall,
            slices={name_of(one.where): one for one in slices},
            dropped=sum(slicing.dropped for slicing in asked),
            worst=self._worst() if self.task.search else (),
            roc=dict(self._roc()),
            calibration=dict(self._calibration()),
        )

    def _count(self, number: int, measure: int) -> int:
        place = self.places.get((number, measure), slice(0, 0))
        return int(self.columns["value"][place].sum())

    def _by_group(self, number: int, measure: int) -> Floats:
        """The sums of a measure of a slice, `[GROUPS, bins, parts]`, of the bins that have any."""
        metric, _ = self.plan.measures[measure]
        place = self.places.get((number, measure), slice(0, 0))
        bins, part = np.divmod(self.columns["cell"][place], metric.parts)
        present, bin_place = np.unique(bins, return_inverse=True)
        sums = np.zeros((GROUPS, len(present), metric.parts))
        sums[self.columns["group"][place], bin_place, part] = self.columns["value"][place]
        return sums

    def _resampled(self, sums: Floats) -> Floats:
        """As `_by_group`, but of all groups in every resample, `[1 + RESAMPLES, bins, parts]`."""
        flat = self.weights @ sums.reshape(GROUPS, sums.shape[1] * sums.shape[2])
        return flat.reshape(len(self.weights), *sums.shape[1:])

    def _describe(self, number: int, where: Where) -> Slice:
        figures: dict[str, Interval] = {}
        differences: dict[str, Interval] = {}
        of_candidate: dict[str, Floats] = {}
        for measure in self.plan.figures:
            metric, model = self.plan.measures[measure]
            sums = self._by_group(number, measure)
            groups = int(np.count_nonzero(sums.any(axis=(1, 2))))
            draws = metric.value(self._resampled(sums))
            if metric.reads == "label":
                figures[metric.name] = Interval.of(draws, groups)
                continue
            figures[f"{metric.name}: {model}"] = Interval.of(draws, groups)
            if model == self.task.candidate:
                of_candidate[metric.name] = draws
            elif metric.name in of_candidate:
                name = f"{metric.name}: {self.task.candidate} - {model}"
                differences[name] = Interval.of(of_candidate[metric.name] - draws, groups)
        rows, users = (self._count(number, measure) for measure in (ROWS, USERS))
        return Slice(where, rows, users, figures | differences)

    def _worst(self) -> tuple[WorstSlice, ...]:
        searched = set(self.task.searched)
        number, slices = 0, []
        for slicing in self.tally.slicings:
            for where in slicing.wheres:
                if slicing.cross.columns in searched:
                    slices.append(self._losses(number, where))
                number += 1
        return find_worst_slices(self._losses(_ALL, ()), slices, self.weights)

    def _losses(self, number: int, where: Where) -> SliceLosses:
        def by_group(measure: int) -> Floats:
            return self._by_group(number, measure)[:, :, 0].sum(axis=1)

        return SliceLosses(
            where,
            by_group(ROWS),
            {self.plan.measures[m][1]: by_group(m) / ONE for m in self.plan.losses},
        )

    def _roc(self) -> Iterator[tuple[str, tuple[Point, ...]]]:
        """A hundred points or so of every model's curve over all rows."""
        for (number, model), places in self.tally.places.items():
            if number == _ALL:
                x, y = places.roc(0)
                if not np.isnan(x + y).any():
                    at = np.unique(np.searchsorted(x + y, np.linspace(0, 2, _ROC_POINTS)))
                    at = at[at < len(x)]
                    yield model, ((0.0, 0.0), *zip(x[at].tolist(), y[at].tolist(), strict=True))

    def _calibration(self) -> Iterator[tuple[str, tuple[CalibrationBin, ...]]]:
        for measure in self.plan.curves:
            _, model = self.plan.measures[measure]
            sums = self._by_group(_ALL, measure)
            groups = np.count_nonzero(sums.any(axis=2), axis=0)
            predicted, observed, rows = CalibrationCurve().curve(self._resampled(sums))
            yield (
                model,
                tuple(
                    CalibrationBin(
                        float(predicted[0, one]),
                        Interval.of(observed[:, one], int(groups[one])),
                        int(rows[0, one]),
                    )
                    for one in range(rows.shape[1])
                ),
            )
