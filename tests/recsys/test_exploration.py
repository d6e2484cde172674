"""Exploration: what is shown instead, how often, and that the log says so."""

import numpy as np
import pytest

from mlplatform.errors import InvalidArgument
from recsys.online.exploration import explore
from recsys.online.recommender import Recommendations

K, SHARE = 4, 0.1


def recommendations(n: int, candidates: list[int]) -> Recommendations:
    """The first four candidates are the list."""
    every = np.tile(np.array(candidates, np.int64), (n, 1))
    scores = np.zeros((n, K), np.float32)
    ranked = np.ones(n, np.bool_)
    return Recommendations(every[:, :K], scores, scores, every, every[:, :K], ranked)


def test_every_app_shows_as_often_as_its_propensity_says() -> None:
    n = 200_000
    answer = recommendations(n, [10, 11, 12, 13, 20, -1, 21, 22])
    slates, propensities = explore(answer, np.arange(n), SHARE, seed=1)
    for place in range(K):
        shown, times = np.unique(slates[:, place], return_counts=True)
        assert shown.tolist() == [10 + place, 20, 21, 22]
        expected = np.array([1 - SHARE, SHARE / 3, SHARE / 3, SHARE / 3])
        # five standard deviations of a share of n requests
        np.testing.assert_allclose(times / n, expected, atol=5 * (0.09 / n) ** 0.5)
        for app, probability in zip(shown, expected, strict=True):
            np.testing.assert_allclose(propensities[slates[:, place] == app, place], probability)


def test_at_most_one_place_of_a_list_is_explored_and_no_app_is_twice_in_it() -> None:
    answer = recommendations(10_000, [10, 11, 12, 13, 20, 21])
    slates, _ = explore(answer, np.arange(10_000), 1 / K, seed=1)
    assert ((slates >= 20).sum(axis=1) == 1).all()
    ordered = np.sort(slates, axis=1)
    assert (ordered[:, 1:] > ordered[:, :-1]).all()


def test_a_request_has_the_same_luck_alone_and_among_others() -> None:
    answer = recommendations(1000, [10, 11, 12, 13, 20, 21, 22])
    ids = np.arange(1000) + (np.int64(7) << 40)
    slates, propensities = explore(answer, ids, SHARE, seed=1)
    alone, of_alone = explore(recommendations(1, [10, 11, 12, 13, 20, 21, 22]), ids[500:501],
                              SHARE, seed=1)  # fmt: skip
    assert (alone[0] == slates[500]).all()
    assert (of_alone[0] == propensities[500]).all()
    assert (explore(answer, ids, SHARE, seed=2)[0] != slates).any()


def test_where_there_is_nothing_else_to_show_the_list_is_certain() -> None:
    slates, propensities = explore(recommendations(50, [10, 11, 12, -1]), np.arange(50), 0.25, 1)
    assert (slates == [10, 11, 12, -1]).all()
    assert (propensities == 1).all()


@pytest.mark.parametrize("share", [-0.01, 0.26, float("nan")])
def test_a_share_that_cannot_be_had_is_refused(share: float) -> None:
    with pytest.raises(InvalidArgument, match=r"a share of all places from 0 to 1 / 4, got"):
        explore(recommendations(1, [10, 11, 12, 13]), np.arange(1), share, seed=1)
