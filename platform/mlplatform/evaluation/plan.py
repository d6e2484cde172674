"""What is added up: the metrics of a task with their models, and what else an evaluation tells.

Enters: a task.  Leaves: a `Plan`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from mlplatform.evaluation.row_metrics import Calibration, LogLoss
from mlplatform.evaluation.rows import ONE, Floats, Metric, Reads, Rows, Units, ratio
from mlplatform.evaluation.task import Task

ROWS, USERS = 0, 1  # the first measures of every plan
# Log-odds from -8 to 8 in steps of a half: the same for every model, so that bins can be added up.
_BIN_EDGES = 1 / (1 + np.exp(-np.arange(-8, 8.25, 0.5)))


@dataclass(frozen=True)
class RowCount:
    """How many rows a slice has."""

    name: ClassVar[str] = "rows"
    reads: ClassVar[Reads] = "label"
    joint: ClassVar[bool] = False
    bins: ClassVar[int] = 1
    parts: ClassVar[int] = 1

    def units(self, rows: Rows) -> Iterator[Units]:
        yield Units(None, 0)

    def value(self, sums: Floats) -> Floats:
        return sums[..., 0].sum(axis=1)


@dataclass(frozen=True)
class UserCount(RowCount):
    """How many users a slice has."""

    name: ClassVar[str] = "users"
    joint: ClassVar[bool] = True

    def units(self, rows: Rows) -> Iterator[Units]:
        yield Units(rows.users, 0)


@dataclass(frozen=True)
class CalibrationCurve(Calibration):
    """The same by log-odds of the prediction, half a unit a bin: it is what a page draws."""

    name: ClassVar[str] = "calibration curve"
    bins: ClassVar[int] = len(_BIN_EDGES) + 1
    parts: ClassVar[int] = 3

    def units(self, rows: Rows) -> Iterator[Units]:
        at = np.searchsorted(_BIN_EDGES, rows.given)
        for unit in (*super().units(rows), Units(None, 2)):
            yield replace(unit, bin=at)

    def curve(self, sums: Floats) -> tuple[Floats, Floats, Floats]:
        """Mean prediction, share of positives and rows, each `[resamples, bins]`."""
        rows = sums[..., 2]
        return ratio(sums[..., 0] / ONE, rows), ratio(sums[..., 1], rows), rows


@dataclass(frozen=True)
class Plan:
    """All that is added up.

    measures: metrics with their models: rows, users, those of the task, curves of calibration, and
        the log losses that the search for the worst slices reads.
    figures: the measures of the task.
    curves: those of calibration, which are taken of all rows alone.
    losses: those that the search reads, the candidate's first.
    """

    measures: tuple[tuple[Metric, str], ...]
    figures: range
    curves: range
    losses: tuple[int, ...]

    @classmethod
    def of(cls, task: Task) -> "Plan":
        counts: list[tuple[Metric, str]] = [
            (RowCount(), task.candidate),
            (UserCount(), task.candidate),
        ]
        figures = list(task.measures())
        curves: list[tuple[Metric, str]] = [
            (CalibrationCurve(), model) for metric, model in figures if metric == Calibration()
        ]
        losses: list[tuple[Metric, str]] = []
        if task.search:
            losses = [(LogLoss(), model) for model in task.models_of(LogLoss())]
        measures = list(dict.fromkeys(counts + figures + curves + losses))
        first, second = len(counts), len(counts) + len(figures)
        return cls(
            tuple(measures),
            range(first, second),
            range(second, second + len(curves)),
            tuple(measures.index(loss) for loss in losses),
        )

    def of_slicing(self, number: int, asked: int) -> list[int]:
        """The measures that are taken of a slicing; `asked` of them get all figures."""
        if number >= asked:
            return [ROWS, *self.losses]
        return [
            measure
            for measure in range(len(self.measures))
            if measure not in self.curves or number == 0
        ]
