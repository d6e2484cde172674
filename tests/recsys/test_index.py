"""The index over app vectors, and the exact search that it is judged by."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mlplatform.training.runtime import tensorflow

tensorflow()  # first, since it configures what the index's library imports

from recsys.models.index import (  # noqa: E402
    FILES,
    SPACE,
    AppIndex,
    IndexSettings,
    exact_search,
    query_space,
    recall,
)

SETTINGS = IndexSettings(leaves=50, leaves_to_search=15, reorder=200)
K = 20


def clustered(n: int, seed: int, centres: int = 60, dim: int = 16) -> NDArray[np.float32]:
    """Points around some centres, as embeddings of apps are around their topics."""
    topics = np.random.default_rng(99).standard_normal((centres, dim))
    rng = np.random.default_rng(seed)
    points = topics[rng.integers(0, centres, n)] + 0.4 * rng.standard_normal((n, dim))
    return points.astype(np.float32)


@pytest.fixture(scope="module")
def vectors() -> NDArray[np.float32]:
    return clustered(5_000, 1)


@pytest.fixture(scope="module")
def queries() -> NDArray[np.float32]:
    return clustered(300, 2)


@pytest.fixture(scope="module")
def index(vectors: NDArray[np.float32]) -> AppIndex:
    return AppIndex.build(vectors, SETTINGS, k=10)


@pytest.mark.parametrize("n", [5_000, 30_208, 30_209])  # all sorted; whole stretches; one more
def test_exact_search_is_the_sort_of_all_products(n: int, queries: NDArray[np.float32]) -> None:
    vectors = clustered(n, 1)
    vectors[-1] = 5 * queries[0]  # so that the last one, after the whole stretches, is a best one
    expected = np.argsort(-(queries.astype(float) @ vectors.T.astype(float)), axis=1)[:, :K]
    found = exact_search(vectors, queries, K)  # 300 queries: several blocks, the last one not full
    assert (found == n - 1).any()
    np.testing.assert_array_equal(found, expected)


def test_exact_search_can_list_everything() -> None:
    vectors = np.array([[1, 0], [3, 0], [-2, 0], [2, 0]], dtype=np.float32)
    query = np.array([[1, 0], [-1, 0]], dtype=np.float32)
    assert exact_search(vectors, query, 4).tolist() == [[1, 3, 0, 2], [2, 0, 3, 1]]
    assert exact_search(vectors, query, 1).tolist() == [[1], [2]]


def test_the_index_finds_nine_in_ten_of_the_true_best(
    index: AppIndex, vectors: NDArray[np.float32], queries: NDArray[np.float32]
) -> None:
    found, _ = index.search(queries, K)
    assert found.shape == (300, K) and found.dtype == np.int64
    true = exact_search(vectors, queries, K)
    shares = [len(set(a) & set(b)) / K for a, b in zip(found.tolist(), true.tolist(), strict=True)]
    assert np.mean(shares) > 0.9


def test_scores_are_the_products_the_best_first_and_nothing_is_found_twice(
    index: AppIndex, vectors: NDArray[np.float32], queries: NDArray[np.float32]
) -> None:
    found, scores = index.search(queries, K)
    np.testing.assert_allclose(
        scores, np.einsum("qd,qkd->qk", queries, vectors[found]), rtol=1e-4, atol=1e-4
    )
    assert (np.diff(scores, axis=1) <= 0).all()
    assert all(len(set(row)) == K for row in found.tolist())


def test_the_index_knows_its_size(index: AppIndex) -> None:
    assert index.size == 5_000


def test_places_that_the_searched_leaves_cannot_fill_hold_minus_one(
    vectors: NDArray[np.float32], queries: NDArray[np.float32]
) -> None:
    narrow = AppIndex.build(vectors, IndexSettings(50, leaves_to_search=1, reorder=2_000), k=10)
    found, _ = narrow.search(queries[:20], 2_000)
    empty = found == -1
    assert empty.any(axis=1).all()
    # What is found comes first, and only once.
    assert (np.diff(empty.astype(int), axis=1) >= 0).all()
    for row in found:
        kept = row[row >= 0]
        assert len(kept) and len(set(kept.tolist())) == len(kept) and kept.max() < 5_000


def test_a_saved_index_answers_alike_wherever_it_is_moved_to(
    index: AppIndex, queries: NDArray[np.float32], tmp_path: Path
) -> None:
    expected, expected_scores = index.search(queries, K)
    written = tmp_path / "written"
    written.mkdir()
    index.save(written)
    there = AppIndex.load(written)
    assert there.size == 5_000
    np.testing.assert_array_equal(there.search(queries, K)[0], expected)

    moved = tmp_path / "elsewhere" / "moved"
    moved.parent.mkdir()
    shutil.move(written, moved)
    assert not written.exists()
    found, scores = AppIndex.load(moved).search(queries, K)
    np.testing.assert_array_equal(found, expected)
    # Sums in another order of the same numbers: alike to the last bit but one.
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-6)


class TestQuerySpace:
    @settings(deadline=None)
    @given(
        dim=st.integers(2, 24),
        n=st.integers(1, 40),
        reach=st.floats(1e-2, 1e2),
        seed=st.integers(0, 2**32 - 1),
    )
    def test_no_product_changes(self, dim: int, n: int, reach: float, seed: int) -> None:
        rng = np.random.default_rng(seed)
        apps = rng.standard_normal((60, dim)).astype(np.float32)
        # Of very different reach; perhaps fewer queries than directions, or all alike.
        queries = (rng.standard_normal((n, dim)) * reach ** rng.random(dim)).astype(np.float32)
        mixed = int(rng.integers(1, dim + 1))
        for_queries, for_apps = query_space(apps, queries, mixed)
        np.testing.assert_allclose(
            (queries @ for_queries) @ (apps @ for_apps).T,
            queries.astype(float) @ apps.T.astype(float),
            atol=1e-4 * float(np.linalg.norm(queries, axis=1).max()) * dim,
        )

    def test_queries_reach_equally_far_and_scores_differ_less_and_less(self) -> None:
        rng = np.random.default_rng(4)
        queries = (rng.standard_normal((20_000, 4)) * [3.0, 1.0, 0.5, 2.0]).astype(np.float32)
        apps = (5 + rng.standard_normal((20_000, 4)) * [1.0, 1.0, 4.0, 0.1]).astype(np.float32)
        for_queries, for_apps = query_space(apps, queries, mixed=1)
        turned = (queries @ for_queries).astype(float)
        reach = turned.T @ turned / len(turned)
        np.testing.assert_allclose(reach / reach[0, 0], np.eye(4), atol=0.02)
        # Deviations of scores: each direction's of queries times that of apps, 3, 1, 2 and 0.2.
        deviation = (apps @ for_apps).std(axis=0)
        np.testing.assert_allclose(deviation / deviation[0], [1, 2 / 3, 1 / 3, 0.2 / 3], rtol=0.05)

    def test_scores_differ_alike_along_the_directions_that_are_mixed(self) -> None:
        rng = np.random.default_rng(7)
        spread = np.concatenate([np.linspace(5, 2, 32), np.full(32, 0.1)])
        apps = (rng.standard_normal((10_000, 64)) * spread).astype(np.float32)
        variance = (apps @ query_space(apps, None, mixed=32)[1]).var(axis=0)
        assert variance[:32].max() < 3 * variance[:32].min()  # it was 25 / 4
        assert variance[:32].sum() > 0.99 * variance.sum()

    def test_an_index_that_knows_queries_finds_more_of_what_they_reach_for(self) -> None:
        rng = np.random.default_rng(5)
        # Apps differ most where queries do not look.
        reach = np.repeat([4.0, 0.2], [4, 12])
        apps = (rng.standard_normal((5_000, 16)) / np.sqrt(reach)).astype(np.float32)
        asked = (rng.standard_normal((1_300, 16)) * reach).astype(np.float32)
        sample, queries = asked[:1_000], asked[1_000:]
        wanted = IndexSettings(leaves=50, leaves_to_search=5, reorder=100)
        true = exact_search(apps, queries, K)
        knows, does_not = (
            recall(AppIndex.build(apps, wanted, 10, known).search(queries, K)[0], true).mean()
            for known in (sample, None)
        )
        assert knows > 0.9
        assert does_not < knows - 0.1


def test_codes_of_some_dimensions_do_for_what_is_then_scored_by_all() -> None:
    rng = np.random.default_rng(6)
    spread = np.repeat([1.0, 0.05], [8, 24])
    apps, queries = (
        (rng.standard_normal((n, 32)) * spread).astype(np.float32) for n in (4_000, 200)
    )
    wanted = IndexSettings(leaves=40, leaves_to_search=40, reorder=400, dimensions=8)
    found, scores = AppIndex.build(apps, wanted, 10).search(queries, K)
    np.testing.assert_allclose(
        scores, np.einsum("qd,qkd->qk", queries, apps[found]), rtol=1e-4, atol=1e-4
    )
    assert recall(found, exact_search(apps, queries, K)).mean() > 0.95


def test_more_leaves_searched_find_more(
    index: AppIndex, vectors: NDArray[np.float32], queries: NDArray[np.float32]
) -> None:
    true = exact_search(vectors, queries, K)
    shares = [recall(index.search(queries, K, leaves)[0], true).mean() for leaves in (1, 2, 50)]
    assert shares[0] < shares[1] <= shares[2]
    assert shares[2] > 0.99


def test_an_index_saved_before_there_was_a_space_of_queries_searches_vectors_as_they_are(
    vectors: NDArray[np.float32], queries: NDArray[np.float32], tmp_path: Path
) -> None:
    index = AppIndex.build(vectors, SETTINGS, k=10)
    index.save(tmp_path)
    space = np.load(tmp_path / FILES / SPACE)
    (tmp_path / FILES / SPACE).unlink()
    # Its vectors are the turned ones, which only queries that are turned already fit.
    found, _ = AppIndex.load(tmp_path).search(queries @ space, K)
    np.testing.assert_array_equal(found, index.search(queries, K)[0])


def test_recall_is_the_share_of_the_true_ones_found() -> None:
    found = np.array([[1, 2, -1], [7, 8, 9], [4, 5, 6]])
    true = np.array([[2, 3, 1], [1, 2, 3], [6, 5, 4]])
    assert recall(found, true).tolist() == [2 / 3, 0.0, 1.0]


def test_recall_of_more_found_than_asked_for_is_still_of_the_true_ones() -> None:
    assert recall(np.array([[1, 2, 3, 4]]), np.array([[3, 9]])).tolist() == [0.5]
