"""What each guard is worth: faults planted on purpose, under their guard and without it.

    a loop of some days ─► the morning of the drill ─► the day is answered in each branch:
       sound     learned from yesterday's rows as they are, served as trained
       kept      the version of yesterday: what serves where the new model is refused
       learned   yesterday's rows are joined with a fault; validation and the gate say what they
                 think of it, and the model serves all the same
       judged    the same, and the rows that the gate judges by have the fault too
       served    features are read with a fault; the day's log shows the skew, the next morning
       released  parts of two versions are put together; loading them fails, or is made to go
       stale     nothing was learned for some days

Guards are the loop's own and say what they say in it.  All branches begin at the same morning and
answer the same visits with the same luck; nothing is pushed, and none learns from another.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mlplatform.artifacts import read_json
from mlplatform.errors import FailedPrecondition, InvalidArgument, PlatformError
from mlplatform.evaluation.gate import require_blessed
from mlplatform.pipeline import Observer, Workspace
from recsys.config import RunConfig
from recsys.daily_artifacts import DailyArtifacts
from recsys.experiment import find_skew, serve_day
from recsys.loop import Life, too_old
from recsys.online.bundle import Bundle
from recsys.stages import arms, daily_learning, data, release

SOUND, KEPT = "sound", "kept"
LEARNED = ("leak", "labels", "behaviour", "unit", "nan", "vocabulary")
JUDGED = ("leak", "labels", "behaviour")
SERVED = ("behaviour", "unit", "nan", "vocabulary", "irrelevant")
STALE_FEATURES, MIXED, STALE = "served-yesterday", "half-pushed", "stale-model"
NAMES = (
    *(f"learned-{fault}" for fault in LEARNED),
    *(f"judged-{fault}" for fault in JUDGED),
    *(f"served-{fault}" for fault in SERVED),
    STALE_FEATURES,
    MIXED,
    STALE,
)
VALIDATION, GATE, TRAINING = "validation", "gate", "training"
READING, LOG = "reading features", "the log's skew"
LOADER, AGE = "loading", "the version's age"


@dataclass(frozen=True)
class Drill:
    """A fault, what the guards said of it, and the day under it without them.

    name: of `NAMES`; of a stale model with its age.
    said: lines of each guard that looked, in their order; no line where it found nothing.
    answered: artifact of `answer_day`; None where nothing came of it that could serve.
    guarded: the arm that serves instead where a guard speaks before anything is served; None where
        it speaks the morning after.
    """

    name: str
    said: Mapping[str, Sequence[str]]
    answered: Path | None
    guarded: str | None


@dataclass(frozen=True)
class Drills:
    """day: of the drill.  arms: artifacts of `answer_day` of the sound arms, by name.

    quiet: what the same guards said where there was no fault.
    """

    day: int
    arms: Mapping[str, Path]
    quiet: Mapping[str, Sequence[str]]
    drills: Sequence[Drill]


def run_drills(
    config: RunConfig,
    workspace: Workspace,
    observer: Observer,
    days: int,
    names: Sequence[str] = NAMES,
) -> Drills:
    """Some drills, on the day after `days` of the loop.

    Raises:
        InvalidArgument: there is no drill of such a name.
        FailedPrecondition: the loop refused one of these days, which have no fault.
    """
    for name in names:
        if name not in NAMES:
            raise InvalidArgument(
                f"drill {name!r}: expected one of {', '.join(NAMES)}; or name none for all"
            )
    artifacts = DailyArtifacts.after_push(config, workspace, observer)
    life = Life(config, workspace.root / "registry", artifacts)
    first, day = config.days.evaluate, config.days.evaluate + days
    evenings = []
    for number in range(first, day):
        lived = life.live(number, {})
        if lived.refused:
            raise FailedPrecondition(
                f"day {number} of the loop: expected no refusal before the drills, got: "
                f"{lived.refused[0]}; take another seed or more days"
            )
        evenings.append(life.artifacts.branch("evening"))
    life.open(day)
    morning = _Morning(life, day)

    sound, quiet = morning.learn(SOUND)
    served = sound.branch("day")  # what follows the sound model begins at the morning too
    answered = {SOUND: morning.answer(served), KEPT: morning.answer(morning.branch(KEPT))}
    quiet |= {LOG: morning.skew_of(served), LOADER: morning.loading(sound)}

    drills: list[Drill] = []
    for name in dict.fromkeys(names):
        how, _, fault = name.partition("-")
        if name == STALE:  # what is one day old is the arm `KEPT`
            old = enumerate(reversed(evenings[:-1]), start=2)
            drills += [morning.drill_age(age, evening) for age, evening in old]
        elif name == MIXED:
            drills.append(morning.drill_release(sound, evenings[-1]))
        elif name == STALE_FEATURES:
            drills.append(morning.drill_serving(name, sound, unseen_days=1))
        elif how == "served":
            drills.append(morning.drill_serving(name, sound, fault=fault))
        else:
            drills.append(morning.drill_learning(name, fault, in_judged=how == "judged"))
    return Drills(day, answered, quiet, drills)


@dataclass(frozen=True)
class _Morning:
    """The morning on which everything is drilled."""

    life: Life
    day: int

    def branch(self, name: str) -> DailyArtifacts:
        return self.life.artifacts.branch(name)

    def answer(self, branch: DailyArtifacts) -> Path:
        serve_day(branch, self.life.config, self.day, arms.SYSTEM)
        return branch.path("answer_day")

    def skew_of(self, branch: DailyArtifacts) -> list[str]:
        found = find_skew(branch, self.life.config, self.day)
        said: list[str] = read_json(found / arms.SKEW)["why"]
        return said

    def loading(self, branch: DailyArtifacts) -> list[str]:
        try:
            Bundle.load(branch.path("evaluate") / release.BUNDLE)
        except PlatformError as error:
            return str(error).splitlines()
        return []

    def learn(
        self, name: str, fault: str | None = None, *, in_judged: bool = False
    ) -> tuple[DailyArtifacts, dict[str, Sequence[str]]]:
        """A branch with a model of yesterday's rows; -> what each guard said of them, and of it."""
        life = self.life.branch(name)
        life.check(self.day, fault, in_judged=in_judged)
        verdict = read_json(life.artifacts.path("validate_day") / daily_learning.VERDICT)
        said: dict[str, Sequence[str]] = {VALIDATION: verdict["why"]}
        yesterday = self.day - 1
        known = [day for day in life.accepted if day >= self.day - life.config.loop.window]
        try:
            life.learn(self.day, [*known, yesterday], [yesterday])
            life.judge(self.day)
            blessing = read_json(life.artifacts.path("gate") / release.BLESSING)
        except PlatformError as error:
            return life.artifacts, said | {TRAINING: str(error).splitlines()}
        try:
            require_blessed(blessing)
        except PlatformError as error:
            return life.artifacts, said | {GATE: str(error).splitlines()}
        return life.artifacts, said | {GATE: []}

    def drill_learning(self, name: str, fault: str, *, in_judged: bool) -> Drill:
        branch, said = self.learn(name, fault, in_judged=in_judged)
        answered = None if TRAINING in said else self.answer(branch)
        return Drill(name, said, answered, KEPT)

    def drill_serving(self, name: str, sound: DailyArtifacts, **planted: Any) -> Drill:
        """planted: what `build_feature_store` is told besides."""
        branch, today = sound.branch(name), self.life.today(self.day)
        branch.make(
            self.day,
            today,
            partial(data.build_feature_store, today, **planted),
            ("generate_world", "simulate_days"),
            **planted,
        )
        try:
            answered = self.answer(branch)
        except PlatformError as error:  # the server does not answer from such features
            return Drill(name, {READING: str(error).splitlines()}, None, SOUND)
        return Drill(name, {LOG: self.skew_of(branch)}, answered, None)

    def drill_release(self, sound: DailyArtifacts, evening: DailyArtifacts) -> Drill:
        branch = sound.branch(MIXED)
        branch.take("evaluate", evening, as_kind="in_service")
        today = self.life.today(self.day)
        branch.make(self.day, today, partial(arms.mix_parts, today), ("evaluate", "in_service"))
        said = {LOADER: self.loading(branch)}
        branch.make(self.day, today, partial(arms.forge_origin, today), ("evaluate",))
        return Drill(MIXED, said, self.answer(branch), KEPT)

    def drill_age(self, age: int, evening: DailyArtifacts) -> Drill:
        name = f"{STALE}-{age}-days"
        branch = self.branch(name)
        branch.take("evaluate", evening)
        learned = self.day - 1 - age
        said = {AGE: too_old(learned, self.day, self.life.config.loop.freshness_days)}
        return Drill(name, said, self.answer(branch), SOUND)
