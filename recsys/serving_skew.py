"""The same impressions as training and as serving see them, and what differences cost the ranker.

Enters: a bundle, a day's spans, and its serving log or the feature store of its morning.  Leaves: a
report of every feature that the two sides disagree on, ranked by what that does to the ranker.

Training rows are as of the moment of their request, the store is as of the morning: what users did
in between is real skew, and the report says what it is worth.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mlplatform.data.files.spans import read_parquet, read_span
from mlplatform.data.skew.compare import SkewReport, compare_by_key
from mlplatform.evaluation.skew_cost import SkewCost, rank_by_cost
from recsys import features
from recsys.columns import Columns
from recsys.evaluation import sample
from recsys.online.bundle import Bundle
from recsys.online.feature_store import FeatureStore
from recsys.serving_log import KEYS, Visits, requests_of

_PLACED = ("position", "propensity", "score")


def measure_skew(
    bundle: Bundle, trained: pa.Table, served: pa.Table, seed: int
) -> tuple[SkewReport, SkewCost]:
    """Compare impressions as `trained_rows` and `served_rows` or a serving log give them."""
    report = compare(trained, served)
    cost = rank_by_cost(
        report,
        trained,
        served,
        scorer(bundle),
        trained[features.LABEL.name].to_numpy(),
        group=trained["user_id"].to_numpy(),
        seed=seed,
    )
    return report, cost


def compare(trained: pa.Table, served: pa.Table) -> SkewReport:
    """Impressions of both sides, each with its request's columns, by request and app."""
    return compare_by_key(trained, served, KEYS, ignore=sorted({*features.NOT_SERVED} - {*KEYS}))


def compare_shown_by_chance(impressions: pa.Table, log: Path) -> SkewReport:
    """The apps' features as trained on and as logged, where chance alone chose the app.

    What an app is served with decides whether it is shown: one that lost what speaks for it is not,
    and the log hides the fault.  The places of exploration are free of that.
    """
    logged = read_parquet(log / "impressions.parquet")
    explored = logged.filter(logged["score"].is_null()).drop_columns([*_PLACED])
    return compare_by_key(impressions.select(explored.column_names), explored, KEYS)


def trained_rows(root: Path, day: int, requests: int, seed: int) -> pa.Table:
    """Some requests of a day, chosen at random, and all they were shown: one row an impression.

    The request's features as training has them, the app's, and the label.
    """
    every = read_span(root, "requests", [day])
    chosen = every.take(pa.array(sample(len(every), requests, seed)))
    return join_requests(chosen, read_span(root, "impressions", [day]))


def join_requests(requests: pa.Table, impressions: pa.Table) -> pa.Table:
    """The impressions of these requests, each with its request's columns."""
    ids = requests["request_id"].combine_chunks()
    at = pc.index_in(impressions["request_id"], ids)
    shown = impressions.filter(at.is_valid())
    columns = {name: requests[name].take(at.drop_null()) for name in requests.column_names}
    return pa.table(columns | {name: shown[name] for name in shown.column_names})


def logged_rows(log: Path) -> pa.Table:
    """The impressions of a serving log, each with its request's columns."""
    return join_requests(
        read_parquet(log / "requests.parquet").drop_columns(["bundle_version"]),
        read_parquet(log / "impressions.parquet").drop_columns([*_PLACED]),
    )


def served_otherwise(
    report: SkewReport, by_chance: SkewReport, most: float, most_moving: float
) -> list[str]:
    """A line for each feature that is served otherwise in a larger share of rows than it may.

    by_chance: of `compare_shown_by_chance`.
    most_moving: of what users do, which moves since the morning.
    """
    why: dict[str, str] = {}
    for rows, compared in (("the rows", report), ("the rows shown by chance", by_chance)):
        for one in compared.features:
            share = one.differing / max(compared.counts.matched, 1)
            if share > (most_moving if one.name in features.MOVING else most):
                line = f"{one.name}: served otherwise in {share:.1%} of {rows}"
                why.setdefault(one.name, line)
    return [*why.values()]


def served_rows(trained: pa.Table, store: FeatureStore) -> pa.Table:
    """The same impressions, with what the server reads of their users and apps."""
    ids, first, request = np.unique(
        trained["request_id"].to_numpy(), return_index=True, return_inverse=True
    )
    one = trained.select(["user_id", "hour", "network"]).take(pa.array(first))
    visits = Visits(
        ids, one["user_id"].to_numpy(), one["hour"].to_numpy(), one["network"].to_pylist()
    )
    served = requests_of(store, visits).drop_columns([features.OWNED.name])
    served = served.take(pa.array(request))
    columns = {name: trained[name] for name in KEYS}
    columns |= {name: served[name] for name in served.column_names}
    return pa.table(columns | store.app_columns(trained["app_id"].to_numpy()))


def scorer(bundle: Bundle) -> Callable[[pa.Table], NDArray[np.float64]]:
    """The ranker's probability of an install, for rows as `trained_rows` gives them."""
    request = Columns.of(bundle.transform, features.REQUEST)
    impression = Columns.of(bundle.transform, features.IMPRESSION)

    def score(rows: pa.Table) -> NDArray[Any]:
        logits: NDArray[np.float32] = bundle.rank(
            request=request.matrix(bundle.transform, rows),
            history=bundle.apps.rows_of_lists(rows, features.HISTORY),
            app=bundle.apps.rows_of(rows["app_id"].to_numpy())[:, None],
            impression=impression.matrix(bundle.transform, rows)[:, None],
        )["logit"].numpy()[:, 0]
        return 1 / (1 + np.exp(-logits.astype(np.float64)))

    return score
