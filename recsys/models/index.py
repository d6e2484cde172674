"""The index: the apps nearest to a query by dot product, and the exact search to judge it by.

Enters: app vectors `[apps, dim] float32`.  Leaves: positions in them, the best first.  ScaNN: a
tree of leaves with spilling (SOAR; Sun et al., NeurIPS 2023), anisotropic quantization of what is
in them (Guo et al., ICML 2020), exact scores for the best of those.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scann.scann_ops.py import scann_ops_pybind

FILES = "scann"
BLOCK = 64  # queries that the exact search scores at once
STRETCH = 256
# Codes of one dimension each: with two, the quantized order loses a fifth of the best hundred.
DIMENSIONS_PER_BLOCK = 1


@dataclass(frozen=True)
class IndexSettings:
    """How large the tree is, and how much of it a query looks at."""

    leaves: int = 2_000
    leaves_to_search: int = 120
    reorder: int = 600
    training_sample: int = 200_000


class AppIndex:
    """A built index; `save` and `load` keep it in a directory."""

    def __init__(self, searcher: Any) -> None:
        self._searcher = searcher

    @classmethod
    def build(cls, vectors: NDArray[np.float32], settings: IndexSettings, k: int) -> "AppIndex":
        """Index `vectors`; searches return `k` by default."""
        builder = scann_ops_pybind.builder(vectors, k, "dot_product")
        builder = builder.tree(
            num_leaves=settings.leaves,
            num_leaves_to_search=settings.leaves_to_search,
            training_sample_size=min(settings.training_sample, len(vectors)),
            soar_lambda=1.5,
            overretrieve_factor=1.4,
        )
        builder = builder.score_ah(DIMENSIONS_PER_BLOCK, anisotropic_quantization_threshold=0.2)
        return cls(builder.reorder(settings.reorder).build())

    @property
    def size(self) -> int:
        """How many apps it holds."""
        return int(self._searcher.size())

    def save(self, directory: Path) -> None:
        (directory / FILES).mkdir()
        # Relative paths inside, so that the bundle can be moved.
        self._searcher.serialize(str(directory / FILES), relative_path=True)

    @classmethod
    def load(cls, directory: Path) -> "AppIndex":
        return cls(scann_ops_pybind.load_searcher(str(directory / FILES)))

    def search(
        self, queries: NDArray[np.float32], k: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Positions and scores of the best `k`, both `[queries, k]`; position -1: fewer found."""
        at, scores = self._searcher.search_batched(queries, final_num_neighbors=k)
        found = np.isfinite(scores)
        return np.where(found, at.astype(np.int64), -1), np.asarray(scores, dtype=np.float32)


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


def recall(found: NDArray[np.int64], true: NDArray[np.int64]) -> NDArray[np.float64]:
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
