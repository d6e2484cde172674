"""The loss curve: what is known of a run that learns, and what follows from it.

Enters: points, as the trainer adds them.  Leaves: which of them was the best, and whether
learning is to go on.  All that a run decides it decides by its curve, so a run that was killed
decides the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Point:
    """One look at the loss.

    step: steps done so far; examples: the examples that they learned from.
    loss: mean an example over the steps since the last point, each before its update.
    held_out: mean an example of the held-out batches after this step, where it was judged;
    metrics: what else the model measures on them, by name.
    """

    step: int
    examples: float
    loss: float
    held_out: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


def best_of(curve: Sequence[Point]) -> Point | None:
    """The first of the points with the lowest held-out loss; None where none was judged."""
    judged = [(point.held_out, point) for point in curve if point.held_out is not None]
    return min(judged, key=lambda pair: pair[0])[1] if judged else None


def is_out_of_patience(curve: Sequence[Point], patience: int) -> bool:
    """Whether the last `patience` judgements were all no better than one before them."""
    best = best_of(curve)
    since = [point for point in curve if point.held_out is not None]
    return best is not None and len(since) - 1 - since.index(best) >= patience
