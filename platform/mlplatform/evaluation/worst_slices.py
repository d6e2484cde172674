"""The slices on which a model is worst, found among all values of columns and pairs of columns.

Enters: for every slice and group of users, rows and sums of log loss.  Leaves: the slices on which
the candidate does worse than on the other rows, or worse than a baseline, and that this is no
accident.

To look at many slices is to find some that are bad by chance alone.  Each is tested by its excess
loss over the bootstrap's standard error of it, as a normal deviate, and of all tests only those are
kept whose false discoveries Benjamini and Hochberg's procedure (1995) holds to 5 %.  A slice has
to say more than what it is a part of, as in Slice Finder (Chung et al., ICDE 2019): its excess has
to be larger than on the other rows of all, and a pair's than on the other rows of either value.
Its p is the largest of these tests (the intersection-union test; Berger, 1982).

A slice with more positives is harder for any model, so a high loss on it is no proof of a fault;
that a baseline does better on the very same rows is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtr

from mlplatform.evaluation.bootstrap import spread
from mlplatform.evaluation.figures import WorstSlice
from mlplatform.evaluation.metrics import Interval
from mlplatform.evaluation.rows import Floats, ratio
from mlplatform.evaluation.slicing import Where

FALSE_DISCOVERIES = 0.05
# Of fewer groups of users a standard error says little.
LEAST_GROUPS = 30
MOST_LISTED = 20


@dataclass(frozen=True)
class SliceLosses:
    """Of one slice, or of all rows, by group of users, `[GROUPS]` each.

    losses: the sum of the log loss of every model, nats, the candidate's first.
    """

    where: Where
    rows: Floats
    losses: Mapping[str, Floats]


def find_worst_slices(
    overall: SliceLosses, slices: Sequence[SliceLosses], weights: Floats
) -> tuple[WorstSlice, ...]:
    """At most `MOST_LISTED`, the largest excess first.

    Args:
        slices: of one value and of two, with both values of each of the latter among the former.
        weights: of the groups in every resample, the first of them ones; see `resampling`.
    """
    candidate, *others = overall.losses
    whole = _resampled(overall, weights)
    enough = [one for one in slices if np.count_nonzero(one.rows) >= LEAST_GROUPS]
    drawn = {one.where: _resampled(one, weights) for one in enough}
    groups = {one.where: int(np.count_nonzero(one.rows)) for one in enough}
    tests = []
    for one in drawn.values():
        wholes = [whole]
        if len(one.where) > 1:
            wholes += [drawn[pair,] for pair in one.where]
        beside = [_beside_rest(one, other, candidate) for other in wholes]
        tests.append(_Test(one, None, beside[0], _p(beside)))
        for other in others:
            excess = ratio(one.losses[candidate] - one.losses[other], one.rows)
            more = [
                own - _beside_rest(one, of, other) for own, of in zip(beside, wholes, strict=True)
            ]
            tests.append(_Test(one, other, excess, _p([excess, *more])))
    found = _discoveries(tests)
    found.sort(key=lambda test: (-test.excess[0], test.slice.where, test.against or ""))
    return tuple(
        WorstSlice(
            test.slice.where,
            test.against,
            int(test.slice.rows[0]),
            Interval.of(test.excess, groups[test.slice.where]),
            test.p,
        )
        for test in found[:MOST_LISTED]
    )


@dataclass(frozen=True)
class _Test:
    """A slice, of resamples; how much too high its loss is in each, `[1 + RESAMPLES]`."""

    slice: SliceLosses
    against: str | None
    excess: Floats
    p: float


def _resampled(one: SliceLosses, weights: Floats) -> SliceLosses:
    """By resample where it was by group."""
    losses = {model: weights @ loss for model, loss in one.losses.items()}
    return replace(one, rows=weights @ one.rows, losses=losses)


def _beside_rest(part: SliceLosses, whole: SliceLosses, model: str) -> Floats:
    """The mean loss of a part less that of the other rows of the whole."""
    outside = ratio(whole.losses[model] - part.losses[model], whole.rows - part.rows)
    return ratio(part.losses[model], part.rows) - outside


def _p(excesses: Sequence[Floats]) -> float:
    """The largest p of all excesses, each of them tested to be above zero."""
    draws = np.stack(excesses, axis=1)
    deviation = spread(draws)
    if not (deviation > 0).all():  # so written that NaN, of no other rows, tells nothing
        return 1.0
    return float(ndtr(-draws[0] / deviation).max())


def _discoveries(tests: Sequence[_Test]) -> list[_Test]:
    ranked = sorted(tests, key=lambda test: test.p)
    limits = FALSE_DISCOVERIES * np.arange(1, len(ranked) + 1) / max(len(ranked), 1)
    below = [number for number, test in enumerate(ranked) if test.p <= limits[number]]
    return ranked[: below[-1] + 1] if below else []
