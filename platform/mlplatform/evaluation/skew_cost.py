"""What training/serving skew costs a model: the same rows scored as each side saw them.

Enters: a `SkewReport`, the rows of both sides, a model, labels.  Leaves: features ranked by what
their skew does to log loss, before any test on real traffic.  A feature that differs everywhere
and costs nothing can wait; one that differs rarely and costs much cannot.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mlplatform.data.skew.compare import SkewReport
from mlplatform.data.skew.join import join_by_key
from mlplatform.errors import InvalidArgument
from mlplatform.evaluation.metrics import (
    Float,
    Interval,
    difference,
    intervals,
    log_loss_of,
    mean_of,
)

Score = Callable[[pa.Table], Float]  # rows -> probability of the positive label, [rows]


@dataclass(frozen=True)
class Cost:
    """What changes, as serving less training, when some features are what serving has.

    log_loss: nats a row; above zero serving predicts worse.
    mean_probability: positives that the model expects, a row.
    """

    features: tuple[str, ...]
    log_loss: Interval
    mean_probability: Interval


@dataclass(frozen=True)
class SkewCost:
    """The rows as trained on, each differing feature's cost, the highest first, and that of all.

    Costs need not add up to `together`: features stand in for each other.
    """

    rows: int
    log_loss: Interval
    mean_probability: Interval
    features: tuple[Cost, ...]
    together: Cost


def rank_by_cost(
    report: SkewReport,
    training: pa.Table,
    serving: pa.Table,
    score: Score,
    label: NDArray[np.integer[Any]],
    *,
    group: NDArray[np.integer[Any]] | None = None,
    seed: int = 0,
) -> SkewCost:
    """Score the matched rows as trained on, then with each differing feature as serving has it.

    `score` gets training's columns in training's types; serving's values that do not fit them come
    as they are.  A column that only serving has is no input of the model and is left out.
    Time and memory grow with rows times differing features, memory by 16 bytes each.

    Args:
        report: of these two tables.
        score: a model; takes rows in the order of their keys.
        label: 0 or 1, `[training rows]`.
        group: whose row it is, `[training rows]`; the bootstrap draws groups, by default rows.
        seed: of the bootstrap.

    Raises:
        InvalidArgument: no row matches, labels or groups do not fit, or `score` gives what is no
            probability; the message names the feature.
    """
    for name, values in (("label", label), ("group", group)):
        if values is not None and values.shape != (len(training),):
            raise InvalidArgument(
                f"{name}: expected one for each of the {len(training)} rows of training, got "
                f"shape {values.shape}; pass them in training's order"
            )
    if not np.isin(label, (0, 1)).all():
        raise InvalidArgument("label: expected 0 or 1 in each row, got other values")
    join = join_by_key(training.select(report.keys), serving.select(report.keys), report.keys)
    if not len(join.training):
        raise InvalidArgument("expected rows with one key on both sides, got none; check the keys")
    as_trained = training.take(pa.array(join.training))
    known = training.schema.names
    differing = [one.name for one in report.features if one.differing and one.name in known]
    served = [name for name in differing if name in serving.schema.names]
    as_served = serving.select(served).take(pa.array(join.serving))
    label = label[join.training]
    group = np.arange(len(label)) if group is None else group[join.training]
    trials = [(), *((name,) for name in differing), tuple(differing)]
    metrics, changes = {}, {}
    for number, features in enumerate(trials):
        rows = _with_served(as_trained, as_served, features)
        probabilities = _probabilities(score, rows, features)
        metrics[f"loss {number}"] = log_loss_of(probabilities, label)
        metrics[f"mean {number}"] = mean_of(probabilities)
        for figure in ("loss", "mean"):
            changes[f"{figure} {number} change"] = difference(f"{figure} {number}", f"{figure} 0")
    found = intervals(metrics, group, seed, changes)
    costs = [
        Cost(features, found[f"loss {number} change"], found[f"mean {number} change"])
        for number, features in enumerate(trials)
    ]
    ranked = sorted(costs[1:-1], key=lambda cost: (-cost.log_loss.value, cost.features))
    return SkewCost(len(label), found["loss 0"], found["mean 0"], tuple(ranked), costs[-1])


def _with_served(as_trained: pa.Table, as_served: pa.Table, features: Sequence[str]) -> pa.Table:
    """The rows of training with some columns from serving, all null if serving lacks them."""
    for name in features:
        index = as_trained.schema.get_field_index(name)
        expected = as_trained.schema.field(index).type
        if name in as_served.schema.names:
            column = as_served[name]
        else:
            column = pa.nulls(len(as_trained), expected)
        with suppress(pa.ArrowException):  # what does not fit is skew, which the model has to see
            column = column.cast(expected)
        as_trained = as_trained.set_column(index, name, column)
    return as_trained


def _probabilities(score: Score, rows: pa.Table, features: Sequence[str]) -> Float:
    result = np.asarray(score(rows), dtype=np.float64)
    where = f"with {', '.join(features)} as serving has it" if features else "as trained on"
    if result.shape != (len(rows),):
        raise InvalidArgument(
            f"score of the rows {where}: expected one probability for each of {len(rows)} rows, "
            f"got shape {result.shape}; return the positive label's alone"
        )
    wrong = ~((result >= 0) & (result <= 1))  # so written that NaN is wrong
    if wrong.any():
        raise InvalidArgument(
            f"score of the rows {where}: expected probabilities, got {result[wrong][0]} and the "
            f"like in {wrong.sum()} of {len(rows)} rows; correct the model or the feature"
        )
    return result
