"""Off-policy estimates beside the truth: what another policy would have earned, when can it be told
from a log?

Two logs of one day, whose propensities are exact: that of the first days' policy, popularity with
much exploration, and that of the loop, a ranker's lists with little.  From each, policies near to
the one that made it and far from it are judged, by what a log holds, beside what they earn in the
world.  Each day is lived several times, by the same users in the same visits with another luck.

Installs are all that happened: what was late or lost no weight brings back, and how much of the log
that is, is a figure of its own.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.lab import Lab
from benchmarks.result import Result
from data_gen import sessions
from data_gen.memory import Memory
from data_gen.world import Requests, World, load_truth
from mlplatform.evaluation.off_policy import RewardModel, Verdict
from recsys import off_policy
from recsys.config import Days, RunConfig, load_config
from recsys.examples import EventLog
from recsys.off_policy import Log, Target
from recsys.online.exploration import explore
from recsys.online.feature_store import FeatureStore, write_feature_store
from recsys.online.recommender import Recommender
from recsys.serving_log import SLATE, requests_of
from recsys.stages.data import BACKLOG_DAY, EVENTS, OBSERVABLE, TRUTH, visits_of

SEEDS = (1, 2, 3)
LUCKS = 5
WARM_UP, WINDOW = 3, 4
OURS, OTHER = "wide_deep", "linear"
CLIP = 100.0
PLACES = np.arange(1, SLATE + 1)
ESTIMATORS = ("IPS", "SNIPS", "DR")

ITSELF = "popular log: itself"
REORDERED = "popular log: its apps in our order"
ALIKE = "popular log: all apps alike"
OUR_LISTS = "popular log: our lists"
NO_EXPLORATION = "our log: without exploration"
OTHERS_LISTS = "our log: another ranker's lists"
CLIPPED = "our log: another's lists, clipped"
TARGETS = (ITSELF, REORDERED, ALIKE, OUR_LISTS, NO_EXPLORATION, OTHERS_LISTS, CLIPPED)
HEARD_OF = "installs heard of within three days, share"
BELIEVED = "believed estimates whose interval holds the truth, share"
DISBELIEVED = "disbelieved estimates whose interval holds the truth, share"
Slates = NDArray[np.int64]


@dataclass(frozen=True)
class Truth:
    """The world on the morning of a day."""

    world: World
    memory: Memory

    @classmethod
    def of(cls, lab: Lab) -> "Truth":
        world = load_truth(lab.config.world, lab.store.artifact("generate_world") / TRUTH)
        hidden = lab.store.artifact("simulate_days") / TRUTH
        memory = Memory.load(hidden, world.apps.group, world.apps.category)
        return cls(world, memory.grown(len(world.users.activity)))

    def log(self, visits: Requests, slates: Slates, propensity: NDArray[np.float64]) -> Log:
        """What is logged when these lists are shown."""
        installed = self.world.answer(visits, slates, self.memory)
        return Log.of(visits.user, slates, propensity, installed)

    def installs(self, visits: Requests, slates: Slates) -> float:
        """Expected of these lists, a request."""
        expected = self.world.install_probability(visits, slates, self.memory)
        return float(expected.sum(axis=1, dtype=np.float64).mean())


@dataclass(frozen=True)
class Question:
    """What would the target have earned of these visits, of which there is this log?"""

    name: str
    visits: Requests
    log: Log
    target: Target
    model: RewardModel
    clip: float = inf


@dataclass(frozen=True)
class Judged:
    """The answer: a verdict by the log, and the installs per request expected in the world."""

    name: str
    truth: float
    verdict: Verdict


class Rankers:
    """Ours, whose lists and opinions are asked for, and another one's lists, for some visits."""

    def __init__(self, ours: Recommender, other: Recommender, visits: Requests) -> None:
        self.visits = visits
        self._ours, self._asked = ours, requests_of(ours.store, visits_of(visits))
        self.answer = ours.recommend(self._asked, SLATE)
        self.others_lists = other.recommend(self._asked, SLATE).app_ids
        self.app_ids = ours.bundle.apps.ids
        self.of_ours = self.opinion(self.answer.app_ids)
        self.of_others = self.opinion(self.others_lists)

    def opinion(
        self, slates: Slates, rows: Slates | None = None, places: NDArray[np.int64] = PLACES
    ) -> NDArray[np.float64]:
        """Our ranker's P(install) of every app at its place, for some of the visits or all."""
        asked = self._asked if rows is None else self._asked.take(pa.array(rows))
        return off_policy.install_probability(self._ours, asked, slates, places)


def measure() -> Result:
    small = configuration(SEEDS[0])
    result = Result(
        settings={
            "seeds of the world and of training": SEEDS,
            "times each day is lived": LUCKS,
            "days trained on": WINDOW,
            "exploration of our log": small.loop.exploration,
            "weights clipped at": CLIP,
            "world": small.world.model_dump(mode="json"),
        }
    )
    judged: list[Judged] = []
    heard_of = []
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as folder:
            lab = Lab(configuration(seed), Path(folder))
            judged += judge(lab, LUCKS)
            heard_of.append(share_heard_of(lab))
    result.figures[HEARD_OF] = float(np.mean(heard_of))
    summarise(result, judged)
    return result


def configuration(seed: int) -> RunConfig:
    small = load_config("small")
    world = small.world.model_copy(update={"seed": small.world.seed + seed})
    days = Days(warm_up=WARM_UP, training=WINDOW)
    return small.model_copy(update={"world": world, "days": days, "seed": seed})


def judge(lab: Lab, lucks: int) -> list[Judged]:
    """Every target, by the logs of the evaluation day, lived so many times."""
    config, truth = lab.config, Truth.of(lab)
    known = list(config.days.train)
    view = lab.view(config.days.evaluate, len(known))
    towers = lab.train_towers(view, [BACKLOG_DAY, *known], config.retrieval.epochs).model
    models = [
        lab.train_ranker(view, known, config.ranking.epochs, kind=kind).model
        for kind in (OURS, OTHER)
    ]
    with FeatureStore(_feature_store(lab)) as store:
        ours, other = (Recommender(lab.bundle(view, towers, one), store) for one in models)
        rankers = Rankers(ours, other, sessions.visits(truth.world, config.days.evaluate))
        return [
            Judged(
                one.name,
                truth.installs(one.visits, one.target.slates),
                off_policy.judge(one.log, one.target, config.seed, one.model, one.clip),
            )
            for luck in range(lucks)
            for one in questions(truth, rankers, luck, config.loop.exploration, config.seed)
        ]


def questions(
    truth: Truth, rankers: Rankers, luck: int, exploration: float, seed: int
) -> Iterator[Question]:
    """Those of both logs of a day; all its luck is drawn by the numbers of the visits."""
    numbers = rankers.visits.request_id + (np.int64(luck) << 56)
    visits = replace(rankers.visits, request_id=numbers)

    log = truth.log(visits, *sessions.logged_slates(truth.world, visits))
    logged = rankers.opinion(log.slates)
    target = off_policy.as_logged(log)
    yield Question(ITSELF, visits, log, target, RewardModel(logged, logged))
    target = off_policy.all_alike(log, rankers.app_ids, seed + luck)
    model = RewardModel(logged, rankers.opinion(target.slates))
    yield Question(ALIKE, visits, log, target, model)
    target = off_policy.showing(log, rankers.answer.app_ids)
    yield Question(OUR_LISTS, visits, log, target, RewardModel(logged, rankers.of_ours))

    full = log.full()
    at_the_top = rankers.opinion(log.slates[full], full, np.ones_like(PLACES))
    part, target = off_policy.in_order_of(log.take(full), at_the_top)
    model = RewardModel(logged[full], rankers.opinion(target.slates, full))
    yield Question(REORDERED, visits.take(full), part, target, model)

    log = truth.log(visits, *explore(rankers.answer, visits.request_id, exploration, seed))
    logged = rankers.opinion(log.slates)
    target = off_policy.showing(log, rankers.answer.app_ids)
    yield Question(NO_EXPLORATION, visits, log, target, RewardModel(logged, rankers.of_ours))
    target = off_policy.showing(log, rankers.others_lists)
    model = RewardModel(logged, rankers.of_others)
    yield Question(OTHERS_LISTS, visits, log, target, model)
    yield Question(CLIPPED, visits, log, target, model, CLIP)


def share_heard_of(lab: Lab) -> float:
    """Of the evaluation day's installs, those in the log as the application reads it."""
    truth, day = Truth.of(lab), lab.config.days.evaluate
    visits = sessions.visits(truth.world, day)
    happened = truth.log(visits, *sessions.logged_slates(truth.world, visits)).installed.sum()
    return float(Log.read(lab.store.spans, day).installed.sum() / happened)


def summarise(result: Result, judged: list[Judged]) -> None:
    """Means over the logs; and of what was believed, whether the truth was in the interval."""
    held: dict[bool, list[float]] = {True: [], False: []}  # by whether they were believed
    for name in TARGETS:
        of_target = [one for one in judged if one.name == name]
        figures: dict[str, list[float]] = {
            "believable, share": [float(one.verdict.believable) for one in of_target],
            "truth": [one.truth for one in of_target],
        }
        for estimator in ESTIMATORS:
            found = [one.verdict.estimates[estimator] for one in of_target]
            holds = [
                float(interval.low <= one.truth <= interval.high)
                for interval, one in zip(found, of_target, strict=True)
            ]
            figures[estimator] = [interval.value for interval in found]
            figures[f"{estimator}, low"] = [interval.low for interval in found]
            figures[f"{estimator}, high"] = [interval.high for interval in found]
            figures[f"{estimator} holds the truth, share"] = holds
            for one, held_it in zip(of_target, holds, strict=True):
                held[one.verdict.believable].append(held_it)
        support = [one.verdict.support for one in of_target]
        figures["mass"] = [one.mass.value for one in support]
        figures["effective rows, share"] = [one.effective_share for one in support]
        figures["effective rewards"] = [one.effective_rewards for one in support]
        figures["largest weight"] = [one.largest_weight for one in support]
        figures["clipped rows, share"] = [one.clipped_share for one in support]
        for figure, values in figures.items():
            result.figures[f"{name}: {figure}"] = float(np.mean(values))
    for figure, which in ((BELIEVED, held[True]), (DISBELIEVED, held[False])):
        result.figures[figure] = float(np.mean(which)) if which else 0.0
    result.limits[BELIEVED] = ("least", 0.9)  # 95 %, of logs that are few


def _feature_store(lab: Lab) -> Path:
    """What serving knows on the morning of the evaluation day."""
    path = lab.folder / "feature-store"
    path.mkdir()
    log = EventLog.read(
        lab.store.artifact("generate_world") / OBSERVABLE,
        lab.store.artifact("simulate_days") / EVENTS,
    )
    write_feature_store(log, lab.config.days.evaluate, path)
    return path
