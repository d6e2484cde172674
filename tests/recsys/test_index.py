"""The index over app vectors, and the exact search that it is judged by."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mlplatform.training.runtime import tensorflow

tensorflow()  # first, since it configures what the index's library imports

from recsys.models.index import AppIndex, IndexSettings, exact_search, recall  # noqa: E402

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


def test_recall_is_the_share_of_the_true_ones_found() -> None:
    found = np.array([[1, 2, -1], [7, 8, 9], [4, 5, 6]])
    true = np.array([[2, 3, 1], [1, 2, 3], [6, 5, 4]])
    assert recall(found, true).tolist() == [2 / 3, 0.0, 1.0]


def test_recall_of_more_found_than_asked_for_is_still_of_the_true_ones() -> None:
    assert recall(np.array([[1, 2, 3, 4]]), np.array([[3, 9]])).tolist() == [0.5]
