"""Which rows break a schema: what validation says of a data set, said of single rows.

Enters: record batches beside a schema.  Leaves: masks of rows by feature and type of anomaly, and
the first few such rows of a data set with their values, for a person to look at.  What only a whole
data set can show, as a distance between distributions, has no row.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2

from mlplatform.data.files.columns import ArrowArray, is_list, kind_of, leaf_values
from mlplatform.data.files.shards import Shards, read_batches
from mlplatform.data.schemas.numbers_in_text import as_floats, as_integers
from mlplatform.data.schemas.schema import is_in, is_required, is_retired, string_domain

Types = anomalies_pb2.AnomalyInfo
Mask = NDArray[np.bool_]  # [rows]

# That a column is there or not there says nothing of one row.
OF_COLUMNS = (Types.SCHEMA_MISSING_COLUMN, Types.SCHEMA_NEW_COLUMN)
SAMPLES = 5
_VALUE_CHARACTERS = 80
_KINDS = {schema_pb2.INT: "INT", schema_pb2.FLOAT: "FLOAT", schema_pb2.BYTES: "STRING"}


@dataclass(frozen=True)
class BrokenRow:
    """One row that raised an anomaly.  `row` counts from 0 within the file."""

    feature: str
    anomaly: str
    path: Path
    row: int
    value: str

    def __str__(self) -> str:
        return f"{self.feature} = {self.value} in row {self.row} of {self.path}"


def find_broken_rows(
    paths: Sequence[Path],
    schema: schema_pb2.Schema,
    anomalies: anomalies_pb2.Anomalies,
    *,
    environment: str | None = None,
    samples: int = SAMPLES,
) -> list[BrokenRow]:
    """The first rows, at most `samples` for each anomaly of each feature, in the files' order.

    Reads the files once more and stops when it has enough.

    Args:
        anomalies: as `validate` returned them for the statistics of `paths`.

    Raises:
        DataCorrupt, NotFound, InvalidArgument: as `compute_statistics` does for the same files.
    """
    wanted = {
        (name, reason.type): samples
        for name, info in anomalies.anomaly_info.items()
        for reason in info.reason
        if reason.type not in OF_COLUMNS
    }
    found: list[BrokenRow] = []
    if not wanted:
        return found  # not even a look at the files
    for piece in Shards.open("", paths).pieces:
        for first_row, batch in read_batches(piece):
            if not any(wanted.values()):
                return found
            for feature, anomaly, mask in broken_rows(batch, schema, environment, shares=True):
                left = wanted.get((feature, anomaly), 0)
                at = np.flatnonzero(mask)[:left]
                if len(at):
                    wanted[feature, anomaly] = left - len(at)
                    name = Types.Type.Name(anomaly)
                    found += [
                        BrokenRow(feature, name, piece.path, first_row + int(i), value)
                        for i, value in zip(at, _values(batch, feature, at), strict=True)
                    ]
    return found


def broken_rows(
    batch: pa.RecordBatch,
    schema: schema_pb2.Schema,
    environment: str | None = None,
    *,
    shares: bool = False,
) -> Iterator[tuple[str, int, Mask]]:
    """Yield (feature, type of anomaly, rows that raise it), where there are any.

    shares: also rows that the schema tolerates one by one, and limits the share of.
    """
    every = np.ones(len(batch), np.bool_)
    in_schema = {feature.name: feature for feature in schema.feature}
    for name in batch.schema.names:
        feature = in_schema.get(name)
        if feature is None or not is_in(environment, feature, schema):
            yield name, Types.SCHEMA_NEW_COLUMN, every
    for name, feature in in_schema.items():
        if is_retired(feature) or not is_in(environment, feature, schema):
            continue
        if name in batch.schema.names:
            for anomaly, mask in _of_column(batch.column(name), feature, schema):
                if mask.any() and (shares or not _is_tolerated(anomaly, feature)):
                    yield name, anomaly, mask
        elif is_required(environment, feature, schema):
            yield name, Types.SCHEMA_MISSING_COLUMN, every
            if shares:  # with other files that have the column
                yield name, Types.FEATURE_TYPE_LOW_FRACTION_PRESENT, every


def _is_tolerated(anomaly: int, feature: schema_pb2.Feature) -> bool:
    if anomaly == Types.FEATURE_TYPE_LOW_FRACTION_PRESENT:
        return bool(feature.presence.min_fraction < 1)
    constraints = feature.distribution_constraints
    return anomaly == Types.ENUM_TYPE_UNEXPECTED_STRING_VALUES and bool(
        constraints.min_domain_mass < 1
    )


def _of_column(
    column: ArrowArray, feature: schema_pb2.Feature, schema: schema_pb2.Schema
) -> Iterator[tuple[int, Mask]]:
    missing = _mask(column.is_null())
    if feature.presence.min_fraction:
        yield Types.FEATURE_TYPE_LOW_FRACTION_PRESENT, missing
    if pa.types.is_null(column.type):
        return
    lengths = np.ones(len(column), np.int64)
    if is_list(column.type):
        lengths = pc.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)
    fewest, most = _valency(feature)
    yield Types.FEATURE_TYPE_LOW_NUMBER_VALUES, ~missing & (lengths < fewest)
    yield Types.FEATURE_TYPE_HIGH_NUMBER_VALUES, ~missing & (lengths > most)

    owner = np.repeat(np.arange(len(column)), lengths)
    values = leaf_values(column)
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    for anomaly, bad in _of_values(values, feature, schema):
        rows = np.zeros(len(column), np.bool_)
        rows[owner[bad]] = True
        yield anomaly, rows


def _of_values(
    values: ArrowArray, feature: schema_pb2.Feature, schema: schema_pb2.Schema
) -> Iterator[tuple[int, Mask]]:
    """Masks `[values]`; a null among them breaks nothing."""
    expected = _KINDS.get(feature.type)
    if expected is None:
        return
    present = _mask(values.is_valid())
    if kind_of(values.type) == "STRING":
        if expected == "STRING":
            yield from _of_strings(values, present, feature, schema)
            return
        parsed, is_number = _parse(values, expected)
        yield Types.UNEXPECTED_DATA_TYPE, present & ~is_number
        present &= is_number
    elif kind_of(values.type) != expected:
        yield Types.UNEXPECTED_DATA_TYPE, present
        return
    else:
        if pa.types.is_boolean(values.type):
            values = values.cast(pa.int64())
        parsed = values.fill_null(0).to_numpy(zero_copy_only=False)
    if expected == "INT":
        domain: Any = feature.int_domain
        small, big = Types.INT_TYPE_SMALL_INT, Types.INT_TYPE_BIG_INT
    else:
        domain = feature.float_domain
        small, big = Types.FLOAT_TYPE_SMALL_FLOAT, Types.FLOAT_TYPE_BIG_FLOAT
        if domain.disallow_nan:
            yield Types.FLOAT_TYPE_HAS_NAN, present & np.isnan(parsed)
        if domain.disallow_inf:
            yield Types.FLOAT_TYPE_HAS_INF, present & np.isinf(parsed)
        parsed = parsed.astype(np.float32)  # as the domain holds its limits
    if domain.HasField("min"):
        yield small, present & (parsed < domain.min)
    if domain.HasField("max"):
        yield big, present & (parsed > domain.max)


def _of_strings(
    values: ArrowArray, present: Mask, feature: schema_pb2.Feature, schema: schema_pb2.Schema
) -> Iterator[tuple[int, Mask]]:
    domain = string_domain(feature, schema)
    if domain is not None:
        known = pa.array([value.encode() for value in domain.value], pa.binary())
        is_known = _mask(pc.is_in(values.cast(pa.binary()), value_set=known))
        yield Types.ENUM_TYPE_UNEXPECTED_STRING_VALUES, present & ~is_known


def _parse(values: ArrowArray, kind: str) -> tuple[NDArray[Any], Mask]:
    """Strings as numbers, 0 where they are none; and which are numbers."""
    parse: Any = as_integers if kind == "INT" else as_floats
    encoded = values.cast(pa.binary()).dictionary_encode()
    strings = [text.decode(errors="replace") for text in encoded.dictionary.to_pylist()]
    distinct = [(parse([string]) or [None])[0] for string in strings]
    of_distinct = pa.array([*distinct, None], pa.int64() if kind == "INT" else pa.float64())
    parsed = of_distinct.take(encoded.indices.cast(pa.int64()).fill_null(len(distinct)))
    return parsed.fill_null(0).to_numpy(zero_copy_only=False), _mask(parsed.is_valid())


def _valency(feature: schema_pb2.Feature) -> tuple[float, float]:
    if feature.HasField("shape"):
        size = prod(dim.size for dim in feature.shape.dim)
        return size, size
    count = feature.value_count
    return count.min, count.max if count.HasField("max") else np.inf


def _mask(booleans: ArrowArray) -> Mask:
    mask: Mask = booleans.to_numpy(zero_copy_only=False)
    return mask


def _values(batch: pa.RecordBatch, feature: str, rows: NDArray[np.intp]) -> list[str]:
    """What stands there, cut short."""
    if feature not in batch.schema.names:
        return ["no column"] * len(rows)
    values = batch.column(feature).take(pa.array(rows)).to_pylist()
    texts = ["missing" if value is None else repr(value).removeprefix("b") for value in values]
    return [t if len(t) <= _VALUE_CHARACTERS else t[:_VALUE_CHARACTERS] + "…" for t in texts]
