"""Which apps are candidates, and which of the ranked ones make the list: compiled loops.

Enters: rows of the app table, as the sources and the ranker give them; 0 is no app.  Leaves: rows.
A request's outcome does not depend on what others are asked with it.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

Int = NDArray[np.int32]
Float = NDArray[np.float32]
_BLOCK = 256  # vectors that all queries are multiplied with before the next ones are read


@njit(nogil=True, cache=True)
def are_below(numbers: Int, limits: NDArray[np.int64]) -> bool:
    """Whether all of `[b, n]` are from 0 to less than the limits `[n]`, or one limit `[1]`."""
    for q in range(len(numbers)):
        for i in range(numbers.shape[1]):
            if not 0 <= numbers[q, i] < limits[i % len(limits)]:
                return False
    return True


def in_blocks(vectors: Float) -> Float:
    """`[n, dim]` as `nearest` reads them: `[blocks, dim, _BLOCK]`, and 0 after the last.

    A query times such a block is sums of rows, which a processor is better at than at sums in rows.
    """
    blocks = np.zeros((-(-len(vectors) // _BLOCK), vectors.shape[1], _BLOCK), np.float32)
    for number, block in enumerate(blocks):
        some = vectors[number * _BLOCK : (number + 1) * _BLOCK]
        block[:, : len(some)] = some.T
    return blocks


@njit(nogil=True, cache=True)
def nearest(queries: Float, blocks: Float, n: int, k: int) -> tuple[Int, Float]:
    """The k vectors of the highest product, the best first: positions and scores `[b, k]`.

    Position -1: no vector, of which the score is -inf.  A product that is NaN is none.

    Args:
        queries: `[b, dim]`.
        blocks: n vectors, from `in_blocks`.
    """
    at = np.full((len(queries), k), -1, np.int32)
    scores = np.full((len(queries), k), -np.inf, np.float32)
    products = np.empty(_BLOCK, np.float32)
    for number in range(len(blocks)):
        start = number * _BLOCK
        for q in range(len(queries)):
            np.dot(queries[q], blocks[number], products)
            for j in range(min(_BLOCK, n - start)):
                if not products[j] > scores[q, k - 1]:
                    continue
                place = k - 1
                while place > 0 and products[j] > scores[q, place - 1]:
                    at[q, place], scores[q, place] = at[q, place - 1], scores[q, place - 1]
                    place -= 1
                at[q, place], scores[q, place] = start + j, products[j]
    return at, scores


@njit(nogil=True, cache=True)
def _has(rows, n, row):  # type: ignore[no-untyped-def]
    found = False
    for i in range(n):
        found |= rows[i] == row
    return found


@njit(nogil=True, cache=True)
def choose(  # type: ignore[no-untyped-def]
    sources: Int,
    source_scores: Float,
    owned: Int,
    os_version: Float,
    min_os: Float,
    popular: Int,
    n: int,
    least: int,
):
    """The first n apps that may be shown to each user, none twice: rows and scores `[b, n]`.

    If they are fewer than `least`, the most popular ones follow, with score NaN.  An app may be
    shown if the user does not own it and the device is not too old for it; a device that does not
    say its version is offered everything.

    Args:
        sources, source_scores: `[b, m]`, in the order in which they are taken.
        owned: rows `[b, o]`, 0 for none.
        os_version: `[b]`, NaN if unknown.
        min_os: `[apps + 1]`, by row.
        popular: rows, the most popular first.
    """
    rows = np.zeros((len(sources), n), np.int32)
    scores = np.full((len(sources), n), np.nan, np.float32)
    has = np.empty(owned.shape[1], np.int32)
    for q in range(len(sources)):
        n_owned = 0
        for row in owned[q]:
            has[n_owned] = row
            n_owned += row != 0
        found = 0
        for i in range(sources.shape[1]):
            row = sources[q, i]
            if row == 0 or min_os[row] > os_version[q] or _has(has, n_owned, row):
                continue
            if _has(rows[q], found, row):
                continue
            rows[q, found], scores[q, found] = row, source_scores[q, i]
            found += 1
            if found == n:
                break
        for row in popular:
            if found >= least:
                break
            if min_os[row] > os_version[q] or _has(has, n_owned, row) or _has(rows[q], found, row):
                continue
            rows[q, found] = row
            found += 1
    return rows, scores


@njit(nogil=True, cache=True)
def listed(  # type: ignore[no-untyped-def]
    rows: Int,
    merit: Float,
    groups: Int,
    most: NDArray[np.int64],
    k: int,
):
    """The places in `rows` of the k apps to show, `[b, k]`, those of highest merit first.

    Place -1: there are fewer apps.  NaN comes after all other merits, and among equals the earlier
    place is first.  Going down that order an app is taken unless so many of one of its groups are
    there already.  If the list comes up short, the best of those passed over are taken after all.

    Args:
        rows, merit: `[b, n]`.
        groups: `[apps + 1, respects]`, by row: which group an app is of, in each respect.
        most: `[respects]`, how many apps of one group.
    """
    n = rows.shape[1]
    chosen = np.full((len(rows), k), -1, np.int64)
    order = np.empty(n, np.int64)
    left, taken = np.empty(n, np.bool_), np.empty(n, np.bool_)
    seen = np.empty((k, groups.shape[1]), np.int32)
    for q in range(len(rows)):
        for i in range(n):
            left[i] = rows[q, i] != 0
        found, last = 0, 0
        while found < k:
            place = _best(merit[q], left)
            if place < 0:
                break
            left[place] = False
            row, is_free = rows[q, place], True
            for g in range(groups.shape[1]):
                alike = 0
                for j in range(found):
                    alike += seen[j, g] == groups[row, g]
                is_free &= alike < most[g]
            order[last], taken[last] = place, is_free
            last += 1
            if is_free:
                for g in range(groups.shape[1]):
                    seen[found, g] = groups[row, g]
                found += 1
        for i in range(last):
            if found == k:
                break
            if not taken[i]:
                taken[i] = True
                found += 1
        at = 0
        for i in range(last):
            if taken[i]:
                chosen[q, at] = order[i]
                at += 1
    return chosen


@njit(nogil=True, cache=True)
def _best(merit, left):  # type: ignore[no-untyped-def]
    """The first of the highest that are left, NaN below all; -1 if nothing is."""
    best = -1
    for i in range(len(merit)):
        if not left[i]:
            continue
        if best < 0 or merit[i] > merit[best] or (np.isnan(merit[best]) and merit[i] == merit[i]):
            best = i
    return best
