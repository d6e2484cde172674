"""Offline evaluation on a later day: retrieval over the full catalogue, ranking on impressions.

Enters: a loaded bundle, the later day's spans, what was popular before.  Leaves: figures with
95 % intervals.  Every recommender and every baseline is judged on the same rows.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mlplatform.data.files.spans import read_span
from mlplatform.evaluation.metrics import (
    Derived,
    Interval,
    WeightedMetric,
    auc_of,
    difference,
    intervals,
    log_loss_of,
    mean_of,
)
from recsys import baselines, features
from recsys.apps import UNKNOWN
from recsys.columns import Columns
from recsys.models.index import exact_search, recall
from recsys.online.bundle import Bundle
from recsys.training_data import Positives, Slates

K = 100
CONTENT_DIM = 64
MOST_SHOWN = 1000
_SCORED_AT_ONCE = 1024


def evaluate_index(bundle: Bundle, queries: NDArray[np.float32], seed: int) -> dict[str, Interval]:
    """Recall@100 of the index against the exact search."""
    found, _ = bundle.index.search(queries, K)
    per_query = recall(found, exact_search(bundle.vectors, queries, K))
    return intervals({"index recall@100": mean_of(per_query)}, np.arange(len(queries)), seed)


@dataclass(frozen=True)
class RetrievalJudge:
    """Judges retrieval and its baselines on the same installs.

    popularity: of the apps, by what was installed in training.
    content: what the listing says of every app, `[apps, dim]`.
    """

    bundle: Bundle
    popularity: baselines.Popularity
    content: NDArray[np.float32]
    seed: int

    @classmethod
    def of(cls, bundle: Bundle, past_installs: NDArray[np.int32], seed: int) -> "RetrievalJudge":
        """past_installs: rows of the app table installed in training, however often."""
        return cls(
            bundle,
            baselines.Popularity.of(past_installs, len(bundle.apps)),
            baselines.content_vectors(bundle.catalogue, CONTENT_DIM, seed),
            seed,
        )

    def judge(
        self, where: str, installs: Positives, oracle: NDArray[np.int64]
    ) -> dict[str, Interval]:
        """Recall@100 of a slice of held-out installs, named `where`.

        oracle: the ids of the 100 apps that the world itself would show each user.
        """
        app, position = installs.app, installs.app - 1
        found, _ = self.bundle.index.search(self.queries(installs), K)
        columns = Columns.of(self.bundle.transform, features.APP)
        category = self.bundle.apps.codes[1:, columns.first("category")]
        like = exact_search(self.content, baselines.profiles(self.content, installs.history), K)
        ids = self.bundle.apps.ids[position]
        hits = {
            "system": (found == position[:, None]).any(axis=1),
            "popular": self.popularity.hits(app, K),
            "popular in categories": baselines.category_hits(
                self.popularity, category, installs.history, app, K
            ),
            "content neighbours": (like == position[:, None]).any(axis=1),
            "oracle": (oracle == ids[:, None]).any(axis=1),
        }
        name = f"recall@{K} of {where}"
        metrics: dict[str, WeightedMetric] = {
            f"{name}: {who}": mean_of(hit.astype(float)) for who, hit in hits.items()
        }
        differences = {
            f"{name}: system - {who}": difference(f"{name}: system", f"{name}: {who}")
            for who in list(hits)[1:]
        }
        n = float(len(installs))
        return {f"installs: {where}": Interval(n, n, n)} | intervals(
            metrics, installs.user, self.seed, differences
        )

    def queries(self, installs: Positives) -> NDArray[np.float32]:
        return query_vectors(self.bundle, installs)


def query_vectors(bundle: Bundle, installs: Positives) -> NDArray[np.float32]:
    """The query tower's vectors just before each install, `[installs, dim]`."""
    vectors: NDArray[np.float32] = bundle.query(request=installs.request, history=installs.history)[
        "vector"
    ].numpy()
    return vectors


def score_slates(rank: Any, slates: Slates, impression: NDArray[np.int32]) -> NDArray[np.float32]:
    """Logits of every place, `[n, k]`; `rank` is a ranker's `codes` signature."""
    return np.concatenate(
        [
            rank(
                request=slates.request[at : at + _SCORED_AT_ONCE],
                history=slates.history[at : at + _SCORED_AT_ONCE],
                app=slates.app[at : at + _SCORED_AT_ONCE],
                impression=impression[at : at + _SCORED_AT_ONCE],
            )["logit"].numpy()
            for at in range(0, len(slates), _SCORED_AT_ONCE)
        ]
    )


def evaluate_ranking(
    slates: Slates, scores: dict[str, NDArray[np.floating[Any]]], seed: int
) -> dict[str, Interval]:
    """AUC of each score over shown apps, and of the first over each other.

    scores: `[n, k]` each, the system's first; it is in logits and gets a log loss and a
    calibration (predicted over observed installs) as well.
    """
    shown = slates.label >= 0
    label = slates.label[shown]
    user = np.broadcast_to(slates.user[:, None], shown.shape)[shown]
    system, *others = scores
    metrics = {f"AUC: {name}": auc_of(score[shown], label) for name, score in scores.items()}
    derived = {
        f"AUC: {system} - {name}": difference(f"AUC: {system}", f"AUC: {name}") for name in others
    }
    probability = 1 / (1 + np.exp(-scores[system][shown].astype(np.float64)))
    base = np.full(len(label), label.mean())
    metrics["log loss: system"] = log_loss_of(probability, label)
    metrics["log loss: base rate"] = log_loss_of(base, label)
    metrics["installs per impression: observed"] = mean_of(label.astype(float))
    metrics["installs per impression: predicted"] = mean_of(probability)
    derived["calibration: predicted / observed"] = lambda values: (
        values["installs per impression: predicted"] / values["installs per impression: observed"]
    )
    return intervals(metrics, user, seed, derived)


def compare_bundles(
    candidate: Bundle,
    current: Bundle,
    root: Path,
    day: int,
    *,
    requests: int,
    installs: int,
    queries: int,
    seed: int,
) -> dict[str, Interval]:
    """A new model beside the one in service, on the same impressions and installs of a day.

    Each reads the rows through its own transform.  Apps that one of them does not know are left
    out.  And the candidate's index beside the exact search.

    Args:
        root: of the spans.
        requests, installs, queries: how many of each to judge on, at most, chosen at random.
    """
    bundles = {"candidate": candidate, "current": current}
    slates = {
        name: Slates.read(root, [day], bundle.transform, bundle.apps)
        for name, bundle in bundles.items()
    }
    chosen = sample(len(slates["candidate"]), requests, seed)
    slates = {name: one.take(chosen) for name, one in slates.items()}
    shown = (slates["candidate"].label >= 0) & (slates["current"].label >= 0)
    label = slates["candidate"].label[shown]
    user = np.broadcast_to(slates["candidate"].user[:, None], shown.shape)[shown]
    metrics: dict[str, WeightedMetric] = {}
    for name, bundle in bundles.items():
        logits = score_slates(bundle.rank, slates[name], slates[name].impression)[shown]
        metrics[f"AUC: {name}"] = auc_of(logits, label)
        probability = 1 / (1 + np.exp(-logits.astype(np.float64)))
        metrics[f"log loss: {name}"] = log_loss_of(probability, label)
    figures = intervals(metrics, user, seed, _differences("AUC", "log loss"))

    table = read_span(root, "positives", [day])
    for bundle in bundles.values():
        known = bundle.apps.rows_of(table["app_id"].to_numpy()) != UNKNOWN
        table = table.filter(pa.array(known))
    table = table.take(pa.array(sample(len(table), installs, seed)))
    found: dict[str, WeightedMetric] = {}
    for name, bundle in bundles.items():
        positives = Positives.of(table, bundle.transform, bundle.apps)
        vectors = query_vectors(bundle, positives)
        at, _ = bundle.index.search(vectors, K)
        hits = (at == positives.app[:, None] - 1).any(axis=1)
        found[f"recall@{K}: {name}"] = mean_of(hits.astype(float))
        if name == "candidate":
            figures |= evaluate_index(bundle, vectors[:queries], seed)
    users = table["user_id"].to_numpy()
    figures |= intervals(found, users, seed, _differences(f"recall@{K}"))
    for name, n in (("impressions", len(label)), ("installs", len(table))):
        figures[name] = Interval(n, n, n)
    return figures


def _differences(*metrics: str) -> dict[str, Derived]:
    return {
        f"{metric}: candidate - current": difference(f"{metric}: candidate", f"{metric}: current")
        for metric in metrics
    }


def popularity_scores(slates: Slates, installs: NDArray[np.int64]) -> NDArray[Any]:
    """Past installs of every shown app, `[n, k]`."""
    counts: NDArray[Any] = np.concatenate([[0], installs])[slates.app].astype(np.float64)
    return counts


def sample(n: int, most: int, seed: int) -> NDArray[np.int64]:
    """At most `most` of n rows, chosen at random, in order."""
    return np.sort(np.random.default_rng(seed).permutation(n)[:most])


def tail_of(shown: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which apps are not among the most shown; `shown`: how often each one was, `[apps]`."""
    tail = np.ones(len(shown), dtype=bool)
    tail[np.argsort(-shown, kind="stable")[:MOST_SHOWN]] = False
    return tail
