"""Exploration: now and then a place of the list goes to an app that was not going to be shown.

Enters: recommendations, and the ids of their requests.  Leaves: slates, and how probable it was
that each app showed there, so that a log can be learned from in spite of its ranker's bias (Bottou
et al., Counterfactual Reasoning and Learning Systems, JMLR 2013).
"""

import numpy as np
from numpy.typing import NDArray

from mlplatform.errors import InvalidArgument
from mlplatform.transform.hashing import hash_numpy
from recsys.online.recommender import Recommendations

Int = NDArray[np.int64]
_STEPS = 1 << 30


def explore(
    answer: Recommendations, request_id: Int, share: float, seed: int
) -> tuple[Int, NDArray[np.float64]]:
    """Slates `[requests, k]` of app ids, -1 where there is none, and their propensities.

    In a share of the requests one place, any of the k alike, goes to one of the candidates that did
    not make the list, all alike.  So an app of the list shows at its place with probability
    1 - share, and each of n others shows there with probability share / n.  The draw depends on the
    seed and the request's id alone.

    Args:
        share: of all places, at most 1 / k.

    Raises:
        InvalidArgument: the share is out of range.
    """
    n, k = answer.app_ids.shape
    if not 0 <= share <= 1 / k:
        raise InvalidArgument(
            f"exploration: expected a share of all places from 0 to 1 / {k}, got {share}"
        )
    slates = answer.app_ids.copy()
    propensities = np.ones((n, k))
    listed = (answer.candidates[:, :, None] == answer.app_ids[:, None, :]).any(axis=2)
    other = (answer.candidates >= 0) & ~listed
    n_others = other.sum(axis=1)
    propensities[n_others > 0] = 1 - share
    explored = np.flatnonzero((_uniform(seed, 1, request_id) < share * k) & (n_others > 0))
    place = (k * _uniform(seed, 2, request_id[explored])).astype(np.int64)
    nth = (n_others[explored] * _uniform(seed, 3, request_id[explored])).astype(np.int64)
    at = np.argmax(np.cumsum(other[explored], axis=1) > nth[:, None], axis=1)
    slates[explored, place] = answer.candidates[explored, at]
    propensities[explored, place] = share / n_others[explored]
    return slates, propensities


def _uniform(seed: int, purpose: int, request_id: Int) -> NDArray[np.float64]:
    """In [0, 1), one for each id; `_STEPS` different values."""
    number: NDArray[np.int32] = hash_numpy(_STEPS, purpose, np.array(seed), request_id)
    return number / _STEPS
