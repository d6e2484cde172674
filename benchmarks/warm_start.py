"""Warm start: what is saved by beginning where the version before ended, and what it is worth.

Day after day three models see the same log: one begins where yesterday's ended and learns from one
more day; one is trained from scratch on the whole window; one is trained from scratch at the warm
one's cost, on the one day.  A fourth is left as it was before the first of these days.  Losses are
of the day after, of which no model has seen anything; installs are those of 1,500 of its visits.
"""

import io
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.lab import Installs, Lab, Learned, View
from benchmarks.result import Result
from mlplatform.evaluation.metrics import WeightedMetric, difference, intervals, mean_of
from recsys.config import Days, RunConfig, load_config
from recsys.stages.data import BACKLOG_DAY

SEEDS = (1, 2, 3)
DAYS = 5
WARM_UP, WINDOW = 3, 4
REQUESTS = 1500
MUST, STRETCH = 0.25, 0.10
ARMS = ("warm", "cold, the whole window", "cold, at equal cost", "stale")
Curves = dict[str, list[Learned]]


def measure() -> Result:
    one = configuration(SEEDS[0])
    result = Result(
        settings={
            "seeds of the world and of training": SEEDS,
            "days": DAYS,
            "window, days": WINDOW,
            "requests a day, answered in the world": REQUESTS,
            "stretch": STRETCH,
            "world": one.world.model_dump(mode="json"),
            "loop": one.loop.model_dump(mode="json"),
        }
    )
    curves: dict[str, dict[str, list[Learned]]] = {
        model: {arm: [] for arm in ARMS[:3]} for model in ("towers", "ranker")
    }
    installs: dict[str, list[Installs]] = {arm: [] for arm in ARMS}
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as folder:
            live(Lab(configuration(seed), Path(folder)), DAYS, curves, installs)
    summarise(result, curves, installs)
    return result


def configuration(seed: int) -> RunConfig:
    """A store of 25,000 apps and 12,000 users, with enough days."""
    small = load_config("small")
    world = small.world.model_copy(
        update={
            "seed": small.world.seed + seed,
            "initial_apps": 24_300,
            "new_apps_per_day": 100,
            "initial_users": 12_000,
            "new_users_per_day": 200,
            "requests_per_user_day": 1.5,
        }
    )
    days = Days(warm_up=WARM_UP, training=WINDOW + DAYS + 1)
    return small.model_copy(update={"world": world, "days": days, "seed": seed})


def live(
    lab: Lab, days: int, curves: dict[str, Curves], installs: dict[str, list[Installs]]
) -> None:
    """Train and judge on each of so many days; add to `curves` and `installs`."""
    wanted = lab.config
    first = WARM_UP + WINDOW
    base = lab.view(first, WINDOW)
    known = list(range(WARM_UP, first))
    stale = warm = (
        lab.train_towers(base, [BACKLOG_DAY, *known], wanted.retrieval.epochs),
        lab.train_ranker(base, known, wanted.ranking.epochs),
    )
    for day in range(first + 1, first + 1 + days):
        view = lab.view(day, WINDOW)
        window, new = list(range(day - WINDOW, day)), [day - 1]
        epochs = wanted.loop.retrieval_epochs, wanted.loop.ranking_epochs
        warm = (
            lab.train_towers(view, new, epochs[0], warm[0].state),
            lab.train_ranker(view, new, epochs[1], warm[1].state),
        )
        cold = (
            lab.train_towers(view, [BACKLOG_DAY, *window], wanted.retrieval.epochs),
            lab.train_ranker(view, window, wanted.ranking.epochs),
        )
        equal = (
            lab.train_towers(view, new, epochs[0]),
            lab.train_ranker(view, new, epochs[1]),
        )
        old = View(day, base.transform, base.catalogue, base.apps)
        models = zip(ARMS, (warm, cold, equal, stale), (view, view, view, old), strict=True)
        for arm, (towers, ranker), seen in models:
            found = lab.installs(seen, towers.model, ranker.model, REQUESTS)
            # A user of another seed's world is another user.
            user = found.user + (np.int64(wanted.seed) << 40)
            installs[arm].append(replace(found, user=user))
            if arm != "stale":
                # Without the models, which are large.
                curves["towers"][arm].append(replace(towers, model=None))
                curves["ranker"][arm].append(replace(ranker, model=None))


def summarise(
    result: Result, curves: dict[str, Curves], installs: dict[str, list[Installs]]
) -> None:
    """The work that warm models need, the installs that all bring, and a picture."""
    warm, cold, equal, stale = ARMS
    for model, arms in curves.items():
        pairs = list(zip(arms[warm], arms[cold], strict=True))
        work = [w.examples_to(c.curve[-1][1]) / c.curve[-1][0] for w, c in pairs]
        seconds = [
            w.seconds * w.examples_to(c.curve[-1][1]) / w.curve[-1][0] / c.seconds for w, c in pairs
        ]
        name = f"{model}: work of warm to cold's final loss, share of cold's"
        result.figures[f"{name}, median"] = float(np.median(work))
        result.figures[f"{name}, most"] = float(max(work))
        result.figures[f"{name}, in seconds, median"] = float(np.median(seconds))
        result.limits[f"{name}, median"] = ("most", MUST)
        for arm, learned in arms.items():
            losses = [one.curve[-1][1] for one in learned]
            result.figures[f"{model}: final held-out loss, {arm}"] = float(np.mean(losses))
            result.figures[f"{model}: examples, {arm}"] = learned[-1].curve[-1][0]
    metrics: dict[str, WeightedMetric] = {}
    for arm, found in installs.items():
        had = np.concatenate([one.had for one in found]).astype(np.float64)
        expected = np.concatenate([one.expected for one in found]).astype(np.float64)
        metrics[f"installs per request: {arm}"] = mean_of(had)
        metrics[f"installs expected per request: {arm}"] = mean_of(expected)
    name = "installs expected per request"
    differences = {
        f"{name}: warm - {arm}": difference(f"{name}: warm", f"{name}: {arm}")
        for arm in (cold, equal, stale)
    }
    users = np.concatenate([one.user for one in installs[warm]])
    for figure, interval in intervals(metrics, users, 1, differences).items():
        result.figures[figure] = interval.value
        result.figures[f"{figure}, low"] = interval.low
        result.figures[f"{figure}, high"] = interval.high
    result.picture = draw(curves)


def draw(curves: dict[str, Curves]) -> bytes:
    """Loss against examples and against seconds, a line a model, cold and warm; as a PNG.

    Days and seeds differ more than models do: what is drawn is the loss above that in which the
    cold model of the same day ended.
    """
    figure = Figure(figsize=(11, 8), dpi=100, layout="constrained")
    axes: Any = FigureCanvasAgg(figure).figure.subplots(2, 2, sharey="row")
    warm, cold = ARMS[:2]
    for row, (model, arms) in enumerate(curves.items()):
        heights = []
        for number, pair in enumerate(zip(arms[cold], arms[warm], strict=True)):
            final = pair[0].curve[-1][1]
            for learned, color, arm in zip(pair, ("C0", "C3"), (cold, warm), strict=True):
                examples, losses = np.array(learned.curve).T
                above = losses - final
                seconds = examples * learned.seconds / examples[-1]
                label = arm if number == 0 else None
                for column, x in enumerate((examples, seconds)):
                    axes[row, column].plot(x, above, color=color, linewidth=0.8, label=label)
                heights.append(above[1:])  # the first is of no training at all
        every = np.concatenate(heights)
        axes[row, 0].set_ylim(1.3 * every.min(), np.quantile(every, 0.97))
        axes[row, 0].set_ylabel(f"{model}: loss above cold's final, nats")
        axes[row, 0].xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes[row, 0].set_xlabel("requests seen" if model == "ranker" else "positives seen")
        axes[row, 1].set_xlabel("seconds of training")
        axes[row, 1].legend(frameon=False)
    for one in axes.flat:
        one.grid(alpha=0.3)
        one.axhline(0, color="black", linewidth=0.6)
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()
