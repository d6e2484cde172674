"""What an evaluation found: figures with intervals, of all rows and of slices.

Enters: figures.  Leaves: an `Evaluation`, and its JSON.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from mlplatform.errors import DataCorrupt
from mlplatform.evaluation.metrics import Interval
from mlplatform.evaluation.slicing import Where

Point = tuple[float, float]


@dataclass(frozen=True)
class Slice:
    """Some rows and what is known of them.

    where: the columns and values that the rows share; none: all rows.
    users: how many there are behind the rows; of few, 30 say, an interval is too narrow.
    figures: by "METRIC: MODEL", and "METRIC: CANDIDATE - OTHER" for the others; "METRIC" alone if
        it is none of a model.  A figure that the rows cannot tell is NaN, and so are its bounds.
    """

    where: Where
    rows: int
    users: int
    figures: Mapping[str, Interval]

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(column for column, _ in self.where)


@dataclass(frozen=True)
class WorstSlice:
    """A slice on which the candidate does worse than it should.

    against: the baseline that does better there, or None: the candidate itself on the other rows.
    excess: log loss of the candidate less the other's, nats a row.
    p: one-sided, of this slice by itself; see `worst_slices`.
    """

    where: Where
    against: str | None
    rows: int
    excess: Interval
    p: float


@dataclass(frozen=True)
class CalibrationBin:
    """Rows of alike predictions: their mean, the share that came true, how many they are."""

    predicted: float
    observed: Interval
    rows: int


@dataclass(frozen=True)
class Evaluation:
    """overall: all rows.   slices: by `name_of` where, column by column and by value.

    dropped: how many slices had fewer rows than the task asked for.
    worst: the worst first.
    roc: of each model, false and true positive rates, both rising.
    calibration: of each model, by rising prediction.
    """

    models: tuple[str, ...]
    overall: Slice
    slices: Mapping[str, Slice]
    dropped: int = 0
    worst: tuple[WorstSlice, ...] = ()
    roc: Mapping[str, tuple[Point, ...]] = field(default_factory=dict)
    calibration: Mapping[str, tuple[CalibrationBin, ...]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads back, of plain lists, strings and numbers; NaN is None."""
        return _without_nan(asdict(self))

    @classmethod
    def from_json(cls, content: Any) -> Self:
        """Raises DataCorrupt: the content is not what `to_json` gives."""
        try:
            return cls(
                models=tuple(content["models"]),
                overall=_slice(content["overall"]),
                slices={name: _slice(one) for name, one in content["slices"].items()},
                dropped=int(content["dropped"]),
                worst=tuple(_worst(one) for one in content["worst"]),
                roc={
                    name: tuple((float(x), float(y)) for x, y in points)
                    for name, points in content["roc"].items()
                },
                calibration={
                    name: tuple(
                        CalibrationBin(
                            float(one["predicted"]), _interval(one["observed"]), int(one["rows"])
                        )
                        for one in bins
                    )
                    for name, bins in content["calibration"].items()
                },
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DataCorrupt(
                "evaluation: expected what an evaluation writes, got other JSON "
                f"({type(error).__name__}: {error}); evaluate again"
            ) from error


def _slice(content: Any) -> Slice:
    figures = {name: _interval(figure) for name, figure in content["figures"].items()}
    return Slice(_where(content), int(content["rows"]), int(content["users"]), figures)


def _worst(content: Any) -> WorstSlice:
    against = content["against"]
    excess, p = _interval(content["excess"]), float(content["p"])
    return WorstSlice(_where(content), against, int(content["rows"]), excess, p)


def _where(content: Any) -> Where:
    return tuple((str(column), str(value)) for column, value in content["where"])


def _interval(content: Any) -> Interval:
    value, low, high = (
        float("nan") if content[name] is None else float(content[name])
        for name in ("value", "low", "high")
    )
    return Interval(value, low, high)


def _without_nan(content: Any) -> Any:
    """Lists for tuples and None for NaN, which JSON does not know."""
    if isinstance(content, dict):
        return {name: _without_nan(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_without_nan(value) for value in content]
    return None if content != content else content
