"""The gate: a model is blessed if every interval that a threshold binds lies inside its bounds.

Enters: evaluations of a candidate, thresholds with reasons, the hashes of its files.  Leaves: a
blessing, the record of what was checked; refused models get one too, which says why.

The burden of proof is the model's: the whole 95 % interval has to lie between the bounds, so what
is known too little counts as bad.  That holds for `below` on a gain as well, the alarm for a leaked
label: the high end must stay under it.  An alarm on the low end would sleep the deeper the fewer
rows were seen.  As in TFX (Baylor et al., KDD 2017) a model is held against fixed values and, where
there is one, against a baseline; a first model has only the fixed values to clear.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Protocol, TypeAlias

from mlplatform.errors import GateRefused, InvalidArgument
from mlplatform.evaluation.metrics import Interval

# The columns and values that a slice's rows share; without any, all rows are in it.
Where: TypeAlias = tuple[tuple[str, str], ...]
ALL_ROWS: Where = ()
# How the figures end that compare a candidate with a baseline on the same rows.
COMPARED = " - baseline"

PASSED, FAILED = "passed", "failed"
NOT_COMPARED, TOO_SMALL = "not compared: no baseline", "not judged: every slice is too small"
_MOST_NAMED = 5  # slices of one threshold, in a refusal


class Measured(Protocol):
    """What the gate reads of a slice: which rows, how many users are behind them, its figures."""

    @property
    def where(self) -> Where: ...
    @property
    def users(self) -> int: ...
    @property
    def figures(self) -> Mapping[str, Interval]: ...


Evaluations: TypeAlias = Mapping[str, Sequence[Measured]]


@dataclass(frozen=True)
class EverySlice:
    """Every slice by these columns, in any order, that has enough users to be judged by.

    Intervals grow as slices shrink: a bound that small ones cannot clear needs a larger minimum.
    With fewer than about 30 users they are narrower than they should be.
    """

    columns: tuple[str, ...]
    least_users: int


@dataclass(frozen=True)
class Threshold:
    """What a figure's whole interval must lie above, below, or between.

    Attributes:
        why: one line, shown beside a refusal.
        evaluation: the one that measures the figure.
        where: what it binds: all rows, one slice, or `EverySlice` by some columns.

    Raises:
        InvalidArgument: there is no bound, no room between two, or no reason.
    """

    figure: str
    why: str
    _: KW_ONLY
    evaluation: str
    above: float | None = None
    below: float | None = None
    where: Where | EverySlice = ALL_ROWS

    def __post_init__(self) -> None:
        bounds = [bound for bound in (self.above, self.below) if bound is not None]
        finite = bounds and all(map(math.isfinite, bounds))
        if not finite or (len(bounds) == 2 and bounds[0] >= bounds[1]):
            raise InvalidArgument(
                f"{self}: expected a number as `above`, as `below`, or as both with room between, "
                f"got above {self.above} and below {self.below}; correct them"
            )
        if not self.why.strip():
            raise InvalidArgument(f"{self}: expected a reason in `why`, got none; say what it is")

    @property
    def compares(self) -> bool:
        """Whether there is nothing to judge without a baseline."""
        return self.figure.endswith(COMPARED)

    def __str__(self) -> str:
        return f"the gate's threshold for {self.figure!r} of evaluation {self.evaluation!r}"


def judge(
    evaluations: Evaluations,
    thresholds: Sequence[Threshold],
    files: Mapping[str, str],
    baseline: str | None,
) -> dict[str, Any]:
    """The blessing of a bundle with these files, as JSON; 'blessed' says whether it is one.

    It has a check for each threshold: its 'outcome', the 'slices' that it bound, those nearest to
    refusal first, and how many were 'skipped' for having too few users.  A number that is not
    finite is null, and refuses.

    Args:
        evaluations: by name, the slices that each one measured, all rows among them.
        files: SHA-256 of every file of the bundle, by its relative path.
        baseline: what the candidate was compared with, in words; None if there is nothing yet,
            and comparisons are recorded without being made.

    Raises:
        InvalidArgument: a threshold binds what was not measured, something was compared without
            a baseline, or there is nothing by which a first model could be refused.
    """
    if baseline is None:
        _require_no_comparison(evaluations)
    checks = [_check(threshold, evaluations, baseline) for threshold in thresholds]
    if not any(
        check["slices"] and not threshold.compares
        for check, threshold in zip(checks, thresholds, strict=True)
    ):
        raise InvalidArgument(
            "the gate: expected a threshold that can refuse a model by what it is alone, got none "
            f"among {len(thresholds)}; add one on a figure that is no comparison"
        )
    return {
        "blessed": all(check["outcome"] != FAILED for check in checks),
        "baseline": baseline,
        "checks": checks,
        "parts": [],
        "files": dict(files),
    }


def with_check(record: Mapping[str, Any], name: str, passed: bool, reason: str) -> dict[str, Any]:
    """The blessing with one part more: a check that is no threshold, such as a trial of serving."""
    part = {"name": name, "passed": passed, "reason": reason}
    blessed = record["blessed"] and passed
    return {**record, "blessed": blessed, "parts": [*record["parts"], part]}


def require_blessed(record: Mapping[str, Any]) -> None:
    """Stop an unblessed bundle.

    Raises:
        GateRefused: with a line for every failed check and slice; of many slices, for the worst.
    """
    if record["blessed"]:
        return
    lines = [line for check in record["checks"] for line in _failures(check)]
    failed = (part for part in record["parts"] if not part["passed"])
    lines += [f"{part['name']}: {part['reason']}" for part in failed]
    raise GateRefused(
        "the gate refused the bundle, the version in service stays:\n"
        + "\n".join(f"  {line}" for line in lines)
    )


def _check(threshold: Threshold, evaluations: Evaluations, baseline: str | None) -> dict[str, Any]:
    bound = _bound(threshold, evaluations)
    least = threshold.where.least_users if isinstance(threshold.where, EverySlice) else 0
    large = [one for one in bound if one.users >= least]
    slices: list[dict[str, Any]] = []
    if threshold.compares and baseline is None:
        outcome = NOT_COMPARED
    else:
        judged = (_held_against(threshold, one) for one in large)
        ranked = sorted(judged, key=lambda one: (one[0], one[1]["where"]))
        slices = [entry for _, entry in ranked]
        failed = not all(entry["passed"] for entry in slices)
        outcome = FAILED if failed else PASSED if slices else TOO_SMALL
    return {
        "evaluation": threshold.evaluation,
        "figure": threshold.figure,
        "above": threshold.above,
        "below": threshold.below,
        "why": threshold.why,
        "where": _name(threshold.where),
        "outcome": outcome,
        "slices": slices,
        "skipped": len(bound) - len(large),
    }


def _bound(threshold: Threshold, evaluations: Evaluations) -> list[Measured]:
    """The slices that a threshold binds; there is at least one."""
    if threshold.evaluation not in evaluations:
        raise InvalidArgument(
            f"{threshold}: expected one of the evaluations {_listed(evaluations)}; correct its "
            "name or make it"
        )
    slices, where = evaluations[threshold.evaluation], threshold.where
    if isinstance(where, EverySlice):
        bound = [one for one in slices if set(dict(one.where)) == set(where.columns)]
    else:
        bound = [one for one in slices if set(one.where) == set(where)]
    if not bound:
        by = {" and ".join(dict(one.where)) or "all rows" for one in slices}
        raise InvalidArgument(
            f"{threshold}: expected an evaluation of {_name(where)}, got one of {_listed(by)}; "
            "evaluate these too or correct `where`"
        )
    return bound


def _held_against(threshold: Threshold, measured: Measured) -> tuple[float, dict[str, Any]]:
    """How far inside its bounds a slice's interval lies, and its entry in the record."""
    if threshold.figure not in measured.figures:
        raise InvalidArgument(
            f"{threshold}: expected it to be measured on {_name(measured.where)}, got only "
            f"{_listed(measured.figures)}; correct its name or measure it"
        )
    interval = measured.figures[threshold.figure]
    value, low, high = float(interval.value), float(interval.low), float(interval.high)
    above = -math.inf if threshold.above is None else threshold.above
    below = math.inf if threshold.below is None else threshold.below
    margin = min(low - above, below - high)
    if not all(map(math.isfinite, (value, low, high))) or low > high:
        margin = -math.inf
    entry = {
        "where": _name(measured.where),
        "value": _or_null(value),
        "low": _or_null(low),
        "high": _or_null(high),
        "users": int(measured.users),
        "passed": margin > 0,
    }
    return margin, entry


def _or_null(number: float) -> float | None:
    return number if math.isfinite(number) else None  # JSON has no other numbers


def _require_no_comparison(evaluations: Evaluations) -> None:
    found = [
        (name, figure)
        for name, slices in evaluations.items()
        for measured in slices
        for figure in measured.figures
        if figure.endswith(COMPARED)
    ]
    if found:
        name, figure = found[0]
        raise InvalidArgument(
            f"the gate: expected no comparison without a baseline, got {figure!r} of evaluation "
            f"{name!r}; say in `baseline` what it was compared with"
        )


def _failures(check: Mapping[str, Any]) -> Iterator[str]:
    failed = [one for one in check["slices"] if not one["passed"]]
    figure = f"{check['evaluation']}, {check['figure']}"
    bounds = [f"{word} {check[word]}" for word in ("above", "below") if check[word] is not None]
    for one in failed[:_MOST_NAMED]:
        numbers = [one["value"], one["low"], one["high"]]
        shown = "not a number" if None in numbers else str(Interval(*numbers))
        yield (f"{figure}, {one['where']}: {shown}, must be {' and '.join(bounds)}: {check['why']}")
    if len(failed) > _MOST_NAMED:
        more = len(failed) - _MOST_NAMED
        yield f"{figure}: and {more} more of {len(check['slices'])} slices, {check['where']}"


def _name(where: Where | EverySlice) -> str:
    if isinstance(where, EverySlice):
        columns = " and ".join(where.columns)
        return f"every slice by {columns} with {where.least_users} users or more"
    return ", ".join(f"{column}={value}" for column, value in where) or "all rows"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, sorted(names))) or "none"
