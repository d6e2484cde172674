"""Offline evaluation on a later day: retrieval over the full catalogue, ranking on impressions.

Enters: a loaded bundle, the later day's spans, what was popular before.  Leaves: figures with
95 % intervals.  Every recommender and every baseline is judged on the same rows.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mlplatform.evaluation.metrics import (
    Interval,
    WeightedMetric,
    auc_of,
    difference,
    intervals,
    log_loss_of,
    mean_of,
)
from recsys import baselines, features
from recsys.columns import Columns
from recsys.models.index import exact_search, recall
from recsys.online.bundle import Bundle
from recsys.training_data import Positives, Slates

K = 100
CONTENT_DIM = 64
MOST_SHOWN = 1000
_SCORED_AT_ONCE = 1024


@dataclass(frozen=True)
class Slices:
    """What evaluation looks at apart: masks over app positions and over users."""

    tail_apps: NDArray[np.bool_]  # [apps]: outside the most shown
    new_apps: NDArray[np.bool_]  # [apps]: released after training began
    first_new_user: int  # ids from here signed up after training began


def evaluate_index(bundle: Bundle, queries: NDArray[np.float32], seed: int) -> dict[str, Interval]:
    """Recall@100 of the index against the exact search."""
    found, _ = bundle.index.search(queries, K)
    per_query = recall(found, exact_search(bundle.vectors, queries, K))
    return intervals({"index recall@100": mean_of(per_query)}, np.arange(len(queries)), seed)


def evaluate_retrieval(
    bundle: Bundle,
    positives: Positives,
    past_installs: NDArray[np.int32],
    slices: Slices,
    seed: int,
) -> dict[str, Interval]:
    """Recall@100 of held-out installs, and of three baselines on the same installs.

    past_installs: rows of the app table installed in training, however often.
    """
    app, position = positives.app, positives.app - 1
    query = bundle.query(request=positives.request, history=positives.history)["vector"].numpy()
    found, _ = bundle.index.search(query, K)
    popularity = baselines.Popularity.of(past_installs, len(bundle.apps))
    columns = Columns.of(bundle.transform, features.APP)
    category = bundle.apps.codes[1:, columns.first("category")]
    content = baselines.content_vectors(bundle.catalogue, CONTENT_DIM, seed)
    like = exact_search(content, baselines.profiles(content, positives.history), K)
    hits = {
        "system": (found == position[:, None]).any(axis=1),
        "popular": popularity.hits(app, K),
        "popular in categories": baselines.category_hits(
            popularity, category, positives.history, app, K
        ),
        "content neighbours": (like == position[:, None]).any(axis=1),
    }
    masks = {
        "": np.ones(len(app), dtype=bool),
        " of tail apps": slices.tail_apps[position],
        " of new apps": slices.new_apps[position],
        " of new users": positives.user >= slices.first_new_user,
    }
    result: dict[str, Interval] = {}
    for where, mask in masks.items():
        if not mask.any():
            continue
        metrics: dict[str, WeightedMetric] = {
            f"recall@100{where}: {name}": mean_of(hit[mask].astype(float))
            for name, hit in hits.items()
        }
        differences = {
            f"recall@100{where}: system - {name}": difference(
                f"recall@100{where}: system", f"recall@100{where}: {name}"
            )
            for name in list(hits)[1:]
        }
        result |= intervals(metrics, positives.user[mask], seed, differences)
        n = float(mask.sum())
        result[f"installs{where or ' held out'}"] = Interval(n, n, n)
    return result


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


def popularity_scores(bundle: Bundle, slates: Slates, installs: NDArray[np.int64]) -> NDArray[Any]:
    """Past installs of every shown app, `[n, k]`."""
    counts: NDArray[Any] = np.concatenate([[0], installs])[slates.app].astype(np.float64)
    return counts


def sample(n: int, most: int, seed: int) -> NDArray[np.int64]:
    """At most `most` of n rows, chosen at random, in order."""
    return np.sort(np.random.default_rng(seed).permutation(n)[:most])


def catalogue_slices(
    catalogue: pa.Table, shown: NDArray[np.int64], first_day: int, first_new_user: int
) -> Slices:
    """shown: how often each app was shown in training, `[apps]`."""
    order = np.argsort(-shown, kind="stable")
    tail = np.ones(len(shown), dtype=bool)
    tail[order[:MOST_SHOWN]] = False
    return Slices(tail, catalogue["release_day"].to_numpy() >= first_day, first_new_user)
