"""The recommender: retrieve, filter, rank, re-rank.  One path for one request and for many.

Enters: raw request features and the bundle.  Leaves: for each request, k app ids with scores.
Candidates come from two sources: the index, and the newest apps, which no log can speak for yet.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mlplatform.errors import InvalidArgument
from mlplatform.transform.transform import ARROW_TYPES
from recsys import features
from recsys.columns import Columns
from recsys.online.bundle import Bundle
from recsys.online.feature_store import FeatureStore

Int = NDArray[np.int64]
CANDIDATES = 200
FRESH = 20  # of the candidates, how many come from the newest apps
FRESH_DAYS = 7
OVERFETCH = 40  # beyond the candidates, to make up for those that filters take
BLOCK = 256  # requests ranked at once

REQUEST_SCHEMA = pa.schema(
    [
        (f.name, ARROW_TYPES[f.dtype] if f.width == 1 else pa.list_(ARROW_TYPES[f.dtype]))
        for f in (*features.REQUEST, features.HISTORY, features.OWNED)
    ]
)


@dataclass(frozen=True)
class Recommendations:
    """Arrays `[requests, k]`; where fewer than k apps are left, id -1."""

    app_ids: Int
    scores: NDArray[np.float32]  # P(install) at the top of the list
    retrieval_scores: NDArray[np.float32]
    candidates: Int  # [requests, CANDIDATES], what was ranked, -1 for none


class Recommender:
    """Answers requests from one bundle and one feature store."""

    def __init__(self, bundle: Bundle, store: FeatureStore) -> None:
        self.bundle = bundle
        self.store = store
        self._request = Columns.of(bundle.transform, features.REQUEST)
        impression = Columns.of(bundle.transform, features.IMPRESSION)
        served = pa.table(
            {**store.app_columns(bundle.apps.ids), "position": np.ones(len(bundle.apps), np.int64)}
        )
        codes = impression.matrix(bundle.transform, served)
        self._impression_codes = np.concatenate([np.zeros_like(codes[:1]), codes])
        age = np.asarray(served["app_age_days"])
        self._fresh = np.flatnonzero((age >= 0) & (age <= FRESH_DAYS))
        self._fresh_vectors = np.ascontiguousarray(bundle.vectors[self._fresh])
        self._min_os = bundle.catalogue["min_os"].to_numpy()

    def table(self, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
        """Requests as raw feature rows -> the table that `recommend` takes."""
        return pa.Table.from_pylist(list(rows), schema=REQUEST_SCHEMA)

    def recommend(
        self, requests: pa.Table, k: int, advance: Callable[[int], None] = lambda requests: None
    ) -> Recommendations:
        """The best k apps of each request.

        Args:
            requests: as `REQUEST_SCHEMA`, one row a request.
            k: at most `CANDIDATES`.
            advance: told now and then how many more requests are answered.
        """
        if not 1 <= k <= CANDIDATES:
            raise InvalidArgument(f"k must be from 1 to {CANDIDATES}, got {k}")
        parts = []
        for at in range(0, len(requests), BLOCK):
            block = requests.slice(at, BLOCK)
            parts.append(self._recommend_block(block, k))
            advance(len(block))
        return Recommendations(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    def sources(self, app_ids: Int) -> list[str]:
        """Which source can give each app: 'fresh' for the newest, else 'index'."""
        fresh = np.isin(app_ids, self.bundle.apps.ids[self._fresh])
        return ["fresh" if is_fresh else "index" for is_fresh in fresh]

    def _recommend_block(self, requests: pa.Table, k: int) -> tuple[NDArray[Any], ...]:
        codes = self._request.matrix(self.bundle.transform, requests)
        history = self.bundle.apps.rows_of_lists(requests, features.HISTORY)
        query = self.bundle.query(request=codes, history=history)["vector"].numpy()
        at, retrieval = self._retrieve(query)
        owned = self.bundle.apps.rows_of_lists(requests, features.OWNED)
        keep = self._admissible(at, owned, requests["os_version"].to_numpy())
        at, retrieval = _first(np.where(keep, at, -1), retrieval, CANDIDATES)
        rows = (at + 1).astype(np.int32)  # -1, no candidate, becomes row 0
        logits = self.bundle.rank(
            request=codes, history=history, app=rows, impression=self._impression_codes[rows]
        )["logit"].numpy()
        logits = np.where(at >= 0, logits, -np.inf)
        best = np.argsort(-logits, axis=1, kind="stable")[:, :k]
        chosen = np.take_along_axis(at, best, axis=1)
        probability = 1 / (1 + np.exp(-np.take_along_axis(logits, best, axis=1)))
        return (
            self._ids(chosen),
            probability.astype(np.float32),
            np.take_along_axis(retrieval, best, axis=1),
            self._ids(at),
        )

    def _retrieve(self, query: NDArray[np.float32]) -> tuple[Int, NDArray[np.float32]]:
        """Positions and scores: the newest apps first, then the index's; none twice."""
        n_fresh = min(FRESH, len(self._fresh))
        indexed = min(CANDIDATES - n_fresh + OVERFETCH, len(self.bundle.apps))
        at, scores = self.bundle.index.search(query, indexed)
        if not n_fresh:
            return at, scores
        fresh_scores = query @ self._fresh_vectors.T
        best = np.argpartition(-fresh_scores, n_fresh - 1, axis=1)[:, :n_fresh]
        fresh_at = self._fresh[best]
        repeated = (at[:, :, None] == fresh_at[:, None, :]).any(axis=2)
        return (
            np.concatenate([fresh_at, np.where(repeated, -1, at)], axis=1),
            np.concatenate([np.take_along_axis(fresh_scores, best, axis=1), scores], axis=1),
        )

    def _admissible(
        self, at: Int, owned: NDArray[np.int32], os_version: NDArray[Any]
    ) -> NDArray[np.bool_]:
        """Neither owned nor too new for the device."""
        is_owned = (at[:, :, None] + 1 == owned[:, None, :]).any(axis=2)
        # A device that does not say its version (NaN compares false) is offered everything.
        too_new = self._min_os[np.maximum(at, 0)] > np.asarray(os_version, dtype=float)[:, None]
        return (at >= 0) & ~is_owned & ~too_new

    def _ids(self, at: Int) -> Int:
        ids: Int = np.where(at >= 0, self.bundle.apps.ids[np.maximum(at, 0)], -1)
        return ids


def _first(at: Int, scores: NDArray[np.float32], n: int) -> tuple[Int, NDArray[np.float32]]:
    """The first n positions that are not -1, in their order, padded with -1."""
    order = np.argsort(at < 0, axis=1, kind="stable")[:, :n]
    return np.take_along_axis(at, order, axis=1), np.take_along_axis(scores, order, axis=1)
