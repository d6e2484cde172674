"""The checks of validation, each a function from what was observed to findings.

Enters: a feature's statistics beside its schema.  Leaves: findings.  To add a check, write it and
append it to its list.  Thresholds are strict: a value at its limit is no finding.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import inf, prod
from typing import Any

import numpy as np
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2

from mlplatform.data.schema import common_statistics, feature_type
from mlplatform.errors import InvalidArgument

Types = anomalies_pb2.AnomalyInfo

_LISTED_VALUES = 20


@dataclass(frozen=True)
class Finding:
    """One way in which the data contradicts the schema."""

    type: int
    short_description: str
    description: str
    severity: int = anomalies_pb2.AnomalyInfo.ERROR


@dataclass(frozen=True)
class Observed:
    """A feature that is in both the schema and the data: what a check looks at."""

    schema: schema_pb2.Schema
    feature: schema_pb2.Feature
    statistics: statistics_pb2.FeatureNameStatistics

    @property
    def common(self) -> statistics_pb2.CommonStatistics:
        return common_statistics(self.statistics)

    @property
    def has_numbers(self) -> bool:
        """Whether there is any number but NaN, so that minimum and maximum mean something."""
        return any(histogram.buckets for histogram in self.statistics.num_stats.histograms)


FeatureCheck = Callable[[Observed], Iterator[Finding]]
DatasetCheck = Callable[
    [schema_pb2.Schema, statistics_pb2.DatasetFeatureStatistics], Iterator[Finding]
]


def check_type(observed: Observed) -> Iterator[Finding]:
    """The values are of the schema's type."""
    expected, got = observed.feature.type, feature_type(observed.statistics)
    if expected != got:
        name = schema_pb2.FeatureType.Name
        text = f"Expected data of type {name(expected)}, got {name(got)}"
        yield Finding(Types.UNEXPECTED_DATA_TYPE, "Unexpected type", text)


def check_presence(observed: Observed) -> Iterator[Finding]:
    """Enough rows have the feature."""
    presence, common = observed.feature.presence, observed.common
    present, missing = common.num_non_missing, common.num_missing
    if presence.HasField("min_count") and present < presence.min_count:
        yield Finding(
            Types.FEATURE_TYPE_LOW_NUMBER_PRESENT,
            "Too few rows present",
            f"Expected at least {presence.min_count} rows with the feature, got {present}",
        )
    if not presence.HasField("min_fraction"):
        return
    fraction = present / (present + missing)
    # So few rows may be missing among so many that the fraction rounds to 1.
    if fraction < presence.min_fraction or (presence.min_fraction == 1 and missing):
        yield Finding(
            Types.FEATURE_TYPE_LOW_FRACTION_PRESENT,
            "Too small a fraction present",
            f"Expected a fraction of at least {presence.min_fraction:g} of rows with the feature, "
            f"got {fraction:.6g}: missing in {missing} of {present + missing} rows",
        )


def check_valency(observed: Observed) -> Iterator[Finding]:
    """A present row has as many values as the value count or the fixed shape allows."""
    feature, common = observed.feature, observed.common
    fewest, most = 0.0, inf
    if feature.HasField("shape"):
        fewest = most = prod(dim.size for dim in feature.shape.dim)
    elif feature.HasField("value_count"):
        fewest = feature.value_count.min
        most = feature.value_count.max if feature.value_count.HasField("max") else inf
    if common.min_num_values < fewest:
        yield Finding(
            Types.FEATURE_TYPE_LOW_NUMBER_VALUES,
            "Missing values",
            f"Expected at least {fewest} values in a row, got {common.min_num_values} in some",
        )
    if common.max_num_values > most:
        yield Finding(
            Types.FEATURE_TYPE_HIGH_NUMBER_VALUES,
            "Superfluous values",
            f"Expected at most {most} values in a row, got {common.max_num_values} in some",
        )


def check_utf8(observed: Observed) -> Iterator[Finding]:
    """Strings that have a domain are UTF-8."""
    invalid = observed.statistics.string_stats.invalid_utf8_count
    if invalid and _string_domain(observed) is not None:
        text = f"Expected strings in UTF-8, got {invalid} that are not"
        yield Finding(Types.ENUM_TYPE_INVALID_UTF8, "Invalid UTF-8", text)


def check_string_domain(observed: Observed) -> Iterator[Finding]:
    """The strings come from the feature's domain, but for a share of 1 - min_domain_mass."""
    domain = _string_domain(observed)
    strings = observed.statistics.string_stats
    total = observed.common.tot_num_values
    if domain is None or not total:
        return
    known = set(domain.value)
    ranked = strings.rank_histogram.buckets
    unexpected = [bucket for bucket in ranked if bucket.label not in known]
    # The statistics list the most frequent strings only: there may be others not in the domain.
    unlisted = strings.unique > max(len(ranked), len(known))
    min_mass = observed.feature.distribution_constraints.min_domain_mass
    mass = (total - sum(bucket.sample_count for bucket in unexpected)) / total
    if mass < min_mass or (min_mass == 1 and (unexpected or unlisted)):
        listed = [
            f"{bucket.label!r} ({bucket.sample_count / total:.2%})"
            for bucket in unexpected[:_LISTED_VALUES]
        ]
        if unlisted or len(unexpected) > len(listed):
            listed.append("and others")
        name = f"domain {domain.name!r}" if domain.name else "the feature's domain"
        yield Finding(
            Types.ENUM_TYPE_UNEXPECTED_STRING_VALUES,
            "Unexpected string values",
            f"Expected values of {name} in a share of at least "
            f"{min_mass:g}, got {mass:.6g}, with values outside of it: {', '.join(listed)}",
        )


def check_int_domain(observed: Observed) -> Iterator[Finding]:
    """Integers lie within the domain's range."""
    if observed.statistics.type == statistics_pb2.FeatureNameStatistics.INT:
        domain, numbers = observed.feature.int_domain, observed.statistics.num_stats
        yield from _range(
            observed,
            domain,
            (int(numbers.min), int(numbers.max)),
            (Types.INT_TYPE_SMALL_INT, Types.INT_TYPE_BIG_INT),
        )


def check_float_domain(observed: Observed) -> Iterator[Finding]:
    """Floats lie within the domain's range; NaN and infinity appear where they are allowed."""
    if observed.statistics.type != statistics_pb2.FeatureNameStatistics.FLOAT:
        return
    domain, numbers = observed.feature.float_domain, observed.statistics.num_stats
    nans = max((histogram.num_nan for histogram in numbers.histograms), default=0)
    if domain.disallow_nan and nans:
        text = f"Expected no NaN, got {nans}"
        yield Finding(Types.FLOAT_TYPE_HAS_NAN, "Invalid values", text)
    if domain.disallow_inf and (numbers.min == -inf or numbers.max == inf):
        text = f"Expected finite values, got values from {numbers.min} to {numbers.max}"
        yield Finding(Types.FLOAT_TYPE_HAS_INF, "Invalid values", text)
    yield from _range(
        observed,
        domain,
        # A domain holds float32: compare like with like, or a value at its limit would fire.
        (float(np.float32(numbers.min)), float(np.float32(numbers.max))),
        (Types.FLOAT_TYPE_SMALL_FLOAT, Types.FLOAT_TYPE_BIG_FLOAT),
    )


def check_num_examples(
    schema: schema_pb2.Schema, statistics: statistics_pb2.DatasetFeatureStatistics
) -> Iterator[Finding]:
    """The data set has as many rows as the schema asks for, and any at all."""
    constraints, rows = schema.dataset_constraints, statistics.num_examples
    if not rows:
        yield Finding(Types.NO_DATA_IN_SPAN, "No data", "Expected rows, got none")
    if constraints.HasField("min_examples_count") and rows < constraints.min_examples_count:
        text = f"Expected at least {constraints.min_examples_count} rows, got {rows}"
        yield Finding(Types.DATASET_LOW_NUM_EXAMPLES, "Too few rows", text)
    if constraints.HasField("max_examples_count") and rows > constraints.max_examples_count:
        text = f"Expected at most {constraints.max_examples_count} rows, got {rows}"
        yield Finding(Types.DATASET_HIGH_NUM_EXAMPLES, "Too many rows", text)


FEATURE_CHECKS: list[FeatureCheck] = [
    check_type,
    check_presence,
    check_valency,
    check_utf8,
    check_string_domain,
    check_int_domain,
    check_float_domain,
]
DATASET_CHECKS: list[DatasetCheck] = [check_num_examples]


def _string_domain(observed: Observed) -> schema_pb2.StringDomain | None:
    """The feature's own domain or the shared one it names.

    Raises:
        InvalidArgument: it names one that the schema lacks.
    """
    feature = observed.feature
    if feature.HasField("string_domain"):
        return feature.string_domain
    if not feature.HasField("domain"):
        return None
    for domain in observed.schema.string_domain:
        if domain.name == feature.domain:
            return domain
    raise InvalidArgument(
        f"feature {feature.name!r}: its domain {feature.domain!r} is not in the schema; add the "
        "string_domain or clear the feature's domain"
    )


def _range(
    observed: Observed,
    domain: Any,
    observed_range: tuple[float, float],
    types: tuple[int, int],
) -> Iterator[Finding]:
    """Findings of the types (too small, too large)."""
    low, high = observed_range
    if not observed.has_numbers:
        return
    if domain.HasField("min") and low < domain.min:
        text = f"Expected values of at least {domain.min:.12g}, got {low:.12g}"
        yield Finding(types[0], "Out-of-range values", text)
    if domain.HasField("max") and high > domain.max:
        text = f"Expected values of at most {domain.max:.12g}, got {high:.12g}"
        yield Finding(types[1], "Out-of-range values", text)
