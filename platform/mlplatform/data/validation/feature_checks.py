"""The checks of a feature's presence, shape and type, each from what was observed to findings.

Enters: a feature's statistics beside its schema.  Leaves: findings.  To add a check, write it and
append it to its list.  Thresholds are strict: a value at its limit is no finding.  The checks of
values against a domain stand in `domain_checks`.
"""

from collections.abc import Callable, Iterator
from math import prod

from tensorflow_metadata.proto.v0 import schema_pb2

from mlplatform.data.schemas.inference import infer_feature, infer_valency, mark_derived
from mlplatform.data.schemas.schema import find_feature
from mlplatform.data.validation.facts import count_rows, count_unique, feature_type, nest_levels
from mlplatform.data.validation.findings import Change, Finding, Observed, Types, clearing, setting

FeatureCheck = Callable[[Observed], Iterator[Finding]]

# What a feature keeps whose type changes: all that does not speak of its values.
_OF_NO_TYPE = (
    "presence",
    "lifecycle_stage",
    "in_environment",
    "not_in_environment",
    "annotation",
    "validation_derived_source",
)


def check_presence(observed: Observed) -> Iterator[Finding]:
    """Enough rows have the feature."""
    presence = observed.feature.presence
    present, missing = count_rows(observed.statistics)
    if presence.HasField("min_count") and present < presence.min_count:
        yield observed.finding(
            Types.FEATURE_TYPE_LOW_NUMBER_PRESENT,
            "Too few rows present",
            f"Expected at least {presence.min_count} rows with the feature, got {present:.12g}",
            setting("presence.min_count", int(present)),
        )
    if not presence.HasField("min_fraction") or not present + missing:
        return
    fraction = present / (present + missing)
    # So few rows may be missing among so many that the fraction rounds to 1.
    if fraction < presence.min_fraction or (presence.min_fraction == 1 and missing):
        yield observed.finding(
            Types.FEATURE_TYPE_LOW_FRACTION_PRESENT,
            "Too small a fraction present",
            f"Expected a fraction of at least {presence.min_fraction:g} of rows with the feature, "
            f"got {fraction:.6g}: missing in {missing:.12g} of {present + missing:.12g} rows",
            setting("presence.min_fraction", min(fraction, 1 - 1e-9)),
        )


def check_shape(observed: Observed) -> Iterator[Finding]:
    """Every row has a fixed shape; other than TFDV's the change keeps what it can: a count."""
    if not observed.feature.HasField("shape"):
        return
    size = prod(dim.size for dim in observed.feature.shape.dim)
    levels = nest_levels(observed.statistics)
    fewest, most = (prod(level[i] for level in levels) for i in (1, 2))
    missing = sum(level[0] for level in levels)
    if missing or not fewest == most == size:
        yield observed.finding(
            Types.INVALID_FEATURE_SHAPE,
            "Not of the fixed shape",
            f"Expected {size} values in every row, got {_span(fewest, most)}, and {missing} rows "
            "without the feature",
            lambda feature: infer_valency(observed.statistics, feature),
        )


def check_value_count(observed: Observed) -> Iterator[Finding]:
    """A present row has as many values as allowed, at every level of nested lists."""
    feature = observed.feature
    if not (feature.HasField("value_count") or feature.HasField("value_counts")):
        return
    is_nested = feature.HasField("value_counts")
    limits = list(feature.value_counts.value_count) if is_nested else [feature.value_count]
    levels = nest_levels(observed.statistics)
    if len(limits) != len(levels):
        yield observed.finding(
            Types.VALUE_NESTEDNESS_MISMATCH,
            "Lists nested otherwise",
            f"Expected {len(limits)} levels of lists, got {len(levels)}",
            lambda feature: infer_valency(observed.statistics, feature),
        )
        return
    for depth, (limit, (_, fewest, most)) in enumerate(zip(limits, levels, strict=True)):
        where = f" at level {depth}" if is_nested else ""
        if fewest < limit.min:
            yield observed.finding(
                Types.FEATURE_TYPE_LOW_NUMBER_VALUES,
                "Missing values",
                f"Expected at least {limit.min} values in a row{where}, got {fewest} in some",
                _at_level(depth if is_nested else None, setting("min", fewest)),
            )
        if limit.HasField("max") and most > limit.max:
            yield observed.finding(
                Types.FEATURE_TYPE_HIGH_NUMBER_VALUES,
                "Superfluous values",
                f"Expected at most {limit.max} values in a row{where}, got {most} in some",
                _at_level(depth if is_nested else None, setting("max", most)),
            )


def check_type(observed: Observed) -> Iterator[Finding]:
    """The values are of the schema's type.  The change infers the feature anew."""
    expected, got = observed.feature.type, feature_type(observed.statistics)
    if expected == got:
        return

    def infer_anew(schema: schema_pb2.Schema) -> None:
        feature = find_feature(schema, observed.feature.name)
        kept, inferred = schema_pb2.Feature(), schema_pb2.Feature()
        kept.CopyFrom(feature)
        for descriptor, _ in feature.ListFields():
            if descriptor.name not in _OF_NO_TYPE:
                kept.ClearField(descriptor.name)
        infer_feature(observed.statistics, schema, inferred)
        inferred.ClearField("presence")
        inferred.MergeFrom(kept)
        feature.CopyFrom(inferred)

    name = schema_pb2.FeatureType.Name
    yield observed.finding(
        Types.UNEXPECTED_DATA_TYPE,
        "Unexpected type",
        f"Expected data of type {name(expected)}, got {name(got)}",
        schema_change=infer_anew,
    )


def check_unique(observed: Observed) -> Iterator[Finding]:
    """There are as many distinct values as allowed; they are counted of categorical features."""
    limits = observed.feature.unique_constraints
    if not observed.feature.HasField("unique_constraints"):
        return
    unique = count_unique(observed.statistics)
    if unique is None:
        yield observed.finding(
            Types.FEATURE_TYPE_NO_UNIQUE,
            "Distinct values not counted",
            "Expected a categorical feature, for unique_constraints; got one whose distinct "
            "values are not counted",
            clearing("unique_constraints"),
        )
        return
    if unique < limits.min:
        yield observed.finding(
            Types.FEATURE_TYPE_LOW_UNIQUE,
            "Too few distinct values",
            f"Expected at least {limits.min} distinct values, got {unique}",
            setting("unique_constraints.min", unique),
        )
    if limits.HasField("max") and unique > limits.max:
        yield observed.finding(
            Types.FEATURE_TYPE_HIGH_UNIQUE,
            "Too many distinct values",
            f"Expected at most {limits.max} distinct values, got {unique}",
            setting("unique_constraints.max", unique),
        )


def check_source(observed: Observed) -> Iterator[Finding]:
    """A feature that the statistics derived is a derived one in the schema."""
    is_derived = observed.statistics.HasField("validation_derived_source")
    if is_derived and not observed.feature.HasField("validation_derived_source"):
        yield observed.finding(
            Types.DERIVED_FEATURE_INVALID_SOURCE,
            "Derived feature",
            "Expected a feature that is in the data, got one that was derived for validation",
            lambda feature: mark_derived(observed.statistics, feature),
        )


# What is asked of values of any type, and what of values of the schema's type only.
PRESENCE_CHECKS: list[FeatureCheck] = [check_presence, check_source]
VALENCY_CHECKS: list[FeatureCheck] = [check_shape, check_value_count, check_unique]


def _span(fewest: int, most: int) -> str:
    return str(fewest) if fewest == most else f"{fewest} to {most}"


def _at_level(depth: int | None, change: Change) -> Change:
    """`change`, applied to the value count of a feature, or to that of one level of lists."""

    def change_feature(feature: schema_pb2.Feature) -> None:
        counts = feature.value_counts.value_count
        change(feature.value_count if depth is None else counts[depth])

    return change_feature
