"""The pictures of an experiment, as SVG to stand in a page.

Enters: figures.  Leaves: text that begins with `<svg`, the same for the same figures.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl

from mlplatform.evaluation.metrics import Interval

_COLORS = ("#3b7dd8", "#d9822b", "#17803d", "#8a4fbf")


def forest(rows: Sequence[tuple[str, Mapping[str, Interval]]], unit: str) -> str:
    """Intervals one under the other, several ways in each row; a line at 0.

    rows: what it is, and its intervals by the way they were computed.
    """
    ways = list(rows[0][1])
    figure, axes = _figure(8, 0.8 + 0.22 * len(rows) * len(ways))
    for number, way in enumerate(ways):
        shift = 0.6 * ((number + 0.5) / len(ways) - 0.5)
        for row, (_, found) in enumerate(rows):
            if way not in found:
                continue
            one, color = found[way], _COLORS[number]
            axes.plot([one.low, one.high], [row + shift] * 2, color=color, linewidth=1.6)
            label = way if row == 0 else None
            axes.plot([one.value], [row + shift], "o", color=color, markersize=4, label=label)
    axes.axvline(0, color="#8894a3", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.invert_yaxis()
    axes.set_xlabel(unit)
    axes.grid(axis="x", alpha=0.3)
    axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(ways))
    return _svg(figure)


def sweep(severities: Sequence[float], lines: Mapping[str, Sequence[Interval]]) -> str:
    """A panel a line over the fault's severity, each with its own scale."""
    figure, axes = _figure(11, 3, panels=len(lines))
    for number, (panel, (name, values)) in enumerate(zip(axes, lines.items(), strict=True)):
        middle = [one.value for one in values]
        ends = [[m - one.low for m, one in zip(middle, values, strict=True)],
                [one.high - m for m, one in zip(middle, values, strict=True)]]  # fmt: skip
        panel.errorbar(severities, middle, yerr=ends, color=_COLORS[number], marker="o", capsize=3)
        panel.axhline(0, color="#8894a3", linewidth=0.8)
        panel.set_title(name, fontsize=10)
        panel.set_xlabel("share of ids concerned")
        panel.grid(alpha=0.3)
    return _svg(figure)


def bars(values: Mapping[str, float], unit: str) -> str:
    figure, axes = _figure(8, 0.7 + 0.3 * len(values))
    axes.barh(list(values), list(values.values()), color=_COLORS[0], height=0.6)
    for place, value in enumerate(values.values()):
        axes.text(value, place, f" {value:.4f}", va="center", fontsize=9)
    axes.invert_yaxis()
    axes.set_xlabel(unit)
    axes.margins(x=0.12)
    return _svg(figure)


def _figure(width: float, height: float, panels: int = 1) -> tuple[Any, Any]:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, FigureCanvasSVG(figure).figure.subplots(1, panels)


def _svg(figure: Any) -> str:
    out = io.StringIO()
    # Names of elements are drawn at random otherwise, and the date is written.
    with mpl.rc_context({"svg.hashsalt": "storeloop", "svg.fonttype": "none"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]
