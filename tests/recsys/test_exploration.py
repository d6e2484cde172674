"""Exploration: what is shown instead, how often, and that the log says so."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlplatform.errors import InvalidArgument
from mlplatform.transform.hashing import hash_numpy
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


@given(
    st.lists(
        st.tuples(st.integers(0, 2**59), st.permutations([*range(10, 17), -1, -1]),
                  st.integers(0, K)),
        min_size=1, max_size=8,
    ),
    st.sampled_from([0, 0.1, 1 / K]),
    st.integers(0, 100),
)  # fmt: skip
def test_every_request_gets_what_its_own_draws_say(
    requests: list[tuple[int, list[int], int]], share: float, seed: int
) -> None:
    """One by one, in plain Python; lists are any of the candidates and may have empty places."""
    lists = [([c for c in of if c >= 0][:n] + [-1] * K)[:K] for _, of, n in requests]
    scores = np.zeros((len(lists), K), np.float32)
    answer = Recommendations(
        np.array(lists), scores, scores, np.array([of for _, of, _ in requests]),
        scores.astype(np.int32), np.ones(len(lists), np.bool_),
    )  # fmt: skip
    ids = np.array([one for one, _, _ in requests])
    slates, propensities = explore(answer, ids, share, seed)
    for i, (request_id, of, _) in enumerate(requests):
        is_explored, in_place, in_others = (
            int(hash_numpy(1 << 30, purpose, np.array(seed), np.array(request_id))) / 2**30
            for purpose in (1, 2, 3)
        )
        others = [app for app in of if app >= 0 and app not in lists[i]]
        expected, probable = list(lists[i]), [1 - share] * K
        if is_explored < share * K:
            place = int(K * in_place)
            expected[place] = others[int(len(others) * in_others)]
            probable[place] = share / len(others)
        assert slates[i].tolist() == expected
        assert propensities[i].tolist() == probable


@pytest.mark.parametrize("share", [-0.01, 0.26, float("nan")])
def test_a_share_that_cannot_be_had_is_refused(share: float) -> None:
    with pytest.raises(InvalidArgument, match=r"a share of all places from 0 to 1 / 4, got"):
        explore(recommendations(1, [10, 11, 12, 13]), np.arange(1), share, seed=1)
