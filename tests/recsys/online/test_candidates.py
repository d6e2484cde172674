"""The compiled loops of the request path against plain Python of a few lines."""

from math import inf, isnan, nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.online import candidates

FEW = settings(max_examples=150, deadline=None)
SEEDS = st.integers(0, 2**32 - 1)


@FEW
@given(SEEDS, st.integers(1, 700), st.integers(1, 30))
def test_the_nearest_vectors_are_those_of_the_highest_product(seed: int, n: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    # Small whole numbers: products are exact, and many are equal.
    vectors = rng.integers(-3, 4, (n, 5)).astype(np.float32)
    queries = rng.integers(-3, 4, (3, 5)).astype(np.float32)
    at, scores = candidates.nearest(queries, candidates.in_blocks(vectors), n, k)
    for q, query in enumerate(queries.tolist()):
        products = [sum(a * b for a, b in zip(query, v, strict=True)) for v in vectors.tolist()]
        best = sorted(range(n), key=lambda i: (-products[i], i))[:k]
        assert at[q].tolist() == best + [-1] * (k - len(best))
        assert scores[q, : len(best)].tolist() == [products[i] for i in best]


def test_a_product_that_is_no_number_is_not_near() -> None:
    vectors = np.array([[1], [np.nan], [2]], np.float32)
    blocks = candidates.in_blocks(vectors)
    at, _ = candidates.nearest(np.array([[1]], np.float32), blocks, 3, 3)
    assert at.tolist() == [[2, 0, -1]]
    at, _ = candidates.nearest(np.array([[np.nan]], np.float32), blocks, 3, 3)
    assert at.tolist() == [[-1, -1, -1]]


def chosen_by_hand(
    sources: list[int], scores: list[float], owned: list[int], os_version: float,
    min_os: list[float], popular: list[int], n: int, least: int,
) -> tuple[list[int], list[float]]:  # fmt: skip
    def may_be_shown(row: int) -> bool:
        fits = isnan(os_version) or min_os[row] <= os_version
        return row != 0 and fits and row not in owned

    rows: list[int] = []
    kept: list[float] = []
    for row, score in zip(sources, scores, strict=True):
        if len(rows) < n and may_be_shown(row) and row not in rows:
            rows.append(row)
            kept.append(score)
    for row in popular:
        if len(rows) < least and may_be_shown(row) and row not in rows:
            rows.append(row)
            kept.append(nan)
    empty = n - len(rows)
    return rows + [0] * empty, kept + [nan] * empty


@FEW
@given(SEEDS, st.integers(1, 12), st.integers(1, 12))
def test_candidates_are_the_first_that_may_be_shown_and_then_the_popular(
    seed: int, n: int, least: int
) -> None:
    rng = np.random.default_rng(seed)
    least = min(least, n)
    n_apps = int(rng.integers(1, 25))
    b, m = 3, int(rng.integers(0, 15))
    sources = rng.integers(0, n_apps + 1, (b, m), np.int32)
    scores = rng.random((b, m), np.float32)
    owned = rng.integers(0, n_apps + 1, (b, 6), np.int32)
    os_version = rng.choice([nan, 1, 2, 3], b).astype(np.float32)
    min_os = rng.integers(0, 4, n_apps + 1).astype(np.float32)
    popular = rng.permutation(np.arange(1, n_apps + 1, dtype=np.int32))
    rows, kept = candidates.choose(sources, scores, owned, os_version, min_os, popular, n, least)
    for q in range(b):
        expected = chosen_by_hand(
            sources[q].tolist(), scores[q].tolist(), owned[q].tolist(), float(os_version[q]),
            min_os.tolist(), popular.tolist(), n, least,
        )  # fmt: skip
        assert rows[q].tolist() == expected[0]
        np.testing.assert_array_equal(kept[q], np.array(expected[1], np.float32))


def listed_by_hand(
    order: list[int], rows: list[int], groups: list[list[int]], most: list[int], k: int
) -> list[int]:
    real = [place for place in order if rows[place] != 0]
    taken: list[int] = []
    for place in real:
        counts = [
            sum(groups[rows[other]][g] == groups[rows[place]][g] for other in taken)
            for g in range(len(most))
        ]
        if len(taken) < k and all(n < m for n, m in zip(counts, most, strict=True)):
            taken.append(place)
    taken += [place for place in real if place not in taken][: k - len(taken)]
    taken.sort(key=order.index)
    return taken + [-1] * (k - len(taken))


@FEW
@given(SEEDS, st.integers(1, 14), st.integers(1, 4), st.integers(1, 4))
def test_a_list_is_the_best_within_every_groups_share_and_the_rest_if_it_is_short(
    seed: int, k: int, per_first: int, per_second: int
) -> None:
    rng = np.random.default_rng(seed)
    b, n, n_apps = 3, 14, 30
    rows = np.stack([rng.permutation(n_apps)[:n] + 1 for _ in range(b)]).astype(np.int32)
    rows[rng.random((b, n)) < rng.random((b, 1))] = 0
    merit = rng.integers(-3, 4, (b, n)).astype(np.float32)  # many are equal
    merit[rng.random((b, n)) < 0.2] = nan
    groups = rng.integers(0, 4, (n_apps + 1, 2), np.int32)
    most = np.array([per_first, per_second])
    chosen = candidates.listed(rows, merit, groups, most, k)
    for q in range(b):
        of = [-inf if isnan(x) else x for x in merit[q].tolist()]
        order = sorted(range(n), key=of.__getitem__, reverse=True)  # equals stay as they are
        assert chosen[q].tolist() == listed_by_hand(
            order, rows[q].tolist(), groups.tolist(), most.tolist(), k
        )


@pytest.mark.parametrize(
    ("numbers", "limits", "expected"),
    [
        ([[0, 4], [2, 0]], [3, 5], True),
        ([[0, 4], [3, 0]], [3, 5], False),
        ([[0, 5], [2, 0]], [3, 5], False),
        ([[0, -1], [2, 0]], [3, 5], False),
        ([[0, 4], [2, 0]], [5], True),
        ([[0, 4], [2, 0]], [4], False),
    ],
)
def test_numbers_are_held_to_the_limit_of_their_column(
    numbers: list[list[int]], limits: list[int], expected: bool
) -> None:
    assert candidates.are_below(np.array(numbers, np.int32), np.array(limits)) is expected
