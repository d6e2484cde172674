"""The checks of features that are made of others: sparse ones and weighted ones.

Enters: the schema, and the data's features by name.  Leaves: findings.

Whether every row fits is told by TFDV's statistics of the composite itself (its custom statistics).
Where there are none, the counts of its parts tell less: that some row lacks a part is certain when
the parts have different numbers of rows, but lacks that cancel out are not seen.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tensorflow_metadata.proto.v0 import schema_pb2

from mlplatform.data.schemas.schema import is_retired, live_features
from mlplatform.data.validation.facts import Statistics, common_statistics
from mlplatform.data.validation.findings import RETIRE, Finding, Types

Data = Mapping[str, Statistics]


@dataclass(frozen=True)
class Composite:
    """A sparse or weighted feature.

    Attributes:
        field: where the schema lists it.
        value: the feature that holds its values.
        others: the features that must have as many in every row: indices, or the weight.
        collision, no_value, no_other, mismatch: the types of its anomalies.
    """

    field: str
    name: str
    value: str
    others: tuple[str, ...]
    collision: int
    no_value: int
    no_other: int
    mismatch: int

    def finding(self, kind: int, short: str, description: str) -> Finding:
        """A finding that is accepted by retiring the composite."""

        def retire(schema: schema_pb2.Schema) -> None:
            for one in getattr(schema, self.field):
                if one.name == self.name:
                    RETIRE(one)

        return Finding(self.name, kind, short, description, retire)


def composites_of(schema: schema_pb2.Schema) -> list[Composite]:
    """The sparse and weighted features of which anything is asked."""
    sparse = [
        Composite(
            "sparse_feature",
            one.name,
            one.value_feature.name,
            tuple(index.name for index in one.index_feature),
            Types.SPARSE_FEATURE_NAME_COLLISION,
            Types.SPARSE_FEATURE_MISSING_VALUE,
            Types.SPARSE_FEATURE_MISSING_INDEX,
            Types.SPARSE_FEATURE_LENGTH_MISMATCH,
        )
        for one in schema.sparse_feature
        if not is_retired(one)
    ]
    weighted = [
        Composite(
            "weighted_feature",
            one.name,
            ".".join(one.feature.step),
            (".".join(one.weight_feature.step),),
            Types.WEIGHTED_FEATURE_NAME_COLLISION,
            Types.WEIGHTED_FEATURE_MISSING_VALUE,
            Types.WEIGHTED_FEATURE_MISSING_WEIGHT,
            Types.WEIGHTED_FEATURE_LENGTH_MISMATCH,
        )
        for one in schema.weighted_feature
        if not is_retired(one)
    ]
    return sparse + weighted


def check_composites(schema: schema_pb2.Schema, data: Data) -> Iterator[Finding]:
    """Every composite has a name of its own and parts that exist and fit together."""
    features = {feature.name for feature in schema.feature}
    live = {feature.name for feature in live_features(schema)}
    composites = composites_of(schema)
    for position, one in enumerate(composites):
        taken = live | {other.name for other in composites[:position]}
        unknown = sorted({one.value, *one.others} - features)
        if one.name in taken:
            text = "Expected a name that no other feature has, got one that is taken"
            yield one.finding(one.collision, "Name taken", text)
        elif unknown or not one.others:
            got = ", ".join(map(repr, unknown)) or "no index feature"
            text = f"Expected parts that are features of the schema, got {got}"
            yield one.finding(Types.INVALID_SCHEMA_SPECIFICATION, "Unknown parts", text)
        else:
            yield from _check_rows(one, data)


def _check_rows(composite: Composite, data: Data) -> Iterator[Finding]:
    lacks_value, lacks_other, differs = (
        _as_told(data[composite.name]) if composite.name in data else _as_counted(composite, data)
    )
    if lacks_value:
        text = (
            f"Expected values of {composite.value!r} in every row, got rows without: {lacks_value}"
        )
        yield composite.finding(composite.no_value, "Missing values", text)
    for other, rows in lacks_other.items():
        text = f"Expected {other or 'the weight'} in every row, got rows without: {rows}"
        yield composite.finding(composite.no_other, "Missing part", text)
    for other, difference in differs.items():
        text = (
            f"Expected as many values of {other or 'the weight'} as of {composite.value!r} in "
            f"every row, got a difference of {difference}"
        )
        yield composite.finding(composite.mismatch, "Different lengths", text)


Told = tuple[int, dict[str, int], dict[str, int]]


def _as_told(statistics: Statistics) -> Told:
    """(rows without values, rows without each part, difference in length to each part), as TFDV's
    generators of statistics of sparse and weighted features count them."""
    lacks_value = 0
    lacks_other: dict[str, int] = {}
    differs: dict[str, int] = {}
    for custom in statistics.custom_stats:
        if custom.name == "missing_value":
            lacks_value = int(custom.num)
        elif custom.name in ("missing_index", "missing_weight"):
            lacks_other.update(_by_part(custom))
        elif custom.name.endswith("_length_diff"):
            differs.update(_by_part(custom))
    return lacks_value, lacks_other, differs


def _by_part(custom: Any) -> dict[str, int]:
    """What a custom statistic counts of each index feature, or of the one weight."""
    if custom.WhichOneof("val") == "num":
        return {"": int(custom.num)} if custom.num else {}
    buckets = custom.rank_histogram.buckets
    return {bucket.label: int(bucket.sample_count) for bucket in buckets if bucket.sample_count}


def _as_counted(composite: Composite, data: Data) -> Told:
    """The same, as far as counts of the parts tell."""
    rows, values = _totals(composite.value, data)
    others = {name: _totals(name, data) for name in composite.others}
    most_rows = max(other_rows for other_rows, _ in others.values())
    lacks_other = {name: rows - other[0] for name, other in others.items() if other[0] < rows}
    differs = {
        name: other[1] - values
        for name, other in others.items()
        if other[0] == rows and other[1] != values
    }
    return max(most_rows - rows, 0), lacks_other, differs


def _totals(name: str, data: Data) -> tuple[int, int]:
    """(rows that have the feature, values in them)"""
    if name not in data:
        return 0, 0
    common = common_statistics(data[name])
    return common.num_non_missing, common.tot_num_values
