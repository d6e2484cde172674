"""Answering: a batch of queries to answers, each by the version whose turn it is, logged first.

Enters: queries that wait, as the batcher takes them.  Leaves: for each an answer as a plain dict,
in the form of `contract.Answer`, or an error.  All of a batch is computed at once; an answer is
that of its query alone, whatever else is asked with it.

When the ranker would be late, fails, or says what is no number, the order is the index's; when that
fails too, it is popularity's.  The answer says so, and so does the log.
"""

import logging
import math
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlplatform.data.validation.serving_check import ServingCheck
from mlplatform.errors import NotFound, PlatformError
from mlplatform.transform.hashing import hash_numpy
from recsys import features
from recsys.online.costs import Costs
from recsys.online.encoder import Encoder
from recsys.online.exploration import explore
from recsys.online.feature_store import FeatureStore
from recsys.online.recommender import STAGES, Recommendations, Recommender

logger = logging.getLogger(__name__)

RANKED, RETRIEVAL, POPULAR = "ranked", "retrieval", "popular"  # the last two are fallbacks
SPENT = ("profile", "encode", *STAGES, "explore", "answer", "log")
SERVED_FEATURES = [f.name for f in (*features.REQUEST, features.HISTORY)]
CHECKED_ONE_IN = 20  # requests
_CHECKED_TOGETHER = 64  # a check costs a millisecond, of one request or of many
_KNOWN_APPS = 100_000  # whose title and category are kept at hand
_SHARES = 1 << 20
_WARM_UP = (1, 2, 8, 32)  # requests


@dataclass(frozen=True, slots=True)
class Asked:
    """A query as it waits.

    user_id: None where `profile` says what a user's would: raw feature values by name.
    deadline: by `time.monotonic`, seconds.
    """

    user_id: int | None
    profile: dict[str, Any] | None
    hour_of_day: int | None
    network: str | None
    k: int
    explain: bool
    deadline: float = math.inf


@dataclass(frozen=True, slots=True)
class Shown:
    """What a request was answered with, for the log.

    features: raw values as served, by name.
    scores: NaN where no ranker spoke.
    propensities: `[k]`, of each place of the slate.
    """

    request_id: int
    user_id: int | None
    features: dict[str, Any]
    slate: list[int]
    scores: list[float]
    propensities: NDArray[np.float64]
    version: int
    arm: str
    fallback: str | None


class Arm:
    """A version that serves, under the label that it has; once it is made, it is warm."""

    def __init__(self, label: str, version: int, recommender: Recommender) -> None:
        self.label, self.version, self.recommender = label, version, recommender
        bundle = recommender.bundle
        self.encoder = Encoder(bundle.transform, bundle.apps)
        self.check = ServingCheck(bundle.request_schema, features.SERVING, 1)
        self._to_check: list[dict[str, Any]] = []
        self._seen = 0
        self._titles, self._categories = bundle.catalogue["title"], bundle.catalogue["category"]
        self._known: dict[int, tuple[str, str]] = {}
        for n in _WARM_UP:  # compiles what later requests reuse
            recommender.recommend(self.encoder.encode([{}] * n), 1)

    def described(self, app_id: int) -> tuple[str, str]:
        """Title and category of an app of the catalogue."""
        known = self._known.get(app_id)
        if known is None:
            if len(self._known) >= _KNOWN_APPS:
                self._known.clear()
            at = int(self.recommender.bundle.apps.rows_of(np.array([app_id]))[0]) - 1
            known = self._titles[at].as_py(), self._categories[at].as_py()
            self._known[app_id] = known
        return known

    def sample(self, rows: Sequence[dict[str, Any]]) -> None:
        """Hold one request in `CHECKED_ONE_IN` to the schema, now or together with later ones."""
        first = -self._seen % CHECKED_ONE_IN
        self._seen += len(rows)
        self._to_check += rows[first::CHECKED_ONE_IN]
        if len(self._to_check) >= _CHECKED_TOGETHER:
            self.check_sampled()

    def check_sampled(self) -> None:
        """Check what is sampled and waits."""
        if self._to_check:
            table = self.recommender.table(self._to_check)
            self.check.observe(table.select(SERVED_FEATURES))
            self._to_check = []


class Answering:
    """Answers batches; of one thread.

    Attributes:
        arms: the first answers whom no other one does.
        spent_ns: of the last batch, by the names of `SPENT`.
        fallbacks: answers of the last batch, by the name of what their order is by.
    """

    def __init__(
        self,
        arms: Sequence[Arm],
        store: FeatureStore,
        *,
        canary_share: float = 0.0,
        exploration: float = 0.0,
        log: Callable[[Sequence[Shown]], object] = lambda shown: None,
        request_ids: Iterator[int] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            canary_share: of the users, 0 to 1, whom the second arm answers, if there is one.
            exploration: share of the places of lists, see `explore`.
            log: takes what was shown, before anyone is told; it raises nothing.
            request_ids: unique in the log; below 2^59.
        """
        self.arms = list(arms)
        self.spent_ns = dict.fromkeys(SPENT, 0)
        self.fallbacks = {RETRIEVAL: 0, POPULAR: 0}
        self._store = store
        self._canary_share, self._exploration = canary_share, exploration
        self._log = log
        self._request_ids = request_ids or unique_ids()
        self._clock = clock
        self._costs = Costs((RANKED, RETRIEVAL))

    def run(self, batch: Sequence[Asked]) -> list[dict[str, Any] | PlatformError]:
        """Answers in the order of the batch; NotFound for a user who has never signed up."""
        self.spent_ns = dict.fromkeys(SPENT, 0)
        self.fallbacks = {RETRIEVAL: 0, POPULAR: 0}
        mark = time.perf_counter_ns()
        answers: list[Any] = [None] * len(batch)
        rows = self._rows(batch, answers)
        mark = self._spent("profile", mark)
        shown: list[Shown] = []
        for (arm, k), places in self._groups(batch, answers).items():
            of_arm = self.arms[arm]
            asked, of_rows = [batch[at] for at in places], [rows[at] for at in places]
            for at, (answer, record) in zip(
                places, self._answer(of_arm, k, asked, of_rows), strict=True
            ):
                answers[at] = answer
                shown.append(record)
            of_arm.sample(of_rows)
        mark = time.perf_counter_ns()
        self._log(shown)
        self._spent("log", mark)
        return answers

    def _rows(self, batch: Sequence[Asked], answers: list[Any]) -> list[dict[str, Any]]:
        """Raw feature values of each; into `answers` an error for each user that is unknown."""
        users = [asked.user_id for asked in batch if asked.user_id is not None]
        stored = iter(self._store.profiles_raw(users) if users else ())
        rows: list[dict[str, Any]] = []
        for at, asked in enumerate(batch):
            row: dict[str, Any] = {}
            if asked.profile is not None:
                row = dict(asked.profile)
            elif (found := next(stored)) is not None:
                row = self._store.decode(found)
            else:
                answers[at] = NotFound(
                    f"user {asked.user_id} is unknown; ask with an inline profile instead of a "
                    "user id"
                )
            row["hour_of_day"], row["network"] = asked.hour_of_day, asked.network
            rows.append(row)
        return rows

    def _groups(
        self, batch: Sequence[Asked], answers: Sequence[Any]
    ) -> dict[tuple[int, int], list[int]]:
        """Who is answered together: those whose arm and k are the same."""
        arms = [0] * len(batch)
        if len(self.arms) > 1 and self._canary_share:
            # A user stays with an arm; who has no id meets another one each time.
            keys = np.array(
                [secrets.randbits(32) if a.user_id is None else a.user_id for a in batch]
            )
            share = hash_numpy(_SHARES, 0, keys) / _SHARES
            arms = (share < self._canary_share).astype(int).tolist()
        groups: dict[tuple[int, int], list[int]] = {}
        for at, (asked, arm) in enumerate(zip(batch, arms, strict=True)):
            if answers[at] is None:
                groups.setdefault((arm, asked.k), []).append(at)
        return groups

    def _answer(
        self, arm: Arm, k: int, asked: Sequence[Asked], rows: list[dict[str, Any]]
    ) -> Iterator[tuple[dict[str, Any], Shown]]:
        mark = time.perf_counter_ns()
        requests = arm.encoder.encode(rows)
        mark = self._spent("encode", mark)
        left_s = min(query.deadline for query in asked) - self._clock()
        found, level = self._recommend(arm.recommender, requests, k, left_s)
        mark = time.perf_counter_ns()
        ids = [next(self._request_ids) for _ in asked]
        slates, propensities = explore(
            found, np.array(ids), min(self._exploration, 1 / k), arm.version
        )
        mark = self._spent("explore", mark)
        explored = slates != found.app_ids
        scores = np.where(explored | ~found.ranked[:, None], np.nan, found.scores).tolist()
        levels = [level if level != RANKED or ranked else RETRIEVAL for ranked in found.ranked]
        why = (
            self._explanations(arm, found, slates, explored)
            if any(query.explain for query in asked)
            else None
        )
        for i, slate in enumerate(slates.tolist()):
            apps = []
            for place, app_id in enumerate(slate):
                if app_id < 0:
                    break
                title, category = arm.described(app_id)
                app = {"app_id": app_id, "title": title, "category": category}
                if (score := scores[i][place]) == score:
                    app["score"] = score
                if why is not None and asked[i].explain:
                    app["explanation"] = why[i][place]
                apps.append(app)
            answer: dict[str, Any] = {
                "request_id": str(ids[i]),
                "apps": apps,
                "bundle_version": arm.version,
                "arm": arm.label,
                "defaulted_features": [n for n in SERVED_FEATURES if rows[i].get(n) is None],
            }
            if levels[i] != RANKED:
                answer["fallback"] = levels[i]
                self.fallbacks[levels[i]] += 1
            yield answer, Shown(
                ids[i], asked[i].user_id, rows[i], slate[: len(apps)], scores[i][: len(apps)],
                propensities[i], arm.version, arm.label, answer.get("fallback"),
            )  # fmt: skip
        self._spent("answer", mark)

    def _recommend(
        self, recommender: Recommender, requests: Any, k: int, left_s: float
    ) -> tuple[Recommendations, str]:
        """The best list that there is time for and that does not fail, and what it is by."""
        for level in (RANKED, RETRIEVAL):
            if not self._costs.fits(level, len(requests), left_s):
                continue
            began = self._clock()
            try:
                found = recommender.recommend(requests, k, ranker=level == RANKED)
            except Exception:
                logger.exception("%s failed; the next best order is taken", level)
                left_s -= self._clock() - began
                continue
            self._costs.observe(level, len(requests), self._clock() - began)
            for stage, spent in recommender.spent_ns.items():
                self.spent_ns[stage] += spent
            return found, level
        return recommender.popular(k, requests.os_version, requests.owned), POPULAR

    def _explanations(
        self,
        arm: Arm,
        found: Recommendations,
        slates: NDArray[np.int64],
        explored: NDArray[np.bool_],
    ) -> list[list[dict[str, Any]]]:
        """Why each app of each slate is there."""
        ids = slates.ravel()
        columns = arm.recommender.store.app_columns(ids)
        retrieval = np.where(explored, 0, found.retrieval_scores).ravel()
        sources = arm.recommender.sources(ids, retrieval)
        return [
            [
                {
                    "source": sources[at],
                    "retrieval_score": None
                    if explored.flat[at] or np.isnan(retrieval[at])
                    else float(retrieval[at]),
                    "app_age_days": int(columns["app_age_days"][at]),
                    "recent_impressions": int(columns["recent_impressions"][at]),
                    "recent_installs": int(columns["recent_installs"][at]),
                    "explored": bool(explored.flat[at]),
                }
                for at in range(row * slates.shape[1], (row + 1) * slates.shape[1])
            ]
            for row in range(len(slates))
        ]

    def _spent(self, stage: str, since_ns: int) -> int:
        now = time.perf_counter_ns()
        self.spent_ns[stage] += now - since_ns
        return now


def unique_ids() -> Iterator[int]:
    """Ids that no other process gives: 27 random bits, then a count of 2^32."""
    first = secrets.randbits(27) << 32
    for count in range(1 << 32):
        yield first | count
    yield from unique_ids()


def alone(recommender: Recommender, version: int) -> Answering:
    """What one version says by itself: nothing explored, nothing logged, every request's id 0."""
    return Answering(
        [Arm("stable", version, recommender)], recommender.store, request_ids=iter(int, 1)
    )
