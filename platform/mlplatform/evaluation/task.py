"""What is to be evaluated: which columns say what, which figures are wanted, of which slices.

Enters: names of columns.  Leaves: a `Task` that agrees with itself.  All of it may be changed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from mlplatform.errors import InvalidArgument
from mlplatform.evaluation.row_metrics import LogLoss
from mlplatform.evaluation.rows import Metric


@dataclass(frozen=True)
class Model:
    """Where a model's predictions stand, and what they are.

    gives: 'probability' of the positive label; 'score', of which only the order counts; or 'rank',
        from 1, at which it found the item of the row, 0 if it did not.
    """

    column: str
    gives: Literal["probability", "score", "rank"] = "probability"


@dataclass(frozen=True)
class Task:
    """Rows that all models were scored on, and what is to be told of them.

    A metric is computed for every model that gives what it reads.

    Args:
        user: the column of whose row it is, strings or integers: users are drawn as a whole.
        models: by name; the first is the candidate, and each of the others is subtracted from it.
        metrics: of them no two of one name.
        label: a column of 0 and 1.  None: each row stands for something that the user went for.
        query: the column of which rows were shown together; of one user.
        slices: columns, or crosses of columns, whose every value is a slice.
        search: columns among whose slices, and those of their pairs, the worst are looked for.
        least_rows: a slice of fewer is dropped, and counted.
        seed: of the bootstrap.

    Raises:
        InvalidArgument: no model or metric, two metrics of one name, one that no model gives what
            it reads, a label or query that is needed and missing.
    """

    user: str
    models: Mapping[str, Model]
    metrics: tuple[Metric, ...]
    label: str | None = None
    query: str | None = None
    slices: tuple[tuple[str, ...], ...] = ()
    search: tuple[str, ...] = ()
    least_rows: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.models or not self.metrics:
            raise InvalidArgument(
                f"evaluation: expected at least one model and one metric, got {len(self.models)} "
                f"and {len(self.metrics)}; name them"
            )
        names = [metric.name for metric in self.metrics]
        if len(set(names)) < len(names):
            raise InvalidArgument(f"evaluation: expected distinct metrics, got {names}; drop one")
        for metric in self.metrics:
            if metric.reads != "rank" and self.label is None:
                raise InvalidArgument(
                    f"evaluation: expected a column of labels for {metric.name!r}, got none; "
                    "name it"
                )
            if metric.reads != "label" and not self.models_of(metric):
                raise InvalidArgument(
                    f"evaluation: expected a model that gives a {metric.reads} for "
                    f"{metric.name!r}, got {self._given()}; drop the metric or correct the model"
                )
            if metric.name.startswith("NDCG") and metric.joint and self.query is None:
                raise InvalidArgument(
                    f"evaluation: expected a column of queries for {metric.name!r}, got none; "
                    "name it"
                )
        if any(not cross or len(set(cross)) < len(cross) for cross in self.slices):
            raise InvalidArgument(
                f"evaluation: expected slices by distinct columns, got {list(self.slices)}"
            )
        if self.search and (self.label is None or self.candidate not in self.models_of(LogLoss())):
            raise InvalidArgument(
                "evaluation: expected labels, and a candidate that gives probabilities, to search "
                f"for its worst slices, got {self._given()}; search none"
            )

    @property
    def candidate(self) -> str:
        return next(iter(self.models))

    @property
    def columns(self) -> list[str]:
        """All that are read, each once."""
        named = [self.user, self.label, self.query, *(m.column for m in self.models.values())]
        return list(dict.fromkeys([name for name in named if name] + self.slice_columns))

    @property
    def slice_columns(self) -> list[str]:
        return sorted({name for cross in (*self.slices, self.search) for name in cross})

    @property
    def searched(self) -> list[tuple[str, ...]]:
        """The columns and pairs of columns among whose slices the worst are looked for."""
        return [(name,) for name in self.search] + list(combinations(self.search, 2))

    @property
    def asked(self) -> int:
        """How many of `crosses` get all figures."""
        return len({(), *self.slices})

    @property
    def crosses(self) -> list[tuple[str, ...]]:
        """Of no column, which stands for all rows, of the slices, then what is only searched."""
        return list(dict.fromkeys([(), *self.slices, *self.searched]))

    def models_of(self, metric: Metric) -> list[str]:
        """The names of those that give what a metric reads, the candidate first."""
        enough = {metric.reads} | ({"probability"} if metric.reads == "score" else set())
        return [name for name, model in self.models.items() if model.gives in enough]

    def measures(self) -> Iterator[tuple[Metric, str]]:
        """Every metric with every model of it; one that reads labels alone with the candidate."""
        for metric in self.metrics:
            for model in [self.candidate] if metric.reads == "label" else self.models_of(metric):
                yield metric, model

    def _given(self) -> str:
        return ", ".join(f"{name!r}: {model.gives}" for name, model in self.models.items())
