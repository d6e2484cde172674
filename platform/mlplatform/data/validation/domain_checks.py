"""The checks of a feature's values against its domain, each from what was observed to findings.

Enters: a feature's statistics, of the type the schema gives it, beside its schema.  Leaves:
findings.  To add a check, write it and append it to the list.  Thresholds are strict.

Strings are judged by those that the statistics list, the 1,000 most frequent.
"""

from collections.abc import Callable, Iterator

from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from mlplatform.data.schemas.schema import Domain, find_domain
from mlplatform.data.validation.facts import (
    Statistics,
    category_counts,
    count_nan,
    count_values,
    find_histogram,
    has_range,
)
from mlplatform.data.validation.findings import (
    CLEAR_DOMAIN,
    Change,
    Finding,
    Observed,
    Types,
    clearing,
)
from mlplatform.data.validation.range_checks import (
    as_int64,
    check_floats,
    check_floats_in_text,
    check_integers,
    check_integers_in_text,
    limits_of_integers,
)

DomainCheck = Callable[[Observed, Domain], Iterator[Finding]]

_LISTED_VALUES = 20


def check_domain(observed: Observed) -> Iterator[Finding]:
    """The values lie in the feature's domain, whichever sort that is."""
    domain = find_domain(observed.feature, observed.schema)
    kind = Statistics.Type.Name(observed.statistics.type)
    if domain is None:
        return
    if kind == "BYTES" and isinstance(domain, _OF_VALUES):
        yield observed.finding(
            Types.DOMAIN_INVALID_FOR_TYPE,
            "Domain of bytes",
            f"Expected values for a {type(domain).DESCRIPTOR.name}, got bytes that are not to be "
            "interpreted",
            CLEAR_DOMAIN,
        )
        return
    check = DOMAIN_CHECKS.get((kind, type(domain).DESCRIPTOR.name))
    if check is not None:
        yield from check(observed, domain)


def check_strings(observed: Observed, domain: schema_pb2.StringDomain) -> Iterator[Finding]:
    """Strings come from the domain, but for a share of 1 - min_domain_mass, and are UTF-8."""
    strings = observed.statistics.string_stats
    if strings.invalid_utf8_count:
        text = f"Expected strings in UTF-8, got {strings.invalid_utf8_count} that are not"
        yield observed.finding(Types.ENUM_TYPE_INVALID_UTF8, "Invalid UTF-8", text, CLEAR_DOMAIN)
        return
    counts = category_counts(observed.statistics) or {}
    known = set(domain.value)
    unexpected = {value: count for value, count in counts.items() if value not in known}
    # The statistics list the most frequent strings only: there may be others not in the domain.
    unlisted = strings.unique > max(len(counts), len(known))
    total = max(sum(counts.values()), count_values(observed.statistics))
    if not total:
        return
    min_mass = observed.feature.distribution_constraints.min_domain_mass
    mass = (total - sum(unexpected.values())) / total
    if not (mass < min_mass or (min_mass == 1 and (unexpected or unlisted))):
        return
    listed = [f"{value!r} ({count / total:.2%})" for value, count in unexpected.items()]
    if unlisted or len(listed) > _LISTED_VALUES:
        listed[_LISTED_VALUES:] = ["and others"]
    name = f"domain {domain.name!r}" if domain.name else "the feature's domain"
    yield observed.finding(
        Types.ENUM_TYPE_UNEXPECTED_STRING_VALUES,
        "Unexpected string values",
        f"Expected values of {name} in a share of at least {min_mass:g}, got {mass:.6g}, with "
        f"values outside of it: {', '.join(listed)}",
        CLEAR_DOMAIN,
        # Values that are not listed cannot be added.
        domain_change=None if unlisted else _adding(sorted(unexpected)),
    )


def check_bool_integers(observed: Observed, domain: schema_pb2.BoolDomain) -> Iterator[Finding]:
    """Integers are 0 or 1.  The change makes them integers of the range that is there."""
    limits = limits_of_integers(observed.statistics)
    if limits is None:
        return
    low, high = limits

    def make_integers(feature: schema_pb2.Feature) -> None:
        feature.int_domain.SetInParent()
        for field, value in (("min", low), ("max", high)):
            if (limit := as_int64(value)) is not None:
                setattr(feature.int_domain, field, limit)

    short = "Non-boolean values"
    if low < 0:
        text = f"Expected 0 or 1, got {low:.12g}"
        yield observed.finding(Types.BOOL_TYPE_SMALL_INT, short, text, make_integers)
    if high > 1:
        text = f"Expected 0 or 1, got {high:.12g}"
        yield observed.finding(Types.BOOL_TYPE_BIG_INT, short, text, make_integers)


def check_bool_floats(observed: Observed, domain: schema_pb2.BoolDomain) -> Iterator[Finding]:
    """Floats are 0 or 1, as far as extremes and histograms tell."""
    numbers = observed.statistics.num_stats
    seen = [numbers.min, numbers.max] if has_range(observed.statistics) else []
    # In a bucket that reaches neither 0 nor 1 there is another number.
    histogram = find_histogram(observed.statistics, statistics_pb2.Histogram.STANDARD)
    for bucket in histogram.buckets if histogram else ():
        if bucket.sample_count and 0 < bucket.low_value <= bucket.high_value < 1:
            seen.append(bucket.low_value)
    others = [f"{number:g}" for number in seen if number not in (0, 1)]
    if count_nan(observed.statistics):
        others.append("NaN")
    if others:
        text = f"Expected 0 or 1, got {others[0]}"
        yield observed.finding(
            Types.BOOL_TYPE_UNEXPECTED_FLOAT, "Non-boolean values", text, clearing("bool_domain")
        )


def check_bool_strings(observed: Observed, domain: schema_pb2.BoolDomain) -> Iterator[Finding]:
    """Strings are the one for true or the one for false."""
    known = [
        getattr(domain, field) for field in ("true_value", "false_value") if domain.HasField(field)
    ]
    counts = category_counts(observed.statistics) or {}
    others = [value for value in counts if value not in known]
    if others or observed.statistics.string_stats.unique > len(counts):
        yield observed.finding(
            Types.BOOL_TYPE_UNEXPECTED_STRING,
            "Non-boolean values",
            f"Expected one of {', '.join(map(repr, known)) or 'no strings'}, got "
            f"{', '.join(map(repr, others[:_LISTED_VALUES])) or 'others'}",
            clearing("bool_domain"),
        )


# By the type in the statistics and the domain.  Domains that are not here are not looked into.
DOMAIN_CHECKS: dict[tuple[str, str], DomainCheck] = {
    ("STRING", "StringDomain"): check_strings,
    ("INT", "IntDomain"): check_integers,
    ("STRING", "IntDomain"): check_integers_in_text,
    ("FLOAT", "FloatDomain"): check_floats,
    ("STRING", "FloatDomain"): check_floats_in_text,
    ("INT", "BoolDomain"): check_bool_integers,
    ("FLOAT", "BoolDomain"): check_bool_floats,
    ("STRING", "BoolDomain"): check_bool_strings,
}
_OF_VALUES = (
    schema_pb2.StringDomain,
    schema_pb2.IntDomain,
    schema_pb2.FloatDomain,
    schema_pb2.BoolDomain,
)


def _adding(values: list[str]) -> Change:
    """The change that adds to a domain of strings those it lacks."""

    def change(domain: schema_pb2.StringDomain) -> None:
        domain.value.extend(value for value in values if value not in domain.value)

    return change
