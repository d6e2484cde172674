"""A picture of loss curves.

Enters: curves by name.  Leaves: a PNG, the same bytes for the same curves.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from mlplatform.errors import InvalidArgument
from mlplatform.training.curve import Point


def draw(curves: Mapping[str, Sequence[Point]], path: Path, unit: str) -> None:
    """Draw curves over the examples seen: losses in training solid, held out dashed.

    unit: that of the losses; 'nats' of a cross entropy.  A dot marks the best held-out loss.

    Raises:
        InvalidArgument: there is no curve, or one without points.
    """
    empty = [name for name, curve in curves.items() if not curve]
    if empty or not curves:
        raise InvalidArgument(
            f"nothing to draw: expected curves with points, got {'none' if not curves else empty}"
        )
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    axes = FigureCanvasAgg(figure).figure.add_subplot()
    for number, (name, curve) in enumerate(curves.items()):
        color = f"C{number % 10}"
        axes.plot(
            [point.examples for point in curve],
            [point.loss for point in curve],
            color=color,
            linewidth=1.2,
            label=f"{name}, training",
        )
        judged = [(p.examples, p.held_out) for p in curve if p.held_out is not None]
        if judged:
            examples, losses = zip(*judged, strict=True)
            best = losses.index(min(losses))
            axes.plot(
                examples,
                losses,
                color=color,
                linestyle="--",
                marker="o",
                markevery=[best],
                label=f"{name}, held out, best {losses[best]:.4g}",
            )
    axes.set_xlabel("examples seen")
    axes.set_ylabel(f"loss, {unit} per example")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    # The version of the library would make another file of the same picture.
    figure.savefig(path, format="png", metadata={"Software": None})
