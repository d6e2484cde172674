"""The same impressions as training and as serving see them, and what differences cost the ranker.

Enters: a bundle, the feature store of a day's morning and that day's spans.  Leaves: a report of
every feature that the two sides disagree on, ranked by what the disagreement does to the ranker.

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

from mlplatform.data.files.spans import read_span
from mlplatform.data.skew.compare import SkewReport, compare_by_key
from mlplatform.evaluation.skew_cost import SkewCost, rank_by_cost
from recsys import features
from recsys.columns import Columns
from recsys.evaluation import sample
from recsys.online.bundle import Bundle
from recsys.online.feature_store import VISIT_FEATURES, FeatureStore
from recsys.online.recommender import REQUEST_SCHEMA

KEYS = ("request_id", "app_id")


def measure_skew(
    bundle: Bundle, store: FeatureStore, root: Path, day: int, requests: int, seed: int
) -> tuple[SkewReport, SkewCost]:
    """Compare some requests of a day, chosen at random, over all they were shown."""
    trained = trained_rows(root, day, requests, seed)
    served = served_rows(trained, store)
    report = compare_by_key(trained, served, KEYS, ignore=sorted({*features.NOT_SERVED} - {*KEYS}))
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


def trained_rows(root: Path, day: int, requests: int, seed: int) -> pa.Table:
    """One row an impression: the request's features as training has them, the app's, the label."""
    every = read_span(root, "requests", [day])
    chosen = every.take(pa.array(sample(len(every), requests, seed)))
    shown = read_span(root, "impressions", [day])
    shown = shown.filter(pc.is_in(shown["request_id"], chosen["request_id"].combine_chunks()))
    at = pc.index_in(shown["request_id"], chosen["request_id"].combine_chunks())
    columns = {name: chosen[name].take(at) for name in chosen.column_names}
    return pa.table(columns | {name: shown[name] for name in shown.column_names})


def served_rows(trained: pa.Table, store: FeatureStore) -> pa.Table:
    """The same impressions, with what the server reads of their users and apps."""
    _, first, request = np.unique(
        trained["request_id"].to_numpy(), return_index=True, return_inverse=True
    )
    visits = trained.select(["user_id", *VISIT_FEATURES]).take(pa.array(first)).to_pylist()
    profiles = store.profiles([visit.pop("user_id") for visit in visits])
    rows = [profile | visit for profile, visit in zip(profiles, visits, strict=True)]
    served = pa.Table.from_pylist(rows, schema=REQUEST_SCHEMA).drop_columns([features.OWNED.name])
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
