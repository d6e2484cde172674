"""A page about an evaluation: what models are worth, where they are worst, how far that is sure.

Enters: an `Evaluation`.  Leaves: one HTML page that needs nothing else.  Figures are drawn as a dot
with its 95 % interval; a dot is filled where the interval leaves out what it is compared with.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from mlplatform.evaluation.figures import CalibrationBin, Evaluation, Point, Slice
from mlplatform.evaluation.metrics import Interval
from mlplatform.evaluation.slicing import name_of

FEW_USERS = 30
WIDTH, SIDE = 180, 260  # pixels of a dot's axis, and of a curve's square
_TICKS = (0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999)
_MOST_ODDS = 8.0


def write_page(evaluation: Evaluation, path: Path, title: str) -> None:
    """Write the page; slices are drawn by the evaluation's first metric of the candidate."""
    path.write_text(render(evaluation, title), encoding="utf-8")


def render(evaluation: Evaluation, title: str) -> str:
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
        Path(__file__).with_name("page.html.j2").read_text(encoding="utf-8")
    )
    candidate, *others = evaluation.models
    figures = evaluation.overall.figures
    first = next((name for name in figures if name.endswith(f": {candidate}")), None)
    metric = first.removesuffix(f": {candidate}") if first else ""
    drawn = [first] if first else []
    drawn += [name for other in others if (name := f"{metric}: {candidate} - {other}") in figures]
    return template.render(
        title=title,
        evaluation=evaluation,
        candidate=candidate,
        others=others,
        table=list(_table(figures, evaluation.models)),
        width=WIDTH,
        side=SIDE,
        few=FEW_USERS,
        curves=list(_curves(evaluation)),
        drawn=drawn,
        slices=list(_forest(evaluation, drawn)),
        worst=_worst(evaluation),
        number=_number,
    )


def _table(figures: Mapping[str, Interval], models: Sequence[str]) -> Iterator[dict[str, Any]]:
    """One entry for each metric: a figure for each model and each difference, or None."""
    candidate, *others = models
    heads = [*models, *(f"{candidate} - {other}" for other in others)]
    for metric in dict.fromkeys(name.partition(": ")[0] for name in figures):
        if metric in figures:
            yield {"name": metric, "cells": [figures[metric], *[None] * (len(heads) - 1)]}
        else:
            yield {"name": metric, "cells": [figures.get(f"{metric}: {head}") for head in heads]}


def _curves(evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    if evaluation.calibration:
        yield {
            "name": "Calibration",
            "x": "mean prediction",
            "y": "share of positives",
            "ticks": [{"label": f"{one:g}", "at": round(_odds_at(one), 1)} for one in _TICKS],
            "models": [_calibration(name, bins) for name, bins in evaluation.calibration.items()],
        }
    if evaluation.roc:
        yield {
            "name": "ROC",
            "x": "share of negatives above",
            "y": "share of positives above",
            "ticks": [{"label": f"{one:g}", "at": SIDE * one} for one in (0, 0.25, 0.5, 0.75, 1)],
            "models": [
                {"name": name, "line": _line([(SIDE * x, SIDE * y) for x, y in points]), "bars": []}
                for name, points in evaluation.roc.items()
            ],
        }


def _calibration(name: str, bins: Iterable[CalibrationBin]) -> dict[str, Any]:
    """The bins whose intervals have a place on the axis, where neither 0 nor 1 has one."""
    drawn = [one for one in bins if one.observed.low > 0 and one.observed.high < 1]
    bars = [
        {
            "x": round(_odds_at(one.predicted), 1),
            "low": round(_odds_at(one.observed.low), 1),
            "high": round(_odds_at(one.observed.high), 1),
            "title": f"{_number(one.predicted)} predicted, {one.observed} came true, "
            f"{one.rows:,} rows",
        }
        for one in drawn
    ]
    points = [(_odds_at(one.predicted), _odds_at(one.observed.value)) for one in drawn]
    return {"name": name, "line": _line(points), "bars": bars}


def _odds_at(probability: float) -> float:
    """The place of a probability on an axis of log-odds, in pixels."""
    odds = np.clip(np.log(probability / (1 - probability)), -_MOST_ODDS, _MOST_ODDS)
    return float(SIDE * (odds + _MOST_ODDS) / (2 * _MOST_ODDS))


def _line(points: Sequence[Point]) -> str:
    return " ".join(f"{x:.1f},{SIDE - y:.1f}" for x, y in points)


def _forest(evaluation: Evaluation, drawn: Sequence[str]) -> Iterator[dict[str, Any]]:
    """All rows, then every slice: a dot for each figure that is drawn."""
    every = [evaluation.overall, *evaluation.slices.values()]
    scales = {}
    for name in drawn:
        beside = 0.0 if " - " in name else evaluation.overall.figures[name].value
        scales[name] = _Scale([one.figures[name] for one in every], beside)
    for one in every:
        yield {
            "name": name_of(one.where) or "all rows",
            "new": _starts_group(one, every),
            "rows": one.rows,
            "users": one.users,
            "dots": [scales[name].dot(one.figures[name]) for name in drawn],
        }


def _starts_group(one: Slice, every: Sequence[Slice]) -> bool:
    return one is next(other for other in every if other.columns == one.columns)


def _worst(evaluation: Evaluation) -> list[dict[str, Any]]:
    scale = _Scale([one.excess for one in evaluation.worst], 0.0)
    return [
        {
            "name": name_of(one.where),
            "against": one.against,
            "rows": one.rows,
            "share": one.rows / evaluation.overall.rows,
            "dot": scale.dot(one.excess),
            "p": one.p,
        }
        for one in evaluation.worst
    ]


class _Scale:
    """An axis with room for all of some figures, and for `beside`, which they are compared with."""

    def __init__(self, figures: Iterable[Interval], beside: float) -> None:
        ends = [end for one in figures for end in (one.value, one.low, one.high)]
        finite = [end for end in (*ends, beside) if np.isfinite(end)]
        self._low, self._high = (min(finite), max(finite)) if finite else (0.0, 1.0)
        self._beside = beside

    def at(self, value: float) -> float | None:
        if not np.isfinite(value):
            return None
        wide = self._high - self._low
        share = (value - self._low) / wide if wide else 0.5
        return round(6 + (WIDTH - 12) * share, 1)

    def dot(self, figure: Interval) -> dict[str, Any]:
        return {
            "figure": figure,
            "at": self.at(figure.value),
            "low": self.at(figure.low),
            "high": self.at(figure.high),
            "beside": self.at(self._beside),
            "sure": figure.low > self._beside or figure.high < self._beside,
        }


def _number(value: float) -> str:
    return "none" if np.isnan(value) else f"{value:.4f}"
