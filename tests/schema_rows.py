"""Rows made from a schema: those that it allows, and those with one planted fault.

Enters: a schema.  Leaves: hypothesis strategies of rows, dicts by feature, and the Arrow table of
such rows.
"""

from math import prod
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st
from tensorflow_metadata.proto.v0 import schema_pb2

from mlplatform.data.schemas.schema import find_domain, is_in, is_required

Row = dict[str, Any]
Fault = tuple[str, str, Any]  # feature, the anomaly it raises, the cell that raises it

FLOAT32_MAX = 3.4e38
ARROW = {
    schema_pb2.INT: pa.int64(),
    schema_pb2.FLOAT: pa.float64(),
    schema_pb2.BYTES: pa.string(),
}


def served(schema: schema_pb2.Schema, environment: str) -> list[schema_pb2.Feature]:
    return [feature for feature in schema.feature if is_in(environment, feature, schema)]


def arrow_table(rows: list[Row], features: list[schema_pb2.Feature]) -> pa.Table:
    columns = {}
    for feature in features:
        kind = ARROW[feature.type]
        columns[feature.name] = pa.array(
            [row[feature.name] for row in rows], pa.list_(kind) if _is_list(feature) else kind
        )
    return pa.table(columns)


def valid_rows(
    schema: schema_pb2.Schema, environment: str, *, whole: bool = False
) -> st.SearchStrategy[Row]:
    """One row; with every feature if it is to be `whole`."""
    cells = {f.name: _cells(f, schema, whole) for f in served(schema, environment)}
    return st.fixed_dictionaries(cells)


def valid_data(
    schema: schema_pb2.Schema, environment: str, most: int = 8
) -> st.SearchStrategy[list[Row]]:
    """Rows of a data set; the first is whole, since features have to be present in some row."""
    first = valid_rows(schema, environment, whole=True)
    others = st.lists(valid_rows(schema, environment), max_size=most - 1)
    return st.tuples(first, others).map(lambda parts: [parts[0], *parts[1]])


def faults(schema: schema_pb2.Schema, environment: str) -> list[Fault]:
    """One cell for each way in which each feature can break the schema."""
    found: list[Fault] = []
    for feature in served(schema, environment):
        domain = find_domain(feature, schema)

        def add(anomaly: str, value: Any, feature: schema_pb2.Feature = feature) -> None:
            found.append((feature.name, anomaly, [value] if _is_list(feature) else value))

        if feature.presence.min_fraction == 1:
            found.append((feature.name, "FEATURE_TYPE_LOW_FRACTION_PRESENT", None))
        if isinstance(domain, schema_pb2.StringDomain):
            add("ENUM_TYPE_UNEXPECTED_STRING_VALUES", "\u2620 none of these")
        if isinstance(domain, schema_pb2.FloatDomain):
            if domain.disallow_nan:
                add("FLOAT_TYPE_HAS_NAN", float("nan"))
            if domain.disallow_inf:
                add("FLOAT_TYPE_HAS_INF", float("inf"))
            if domain.HasField("max"):
                add("FLOAT_TYPE_BIG_FLOAT", domain.max * 2 + 1)
        if isinstance(domain, schema_pb2.IntDomain):
            if domain.HasField("min"):
                add("INT_TYPE_SMALL_INT", domain.min - 1)
            if domain.HasField("max"):
                add("INT_TYPE_BIG_INT", domain.max + 1)
        if _is_list(feature) and feature.value_count.min:
            found.append((feature.name, "FEATURE_TYPE_LOW_NUMBER_VALUES", []))
    return found


def _cells(
    feature: schema_pb2.Feature, schema: schema_pb2.Schema, whole: bool
) -> st.SearchStrategy[Any]:
    value = _values(feature, find_domain(feature, schema))
    cell = value
    if _is_list(feature):
        size = prod(dim.size for dim in feature.shape.dim)
        fewest, most = feature.value_count.min, feature.value_count.max or 6
        if feature.HasField("shape"):
            fewest = most = size
        cell = st.lists(value, min_size=fewest, max_size=max(fewest, most))
    if whole or (is_required(None, feature, schema) and feature.presence.min_fraction == 1):
        return cell
    return st.none() | cell


def _values(feature: schema_pb2.Feature, domain: Any) -> st.SearchStrategy[Any]:
    if feature.type == schema_pb2.BYTES:
        if isinstance(domain, schema_pb2.StringDomain):
            return st.sampled_from(list(domain.value))
        return st.text(max_size=12)
    if feature.type == schema_pb2.INT:
        low, high = -(2**63), 2**63 - 1
        if isinstance(domain, schema_pb2.IntDomain):
            low = domain.min if domain.HasField("min") else low
            high = domain.max if domain.HasField("max") else high
        return st.integers(low, high)
    low, high = -FLOAT32_MAX, FLOAT32_MAX
    if isinstance(domain, schema_pb2.FloatDomain):
        low = domain.min if domain.HasField("min") else low
        high = domain.max if domain.HasField("max") else high
    return st.floats(low, high, allow_nan=False, allow_infinity=False)


def _is_list(feature: schema_pb2.Feature) -> bool:
    if feature.HasField("shape"):
        return prod(dim.size for dim in feature.shape.dim) != 1
    return not feature.HasField("value_count") or feature.value_count.max != 1
