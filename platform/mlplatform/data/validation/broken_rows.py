"""Which rows break a schema: what validation says of a data set, said of single rows.

Enters: record batches beside a schema.  Leaves: masks of rows by feature and type of anomaly, and
the first few such rows of a data set with their values, for a person to look at.  What only a whole
data set can show, as a distance between distributions, has no row.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2

from mlplatform.data.files.shards import Shards, read_batches
from mlplatform.data.schemas.schema import is_in, is_required, is_retired
from mlplatform.data.validation.row_checks import Mask, Types, check_column

# That a column is there or not there says nothing of one row.
OF_COLUMNS = (Types.SCHEMA_MISSING_COLUMN, Types.SCHEMA_NEW_COLUMN)
SAMPLES = 5
_VALUE_CHARACTERS = 80


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
            for anomaly, mask in check_column(batch.column(name), feature, schema):
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


def _values(batch: pa.RecordBatch, feature: str, rows: NDArray[np.intp]) -> list[str]:
    """What stands there, cut short."""
    if feature not in batch.schema.names:
        return ["no column"] * len(rows)
    values = batch.column(feature).take(pa.array(rows)).to_pylist()
    texts = ["missing" if value is None else repr(value).removeprefix("b") for value in values]
    return [t if len(t) <= _VALUE_CHARACTERS else t[:_VALUE_CHARACTERS] + "…" for t in texts]
