"""Skew between training and serving, row by row: the same rows as each side saw them.

Enters: two tables, and the columns that name a row.  Leaves: a `SkewReport`, how often the sides
agree on each feature and how they differ where they do not.  `asdict` makes it JSON.  What a
difference costs a model is `mlplatform.evaluation.skew_cost`.

Distributions can agree where every row is wrong; a join by key sees that (feature skew, in
Breck et al., Data Validation for Machine Learning, 2019).
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mlplatform.data.files.columns import ArrowArray
from mlplatform.data.files.spans import read_parquet
from mlplatform.data.skew.columns import (
    Confusion,
    Mask,
    Value,
    align,
    confusions,
    distances,
    equal,
    is_present,
    plain,
)
from mlplatform.data.skew.join import Join, KeyCounts, join_by_key
from mlplatform.errors import InvalidArgument


@dataclass(frozen=True)
class Sample:
    """A row on which the sides differ; None stands for a missing value."""

    key: tuple[Value, ...]
    training: Value
    serving: Value


@dataclass(frozen=True)
class FeatureSkew:
    """One feature over the matched rows, each of which is in exactly one of the first five counts.

    mean_difference, max_difference: absolute, over the rows where both sides have a finite number,
        agreeing or not; None for other features and where no row has two.
    confusions: of strings, bools and integers of few values, see `skew_columns.confusions`.
    samples: mismatches first, then what only one side has.
    """

    name: str
    match: int
    mismatch: int
    training_only: int
    serving_only: int
    both_missing: int
    mean_difference: float | None
    max_difference: float | None
    confusions: tuple[Confusion, ...]
    samples: tuple[Sample, ...]

    @property
    def differing(self) -> int:
        """Rows on which the sides differ."""
        return self.mismatch + self.training_only + self.serving_only


@dataclass(frozen=True)
class SkewReport:
    """Every feature, the one with most differing rows first, then by name."""

    keys: tuple[str, ...]
    counts: KeyCounts
    features: tuple[FeatureSkew, ...]


def compare_by_key(
    training: pa.Table | Path,
    serving: pa.Table | Path,
    keys: Sequence[str],
    *,
    ignore: Sequence[str] = (),
    tolerance: float = 0.0,
    samples: int = 10,
) -> SkewReport:
    """Compare the rows that both sides have, feature by feature.

    Rows are joined by `keys`; what cannot be joined is counted, not compared.  A feature that one
    side lacks is missing in all its rows.  Of a Parquet file the keys and one feature at a time
    are in memory.  The order of rows and columns on either side changes nothing.

    Args:
        training, serving: tables, or Parquet files.
        keys: columns of integers or strings that together name a row.
        ignore: columns not to compare.
        tolerance: floats match if they differ by at most this share of the larger magnitude.
        samples: how many rows to show of each way to differ, the first in the order of the keys.

    Raises:
        InvalidArgument: a column is not there, is there twice, or cannot be compared.
        NotFound, DataCorrupt: a file cannot be read.
    """
    if not 0 <= tolerance < 1:
        raise InvalidArgument(f"tolerance: expected a share from 0 to below 1, got {tolerance}")
    if samples < 0:
        raise InvalidArgument(f"samples: expected a number of rows from 0, got {samples}")
    sides = {"training": training, "serving": serving}
    names = {side: _column_names(side, rows) for side, rows in sides.items()}
    for side, known in names.items():
        _require_known("key", keys, known, side)
    every = set().union(*names.values())
    _require_known("ignored column", ignore, every, "either side")
    key_tables = {side: _read(rows, keys) for side, rows in sides.items()}
    join = join_by_key(key_tables["training"], key_tables["serving"], keys)

    def column(side: str, name: str) -> ArrowArray:
        if name not in names[side]:
            return pa.nulls(len(key_tables[side]))
        return _read(sides[side], [name])[name]

    compared = [
        _compare(name, column("training", name), column("serving", name), join, tolerance, samples)
        for name in every.difference(keys, ignore)
    ]
    features = sorted(compared, key=lambda feature: (-feature.differing, feature.name))
    return SkewReport(tuple(keys), join.counts, tuple(features))


def _compare(
    name: str,
    training: ArrowArray,
    serving: ArrowArray,
    join: Join,
    tolerance: float,
    samples: int,
) -> FeatureSkew:
    aligned = align(f"feature {name!r}", training, serving)
    here, there = aligned[0].take(pa.array(join.training)), aligned[1].take(pa.array(join.serving))
    in_training, in_serving = is_present(here), is_present(there)
    both, same = in_training & in_serving, equal(here, there, tolerance)
    differing = {
        "mismatch": both & ~same,
        "training_only": in_training & ~in_serving,
        "serving_only": in_serving & ~in_training,
    }
    mismatched = pa.array(differing["mismatch"])
    mean, most = distances(here, there)
    return FeatureSkew(
        name=name,
        match=int((both & same).sum()),
        both_missing=int((~in_training & ~in_serving).sum()),
        **{way: int(rows.sum()) for way, rows in differing.items()},
        mean_difference=mean,
        max_difference=most,
        confusions=confusions(here.filter(mismatched), there.filter(mismatched)),
        samples=tuple(
            sample
            for rows in differing.values()
            for sample in _samples(join.keys, here, there, rows, samples)
        ),
    )


def _samples(
    keys: pa.Table, training: ArrowArray, serving: ArrowArray, rows: Mask, limit: int
) -> Iterator[Sample]:
    first = pa.array(np.flatnonzero(rows)[:limit])
    key_columns = [plain(column) for column in keys.take(first).columns]
    values = plain(training.take(first)), plain(serving.take(first))
    for *key, here, there in zip(*key_columns, *values, strict=True):
        yield Sample(tuple(key), here, there)


def _column_names(side: str, rows: pa.Table | Path) -> set[str]:
    if isinstance(rows, Path):
        read_parquet(rows, columns=[])  # says in one line what is wrong with a file
        names = pq.read_schema(rows).names
    else:
        names = rows.schema.names
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise InvalidArgument(
            f"{side}: expected distinct column names, got {', '.join(map(repr, twice[:5]))} more "
            "than once; rename or drop the copies"
        )
    return set(names)


def _read(rows: pa.Table | Path, columns: Sequence[str]) -> pa.Table:
    return read_parquet(rows, list(columns)) if isinstance(rows, Path) else rows.select(columns)


def _require_known(what: str, wanted: Sequence[str], known: set[str], where: str) -> None:
    if unknown := [name for name in wanted if name not in known]:
        raise InvalidArgument(
            f"{what} {', '.join(map(repr, unknown))}: expected a column of {where}, which has "
            f"{', '.join(sorted(known)[:20]) or 'none'}; correct the name"
        )
