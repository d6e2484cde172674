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

from mlplatform.evaluation.bootstrap import interval, spread
from mlplatform.evaluation.figures import WorstSlice
from mlplatform.evaluation.rows import Floats, ratio
from mlplatform.evaluation.slicing import Where

FALSE_DISCOVERIES = 0.05
# Of fewer groups of users a standard error says little.
LEAST_GROUPS = 30
MOST_LISTED = 20


@dataclass(frozen=True)
class SliceLosses:
    """Of one slice, or of all rows, by group of users: `[GROUPS]` each.

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
    of_value = {one.where: one for one in slices if len(one.where) == 1}
    tests = []
    for one in slices:
        if np.count_nonzero(one.rows) < LEAST_GROUPS:
            continue
        wholes = [overall]
        if len(one.where) > 1:
            wholes += [of_value[pair,] for pair in one.where]
        beside_rest = [_beside_rest(one, whole, candidate, weights) for whole in wholes]
        tests.append(_test(one, None, beside_rest[0], beside_rest))
        for other in others:
            change = _less(one, candidate, other)
            more = [
                _beside_rest(change, _less(whole, candidate, other), candidate, weights)
                for whole in wholes
            ]
            excess = ratio(weights @ change.losses[candidate], weights @ change.rows)
            tests.append(_test(one, other, excess, [excess, *more]))
    found = _discoveries(tests)
    found.sort(key=lambda one: (-one.excess.value, one.where, one.against or ""))
    return tuple(found[:MOST_LISTED])


def _test(
    one: SliceLosses, against: str | None, excess: Floats, above_zero: Sequence[Floats]
) -> WorstSlice:
    p = max(_p(draws) for draws in above_zero)
    return WorstSlice(one.where, against, int(one.rows.sum()), interval(excess), p)


def _less(one: SliceLosses, candidate: str, other: str) -> SliceLosses:
    """With the candidate's losses less the other's as the candidate's."""
    return replace(one, losses={candidate: one.losses[candidate] - one.losses[other]})


def _beside_rest(part: SliceLosses, whole: SliceLosses, model: str, weights: Floats) -> Floats:
    """The mean loss of a part less that of the other rows of the whole, `[1 + RESAMPLES]`."""
    inside = ratio(weights @ part.losses[model], weights @ part.rows)
    outside = weights @ (whole.losses[model] - part.losses[model])
    return inside - ratio(outside, weights @ (whole.rows - part.rows))


def _p(draws: Floats) -> float:
    deviation = spread(draws)
    if not deviation > 0:  # so written that NaN tells nothing
        return 1.0
    return float(ndtr(-draws[0] / deviation))


def _discoveries(tests: Sequence[WorstSlice]) -> list[WorstSlice]:
    ranked = sorted(tests, key=lambda test: test.p)
    limits = FALSE_DISCOVERIES * np.arange(1, len(ranked) + 1) / max(len(ranked), 1)
    below = [number for number, test in enumerate(ranked) if test.p <= limits[number]]
    return ranked[: below[-1] + 1] if below else []
