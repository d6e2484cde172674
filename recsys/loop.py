"""Continuous training: day after day, the bundle learns from the log that it made itself.

    the main job ─► its last day: version 1 serves
      ─► the next day: open, join, validate, learn, judge, push, close ─► the next …

What a stage does is in `stages/daily_*.py` and, where a day only repeats the main job, in its own.
Every stage of every day is an artifact, so a loop that was killed goes on where it was.  A day
whose data or model is refused keeps the version that serves; its rows are set aside, and the next
day learns from the others.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from data_gen.faults import FAULTS
from mlplatform.artifacts import read_json
from mlplatform.errors import FailedPrecondition, InvalidArgument
from mlplatform.pipeline import Context, Observer, Record, Stage, Workspace, run
from recsys import pipeline
from recsys.config import Days, RunConfig
from recsys.online.bundle import RANKER
from recsys.stages import daily_learning, daily_serving, data, models, release

CODE = ("mlplatform", "recsys", "data_gen")
SERVING = ("generate_world", "simulate_days", "build_feature_store", "push")
MODELS = ("train_retrieval", "build_index", "train_ranker")
# Which of the main job's artifacts a stage of a day takes the place of.
REPLACES: Mapping[str, tuple[str, ...]] = {
    "join_day": ("join_examples",),
    "validate_day": ("compute_statistics",),
    "judge_day": ("evaluate",),
    "close_day": ("simulate_days",),
}
REFUSALS = (FailedPrecondition, InvalidArgument)  # the gate's among them
_Make = Callable[..., Record]


@dataclass(frozen=True)
class Day:
    """What came of one day.

    rows: of the day before, that validation looked at; 0 on the first day.
    learned_from: the days whose rows a model of this day was trained on.
    figures: of that model and of the one in service, on the first hours.
    refused: why no new model serves, a line each.
    version: the one that served most of the day.
    """

    day: int
    rows: int
    anomalies: int
    learned_from: tuple[int, ...]
    training_seconds: float
    figures: Mapping[str, float]
    refused: tuple[str, ...]
    version: int
    installs_per_request: float
    installs_per_impression: float


def loop(
    config: RunConfig,
    workspace: Workspace,
    days: int,
    observer: Observer,
    faults: Mapping[int, str] = MappingProxyType({}),
) -> Iterator[Day]:
    """Run the main job as far as its push, then so many days; yield each one when it is over.

    Args:
        faults: what is planted in the rows of a day, by its number: a drill.
    """
    main = pipeline.stages(config, workspace)
    pushed = [stage.name for stage in main].index("push")
    records = run(main[: pushed + 1], workspace, observer)
    life = _Life(config, workspace.root / "registry", _Artifacts(workspace, observer, records))
    for number in range(config.days.evaluate, config.days.evaluate + days):
        yield life.live(number, faults)


class _Life:
    """Days, one after another.

    accepted: the days that may be learned from.  trained: the last one that was.
    """

    def __init__(self, config: RunConfig, registry: Path, artifacts: "_Artifacts") -> None:
        self.config, self.registry, self.artifacts = config, registry, artifacts
        self.accepted = list(config.days.train)
        self.trained = self.accepted[-1]

    def live(self, number: int, faults: Mapping[int, str]) -> Day:
        """A day from its first hours to its end."""
        today = self.config.model_copy(update={"days": Days(warm_up=number - 2, training=2)})
        make = partial(self.artifacts.make, number, today)
        make(partial(data.generate_world, today), ())  # with the apps and users of the day
        make(partial(data.build_feature_store, today), ("generate_world", "simulate_days"))
        make(partial(daily_serving.open_day, today, self.registry), SERVING)
        rows = anomalies = 0
        refused: list[str] = []
        learned: list[int] = []
        seconds, figures = 0.0, {}
        if number > self.config.days.evaluate:
            checked = self._check(today, make, faults.get(number - 1))
            rows, anomalies = checked.figures["rows"], checked.figures["anomalies"]
            if checked.figures["accepted"]:
                self.accepted.append(number - 1)
            else:
                verdict = read_json(self.artifacts.path("validate_day") / daily_learning.VERDICT)
                refused += verdict["why"]
            known = [day for day in self.accepted if day >= number - self.config.loop.window]
            learned = [day for day in known if day > self.trained]
        if learned:
            try:
                seconds = self._learn(today, make, known, learned)
                figures = self._judge(today, make)
                make(
                    partial(release.push, today, learned, self.registry),
                    ("evaluate", "gate"),
                    days=learned,
                )
                self.trained = learned[-1]
            except REFUSALS as error:
                refused += str(error).splitlines()
                # Something is wrong with these rows that validation did not see.
                self.accepted = [day for day in self.accepted if day not in learned]
        closed = make(
            partial(daily_serving.close_day, today, self.registry), (*SERVING, "open_day")
        )
        return Day(
            number,
            rows,
            anomalies,
            tuple(learned),
            seconds,
            figures,
            tuple(refused),
            closed.figures["version"],
            closed.figures["installs per request"],
            closed.figures["installs per impression"],
        )

    def _check(self, today: RunConfig, make: _Make, fault: str | None) -> Record:
        """Join yesterday's rows, and say whether they may be learned from."""
        make(
            partial(daily_learning.join_day, today, fault),
            ("generate_world", "simulate_days", "open_day", "join_examples"),
            fault=fault,
        )
        return make(
            partial(daily_learning.validate_day, today),
            ("infer_schema", "compute_statistics", "join_examples", "simulate_days"),
        )

    def _learn(self, today: RunConfig, make: _Make, known: list[int], learned: list[int]) -> float:
        """Train both models on the new days, from where the version in service ended; -> seconds.

        known: the days that vocabularies and quantiles are made from.
        """
        wanted, inputs = self.config.loop, ("join_examples", "analyze", "push")
        make(partial(data.analyze, today, known), ("join_examples",), days=known)
        train = partial(models.train_retrieval, today, learned, wanted.retrieval_epochs)
        towers = make(partial(train, self.registry), inputs, days=learned)
        index = make(partial(models.build_index, today), ("train_retrieval",))
        kinds = {RANKER: self.config.ranking.kind}
        train = partial(models.train_ranker, today, learned, wanted.ranking_epochs, kinds)
        ranker = make(partial(train, self.registry), inputs, days=learned)
        return round(towers.seconds + index.seconds + ranker.seconds, 1)

    def _judge(self, today: RunConfig, make: _Make) -> dict[str, float]:
        """Compare the new model with the one in service, on the first hours, and try it."""
        inputs = (
            "build_feature_store", "join_examples", "infer_schema", "analyze", *MODELS, "push",
        )  # fmt: skip
        judged = make(partial(daily_learning.judge_day, today, self.registry), inputs)
        make(partial(release.try_serving, today), ("build_feature_store", "evaluate"))
        make(partial(release.gate, today, self.registry), ("evaluate", "try_serving"))
        return {name: v for name, v in judged.figures.items() if isinstance(v, float)}


def parse_faults(texts: Sequence[str], days: range) -> dict[int, str]:
    """'DAY:NAME' each, as {day: name}.

    Raises:
        InvalidArgument: one is written otherwise, or names no day of the loop or no fault.
    """
    found = {}
    for text in texts:
        day, _, name = text.partition(":")
        if not (day.isdecimal() and int(day) in days and name in FAULTS):
            raise InvalidArgument(
                f"--fault {text!r}: expected DAY:NAME with a day from {days[0]} to {days[-1]} and "
                f"one of {', '.join(FAULTS)}"
            )
        found[int(day)] = name
    return found


class _Artifacts:
    """Makes one artifact after another, and knows the latest of each kind."""

    def __init__(
        self, workspace: Workspace, observer: Observer, records: Mapping[str, Record]
    ) -> None:
        self._workspace, self._observer = workspace, observer
        self._records = dict(records)
        self._latest = {name: name for name in records}  # the stage, by kind

    def path(self, kind: str) -> Path:
        stage = self._latest[kind]
        return self._workspace.artifact(stage, self._records[stage].fingerprint)

    def make(
        self,
        number: int,
        config: RunConfig,
        stage: "partial[dict[str, Any]]",
        reads: Sequence[str],
        **parameters: Any,
    ) -> Record:
        """Run a stage of day `number`, unless it is finished; it reads the latest of some kinds."""
        kind = stage.func.__name__
        inputs = {one: self._latest[one] for one in reads}

        def with_kinds(context: Context) -> Mapping[str, Any]:
            paths = {one: context.inputs[name] for one, name in inputs.items()}
            result: Mapping[str, Any] = stage(replace(context, inputs=paths))
            return result

        name = f"{kind}@{number}"
        parameters |= config.model_dump(mode="json")
        one = Stage(name, with_kinds, tuple(dict.fromkeys(inputs.values())), parameters, CODE)
        self._records |= run([one], self._workspace, self._observer, self._records)
        for replaced in (kind, *REPLACES.get(kind, ())):
            self._latest[replaced] = name
        return self._records[name]
