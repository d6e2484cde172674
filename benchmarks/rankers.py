"""Wide, deep, and wide and deep, as in the table of Cheng et al., Wide & Deep Learning for
Recommender Systems, 2016: offline AUC and, in the world, installs.  And a model without crosses.

All rank the candidates of the same towers, learn from the same days and are judged on the day
after: on all its impressions, and on the installs of 3,000 of its visits.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.lab import Installs, Lab
from benchmarks.result import Result
from mlplatform.evaluation.metrics import (
    Derived,
    Float,
    WeightedMetric,
    auc_of,
    difference,
    intervals,
    mean_of,
)
from recsys.config import Days, RunConfig, load_config
from recsys.evaluation import score_slates
from recsys.stages.data import BACKLOG_DAY

SEEDS = (1, 2, 3)
WARM_UP, WINDOW = 3, 4
REQUESTS = 3000
KINDS = ("additive", "linear", "deep", "wide_deep")


@dataclass(frozen=True)
class Judged:
    """Of one seed: who saw each impression, whether it led to an install; each ranker's logits."""

    user: NDArray[np.int64]
    label: NDArray[np.int8]
    logits: dict[str, NDArray[np.float32]]
    installs: dict[str, Installs]


def measure() -> Result:
    result = Result(
        settings={
            "seeds of the world and of training": SEEDS,
            "days trained on": WINDOW,
            "requests answered in the world": REQUESTS,
            "world": configuration(SEEDS[0]).world.model_dump(mode="json"),
            "ranking": configuration(SEEDS[0]).ranking.model_dump(mode="json"),
        }
    )
    judged = []
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as folder:
            judged.append(judge(Lab(configuration(seed), Path(folder))))
    summarise(result, judged)
    return result


def configuration(seed: int) -> RunConfig:
    small = load_config("small")
    world = small.world.model_copy(update={"seed": small.world.seed + seed})
    days = Days(warm_up=WARM_UP, training=WINDOW + 1)
    return small.model_copy(update={"world": world, "days": days, "seed": seed})


def judge(lab: Lab) -> Judged:
    """Train the rankers on all days but the last, and judge them on that."""
    day, wanted = WARM_UP + WINDOW, lab.config
    view, known = lab.view(day, WINDOW), list(range(WARM_UP, day))
    towers = lab.train_towers(view, [BACKLOG_DAY, *known], wanted.retrieval.epochs).model
    slates = lab.slates(view, [day])
    shown = slates.label >= 0
    logits, installs = {}, {}
    for kind in KINDS:
        ranker = lab.train_ranker(view, known, wanted.ranking.epochs, kind=kind).model
        rank = lab.bundle(view, towers, ranker).rank
        logits[kind] = score_slates(rank, slates, slates.impression)[shown]
        installs[kind] = lab.installs(view, towers, ranker, REQUESTS)
    user = np.broadcast_to(slates.user[:, None], shown.shape)[shown]
    offset = np.int64(wanted.seed) << 40  # a user of another seed's world is another user
    return Judged(user + offset, slates.label[shown], logits, installs)


def summarise(result: Result, judged: list[Judged]) -> None:
    """Means over the seeds, with intervals from a bootstrap over users."""
    n_impressions = [len(one.user) for one in judged]
    n_requests = [len(one.installs[KINDS[0]].user) for one in judged]
    result.figures["impressions judged on"] = sum(n_impressions)
    aucs = {
        f"AUC: {kind}": _mean_of_seeds(
            [auc_of(one.logits[kind], one.label) for one in judged], n_impressions
        )
        for kind in KINDS
    }
    users = np.concatenate([one.user for one in judged])
    _add(result, aucs, users, "AUC")
    metrics: dict[str, WeightedMetric] = {}
    for kind in KINDS:
        had = np.concatenate([one.installs[kind].had for one in judged]).astype(np.float64)
        expected = np.concatenate([one.installs[kind].expected for one in judged])
        metrics[f"installs per request: {kind}"] = mean_of(had)
        metrics[f"installs expected per request: {kind}"] = mean_of(expected.astype(np.float64))
    offsets = np.repeat([np.int64(n) << 40 for n in range(len(judged))], n_requests)
    users = np.concatenate([one.installs[KINDS[0]].user for one in judged]) + offsets
    _add(result, metrics, users, "installs per request", "installs expected per request")


def _mean_of_seeds(metrics: list[WeightedMetric], sizes: list[int]) -> WeightedMetric:
    """The mean of a metric over seeds whose rows follow each other."""
    ends = np.cumsum(sizes)

    def metric(weights: Float) -> float:
        parts = np.split(weights, ends[:-1])
        return float(np.mean([one(part) for one, part in zip(metrics, parts, strict=True)]))

    return metric


def _add(result: Result, metrics: dict[str, WeightedMetric], users: Any, *names: str) -> None:
    both = KINDS[-1]
    differences: dict[str, Derived] = {
        f"{name}: {both} - {kind}": difference(f"{name}: {both}", f"{name}: {kind}")
        for name in names
        for kind in KINDS[:-1]
    }
    for figure, interval in intervals(metrics, users, 1, differences).items():
        result.figures[figure] = interval.value
        result.figures[f"{figure}, low"] = interval.low
        result.figures[f"{figure}, high"] = interval.high
