"""What a recommender has to beat, against loops that say the same slowly."""

import numpy as np
import pyarrow as pa
import pytest

from recsys.baselines import Popularity, category_ranks, content_vectors, profiles

N_APPS = 25


@pytest.fixture(params=range(5))
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    return np.random.default_rng(request.param)


def popular_first(installed: list[int], n_apps: int) -> list[int]:
    """Rows by installs, the most first; ties by row."""
    return sorted(range(1, n_apps + 1), key=lambda row: (-installed.count(row), row))


def test_popularity_by_hand() -> None:
    popularity = Popularity.of(np.array([3, 1, 3, 4, 4, 3, 0, 0, 0, 0], dtype=np.int32), 5)
    assert popularity.order.tolist() == [2, 3, 0, 1, 4]
    assert popularity.rank.tolist() == [2, 3, 0, 1, 4]
    app = np.array([3, 4, 1, 2, 5], dtype=np.int32)
    assert popularity.ranks(app, 1).tolist() == [1, 0, 0, 0, 0]
    assert popularity.ranks(app, 3).tolist() == [1, 2, 3, 0, 0]


@pytest.mark.parametrize("k", [1, 4, N_APPS])
def test_popularity_ranks_are_those_of_a_loop(rng: np.random.Generator, k: int) -> None:
    installed = rng.integers(0, N_APPS + 1, 80).astype(np.int32)
    app = rng.integers(1, N_APPS + 1, 50).astype(np.int32)
    first = popular_first(installed.tolist(), N_APPS)[:k]
    expected = [first.index(row) + 1 if row in first else 0 for row in app.tolist()]
    assert Popularity.of(installed, N_APPS).ranks(app, k).tolist() == expected


@pytest.mark.parametrize("k", [1, 3, 10])
def test_category_ranks_are_those_of_a_loop(rng: np.random.Generator, k: int) -> None:
    installed = rng.integers(1, N_APPS + 1, 80).astype(np.int32)
    category = rng.integers(1, 5, N_APPS).astype(np.int32)
    app = rng.integers(1, N_APPS + 1, 60).astype(np.int32)
    history = np.zeros((60, 4), dtype=np.int32)
    for row in history[10:]:
        n = rng.integers(1, 5)
        row[:n] = rng.integers(1, N_APPS + 1, n)
    first = popular_first(installed.tolist(), N_APPS)
    expected = []
    for own, target in zip(history.tolist(), app.tolist(), strict=True):
        liked = {category[row - 1] for row in own if row} or set(category.tolist())
        offered = [row for row in first if category[row - 1] in liked][:k]
        expected.append(offered.index(target) + 1 if target in offered else 0)
    popularity = Popularity.of(installed, N_APPS)
    assert category_ranks(popularity, category, history, app, k).tolist() == expected
    assert any(expected) and not all(expected)


def test_profiles_are_the_mean_of_the_owned_apps_and_nothing_else(
    rng: np.random.Generator,
) -> None:
    vectors = rng.standard_normal((N_APPS, 6)).astype(np.float32)
    history = np.array([[3, 7, 0, 0], [0, 0, 0, 0], [1, 1, 25, 0]], dtype=np.int32)
    found = profiles(vectors, history)
    np.testing.assert_allclose(found[0], (vectors[2] + vectors[6]) / 2, rtol=1e-5)
    np.testing.assert_array_equal(found[1], np.zeros(6))
    np.testing.assert_allclose(found[2], (2 * vectors[0] + vectors[24]) / 3, rtol=1e-5)


def test_content_is_of_unit_length_and_the_same_for_the_same_listing(catalogue: pa.Table) -> None:
    vectors = content_vectors(catalogue, 64, seed=3)
    assert vectors.shape == (6, 64) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    # Apps 40, 50 and 60 differ in id, title and developer only.
    np.testing.assert_array_equal(vectors[3], vectors[4])
    np.testing.assert_array_equal(vectors[3], vectors[5])
    assert np.abs(vectors[0] - vectors[3]).max() > 0.05


def test_content_is_alike_where_category_and_tags_are(catalogue: pa.Table) -> None:
    vectors = content_vectors(catalogue, 2000, seed=3)
    both_games_about_chess = vectors[0] @ vectors[2]
    nothing_shared = vectors[0] @ vectors[1]
    assert both_games_about_chess > nothing_shared + 0.2


def test_numbers_of_a_listing_are_standardised_and_a_missing_one_is_the_mean(
    catalogue: pa.Table,
) -> None:
    vectors = content_vectors(catalogue, 64, seed=3)
    price = np.log1p(np.array([0.0, 1.0, 5.0, 0.0, 0.0, 0.0]))
    filled = (4.7 + 3.2 + 4.0 + 4.0 + 4.0) / 5
    rating = np.log1p(np.array([4.7, filled, 3.2, 4.0, 4.0, 4.0]))
    # Places -4 and -3; the common factor of a row goes out of their quotient.
    expected = ((price - price.mean()) / price.std()) / ((rating - rating.mean()) / rating.std())
    np.testing.assert_allclose(vectors[:, -4] / vectors[:, -3], expected, rtol=1e-3)


def test_content_of_a_part_of_a_catalogue_is_that_of_its_own_rows(catalogue: pa.Table) -> None:
    part = catalogue.slice(2)
    copied = catalogue.take([2, 3, 4, 5])
    # Apps 40, 50, 60 are equal; a shifted list of tags would tear them apart.
    vectors = content_vectors(part, 64, seed=3)
    np.testing.assert_array_equal(vectors[1], vectors[2])
    np.testing.assert_array_equal(vectors[1], vectors[3])
    np.testing.assert_allclose(vectors, content_vectors(copied, 64, seed=3), atol=1e-6)


def test_an_app_without_tags_has_the_content_of_its_category_alone(catalogue: pa.Table) -> None:
    at = catalogue.column_names.index("tags")
    # The two apps without tags are alike in all else; one of them is the last of the table.
    tags = pa.array([["chess"], ["notes"], ["chess"], [], ["yoga"], []])
    vectors = content_vectors(catalogue.set_column(at, "tags", tags), 64, seed=3)
    np.testing.assert_array_equal(vectors[3], vectors[5])
    assert np.abs(vectors[3] - vectors[4]).max() > 0.01
