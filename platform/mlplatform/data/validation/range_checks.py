"""The checks of numbers against the range of a domain, be they written as numbers or as strings.

Enters: a feature's statistics beside its domain.  Leaves: findings.  They are part of the table in
`domain_checks`.  Thresholds are strict.
"""

from collections.abc import Callable, Iterator
from math import isfinite, isnan

import numpy as np
from tensorflow_metadata.proto.v0 import schema_pb2

from mlplatform.data.schemas.numbers_in_text import as_floats, as_integers
from mlplatform.data.schemas.schema import Domain
from mlplatform.data.validation.facts import (
    NOT_UTF8,
    Statistics,
    category_counts,
    count_nan,
    has_range,
)
from mlplatform.data.validation.findings import (
    CLEAR_DOMAIN,
    Change,
    Finding,
    Observed,
    Types,
    clearing,
    setting,
)

_INT64 = range(-(2**63), 2**63)
_INT_TYPES = (Types.INT_TYPE_SMALL_INT, Types.INT_TYPE_BIG_INT)
_FLOAT_TYPES = (Types.FLOAT_TYPE_SMALL_FLOAT, Types.FLOAT_TYPE_BIG_FLOAT)


def check_integers(observed: Observed, domain: schema_pb2.IntDomain) -> Iterator[Finding]:
    """Integers lie within the range."""
    if (limits := limits_of_integers(observed.statistics)) is not None:
        yield from _check_range(observed, domain, limits, _INT_TYPES, as_int64)


def check_integers_in_text(observed: Observed, domain: schema_pb2.IntDomain) -> Iterator[Finding]:
    """Strings are integers of 64 bits, and these lie within the range."""
    strings = category_counts(observed.statistics) or {}
    if as_integers(strings) is None:
        wrong = next(one for one in strings if as_integers([one]) is None)
        yield _not_a_number(observed, Types.INT_TYPE_NOT_INT_STRING, "integers of 64 bits", wrong)
    else:
        yield from check_integers(observed, domain)


def check_floats(observed: Observed, domain: schema_pb2.FloatDomain) -> Iterator[Finding]:
    """Floats lie within the range; NaN and infinity appear where they are allowed."""
    numbers = observed.statistics.num_stats
    nans = count_nan(observed.statistics)
    if domain.disallow_nan and nans is None:
        yield observed.finding(
            Types.STATS_NOT_AVAILABLE,
            "NaN not counted",
            "Expected statistics that count NaN, for disallow_nan; got none",
            domain_change=clearing("disallow_nan"),
        )
    limits = (numbers.min, numbers.max) if has_range(observed.statistics) else None
    yield from _check_floats(observed, domain, limits, nans or 0)


def check_floats_in_text(observed: Observed, domain: schema_pb2.FloatDomain) -> Iterator[Finding]:
    """Strings are numbers, and these lie within the range."""
    counts = category_counts(observed.statistics) or {}
    floats = as_floats(counts)
    if floats is None:
        wrong = next(one for one in counts if as_floats([one]) is None)
        yield _not_a_number(observed, Types.FLOAT_TYPE_STRING_NOT_FLOAT, "numbers", wrong)
        return
    numbers = [number for number in floats if not isnan(number)]
    pairs = zip(counts.values(), floats, strict=True)
    nans = sum(count for count, number in pairs if isnan(number))
    limits = (min(numbers), max(numbers)) if numbers else None
    yield from _check_floats(observed, domain, limits, int(nans))


def _check_floats(
    observed: Observed,
    domain: schema_pb2.FloatDomain,
    limits: tuple[float, float] | None,
    nans: int,
) -> Iterator[Finding]:
    if domain.disallow_nan and nans:
        yield observed.finding(
            Types.FLOAT_TYPE_HAS_NAN,
            "Invalid values",
            f"Expected no NaN, got {nans}",
            domain_change=clearing("disallow_nan"),
        )
    if limits is None:
        return
    if domain.disallow_inf and not (isfinite(limits[0]) and isfinite(limits[1])):
        yield observed.finding(
            Types.FLOAT_TYPE_HAS_INF,
            "Invalid values",
            f"Expected finite values, got values from {limits[0]} to {limits[1]}",
            domain_change=clearing("disallow_inf"),
        )
    # A domain holds float32: compare like with like, or a value at its limit would fire.
    low, high = _as_float32(limits[0]), _as_float32(limits[1])
    yield from _check_range(observed, domain, (low, high), _FLOAT_TYPES, _as_finite)


def _check_range(
    observed: Observed,
    domain: Domain,
    limits: tuple[float, float],
    types: tuple[int, int],
    as_limit: Callable[[float], float | None],
) -> Iterator[Finding]:
    """Findings of the types (too small, too large).

    The change widens the range, or drops the limit where the domain cannot hold such a number.
    """

    def widen(field: str, value: float) -> Change:
        limit = as_limit(value)
        return clearing(field) if limit is None else setting(field, limit)

    # As floats: statistics know the extremes of integers to 53 bits.
    low, high = map(float, limits)
    if domain.HasField("min") and low < float(domain.min):
        text = f"Expected values of at least {domain.min:.12g}, got {low:.12g}"
        change = widen("min", limits[0])
        yield observed.finding(types[0], "Out-of-range values", text, domain_change=change)
    if domain.HasField("max") and high > float(domain.max):
        text = f"Expected values of at most {domain.max:.12g}, got {high:.12g}"
        change = widen("max", limits[1])
        yield observed.finding(types[1], "Out-of-range values", text, domain_change=change)


def limits_of_integers(statistics: Statistics) -> tuple[float, float] | None:
    """The least and the greatest integer; exact where they are listed as strings."""
    if statistics.WhichOneof("stats") == "string_stats":
        integers = as_integers(category_counts(statistics) or ())
        return (min(integers), max(integers)) if integers else None
    numbers = statistics.num_stats
    return (numbers.min, numbers.max) if has_range(statistics) else None


def as_int64(number: float) -> int | None:
    return int(number) if isfinite(number) and int(number) in _INT64 else None


def _as_float32(number: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.float32(number))


def _as_finite(number: float) -> float | None:
    return number if isfinite(number) else None


def _not_a_number(observed: Observed, kind: int, expected: str, wrong: str) -> Finding:
    got = "one that is not UTF-8" if wrong == NOT_UTF8 else repr(wrong)
    text = f"Expected strings that are {expected}, got {got}"
    return observed.finding(kind, "Invalid values", text, CLEAR_DOMAIN)
