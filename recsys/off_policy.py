"""What another policy would have earned on the day of a log: installs per request.

Enters: a log of lists with the propensity of every app at its place, and a target, another policy.
Leaves: estimates of the target's installs per request, and whether the log can tell.

The model is that of items and positions (Li et al., Offline Evaluation of Ranking Policies with
Click Models, KDD 2018): whether an app is installed depends on the request, the app and its place,
not on the rest of the list.  Then each place is an action of its own with a reward of its own, and
lists need not match whole.
"""

from dataclasses import dataclass, replace
from math import inf
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mlplatform.data.files.spans import read_span
from mlplatform.errors import InvalidArgument
from mlplatform.evaluation.off_policy import Logged, RewardModel, Verdict, judge_target
from recsys import features
from recsys.columns import Columns
from recsys.online.recommender import Recommender

Int = NDArray[np.int64]
Float = NDArray[np.float64]
_SCORED_AT_ONCE = 1024


@dataclass(frozen=True)
class Log:
    """Lists as shown: `user [requests]`, then by place `[requests, k]`.

    slates: app ids, -1 where a place was left empty, which earns nothing.
    propensity: how probable it was that this app shows at this place, 1 for an empty one.
    installed: 0 or 1.
    """

    user: Int
    slates: Int
    propensity: Float
    installed: Float

    def __len__(self) -> int:
        return len(self.user)

    @classmethod
    def of(cls, user: Int, slates: Int, propensity: Float, installed: NDArray[np.bool_]) -> "Log":
        """Whatever the propensity of an empty place says is left out."""
        known = np.where(slates >= 0, propensity, 1.0)
        return cls(user, slates, known, installed.astype(np.float64))

    @classmethod
    def read(cls, root: Path, day: int) -> "Log":
        """A day of the datasets `requests` and `impressions`, in the order of request ids."""
        requests = read_span(root, "requests", [day], ["request_id", "user_id"])
        requests = requests.sort_by("request_id")
        impressions = read_span(root, "impressions", [day])
        ids = requests["request_id"].to_numpy()
        row = np.searchsorted(ids, impressions["request_id"].to_numpy())
        place = impressions["position"].to_numpy() - 1
        shape = (len(ids), int(place.max()) + 1)
        slates, propensity = np.full(shape, -1), np.ones(shape)
        installed = np.zeros(shape, dtype=bool)
        slates[row, place] = impressions["app_id"].to_numpy()
        propensity[row, place] = impressions["propensity"].to_numpy()
        installed[row, place] = impressions[features.LABEL.name].to_numpy() == 1
        return cls.of(requests["user_id"].to_numpy(), slates, propensity, installed)

    def full(self) -> Int:
        """Which lists have no empty place."""
        return np.flatnonzero((self.slates >= 0).all(axis=1))

    def take(self, rows: Int) -> "Log":
        return Log(**{name: array[rows] for name, array in vars(self).items()})


@dataclass(frozen=True)
class Target:
    """A policy to be judged, for the requests of a log, `[requests, k]`.

    slates: what it shows, -1 for an empty place; of a policy that draws, one draw.
    probability: how probable it is that it shows the logged app at the logged place.
    """

    slates: Int
    probability: Float


def as_logged(log: Log) -> Target:
    """The policy that made the log; its estimate is the log's mean."""
    return Target(log.slates, log.propensity)


def showing(log: Log, slates: Int) -> Target:
    """The policy that is sure to show these lists: a recommender without exploration."""
    same = (log.slates == slates) & (slates >= 0)
    return Target(slates, same.astype(np.float64))


def all_alike(log: Log, app_ids: Int, seed: int) -> Target:
    """At every place any of these apps, all alike; the log's are to be among them."""
    drawn = np.random.default_rng(seed).choice(app_ids, log.slates.shape)
    return Target(drawn, np.where(log.slates >= 0, 1 / len(app_ids), 0.0))


def in_order_of(log: Log, scores: NDArray[np.floating]) -> tuple[Log, Target]:
    """The logged lists, each put in order of scores, `[requests, k]`, the highest first.

    Right for full lists whose places were independent draws from one distribution, as the first
    days' policy makes them: given which apps a list has, all their orders were equally probable,
    and each app had its place with probability 1 / k.

    Returns:
        The log with these propensities, and the target.

    Raises:
        InvalidArgument: a list has an empty place; where an app was drawn twice, the place that was
            left empty tells something of the order.
    """
    n_empty = int((log.slates < 0).any(axis=1).sum())
    if n_empty:
        raise InvalidArgument(
            f"lists to put in order: expected no empty places, got {n_empty} of {len(log)} lists "
            "with one; take the others, log.take(log.full())"
        )
    k = log.slates.shape[1]
    log = replace(log, propensity=np.full(log.slates.shape, 1 / k))
    best = np.lexsort((log.slates, -scores))  # equal scores by id: the logged order must not tell
    return log, showing(log, np.take_along_axis(log.slates, best, axis=1))


def install_probability(
    recommender: Recommender, requests: pa.Table, slates: Int, places: Int
) -> Float:
    """The ranker's probability of an install of each app, `[requests, k]`; 0 for an empty place.

    Args:
        requests: as the recommender takes them, one for each list.
        slates: app ids, -1 for none.
        places: where each column of the slates is shown, from 1, `[k]`.
    """
    bundle, store = recommender.bundle, recommender.store
    transform = bundle.transform
    request = Columns.of(transform, features.REQUEST)
    impression = Columns.of(transform, features.IMPRESSION)
    parts = []
    for at in range(0, len(requests), _SCORED_AT_ONCE):
        some, shown = requests.slice(at, _SCORED_AT_ONCE), slates[at : at + _SCORED_AT_ONCE]
        position = np.broadcast_to(places, shown.shape).ravel()
        app = np.maximum(shown, 0).ravel()
        columns = pa.table({**store.app_columns(app), "position": position})
        logit = bundle.rank(
            request=request.matrix(transform, some),
            history=bundle.apps.rows_of_lists(some, features.HISTORY),
            app=bundle.apps.rows_of(shown),
            impression=impression.matrix(transform, columns).reshape(*shown.shape, -1),
        )["logit"].numpy()
        parts.append(np.where(shown >= 0, 1 / (1 + np.exp(-logit.astype(np.float64))), 0.0))
    return np.concatenate(parts)


def judge(
    log: Log, target: Target, seed: int, model: RewardModel | None = None, clip: float = inf
) -> Verdict:
    """Installs per request under the target, with intervals by a bootstrap over users.

    Args:
        model: probabilities of an install, `[requests, k]`, of the logged and of the target's
            slates, each app at its place.
        clip: see `judge_target`.
    """
    k = log.slates.shape[1]  # the mean over places, times k, is the sum over a list
    rows = Logged(log.propensity.ravel(), k * log.installed.ravel(), np.repeat(log.user, k))
    if model is not None:
        model = RewardModel(k * model.logged.ravel(), k * model.target.ravel())
    return judge_target(rows, target.probability.ravel(), seed, model=model, clip=clip)
