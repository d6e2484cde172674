"""The recommender: retrieve, filter, rank, re-rank.  One path for one request and for many.

Enters: raw request features, or requests that are coded already, and the bundle.  Leaves: for each
request, k apps with scores.  Candidates come from two sources: the index, and the newest apps,
which no log can speak for yet; if the user can have too few of them, from a third, the most
popular apps.  What is said to a request does not depend on which others are asked with it.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from math import ceil
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.special import expit

from mlplatform.errors import InvalidArgument
from mlplatform.transform.transform import ARROW_TYPES
from recsys import features
from recsys.columns import Columns
from recsys.models.serving.ranker import Impressions
from recsys.online import candidates
from recsys.online.bundle import Bundle
from recsys.online.feature_store import FeatureStore
from recsys.online.requests import OWNED_LENGTH, Requests

Int = NDArray[np.int64]
Rows = NDArray[np.int32]
Float = NDArray[np.float32]
CANDIDATES = 200
FRESH = 20  # of the candidates, how many come from the newest apps
FRESH_DAYS = 7
OVERFETCH = 40  # beyond the candidates, to make up for those that filters take
BLOCK = 256  # requests ranked at once
# Of ten apps in a list.  A ranker gives apps that are alike scores that are alike; a list of one
# developer's apps, or of one kind of app, is one chance and not ten.  At full scale the first limit
# costs no installs, and the second 1.5 %; 7 would cost 2.6 %, 5 would cost 5.8 %.
MOST_PER_DEVELOPER, MOST_PER_CATEGORY = 2, 8
STAGES = ("query", "retrieve", "filter", "rank", "rerank")

REQUEST_SCHEMA = pa.schema(
    [
        (f.name, ARROW_TYPES[f.dtype] if f.width == 1 else pa.list_(ARROW_TYPES[f.dtype]))
        for f in (*features.REQUEST, features.HISTORY, features.OWNED)
    ]
)


@dataclass(frozen=True)
class Recommendations:
    """Arrays `[requests, k]`; where fewer than k apps are left, id -1, row and scores 0.

    A list is in the order of `scores`, and one that is not ranked in that of `retrieval_scores`.
    """

    app_ids: Int
    scores: Float  # P(install) at the top of the list; NaN if not ranked
    retrieval_scores: Float  # NaN for an app that is there because it is popular
    candidates: Int  # [requests, CANDIDATES], what was to be ranked, -1 for none
    rows: Rows  # of the app table
    ranked: NDArray[np.bool_]  # [requests]


class Recommender:
    """Answers requests from one bundle and one feature store.

    spent_ns: of the last call, by the names of `STAGES`.
    """

    def __init__(self, bundle: Bundle, store: FeatureStore) -> None:
        self.bundle = bundle
        self.store = store
        self.spent_ns = dict.fromkeys(STAGES, 0)
        self._request = Columns.of(bundle.transform, features.REQUEST)
        self._cardinality = np.array(self._request.cardinality)
        self._app_ids = np.concatenate([[-1], bundle.apps.ids])
        self._app_codes = np.asarray(bundle.apps.codes)  # not as a memmap, which is slow to index
        served = store.app_columns(bundle.apps.ids)
        age, installs = (
            served[name].astype(np.int64) for name in ("app_age_days", "recent_installs")
        )
        fresh = (age >= 0) & (age <= FRESH_DAYS)
        self._fresh = _rows(np.flatnonzero(fresh))
        self._fresh_blocks = candidates.in_blocks(bundle.vectors[fresh])
        self._popular = _rows(np.argsort(-installs, kind="stable"))
        catalogue = bundle.catalogue
        self._min_os = _by_row(catalogue["min_os"].to_numpy().astype(np.float32))
        developer = catalogue["developer_id"].combine_chunks().dictionary_encode().indices
        category = self._app_codes[1:, Columns.of(bundle.transform, features.APP).first("category")]
        self._groups = _by_row(np.stack([developer.to_numpy(), category], axis=1))
        self._vectors_of, self._logits_of = self._models(served)

    def _models(self, served: Mapping[str, NDArray[Any]]) -> tuple[Any, Any]:
        """What gives vectors of (codes, history), and logits of (codes, history, rows)."""
        bundle, app_codes = self.bundle, self._app_codes
        columns = Columns.of(bundle.transform, features.IMPRESSION)
        top = np.ones(len(bundle.apps), np.int64)
        codes = columns.matrix(bundle.transform, pa.table({**served, "position": top}))
        impressions = Impressions.of(_by_row(codes))

        def vectors(codes: Rows, history: Rows) -> Float:
            if bundle.served_query is not None:
                return bundle.served_query(codes, history, app_codes)
            given: Float = bundle.query(request=codes, history=history)["vector"].numpy()
            return given

        def logits(codes: Rows, history: Rows, rows: Rows) -> Float:
            impression = impressions.codes[impressions.state_of[rows]]
            given: Float = bundle.rank(
                request=codes, history=history, app=rows, impression=impression
            )["logit"].numpy()
            return given

        rank = bundle.served_rank
        return vectors, logits if rank is None else rank.on(app_codes, impressions)

    def table(self, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
        """Requests as raw feature rows -> the table that `recommend` takes."""
        return pa.Table.from_pylist(list(rows), schema=REQUEST_SCHEMA)

    def requests(self, table: pa.Table) -> Requests:
        """Raw requests, as `REQUEST_SCHEMA`, coded."""
        apps = self.bundle.apps
        return Requests(
            self._request.matrix(self.bundle.transform, table),
            apps.rows_of_lists(table, features.HISTORY),
            apps.rows_of_lists(table, features.OWNED),
            table["os_version"].to_numpy().astype(np.float32),
        )

    def recommend(
        self,
        requests: pa.Table | Requests,
        k: int,
        advance: Callable[[int], None] = lambda requests: None,
        *,
        ranker: bool = True,
    ) -> Recommendations:
        """The best k apps of each request.

        A request is not ranked where the ranker says what is no number.

        Args:
            requests: as `REQUEST_SCHEMA`, one row a request, or coded.
            k: at most `CANDIDATES`.
            advance: told now and then how many more requests are answered.
            ranker: whether to ask it at all.

        Raises:
            InvalidArgument: k is out of range, or a code or a row is none of this bundle's.
        """
        _require_k(k)
        self.spent_ns = dict.fromkeys(STAGES, 0)
        if not len(requests):
            return self.popular(k, np.zeros(0, np.float32), np.zeros((0, OWNED_LENGTH), np.int32))
        parts = []
        for at in range(0, len(requests), BLOCK):
            if isinstance(requests, Requests):
                block = requests.slice(at, BLOCK)
                self._require_known(block)
            else:
                block = self.requests(requests.slice(at, BLOCK))
            parts.append(self._recommend(block, k, ranker))
            advance(len(block))
        return parts[0] if len(parts) == 1 else _joined(parts)

    def popular(self, k: int, os_version: Float, owned: Rows) -> Recommendations:
        """The apps most installed lately that each user may have; no model is asked.

        Args:
            k: at most `CANDIDATES`.
            os_version, owned: as in `Requests`.
        """
        _require_k(k)
        nothing = np.zeros((len(owned), 0), np.int32)
        return self._list(
            *self._choose(nothing, nothing.astype(np.float32), owned, os_version, CANDIDATES), k
        )

    def sources(self, app_ids: Int, retrieval_scores: Float | None = None) -> list[str]:
        """Which source gave each app: 'fresh' for the newest, 'popular', else 'index'.

        retrieval_scores: of the apps, by which those that were there for being popular are known.
        """
        fresh = np.isin(app_ids, self._app_ids[self._fresh])
        found = np.zeros(len(app_ids)) if retrieval_scores is None else retrieval_scores
        names: list[str] = np.select(
            [np.isnan(found), fresh], ["popular", "fresh"], "index"
        ).tolist()
        return names

    def _recommend(self, requests: Requests, k: int, ranker: bool) -> Recommendations:
        clock = _Clock(self.spent_ns)
        query = self._vectors_of(requests.codes, requests.history)
        clock.ends("query")
        sources, scores = self._retrieve(query)
        clock.ends("retrieve")
        rows, scores = self._choose(sources, scores, requests.owned, requests.os_version, k)
        clock.ends("filter")
        logits = self._logits_of(requests.codes, requests.history, rows) if ranker else None
        clock.ends("rank")
        listed = self._list(rows, scores, k, logits)
        clock.ends("rerank")
        return listed

    def _retrieve(self, query: Float) -> tuple[Rows, Float]:
        """Rows and scores: the newest apps first, then the index's."""
        n_fresh = min(FRESH, len(self._fresh))
        indexed = min(CANDIDATES - n_fresh + OVERFETCH, len(self.bundle.apps))
        at, scores = self.bundle.index.search(query, indexed)
        if not n_fresh:
            return _rows(at), scores
        fresh_at, fresh_scores = candidates.nearest(
            query, self._fresh_blocks, len(self._fresh), n_fresh
        )
        fresh = np.where(fresh_at < 0, 0, self._fresh[fresh_at])
        rows = np.concatenate([fresh, _rows(at)], axis=1)
        return rows, np.concatenate([fresh_scores, scores], axis=1)

    def _choose(
        self, sources: Rows, scores: Float, owned: Rows, os_version: Float, least: int
    ) -> tuple[Rows, Float]:
        rows, scores = candidates.choose(
            sources, scores, owned, os_version, self._min_os, self._popular, CANDIDATES, least
        )
        return rows, scores

    def _list(
        self, rows: Rows, retrieval: Float, k: int, logits: Float | None = None
    ) -> Recommendations:
        """The k best of the candidates, neither developer nor category beyond its share."""
        empty = rows == 0
        ranked = np.zeros(len(rows), bool)
        merit = retrieval
        if logits is not None:
            ranked = (np.isfinite(logits) | empty).all(axis=1)
            merit = np.where(ranked[:, None], logits, retrieval)
        most = np.array([ceil(n * k / 10) for n in (MOST_PER_DEVELOPER, MOST_PER_CATEGORY)])
        places = candidates.listed(rows, merit, self._groups, most, k)
        none = places < 0
        flat = np.where(none, 0, places + np.arange(0, rows.size, CANDIDATES)[:, None])
        chosen = np.where(none, 0, rows.take(flat))
        scores = expit(merit.take(flat))  # P(install), where merit is a logit
        scores[~ranked] = np.nan
        scores[none] = 0
        return Recommendations(
            self._app_ids[chosen],
            scores,
            np.where(none, 0, retrieval.take(flat)),
            self._app_ids[rows],
            chosen,
            ranked,
        )

    def _require_known(self, requests: Requests) -> None:
        """The compiled loops do not look: what is beyond a table would be read from elsewhere."""
        n = len(self._app_codes)
        if not (
            candidates.are_below(requests.codes, self._cardinality)
            and candidates.are_below(requests.history, np.array([n]))
            and candidates.are_below(requests.owned, np.array([n]))
        ):
            raise InvalidArgument(
                f"requests: expected codes below those of the transform and rows of apps from 0 to "
                f"{n - 1}, got others; encode them with the bundle that is to answer"
            )


class _Clock:
    """Adds up what was spent since the last look."""

    def __init__(self, spent_ns: dict[str, int]) -> None:
        self._spent_ns, self._last = spent_ns, time.perf_counter_ns()

    def ends(self, stage: str) -> None:
        now = time.perf_counter_ns()
        self._spent_ns[stage] += now - self._last
        self._last = now


def _require_k(k: int) -> None:
    if not 1 <= k <= CANDIDATES:
        raise InvalidArgument(f"k must be from 1 to {CANDIDATES}, got {k}")


def _rows(at: NDArray[Any]) -> Rows:
    """Positions in the catalogue -> rows of the app table; -1, no app, becomes row 0."""
    return (at + 1).astype(np.int32)


def _by_row(values: NDArray[Any]) -> NDArray[Any]:
    """What is known of every app, and nothing of row 0."""
    return np.concatenate([np.zeros_like(values[:1]), values])


def _joined(parts: Sequence[Recommendations]) -> Recommendations:
    names = [field.name for field in fields(Recommendations)]
    return Recommendations(*(np.concatenate([getattr(p, n) for p in parts]) for n in names))
