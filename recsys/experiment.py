"""The skew, found and priced: what a training-serving skew costs in installs (TFX, section 6).

    the main job ─► its last day is served with a fault: the log arrives, the skew is found, and
      what it costs is predicted ─► the next day is an A/B test: with the fault, without it, …

Every arm is the real recommender, or what it is compared with, and answers the same day from the
same morning.  Nothing is trained on what an arm logs, so no arm touches another; the test has one
day, fixed beforehand.  What a stage does is in `stages/arms.py`, what is made of it in
`experiment_figures.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mlplatform.pipeline import Observer, Workspace
from recsys.config import RunConfig
from recsys.daily_artifacts import DailyArtifacts
from recsys.loop import on
from recsys.online.bundle import RANKER
from recsys.stages import arms, data, models
from recsys.stages.data import BACKLOG_DAY

FAULT, IRRELEVANT = "behaviour", "irrelevant"
SKEWED, FIXED, AS_LOGGED = "skewed", "fixed", "as-logged"
SEVERITIES = (0.0, 0.25, 0.5, 0.75)  # of 1 is the arm `SKEWED`


@dataclass(frozen=True)
class Arms:
    """Artifacts of one run of the story, by arm.

    day: of the test.  eve: the day before, served with the fault.
    answered: of `answer_day`; of severities by their number, of the controls by their name.
    skews: of `find_skew`, of the arms that have a fault; the eve's under `SKEWED`.
    """

    day: int
    eve: Path
    answered: Mapping[str, Path]
    skews: Mapping[str, Path]


def run_story(
    config: RunConfig, workspace: Workspace, observer: Observer, *, controls: bool
) -> Arms:
    """The story under one seed, from a new world to the test's last answer.

    controls: whether there are arms, besides those of the story, of every severity and of the
        irrelevant feature.
    """
    trunk = DailyArtifacts.after_push(config, workspace, observer)
    eve, day = config.days.evaluate, config.days.evaluate + 1
    answered: dict[str, Path] = {}
    skews: dict[str, Path] = {}

    def arm(
        name: str,
        policy: str,
        fault: str | None = None,
        severity: float = 1.0,
        branch: DailyArtifacts | None = None,
    ) -> DailyArtifacts:
        branch = branch or trunk.branch(name)
        if fault:
            _write_store(branch, config, day, fault, severity)
        serve_day(branch, config, day, policy)
        answered[name] = branch.path("answer_day")
        return branch

    _write_store(trunk, config, eve, FAULT, 1.0)
    serve_day(trunk, config, eve, arms.SYSTEM)
    skews[SKEWED] = find_skew(trunk, config, eve)
    trunk.make(day, on(config, day), partial(data.generate_world, on(config, day)), ())
    _write_store(trunk, config, day, None, 1.0)

    arm(SKEWED, arms.SYSTEM, FAULT)
    arm(FIXED, arms.SYSTEM)
    arm(AS_LOGGED, arms.SYSTEM, FAULT, branch=_trained_as_logged(trunk.branch(AS_LOGGED), config))
    for policy in (arms.POPULAR, arms.RANDOM, arms.ORACLE):
        arm(policy, policy)
    if controls:
        faults = {f"{FAULT}-{one}": (FAULT, one) for one in SEVERITIES}
        for name, (fault, severity) in (faults | {IRRELEVANT: (IRRELEVANT, 1.0)}).items():
            branch = arm(name, arms.SYSTEM, fault, severity)
            skews[name] = find_skew(branch, config, day)
    return Arms(day, trunk.path("answer_day"), answered, skews)


def with_seed(config: RunConfig, seed: int) -> RunConfig:
    """The same under another seed: in another world, as far from the configuration's."""
    world = config.world.model_copy(update={"seed": config.world.seed + seed - config.seed})
    return config.model_copy(update={"seed": seed, "world": world})


def _write_store(
    artifacts: DailyArtifacts, config: RunConfig, day: int, fault: str | None, severity: float
) -> None:
    """A day's feature store, with a fault or without."""
    today = on(config, day)
    artifacts.make(
        day,
        today,
        partial(data.build_feature_store, today, fault=fault, severity=severity),
        ("generate_world", "simulate_days"),
        fault=fault,
        severity=severity,
    )


def serve_day(artifacts: DailyArtifacts, config: RunConfig, day: int, policy: str) -> None:
    """A day's answers, by the latest bundle and from the latest features."""
    today = on(config, day)
    inputs = ("generate_world", "simulate_days", "build_feature_store", "evaluate")
    artifacts.make(day, today, partial(arms.answer_day, today, policy), inputs, policy=policy)


def find_skew(artifacts: DailyArtifacts, config: RunConfig, day: int) -> Path:
    """What a day was served otherwise than it is trained on."""
    today = on(config, day)
    inputs = ("generate_world", "simulate_days", "infer_schema", "evaluate")
    artifacts.make(day, today, partial(arms.find_skew, today), inputs)
    return artifacts.path("find_skew")


def _trained_as_logged(branch: DailyArtifacts, config: RunConfig) -> DailyArtifacts:
    """The other remedy: the same models, trained on rows as the server, with its fault, logs them.

    On the days that the version in service was trained on, so that nothing else differs.
    """
    number, train = config.days.evaluate, list(config.days.train)
    make = partial(branch.make, number, config)
    inputs = ("join_examples", "analyze")
    registry = Path()  # nothing is read from it: training begins cold, as the main job's did
    make(
        partial(arms.join_as_logged, config, train, FAULT, 1.0),
        ("join_examples",),
        fault=FAULT,
        severity=1.0,
    )
    make(partial(data.analyze, config, train), ("join_examples",))
    towers = partial(
        models.train_retrieval, config, [BACKLOG_DAY, *train], config.retrieval.epochs, registry
    )
    make(towers, inputs)
    make(partial(models.build_index, config), ("train_retrieval",))
    kinds = {RANKER: config.ranking.kind}
    make(
        partial(models.train_ranker, config, train, config.ranking.epochs, kinds, registry), inputs
    )
    make(
        partial(arms.assemble_bundle, config),
        (
            "train_retrieval",
            "build_index",
            "train_ranker",
            "analyze",
            "infer_schema",
            "join_examples",
        ),
    )
    return branch
