"""Analyze: one Beam pass over the data for all vocabularies, quantile boundaries and z-scores.

Enters: features, and the files that hold each one.  Leaves: a `Transform`.  Vocabularies
are exact within the limits of `ValueCounts`, quantiles within the error of `RowSample`, means and
deviations exact; all are the same for any order and any split of the work.

Importing this module imports Beam: import it inside the command that needs it.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mlplatform.data.files.columns import ArrowArray, kind_of, leaf_values, to_numpy
from mlplatform.data.files.shards import Piece, Shards, read_batches
from mlplatform.data.statistics.pieces import combine_over_pieces
from mlplatform.data.statistics.sketches import RowSample, ValueCounts
from mlplatform.errors import InvalidArgument
from mlplatform.transform.exact_moments import ExactMoments
from mlplatform.transform.feature import (
    MISSING,
    Feature,
    Quantiles,
    Vocabulary,
    ZScore,
    require_parts,
)
from mlplatform.transform.transform import Transform
from mlplatform.transform.zscore import Scale

Summary = RowSample | ValueCounts | ExactMoments
# The kinds of column that a feature can be read from; a column without values may be of any.
KINDS = {"string": ("STRING",), "int64": ("INT",), "float32": ("INT", "FLOAT")}


def analyze(
    features_of: Mapping[str, Sequence[Feature]],
    files_of: Mapping[str, Sequence[Path]],
    *,
    beam_options: Sequence[str] | None = None,
) -> Transform:
    """Find the vocabularies and boundaries of every data set's features.

    Args:
        features_of: the features read from each data set.
        files_of: the files of each data set.
        beam_options: the options of any Beam runner; a local one by default.

    Raises:
        DataCorrupt, NotFound, InvalidArgument: as `compute_statistics` does; and InvalidArgument
            for a column that a feature needs and the data lacks, or that has another type.
    """
    every = tuple(feature for features in features_of.values() for feature in features)
    require_parts(every)
    shards = [Shards.open(name, files_of[name]) for name in features_of]
    for one in shards:
        for feature in features_of[one.dataset]:
            if feature.transform and feature.column not in one.kinds and feature.column:
                raise InvalidArgument(
                    f"feature {feature.name!r}: expected a column {feature.column!r} in data set "
                    f"{one.dataset!r}, got {', '.join(one.kinds)}"
                )
    pieces = [piece for one in shards for piece in one.pieces]
    encoded = combine_over_pieces(
        pieces, partial(_summarise, features_of), _merge, _encode, beam_options
    )
    found = dict(json.loads(line) for line in encoded.decode().splitlines())
    vocabularies, boundaries, scales = {}, {}, {}
    for feature in every:
        match feature.transform:
            case Vocabulary(min_count=min_count, top_k=top_k, shared_with=None):
                cast: Callable[[str], str | int] = str if feature.dtype == "string" else int
                counted = [(cast(value), n) for value, n in found.get(feature.name, [])]
                missing = MISSING[feature.dtype]
                kept = [v for v, n in counted if n >= min_count and v != missing]
                vocabularies[feature.name] = tuple(kept[:top_k])
            case Quantiles(buckets=buckets):
                sample = np.array(found.get(feature.name, []), dtype=np.float64)
                inner = np.arange(1, buckets) / buckets
                # A value so frequent that it spans several buckets gets one of its own.
                limits = np.quantile(sample, inner) if len(sample) else sample
                boundaries[feature.name] = np.unique(limits.astype(np.float32))
            case ZScore():
                scales[feature.name] = Scale.of(*found.get(feature.name, (0.0, 0.0)))
    return Transform(every, vocabularies, boundaries, scales)


def _summarise(
    features_of: Mapping[str, Sequence[Feature]], piece: Piece
) -> Iterator[tuple[str, Summary]]:
    parts: dict[str, list[Summary]] = {}
    for first_row, batch in read_batches(piece):
        place = (piece.ordinal << 40) + first_row
        for feature in features_of[piece.dataset]:
            if feature.column not in batch.schema.names:
                continue  # other files of the data set have it
            match feature.transform:
                case Vocabulary(shared_with=None):
                    summary: Summary = _count(_values(feature, batch))
                case Quantiles():
                    summary = RowSample.of(_numbers(feature, batch).astype(np.float64), place)
                case ZScore():
                    summary = ExactMoments.of(_numbers(feature, batch))
                case _:
                    continue
            parts.setdefault(feature.name, []).append(summary)
    for name, summaries in parts.items():
        yield name, _merge(summaries)


def _values(feature: Feature, batch: pa.RecordBatch) -> ArrowArray:
    values = leaf_values(batch.column(feature.column))
    if (kind := kind_of(values.type)) not in (None, *KINDS[feature.dtype]):
        raise InvalidArgument(
            f"feature {feature.name!r}: expected column {feature.column!r} to be "
            f"{' or '.join(KINDS[feature.dtype])}, got {kind}; correct the data or the declaration"
        )
    return values


def _numbers(feature: Feature, batch: pa.RecordBatch) -> NDArray[np.float32]:
    """The values that are there and finite as float32, which they are compared as."""
    raw = to_numpy(_values(feature, batch))
    with np.errstate(over="ignore"):  # what overflows is not finite
        numbers = raw[raw != MISSING[feature.dtype]].astype(np.float32)
    return numbers[np.isfinite(numbers)]


def _count(values: ArrowArray) -> ValueCounts:
    counts = values.drop_null().value_counts()
    distinct = counts.field("values")
    if pa.types.is_dictionary(distinct.type):
        distinct = distinct.dictionary_decode()
    return ValueCounts.of(
        distinct.cast(pa.string()).cast(pa.binary()), counts.field("counts").to_numpy()
    )


def _merge(summaries: Iterable[Summary]) -> Summary:
    parts = list(summaries)
    return type(parts[0]).merge(parts)  # type: ignore[arg-type]  # all parts are of one type


def _encode(name: str, summary: Summary) -> bytes:
    match summary:
        case RowSample(values=values):
            content: list[object] = values.tolist()
        case ValueCounts(values=values):
            content = list(summary.top(len(values)))
        case ExactMoments():
            content = list(summary.mean_and_deviation())
    return json.dumps([name, content]).encode() + b"\n"
