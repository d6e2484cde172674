"""Evaluation by its definitions: loops over rows, pairs, users, orders.  And Beam without Beam."""

import math
from collections.abc import Callable, Iterable
from itertools import groupby, pairwise, permutations
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

Row = dict[str, Any]


def log_loss(rows: list[Row], score: str) -> float:
    return mean(
        -math.log(min(max(p if row["clicked"] else 1 - p, 1e-12), 1))
        for row in rows
        for p in [row[score]]
    )


def auc(rows: list[Row], score: str) -> float:
    return mean(
        0.5 if up[score] == down[score] else float(up[score] > down[score])
        for up in rows
        if up["clicked"]
        for down in rows
        if not down["clicked"]
    )


def user_auc(rows: list[Row], score: str) -> float:
    found = [auc(of_user, score) for of_user in apart(rows, "customer")]
    return mean(one for one in found if not math.isnan(one))


def ndcg(rows: list[Row], score: str, k: int) -> float:
    """Each row gains the mean over the places that it may take: after those above, among ties."""
    found = []
    for query in apart(rows, "query"):
        best = dcg(sorted((row["clicked"] for row in query), reverse=True), k)
        if not best:
            continue
        gain = 0.0
        for row in query:
            above = sum(other[score] > row[score] for other in query)
            tied = sum(other[score] == row[score] for other in query)
            gain += row["clicked"] * mean(discount(above + n, k) for n in range(tied))
        found.append(gain / best)
    return mean(found)


def ndcg_over_orders(rows: list[Row], score: str, k: int) -> float:
    """The same of one query, as the mean over all orders that the scores allow."""
    best = dcg(sorted((row["clicked"] for row in rows), reverse=True), k)
    return mean(
        dcg([row["clicked"] for row in order], k) / best
        for order in permutations(rows)
        if all(a[score] >= b[score] for a, b in pairwise(order))
    )


def dcg(labels: list[int], k: int) -> float:
    return sum(label * discount(place, k) for place, label in enumerate(labels))


def discount(place: int, k: int) -> float:
    return 1 / math.log2(place + 2) if place < k else 0.0


def calibration(rows: list[Row], score: str) -> float:
    clicked = sum(row["clicked"] for row in rows)
    return sum(row[score] for row in rows) / clicked if clicked else math.nan


def mean(values: Iterable[float]) -> float:
    every = list(values)
    return sum(every) / len(every) if every else math.nan


def apart(rows: list[Row], column: str) -> list[list[Row]]:
    def key(row: Row) -> Any:
        return row[column]

    return [list(some) for _, some in groupby(sorted(rows, key=key), key)]


def write(path: Path, rows: list[Row] | dict[str, Any]) -> Path:
    table = pa.table(rows) if isinstance(rows, dict) else pa.Table.from_pylist(rows)
    pq.write_table(table, path)
    return path


def combine(
    pieces: Any, summarise: Callable[..., Any], merge: Any, encode: Any, _options: Any
) -> bytes:
    """What a Beam pass comes to, in one thread."""
    found: dict[Any, list[Any]] = {}
    for piece in pieces:
        for key, summary in summarise(piece):
            found.setdefault(key, []).append(summary)
    return b"".join(sorted(encode(key, merge(parts)) for key, parts in found.items()))


def without_beam(patch: pytest.MonkeyPatch) -> None:
    for module in ("evaluate", "survey", "tally"):
        patch.setattr(f"mlplatform.evaluation.{module}.combine_over_pieces", combine)
