"""The serving log: who asked, what the server knew of them and of the apps, and what it showed.

Enters: visits and a recommender.  Leaves: two tables of features as served, `requests` and
`impressions`, with the keys by which they meet the training rows of the same moments, and what the
world has to be told: slates and propensities.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys import features
from recsys.online.exploration import explore
from recsys.online.feature_store import FeatureStore
from recsys.online.recommender import REQUEST_SCHEMA, Recommender

Int = NDArray[np.int64]
SLATE = 10
REQUEST_KEYS, KEYS = ("request_id",), ("request_id", "app_id")


@dataclass(frozen=True)
class Visits:
    """Arrays of one row a visit; `hour` since the start of day 0, `network` None if unknown."""

    request_id: Int
    user: Int
    hour: NDArray[np.float64]
    network: Sequence[str | None]


@dataclass(frozen=True)
class Served:
    """What was shown: `slates [visits, SLATE]` of ids, -1 for none, and the log of it.

    requests: request_id, the features of the request as served, bundle_version.
    impressions: request_id, app_id, position, propensity, score, the app's features as served.
    """

    slates: Int
    propensities: NDArray[np.float64]
    requests: pa.Table
    impressions: pa.Table


def requests_of(store: FeatureStore, visits: Visits) -> pa.Table:
    """The requests of known users as the recommender takes them, `REQUEST_SCHEMA`.

    Raises:
        NotFound: a user has never signed up.
    """
    rows = [
        profile | {"hour_of_day": int(hour % 24), "network": network}
        for profile, hour, network in zip(
            store.profiles(visits.user.tolist()), visits.hour, visits.network, strict=True
        )
    ]
    return pa.Table.from_pylist(rows, schema=REQUEST_SCHEMA)


def serve(
    recommender: Recommender,
    visits: Visits,
    version: int,
    exploration: float,
    seed: int,
    advance: Callable[[int], None] = lambda visits: None,
) -> Served:
    """Answer visits, with some exploration, and log it; `advance` is told how many are answered.

    Args:
        version: of the recommender's bundle.
        exploration: share of all places, see `explore`.
    """
    asked = requests_of(recommender.store, visits)
    answer = recommender.recommend(asked, SLATE, advance)
    slates, propensities = explore(answer, visits.request_id, exploration, seed)
    row, place = np.nonzero(slates >= 0)
    app = slates[row, place]
    # The ranker's opinion of the list; of an explored app the log has none.
    scores = np.where(slates == answer.app_ids, answer.scores, np.nan)[row, place]
    asked = asked.drop_columns([features.OWNED.name])
    return Served(
        slates,
        propensities,
        pa.table(
            {"request_id": visits.request_id}
            | {name: asked[name] for name in asked.column_names}
            | {"bundle_version": np.full(len(asked), version)}
        ),
        pa.table(
            {
                "request_id": visits.request_id[row],
                "app_id": app,
                "position": place + 1,
                "propensity": propensities[row, place],
                "score": pa.array(scores, from_pandas=True),
                **recommender.store.app_columns(app),
            }
        ),
    )
