"""Inference of a schema from what one data set looks like.

Enters: the statistics of a data set.  Leaves: the schema that they satisfy.  It follows TFDV and
promises only what every later data set should keep: no range of numbers is inferred, and integers
that happen to be 0 and 1 may be the first values of a count, so they are not called bool.
"""

from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from mlplatform.data.schemas.numbers_in_text import as_integers
from mlplatform.data.validation.facts import (
    Statistics,
    category_counts,
    common_statistics,
    count_nan,
    feature_name,
    feature_type,
    has_range,
    nest_levels,
)

MAX_STRING_DOMAIN = 200
# Pairs of strings that mean true and false; others of two values are a domain like any.
_BOOLS = [("TRUE", "FALSE"), ("true", "false"), ("True", "False")]


def infer_schema(
    statistics: statistics_pb2.DatasetFeatureStatistics,
    *,
    max_string_domain: int = MAX_STRING_DOMAIN,
) -> schema_pb2.Schema:
    """The schema that `statistics` satisfies and later data sets are to satisfy too.

    Args:
        statistics: of one data set, as `compute_statistics` returns them.
        max_string_domain: strings with at most this many distinct values get a domain.
    """
    schema = schema_pb2.Schema()
    for observed in statistics.features:
        infer_feature(observed, schema, schema.feature.add(), max_string_domain=max_string_domain)
    return schema


def infer_feature(
    observed: Statistics,
    schema: schema_pb2.Schema,
    feature: schema_pb2.Feature,
    *,
    max_string_domain: int = MAX_STRING_DOMAIN,
) -> None:
    """Say in `feature`, one of `schema`'s, what `observed` looks like."""
    common = common_statistics(observed)
    feature.name, feature.type = feature_name(observed), feature_type(observed)
    feature.presence.min_count = min(common.num_non_missing, 1)
    if not common.num_non_missing:
        return
    if not common.num_missing:
        feature.presence.min_fraction = 1.0
    infer_valency(observed, feature)
    if observed.HasField("validation_derived_source"):
        mark_derived(observed, feature)
    kind = Statistics.Type.Name(observed.type)
    if kind == "FLOAT":
        _infer_float_domain(observed, feature)
    elif kind == "INT" and observed.WhichOneof("stats") == "string_stats":
        feature.int_domain.is_categorical = True
    elif kind == "STRING":
        _infer_domain_of_strings(observed, schema, feature, max_string_domain)


def infer_valency(observed: Statistics, feature: schema_pb2.Feature) -> None:
    """A fixed shape if every row has it, else the count of values that a present row has."""
    feature.ClearField("shape_type")
    levels = nest_levels(observed)
    if len(levels) > 1:
        for _, fewest, most in levels:
            _bound(feature.value_counts.value_count.add(), fewest, most)
        return
    ((_, fewest, most),) = levels
    if fewest and fewest == most and not common_statistics(observed).num_missing:
        feature.shape.dim.add(size=fewest)
    elif fewest:
        _bound(feature.value_count, fewest, most)


def mark_derived(observed: Statistics, feature: schema_pb2.Feature) -> None:
    """The feature is no input, but made from others for validation."""
    feature.validation_derived_source.CopyFrom(observed.validation_derived_source)
    feature.lifecycle_stage = schema_pb2.VALIDATION_DERIVED


def _bound(count: schema_pb2.ValueCount, fewest: int, most: int) -> None:
    if fewest and fewest == most:
        count.min, count.max = fewest, most
    elif fewest:
        count.min = 1


def _infer_float_domain(observed: Statistics, feature: schema_pb2.Feature) -> None:
    numbers = observed.num_stats
    if count_nan(observed) == 0:
        feature.float_domain.disallow_nan = True
    if not has_range(observed) or float("-inf") < numbers.min <= numbers.max < float("inf"):
        feature.float_domain.disallow_inf = True


def _infer_domain_of_strings(
    observed: Statistics,
    schema: schema_pb2.Schema,
    feature: schema_pb2.Feature,
    max_string_domain: int,
) -> None:
    strings = observed.string_stats
    values = sorted(category_counts(observed) or ())
    if not values or strings.invalid_utf8_count:
        return
    for true, false in _BOOLS:
        if values == sorted((true, false)):
            feature.bool_domain.true_value, feature.bool_domain.false_value = true, false
            return
    if as_integers(values) is not None:
        feature.int_domain.SetInParent()
    elif len(values) == strings.unique and len(values) <= max_string_domain:
        feature.domain = _unused_name(feature.name, schema)
        schema.string_domain.add(name=feature.domain, value=values)


def _unused_name(wanted: str, schema: schema_pb2.Schema) -> str:
    domains = (*schema.string_domain, *schema.int_domain, *schema.float_domain)
    used = {domain.name for domain in domains}
    name, number = wanted, 1
    while name in used:
        number += 1
        name = f"{wanted}{number}"
    return name
