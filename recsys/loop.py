"""Continuous training: day after day, the bundle learns from the log that it made itself.

    the main job ─► its last day: version 1 serves
      ─► the next day: open, join, validate, learn, judge, push, close ─► the next …

What a stage does is in `stages/daily_*.py` and, where a day only repeats the main job, in its own.
Every stage of every day is an artifact, so a loop that was killed goes on where it was.  A day
whose data or model is refused keeps the version that serves; its rows are set aside, and the next
day learns from the others.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from data_gen.faults import FAULTS
from mlplatform.artifacts import read_json
from mlplatform.errors import FailedPrecondition, InvalidArgument
from mlplatform.pipeline import Observer, Record, Workspace
from recsys.config import Days, RunConfig
from recsys.daily_artifacts import DailyArtifacts
from recsys.online.bundle import RANKER
from recsys.stages import daily_learning, daily_serving, data, models, release

SERVING = ("generate_world", "simulate_days", "build_feature_store", "push")
MODELS = ("train_retrieval", "build_index", "train_ranker")
REFUSALS = (FailedPrecondition, InvalidArgument)  # the gate's among them


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
    artifacts = DailyArtifacts.after_push(config, workspace, observer)
    life = Life(config, workspace.root / "registry", artifacts)
    for number in range(config.days.evaluate, config.days.evaluate + days):
        yield life.live(number, faults)


class Life:
    """Days, one after another.

    accepted: the days that may be learned from.  trained: the last one that was.
    """

    def __init__(self, config: RunConfig, registry: Path, artifacts: DailyArtifacts) -> None:
        self.config, self.registry, self.artifacts = config, registry, artifacts
        self.accepted = list(config.days.train)
        self.trained = self.accepted[-1]

    def branch(self, name: str) -> "Life":
        """What follows from here in another way."""
        branch = copy(self)
        branch.artifacts = self.artifacts.branch(name)
        branch.accepted = list(self.accepted)
        return branch

    def today(self, number: int) -> RunConfig:
        return on(self.config, number)

    def live(self, number: int, faults: Mapping[int, str]) -> Day:
        """A day from its first hours to its end."""
        self.open(number)
        rows = anomalies = 0
        refused: list[str] = []
        learned: list[int] = []
        seconds, figures = 0.0, {}
        if number > self.config.days.evaluate:
            checked = self.check(number, faults.get(number - 1))
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
                seconds = self.learn(number, known, learned)
                figures = self.judge(number)
                self._make(
                    number, release.push, learned, self.registry,
                    reads=("evaluate", "gate"), days=learned,
                )  # fmt: skip
                self.trained = learned[-1]
            except REFUSALS as error:
                refused += str(error).splitlines()
                # Something is wrong with these rows that validation did not see.
                self.accepted = [day for day in self.accepted if day not in learned]
        refused += too_old(self.trained, number, self.config.loop.freshness_days)
        closed = self._make(
            number, daily_serving.close_day, self.registry, reads=(*SERVING, "open_day")
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

    def open(self, number: int) -> None:
        """The apps and users of a day, their features as of the morning, and the first hours."""
        self._make(number, data.generate_world, reads=())
        self._make(number, data.build_feature_store, reads=("generate_world", "simulate_days"))
        self._make(number, daily_serving.open_day, self.registry, reads=SERVING)

    def check(self, number: int, fault: str | None, *, in_judged: bool = False) -> Record:
        """Join yesterday's rows, and say whether they may be learned from.

        fault, in_judged: as in `join_day`.
        """
        self._make(
            number,
            daily_learning.join_day,
            fault,
            in_judged,
            reads=("generate_world", "simulate_days", "open_day", "join_examples"),
            fault=fault,
            in_judged=in_judged,
        )
        return self._make(
            number,
            daily_learning.validate_day,
            reads=("infer_schema", "compute_statistics", "join_examples", "simulate_days"),
        )

    def learn(self, number: int, known: list[int], learned: list[int]) -> float:
        """Train both models on the new days, from where the version in service ended; -> seconds.

        known: the days that vocabularies and quantiles are made from.
        """
        wanted, inputs = self.config.loop, ("join_examples", "analyze", "push")
        self._make(number, data.analyze, known, reads=("join_examples",), days=known)
        towers = self._make(
            number, models.train_retrieval, learned, wanted.retrieval_epochs, self.registry,
            reads=inputs, days=learned,
        )  # fmt: skip
        index = self._make(number, models.build_index, reads=("train_retrieval",))
        ranker = self._make(
            number, models.train_ranker, learned, wanted.ranking_epochs,
            {RANKER: self.config.ranking.kind}, self.registry, reads=inputs, days=learned,
        )  # fmt: skip
        return round(towers.seconds + index.seconds + ranker.seconds, 1)

    def judge(self, number: int) -> dict[str, float]:
        """Compare the new model with the one in service, on the first hours, and try it."""
        inputs = (
            "build_feature_store", "join_examples", "infer_schema", "analyze", *MODELS, "push",
        )  # fmt: skip
        judged = self._make(number, daily_learning.judge_day, self.registry, reads=inputs)
        self._make(number, release.try_serving, reads=("build_feature_store", "evaluate"))
        self._make(number, release.gate, self.registry, reads=("evaluate", "try_serving"))
        return {name: v for name, v in judged.figures.items() if isinstance(v, float)}

    def _make(
        self,
        number: int,
        stage: Callable[..., Any],
        *arguments: Any,
        reads: Sequence[str],
        **parameters: Any,
    ) -> Record:
        today = self.today(number)
        return self.artifacts.make(
            number, today, partial(stage, today, *arguments), reads, **parameters
        )


def on(config: RunConfig, day: int) -> RunConfig:
    """The configuration as if the main job had its evaluation day on this one."""
    return config.model_copy(update={"days": Days(warm_up=day - 2, training=2)})


def too_old(trained: int, day: int, most: int) -> list[str]:
    """Why a version that learned from no day after `trained` should not serve a day; nothing if it
    may."""
    if day - trained <= most:
        return []
    return [
        f"the version in service learned last from day {trained}: that is {day - trained} days "
        f"ago, expected at most {most}"
    ]


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
