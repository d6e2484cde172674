"""Metrics of rows that belong together: those of one user, those shown for one query.

Enters: `Rows`.  Leaves: integers to be added up, and figures of their sums.  Rows of one score are
in no order: each metric is its own mean over all orders of them, so that no order is rewarded.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mlplatform.evaluation.rows import Floats, Ints, Mean, Reads, Rows


@dataclass(frozen=True)
class UserAUC(Mean):
    """The mean of users' own AUC; every user who has both labels counts once.

    What is the same for all rows of a user, how active she is say, moves the AUC over all rows and
    not this one (GAUC; Zhu et al., Optimized Cost per Click in Taobao, KDD 2017, there weighted).
    """

    name: ClassVar[str] = "AUC within users"
    reads: ClassVar[Reads] = "score"
    joint: ClassVar[bool] = True

    def each(self, rows: Rows) -> tuple[Ints, Floats]:
        if not len(rows):
            return rows.users, np.zeros(0)
        ties = _Ties.of(rows.users, rows.rank, rows.label)
        down = ties.rows - ties.positives
        below = np.cumsum(down) - down  # negatives of lower score, those of users before included
        below -= np.repeat(below[ties.lists], np.diff(np.append(ties.lists, len(below))))
        # Twice the ordered pairs, an integer, for exactness.
        ordered = np.add.reduceat(ties.positives * (2 * below + down), ties.lists)
        ups, downs = (np.add.reduceat(one, ties.lists) for one in (ties.positives, down))
        both = np.flatnonzero(ups * downs)
        return rows.users[both], ordered[both] / (2 * ups[both] * downs[both])


@dataclass(frozen=True)
class NDCG(Mean):
    """Normalised discounted cumulative gain of the first k rows of each query, by score.

    A positive at place i gains 1 / log2(1 + i) (Järvelin and Kekäläinen, Cumulated Gain-based
    Evaluation, 2002); ties gain the mean of their places (McSherry and Najork, Computing
    Information Retrieval Performance Measures Efficiently in the Presence of Tied Scores, 2008).
    The mean is over the queries that have a positive.
    """

    k: int
    reads: ClassVar[Reads] = "score"
    joint: ClassVar[bool] = True

    @property
    def name(self) -> str:
        return f"NDCG@{self.k}"

    def each(self, rows: Rows) -> tuple[Ints, Floats]:
        if not len(rows):
            return rows.queries, np.zeros(0)
        ties = _Ties.of(rows.queries, rows.rank.max() - rows.rank, rows.label)
        gains = np.append(0.0, np.cumsum(1 / np.log2(np.arange(2, self.k + 2))))
        last = np.cumsum(ties.rows)
        first = last - ties.rows
        before = np.repeat(first[ties.lists], np.diff(np.append(ties.lists, len(first))))
        within = [np.minimum(place - before, self.k) for place in (first, last)]
        mean_gain = (gains[within[1]] - gains[within[0]]) / ties.rows
        got = np.add.reduceat(ties.positives * mean_gain, ties.lists)
        positives = np.add.reduceat(ties.positives, ties.lists)
        some = np.flatnonzero(positives)
        best = gains[np.minimum(positives[some], self.k)]
        return rows.queries[some], got[some] / best


@dataclass(frozen=True)
class _Ties:
    """Rows of one list and one rank, list by list and by rank ascending.

    rows, positives: of each, `[t]`.   lists: the first of each list, `[lists]`.
    """

    rows: Ints
    positives: Ints
    lists: Ints

    @classmethod
    def of(cls, starts: Ints, rank: Ints, label: Ints) -> "_Ties":
        """Of at least one row.  Sorting one number a row beats sorting an order by far."""
        number = np.zeros(len(rank), np.int64)
        number[starts[1:]] = 1
        places = int(rank.max()) + 1
        keys = (np.cumsum(number) * places + rank) * 2 + label
        keys.sort()
        tie = keys >> 1
        first = np.flatnonzero(np.append(True, tie[1:] != tie[:-1]))
        rows = np.diff(np.append(first, len(keys)))
        positives = np.add.reduceat(keys & 1, first)
        of_list = tie[first] // places
        lists = np.flatnonzero(np.append(True, of_list[1:] != of_list[:-1]))
        return cls(rows, positives, lists)
