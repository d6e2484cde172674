"""The gate: a model is blessed if every figure's interval clears its threshold.

Enters: figures with intervals, thresholds with reasons.  Leaves: a blessing, the record of what
was checked; refused models get one too, which says why.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlplatform.errors import GateRefused, InvalidArgument
from mlplatform.evaluation.metrics import Interval


@dataclass(frozen=True)
class Threshold:
    """The interval's low end must exceed `above`, its high end stay under `below`."""

    figure: str
    reason: str
    above: float | None = None
    below: float | None = None


def judge(
    figures: Mapping[str, Interval], thresholds: Sequence[Threshold], files: Mapping[str, str]
) -> dict[str, Any]:
    """The blessing of a bundle with these files; 'blessed' says whether it is one.

    Raises:
        InvalidArgument: a threshold names a figure that was not measured.
    """
    checks = []
    for threshold in thresholds:
        if threshold.figure not in figures:
            raise InvalidArgument(
                f"the gate has a threshold for {threshold.figure!r}, but only "
                f"{sorted(figures)} were measured"
            )
        figure = figures[threshold.figure]
        # Written so that a NaN, which compares false with everything, is refused.
        passed = (threshold.above is None or figure.low > threshold.above) and (
            threshold.below is None or figure.high < threshold.below
        )
        checks.append(
            {
                "figure": threshold.figure,
                "value": figure.value,
                "low": figure.low,
                "high": figure.high,
                "above": threshold.above,
                "below": threshold.below,
                "reason": threshold.reason,
                "passed": passed,
            }
        )
    return {
        "blessed": all(check["passed"] for check in checks),
        "checks": checks,
        "files": dict(files),
    }


def require_blessed(blessing: Mapping[str, Any]) -> None:
    """Stop an unblessed bundle.

    Raises:
        GateRefused: with a line for every check that failed.
    """
    if blessing["blessed"]:
        return
    lines = [
        f"  {c['figure']}: {c['value']:.4f} [{c['low']:.4f}, {c['high']:.4f}], "
        f"must be {_wanted(c)}: {c['reason']}"
        for c in blessing["checks"]
        if not c["passed"]
    ]
    raise GateRefused(
        "the gate refused the bundle, the version in service stays:\n" + "\n".join(lines)
    )


def _wanted(check: Mapping[str, Any]) -> str:
    bounds = [f"{word} {check[word]}" for word in ("above", "below") if check[word] is not None]
    return " and ".join(bounds)
