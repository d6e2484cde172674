"""Curves of recall against CPU: what is read off them, and their picture."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import exp, log


@dataclass(frozen=True)
class Point:
    """What an effort finds, and what it costs."""

    effort: int
    recall: float
    cpu_us: float  # a query


def cpu_at(recall: float, curve: Sequence[Point]) -> float | None:
    """The least CPU, in microseconds a query, at which the curve has this recall.

    Between two points the logarithm of CPU is taken to be linear in recall.  A curve that begins
    above costs what its first point does, at most; None if it ends below.
    """
    rising = sorted(curve, key=lambda point: point.recall)
    if not rising or rising[-1].recall < recall:
        return None
    if rising[0].recall >= recall:
        return min(point.cpu_us for point in rising)
    for below, above in pairwise(rising):
        if below.recall < recall <= above.recall:
            share = (recall - below.recall) / (above.recall - below.recall)
            return exp(log(below.cpu_us) + share * (log(above.cpu_us) - log(below.cpu_us)))
    return None


def picture(curves: Mapping[str, Sequence[Point]], recall: float) -> bytes:
    """A PNG: CPU a query over recall, a line a contestant, its name at its end; the first is bold.

    recall: which is marked.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), dpi=120, layout="constrained")
    axes = FigureCanvasAgg(figure).figure.add_subplot()
    for number, (name, curve) in enumerate(curves.items()):
        color = f"C{number % 10}"
        points = sorted(curve, key=lambda point: point.recall)
        axes.plot(
            [point.recall for point in points],
            [point.cpu_us for point in points],
            color=color,
            marker=".",
            linewidth=2.5 if number == 0 else 1.2,
            linestyle="-" if number < 10 else "--",
        )
        axes.annotate(
            name,
            (points[-1].recall, points[-1].cpu_us),
            xytext=(5, 0),
            textcoords="offset points",
            color=color,
            fontsize=8,
            fontweight="bold" if number == 0 else "normal",
            va="center",
        )
    axes.axvline(recall, color="grey", linewidth=0.8)
    axes.set_yscale("log")
    lowest = min(point.recall for curve in curves.values() for point in curve)
    axes.set_xlim(max(lowest, 0.6), 1.12)  # room for the names
    axes.set_xticks([tick / 20 for tick in range(12, 21) if tick / 20 >= max(lowest, 0.6)])
    axes.set_xlabel("recall@100 against the exact search")
    axes.set_ylabel("CPU a query, microseconds, one thread")
    axes.grid(alpha=0.3, which="both")
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", metadata={"Software": None})
    return drawn.getvalue()
