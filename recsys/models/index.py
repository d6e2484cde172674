"""The index: the apps nearest to a query by dot product, and the exact search to judge it by.

Enters: app vectors `[apps, dim] float32` and a sample of queries.  Leaves: positions among the
apps, the best first.  ScaNN: a tree of leaves with spilling (SOAR; Sun et al., NeurIPS 2023),
anisotropic quantization of what is in them (Guo et al., ICML 2020), exact scores for the best of
those.

Both the tree and the codes count every direction of the space alike, and queries do not: where they
reach far, an error of a vector is an error of its score.  So all is turned and stretched first, by
`query_space`, until queries reach equally far everywhere.  No product changes.  On towers as they
are trained here it leaves a third of the work at the same recall.
"""

import sys
from dataclasses import dataclass
from importlib import import_module
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlplatform.quiet import silenced_stderr

FILES = "scann"
SPACE = "query_space.npy"
BLOCK = 64  # queries that the exact search scores at once
STRETCH = 256
# Codes of one dimension each: with two, the quantized order loses a fifth of the best hundred.
DIMENSIONS_PER_BLOCK = 1
# Of the mean square of queries, added in every direction: what is far along one that no sampled
# query took must not become near.
RIDGE = 1e-3
COVARIANCE_SAMPLE = 100_000


def _load_scann() -> Any:
    """ScaNN's library alone.

    Its package loads TensorFlow, where it is installed, for operations that nobody asks for here:
    that is half the time until a server is ready, and hundreds of MB in each of its processes.
    """
    name = "scann.scann_ops.py.scann_ops_pybind"
    if "tensorflow" in sys.modules:
        return import_module(name)
    sys.modules["tensorflow"] = None  # type: ignore[assignment]  # to import: not installed
    try:
        return import_module(name)
    finally:
        del sys.modules["tensorflow"]
        sys.modules.pop("scann", None)  # whoever imports it by name gets it with TensorFlow


scann_ops_pybind = _load_scann()


@dataclass(frozen=True)
class IndexSettings:
    """How large the tree is, and how much of it a query looks at.

    dimensions: that tree and codes look at, of those along which scores differ most; the best
        `reorder` are scored by all.
    """

    leaves: int = 1_000
    leaves_to_search: int = 25
    reorder: int = 300
    dimensions: int = 32
    training_sample: int = 100_000


class AppIndex:
    """A built index; `save` and `load` keep it in a directory."""

    def __init__(self, searcher: Any, space: NDArray[np.float32] | None) -> None:
        self._searcher = searcher
        self._space = space  # [dim, dim], which queries are multiplied by

    @classmethod
    def build(
        cls,
        vectors: NDArray[np.float32],
        settings: IndexSettings,
        k: int,
        queries: NDArray[np.float32] | None = None,
    ) -> "AppIndex":
        """Index `vectors`; searches return `k` by default.

        Args:
            queries: like those to come, some hundreds at least, `[n, dim]`; None if nothing is
                known of them, which are then taken to reach equally far in every direction.
        """
        kept = min(settings.dimensions, vectors.shape[1])
        for_queries, for_apps = query_space(vectors, queries, kept)
        builder = scann_ops_pybind.builder(vectors @ for_apps, k, "dot_product")
        if kept < vectors.shape[1]:
            builder = builder.truncate(kept)
        builder = builder.tree(
            num_leaves=settings.leaves,
            num_leaves_to_search=settings.leaves_to_search,
            training_sample_size=min(settings.training_sample, len(vectors)),
            soar_lambda=1.5,
            overretrieve_factor=1.4,
        )
        builder = builder.score_ah(DIMENSIONS_PER_BLOCK, anisotropic_quantization_threshold=0.2)
        return cls(builder.reorder(settings.reorder).build(), for_queries)

    @property
    def size(self) -> int:
        """How many apps it holds."""
        return int(self._searcher.size())

    def save(self, directory: Path) -> None:
        (directory / FILES).mkdir()
        # Relative paths inside, so that the bundle can be moved.
        self._searcher.serialize(str(directory / FILES), relative_path=True)
        if self._space is not None:
            np.save(directory / FILES / SPACE, self._space, allow_pickle=False)

    @classmethod
    def load(cls, directory: Path) -> "AppIndex":
        """What `save` wrote, or the version before it, whose vectors were indexed as they are."""
        files = directory / FILES
        space = np.load(files / SPACE, allow_pickle=False) if (files / SPACE).exists() else None
        with silenced_stderr():  # it reports there what it takes from where
            return cls(scann_ops_pybind.load_searcher(str(files)), space)

    def search(
        self, queries: NDArray[np.float32], k: int, leaves_to_search: int | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Positions and scores of the best `k`, both `[queries, k]`; position -1: fewer found.

        The same query may get a score that differs by rounding the next time.

        leaves_to_search: in place of the setting.
        """
        if self._space is not None:
            queries = queries @ self._space
        at, scores = self._searcher.search_batched(
            queries, final_num_neighbors=k, leaves_to_search=leaves_to_search
        )
        positions = at.astype(np.int64)
        # The best come first, so that where the last place is filled all are.
        if not np.isfinite(scores[:, -1]).all():
            positions[~np.isfinite(scores)] = -1
        return positions, scores


def query_space(
    vectors: NDArray[np.float32], queries: NDArray[np.float32] | None, mixed: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Matrices `[dim, dim]` for queries and for apps, under which no product changes.

    After them queries reach equally far in every direction, and the directions come in the order
    of how much scores differ along them; the first ones are mixed at random, since a code has
    equally many bits for each.

    Args:
        vectors, queries: `[apps, dim]` and `[n, dim]`, as in `AppIndex.build`.
        mixed: how many.
    """
    dim = vectors.shape[1]
    moment = np.eye(dim) if queries is None else queries.T.astype(np.float64) @ queries
    square, axes = np.linalg.eigh(moment / np.trace(moment) + RIDGE / dim * np.eye(dim))
    stretch = axes * np.sqrt(square)
    # Of differences: an offset that all apps share changes no order.
    covariance = np.cov(vectors[:: ceil(len(vectors) / COVARIANCE_SAMPLE)], rowvar=False)
    turn = np.linalg.eigh(stretch.T @ covariance @ stretch).eigenvectors[:, ::-1]
    normal = np.random.default_rng(0).standard_normal((mixed, mixed))
    turn = np.hstack([turn[:, :mixed] @ np.linalg.qr(normal).Q, turn[:, mixed:]])
    for_queries, for_apps = axes / np.sqrt(square) @ turn, stretch @ turn
    return for_queries.astype(np.float32), for_apps.astype(np.float32)


def exact_search(
    vectors: NDArray[np.float32], queries: NDArray[np.float32], k: int
) -> NDArray[np.int64]:
    """The true best `k` positions of each query, `[queries, k]`, the best first."""
    best = np.empty((len(queries), k), dtype=np.int64)
    # One buffer for all blocks: over a million apps, fresh memory costs more than the products.
    buffer = np.empty((BLOCK, len(vectors)), dtype=np.float32)
    for at in range(0, len(queries), BLOCK):
        block = queries[at : at + BLOCK]
        scores = np.matmul(block, vectors.T, out=buffer[: len(block)])
        best[at : at + BLOCK] = _top(scores, k)
    return best


def recall(found: NDArray[np.integer[Any]], true: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """Share of each query's true positions that were found, `[queries]`."""
    hits = [len(np.intersect1d(a, b)) for a, b in zip(found, true, strict=True)]
    return np.array(hits) / true.shape[1]


def _top(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Positions of each row's k highest scores, `[rows, k]`, the best first.

    The k best stand in at most k stretches, those of the highest maxima, or after the last.
    """
    whole = scores.shape[1] // STRETCH
    if whole > k:
        stretches = scores[:, : whole * STRETCH].reshape(len(scores), whole, STRETCH)
        chosen = np.argpartition(-stretches.max(axis=2), k - 1, axis=1)[:, :k, None]
        at = (chosen * STRETCH + np.arange(STRETCH)).reshape(len(scores), -1)
        rest = np.arange(whole * STRETCH, scores.shape[1])
        at = np.concatenate([at, np.broadcast_to(rest, (len(scores), len(rest)))], axis=1)
        found = _top(np.take_along_axis(scores, at, axis=1), k)
        return np.take_along_axis(at, found, axis=1)
    best = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
    return np.take_along_axis(best, order, axis=1)
