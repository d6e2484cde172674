"""Offline evaluation on a later day: what every recommender says of the same impressions, installs.

Enters: loaded bundles, the later day's spans.  Leaves: rows of predictions, Parquet, that the
platform evaluates by slices, and the evaluations by name.  A later day, the whole catalogue, and
the same rows for all: nothing is sampled from what there is to choose among.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeAlias, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mlplatform.data.files.spans import read_span, write_parquet
from mlplatform.evaluation.figures import Evaluation, Slice
from mlplatform.evaluation.list_metrics import NDCG, UserAUC
from mlplatform.evaluation.lists import describe_lists
from mlplatform.evaluation.metrics import Interval, intervals, mean_of
from mlplatform.evaluation.page import render
from mlplatform.evaluation.rank_metrics import MRR, RankNDCG, Recall
from mlplatform.evaluation.row_metrics import (
    AUC,
    Calibration,
    LogLoss,
    MeanLabel,
    MeanPrediction,
)
from mlplatform.evaluation.task import Model, Task
from recsys import baselines, features
from recsys.apps import UNKNOWN
from recsys.baselines import Popularity
from recsys.columns import Columns
from recsys.models.index import exact_search, recall
from recsys.online.bundle import Bundle
from recsys.online.feature_store import FeatureStore
from recsys.online.recommender import Recommender
from recsys.serving_log import SLATE
from recsys.training_data import Positives, Slates

Lists = NDArray[np.integer[Any]]
Rows = TypeVar("Rows")
Others: TypeAlias = Callable[[Rows], Mapping[str, NDArray[Any]]]  # rows -> what each says of them
# The bundle that is judged, and the one in service: the gate knows the latter by this name.
SYSTEM, BASELINE, POPULAR = "system", "baseline", "popular"
RANKING, RETRIEVAL, INDEX, LISTS = "ranking", "retrieval", "index", "lists"
K = 100  # of retrieval
CONTENT_DIM = 64
MOST_SHOWN = 1000
NEW_DAYS = 7
WHO, WHAT = ("country", "device_tier", "age_band"), ("category",)
SLICES = tuple((name,) for name in (*WHO, *WHAT, "new_user", "new_app"))
SEARCHED = (*WHO, *WHAT, "network", "new_user", "new_app")
_SCORED_AT_ONCE = 1024


def nobody(rows: Any) -> Mapping[str, NDArray[Any]]:
    return {}


@dataclass(frozen=True)
class Judged:
    """How many rows of the day to judge by, at most, chosen at random."""

    requests: int
    installs: int
    queries: int
    seed: int


def judge_ranking(
    bundles: Mapping[str, Bundle],
    popularity: NDArray[Any],
    root: Path,
    day: int,
    wanted: Judged,
    output: Path,
    others: Others[Slates] = nobody,
) -> Evaluation:
    """What the rankers make of a day's impressions.

    Each bundle reads the rows through its own transform.  Apps that one of them does not know are
    left out.

    Args:
        bundles: `SYSTEM`, which is judged, and perhaps `BASELINE`.
        popularity: of its apps, in their order.
        root: of the spans.
        output: gets `predictions/`, and a page of the evaluation.
        others: who else is judged; their scores need not be probabilities.
    """
    slates = {
        name: Slates.read(root, [day], one.transform, one.apps) for name, one in bundles.items()
    }
    chosen = sample(len(slates[SYSTEM]), wanted.requests, wanted.seed)
    slates = {name: one.take(chosen) for name, one in slates.items()}
    known = np.logical_and.reduce([one.label >= 0 for one in slates.values()])
    scores = {
        name: probabilities(score_slates(one.rank, slates[name], slates[name].impression))
        for name, one in bundles.items()
    }
    gives = dict.fromkeys(scores, "probability")
    scores[POPULAR] = np.concatenate([[0], popularity])[slates[SYSTEM].app]
    scores |= others(slates[SYSTEM])
    requests = read_span(root, "requests", [day]).take(pa.array(chosen))
    rows = impressions_table(bundles[SYSTEM], day, slates[SYSTEM], known, requests, scores)
    task = ranking_task(dict.fromkeys(scores, "score") | gives, wanted)
    return evaluate_rows(RANKING, rows, task, output)


def judge_retrieval(
    bundles: Mapping[str, Bundle],
    popularity: NDArray[Any],
    installs: pa.Table,
    day: int,
    wanted: Judged,
    output: Path,
    others: Others[Positives] = nobody,
    name: str = RETRIEVAL,
) -> Evaluation:
    """At which place each list of the whole catalogue has what users went on to install.

    Args:
        installs: some rows of the dataset `positives`, of apps that every bundle knows.
        others: who else is judged, by the ranks of the installs in their lists, 0 beyond K.
    """
    positives = {
        who: Positives.of(installs, one.transform, one.apps) for who, one in bundles.items()
    }
    ranks: dict[str, Lists] = {}
    for who, one in bundles.items():
        found, _ = one.index.search(query_vectors(one, positives[who]), K)
        ranks[who] = ranks_in(found, positives[who].app)
    ranks[POPULAR] = Popularity.of_counts(popularity).ranks(positives[SYSTEM].app, K)
    ranks |= others(positives[SYSTEM])
    rows = installs_table(bundles[SYSTEM], day, installs, ranks)
    return evaluate_rows(name, rows, retrieval_task(ranks, wanted), output)


@dataclass(frozen=True)
class Neighbours:
    """Recommenders that learn nothing: what is popular where a user installs, what is alike.

    content: what the listing says of every app, `[apps, dim]`.
    """

    bundle: Bundle
    popularity: Popularity
    content: NDArray[np.float32]

    @classmethod
    def of(cls, bundle: Bundle, popularity: NDArray[Any], seed: int) -> Self:
        content = baselines.content_vectors(bundle.catalogue, CONTENT_DIM, seed)
        return cls(bundle, Popularity.of_counts(popularity), content)

    def ranks(self, installs: Positives) -> dict[str, NDArray[np.int64]]:
        column = Columns.of(self.bundle.transform, features.APP).first("category")
        category = self.bundle.apps.codes[1:, column]
        profiles = baselines.profiles(self.content, installs.history)
        return {
            "popular in categories": baselines.category_ranks(
                self.popularity, category, installs.history, installs.app, K
            ),
            "content neighbours": ranks_in(exact_search(self.content, profiles, K), installs.app),
        }


def installs_known(bundles: Iterable[Bundle], root: Path, day: int) -> pa.Table:
    """The day's rows of `positives` whose app every bundle knows."""
    installs = read_span(root, "positives", [day])
    for one in bundles:
        known = one.apps.rows_of(installs["app_id"].to_numpy()) != UNKNOWN
        installs = installs.filter(pa.array(known))
    return installs


def ranking_task(models: Mapping[str, Any], wanted: Judged) -> Task:
    """models: what each column of an impressions' table gives, the judged one's first."""
    return Task(
        user="user_id",
        models={name: Model(name, gives) for name, gives in models.items()},
        metrics=(
            AUC(), UserAUC(), NDCG(SLATE), LogLoss(), Calibration(),
            MeanLabel(), MeanPrediction(),
        ),
        label=features.LABEL.name,
        query="request_id",
        slices=SLICES,
        search=SEARCHED,
        seed=wanted.seed,
    )  # fmt: skip


def retrieval_task(models: Mapping[str, Any], wanted: Judged) -> Task:
    """models: the names of the columns of ranks in an installs' table."""
    return Task(
        user="user_id",
        models={name: Model(name, "rank") for name in models},
        metrics=(Recall(K), Recall(SLATE), RankNDCG(K), MRR()),
        slices=SLICES,
        seed=wanted.seed,
    )


def evaluate_rows(name: str, rows: pa.Table, task: Task, output: Path) -> Evaluation:
    """-> the evaluation of rows; `predictions/NAME.parquet`, and NAME.html, its page."""
    from mlplatform.evaluation.evaluate import evaluate  # imports Beam

    path = output / "predictions" / f"{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_parquet(rows, path)
    evaluation = evaluate([path], task)
    (output / f"{name}.html").write_text(render(evaluation, name), encoding="utf-8")
    return evaluation


def impressions_table(
    bundle: Bundle,
    day: int,
    slates: Slates,
    known: NDArray[np.bool_],
    requests: pa.Table,
    scores: Mapping[str, NDArray[np.floating[Any]]],
) -> pa.Table:
    """A row for every shown app: who saw it, what it is, the label, what each ranker said.

    Args:
        known: which places to take, `[n, k]`.
        requests: of the slates, in their order, `[n]`.
        scores: `[n, k]` each.
    """
    row, _ = np.nonzero(known)
    ids = {"user_id": slates.user[row], "request_id": slates.request_id[row]}
    return pa.table(
        ids
        | _facts(bundle, day, requests.take(pa.array(row)), slates.app[known])
        | {features.LABEL.name: slates.label[known]}
        | {name: score[known].astype(np.float64) for name, score in scores.items()}
    )


def installs_table(
    bundle: Bundle, day: int, installs: pa.Table, ranks: Mapping[str, Lists]
) -> pa.Table:
    """A row for every install: who, what it is, the rank at which each recommender had it."""
    app = bundle.apps.rows_of(installs["app_id"].to_numpy())
    return pa.table(
        {"user_id": installs["user_id"]} | _facts(bundle, day, installs, app) | dict(ranks)
    )


def judge_index(bundle: Bundle, installs: pa.Table, wanted: Judged) -> Evaluation:
    """Recall@100 of the index against the exact search, of the queries before some installs."""
    some = installs.slice(0, wanted.queries)
    queries = query_vectors(bundle, Positives.of(some, bundle.transform, bundle.apps))
    found, _ = bundle.index.search(queries, K)
    per_query = recall(found, exact_search(bundle.vectors, queries, K))
    user = some["user_id"].to_numpy()
    figures = intervals({f"recall@{K}": mean_of(per_query)}, user, wanted.seed)
    return Evaluation((SYSTEM,), Slice((), len(some), len(np.unique(user)), figures), {})


def judge_lists(
    recommender: Recommender, requests: pa.Table, installs: pa.Table, seed: int
) -> Evaluation:
    """What the lists for some requests are like as a whole, and how many apps were ranked for them.

    A figure of all lists together has no interval: see `describe_lists`.

    Args:
        requests: rows as logged; the log keeps no `owned`, for which the history is taken.
        installs: what users went for, to compare its popularity with that of the lists.
    """
    apps = recommender.bundle.apps
    asked = requests.append_column(features.OWNED.name, requests[features.HISTORY.name])
    answer = recommender.recommend(asked, SLATE)
    candidates = (answer.candidates >= 0).sum(axis=1)
    user = requests["user_id"].to_numpy()
    figures = intervals({"candidates per request": mean_of(candidates)}, user, seed)
    popularity = recent_installs(recommender.store, recommender.bundle)
    wanted = apps.rows_of(installs["app_id"].to_numpy()) - 1
    described = describe_lists(apps.rows_of(answer.app_ids) - 1, popularity, wanted)
    for name, value in (
        ("coverage of the catalogue", described.coverage),
        ("inequality of apps in lists", described.gini),
        ("percentile of popularity, lists", described.popularity),
        ("percentile of popularity, installs", described.wanted_popularity),
    ):
        figures[name] = Interval(value, value, value)
    return Evaluation((SYSTEM,), Slice((), len(requests), len(np.unique(user)), figures), {})


def recent_installs(store: FeatureStore, bundle: Bundle) -> NDArray[np.int64]:
    """Of every app of a bundle, as of the morning: what is popular, `[apps]`."""
    return np.asarray(store.app_columns(bundle.apps.ids)["recent_installs"])


def query_vectors(bundle: Bundle, installs: Positives) -> NDArray[np.float32]:
    """The query tower's vectors just before each install, `[installs, dim]`."""
    vectors: NDArray[np.float32] = bundle.query(request=installs.request, history=installs.history)[
        "vector"
    ].numpy()
    return vectors


def ranks_in(lists: Lists, app: NDArray[np.int32]) -> NDArray[np.int64]:
    """The place of each app in its list, from 1; 0 if it is not there.

    Args:
        lists: positions in the catalogue, `[n, k]`.
        app: rows of the app table, `[n]`.
    """
    hit = lists == (app - 1)[:, None]
    return np.where(hit.any(axis=1), hit.argmax(axis=1) + 1, 0)


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


def probabilities(logits: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    p: NDArray[np.float64] = 1 / (1 + np.exp(-logits.astype(np.float64)))
    return p


def sample(n: int, most: int, seed: int) -> NDArray[np.int64]:
    """At most `most` of n rows, chosen at random, in order."""
    return np.sort(np.random.default_rng(seed).permutation(n)[:most])


def tail_of(shown: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which apps are not among the most shown; `shown`: how often each one was, `[apps]`."""
    tail = np.ones(len(shown), dtype=bool)
    tail[np.argsort(-shown, kind="stable")[:MOST_SHOWN]] = False
    return tail


def _facts(
    bundle: Bundle, day: int, requests: pa.Table, app: NDArray[np.int32]
) -> dict[str, pa.Array]:
    """What rows are sliced by, `[n]` each: who asks, and which app it is about."""
    listed = bundle.catalogue.select([*WHAT, "release_day"]).take(pa.array(app - 1))
    account_age = requests["account_age_days"].to_numpy()
    app_age = day - listed["release_day"].to_numpy()
    columns = {name: requests[name] for name in (*WHO, "network")}
    columns |= {name: listed[name] for name in WHAT}
    for name, age in (("new_user", account_age), ("new_app", app_age)):
        columns[name] = pa.array(np.where(age <= NEW_DAYS, "yes", "no"))
    return columns
