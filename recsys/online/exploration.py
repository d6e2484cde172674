"""Exploration: now and then a place of the list goes to an app that was not going to be shown.

Enters: recommendations, and the ids of their requests.  Leaves: slates, and how probable it was
that each app showed there, so that a log can be learned from in spite of its ranker's bias (Bottou
et al., Counterfactual Reasoning and Learning Systems, JMLR 2013).
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mlplatform.errors import InvalidArgument
from mlplatform.transform.hashing import hash_numpy
from recsys.online.recommender import Recommendations

Int = NDArray[np.int64]
Float = NDArray[np.float64]
_STEPS = 1 << 30
# What is drawn for a request: whether it is explored, which place, which of the others goes there.
_PURPOSES = np.array([[1], [2], [3]])


def explore(answer: Recommendations, request_id: Int, share: float, seed: int) -> tuple[Int, Float]:
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
    k = answer.app_ids.shape[1]
    if not 0 <= share <= 1 / k:
        raise InvalidArgument(
            f"exploration: expected a share of all places from 0 to 1 / {k}, got {share}"
        )
    candidates, listed = map(np.ascontiguousarray, (answer.candidates, answer.app_ids))
    slates, propensities = _explore(candidates, listed, _uniform(seed, request_id), float(share))
    return slates, propensities


@njit(nogil=True, cache=True)
def _explore(candidates: Int, listed: Int, uniform: Float, share: float) -> tuple[Int, Float]:
    """What `explore` returns; `uniform` is `[3, requests]`."""
    slates = listed.copy()
    propensities = np.ones(listed.shape)
    k = listed.shape[1]
    for q in range(len(listed)):
        # No candidate is there twice and a list has none but candidates, so counting will do.
        n_others = (candidates[q] >= 0).sum() - (listed[q] >= 0).sum()
        if n_others == 0:
            continue
        propensities[q] = 1 - share
        if uniform[0, q] >= share * k:
            continue
        place, nth = int(k * uniform[1, q]), int(n_others * uniform[2, q])
        for app in candidates[q]:
            if app < 0 or (listed[q] == app).any():
                continue
            if nth == 0:
                slates[q, place] = app
                propensities[q, place] = share / n_others
                break
            nth -= 1
    return slates, propensities


def _uniform(seed: int, request_id: Int) -> Float:
    """In [0, 1), one for each purpose and id, `[3, n]`; `_STEPS` different values."""
    # The hash begins with salt ^ first value: with salt 0 one call serves as three salted ones.
    number: NDArray[np.int32] = hash_numpy(_STEPS, 0, _PURPOSES ^ seed, request_id)
    return number / _STEPS
