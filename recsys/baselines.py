"""What a recommender has to beat: popularity, popularity in the user's categories, likeness.

Enters: past installs and the catalogue.  Leaves: for each query, the place in a baseline's list of
the app that it went on to install.  None of them learns anything.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import csr_array

Rows = NDArray[np.int32]  # rows of the app table: 0 for no app, else position + 1
Ranks = NDArray[np.int64]  # from 1; 0 beyond the first k


@dataclass(frozen=True)
class Popularity:
    """Apps by installs: `order [apps]` positions, the most popular first; `rank [apps]` from 0."""

    order: NDArray[np.int64]
    rank: NDArray[np.int64]

    @classmethod
    def of(cls, installed: Rows, n_apps: int) -> "Popularity":
        return cls.of_counts(np.bincount(installed, minlength=n_apps + 1)[1:])

    @classmethod
    def of_counts(cls, installs: NDArray[np.int64]) -> "Popularity":
        """installs: of every app, `[apps]`."""
        order = np.argsort(-installs, kind="stable")
        rank = np.empty(len(installs), dtype=np.int64)
        rank[order] = np.arange(len(installs))
        return cls(order, rank)

    def ranks(self, app: Rows, k: int) -> Ranks:
        return _within(self.rank[app - 1], k)


def category_ranks(
    popularity: Popularity, category: NDArray[np.int32], history: Rows, app: Rows, k: int
) -> Ranks:
    """Most popular apps of the categories that the user installed from lately.

    category: code of every app, `[apps]`, from 1. Users without a history get the popular apps.
    """
    n_categories = int(category.max()) + 1
    liked = np.zeros((len(app), n_categories), dtype=bool)
    place = np.broadcast_to(np.arange(len(app))[:, None], history.shape)
    liked[place[history > 0], category[history[history > 0] - 1]] = True
    liked[~liked.any(axis=1)] = True
    # Of each category, the ranks of its apps, rising: how many precede the app is one search.
    before = np.zeros(len(app), dtype=np.int64)
    target = popularity.rank[app - 1]
    for code in range(n_categories):
        ranks = np.sort(popularity.rank[category == code])
        before += np.where(liked[:, code], np.searchsorted(ranks, target), 0)
    listed = liked[np.arange(len(app)), category[app - 1]]
    return np.where(listed, _within(before, k), 0)


def content_vectors(catalogue: pa.Table, dim: int, seed: int) -> NDArray[np.float32]:
    """What the listing says of each app, `[apps, dim]`, unit length.

    Category and tags are one-hot, projected to few dimensions by random signs (Achlioptas,
    Database-friendly Random Projections, 2003); numbers come standardised beside them.
    """
    rng = np.random.default_rng(seed)
    numbers = []
    for name in ("size_mb", "price_usd", "rating", "reviews", "installs"):
        column = np.asarray(catalogue[name].to_numpy(), dtype=np.float64)
        value = np.log1p(np.nan_to_num(column, nan=float(np.nanmean(column))))
        numbers.append(0.15 * (value - value.mean()) / value.std())
    n_signs = dim - len(numbers)
    category = catalogue["category"].combine_chunks().dictionary_encode()
    tags = catalogue["tags"].combine_chunks()
    tag = tags.flatten().dictionary_encode()
    category_signs = rng.choice([-1.0, 1.0], (len(category.dictionary), n_signs))
    tag_signs = rng.choice([-1.0, 1.0], (len(tag.dictionary), n_signs))
    has_tag = csr_array(
        (np.ones(len(tag)), tag.indices.to_numpy(), tags.offsets.to_numpy()),
        shape=(len(tags), len(tag.dictionary)),
    )
    words = category_signs[category.indices.to_numpy()] + has_tag @ tag_signs
    vectors = np.concatenate([words / np.sqrt(4 * n_signs), np.array(numbers).T], axis=1)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32)


def profiles(vectors: NDArray[np.float32], history: Rows) -> NDArray[np.float32]:
    """Mean content of each user's last apps, `[users, dim]`; zero without any."""
    owned = (history > 0)[:, :, None]
    total = (vectors[np.maximum(history - 1, 0)] * owned).sum(axis=1)
    n_owned = np.maximum(owned.sum(axis=1), 1).astype(np.float32)
    mean: NDArray[np.float32] = total / n_owned  # in single precision, as the search wants it
    return mean


def _within(before: NDArray[np.int64], k: int) -> Ranks:
    """before: how many apps of the list come first."""
    return np.where(before < k, before + 1, 0)
