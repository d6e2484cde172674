"""Metrics of retrieval: one row is something that a user went for, found at a rank or not at all.

Enters: `Rows` whose `given` is the rank, from 1, at which a model found the item in the whole
catalogue; 0: not as far as it was looked for.  Leaves: means over rows.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mlplatform.evaluation.rows import Floats, Mean, Reads, Rows, ratio


@dataclass(frozen=True)
class Recall(Mean):
    """The share of items that are among the first k."""

    k: int
    reads: ClassVar[Reads] = "rank"

    @property
    def name(self) -> str:
        return f"recall@{self.k}"

    def each(self, rows: Rows) -> tuple[None, Floats]:
        return None, _within(rows.given, self.k).astype(np.float64)


@dataclass(frozen=True)
class RankNDCG(Mean):
    """The mean of 1 / log2(1 + rank) over all items, 0 beyond k: NDCG of one positive a list."""

    k: int
    reads: ClassVar[Reads] = "rank"

    @property
    def name(self) -> str:
        return f"NDCG@{self.k}"

    def each(self, rows: Rows) -> tuple[None, Floats]:
        rank = np.where(_within(rows.given, self.k), rows.given, np.inf)
        return None, 1 / np.log2(1 + rank)


@dataclass(frozen=True)
class MRR(Mean):
    """The mean of 1 / rank, 0 where nothing was found."""

    name: ClassVar[str] = "MRR"
    reads: ClassVar[Reads] = "rank"

    def each(self, rows: Rows) -> tuple[None, Floats]:
        return None, np.nan_to_num(ratio(1.0, rows.given))


def _within(rank: Floats, k: int) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    return (rank > 0) & (rank <= k)
