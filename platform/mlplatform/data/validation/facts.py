"""What statistics tell of one feature, in whichever of their fields it stands.

Enters: a `FeatureNameStatistics`, of this platform or of TFDV.  Leaves: counts and histograms, None
where the statistics do not tell.  Weighted ones come first where there are any, as in TFDV.
"""

from collections.abc import Mapping
from typing import TypeAlias

from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from mlplatform.data.statistics.numeric import VALUE_COUNTS

Statistics: TypeAlias = statistics_pb2.FeatureNameStatistics
Dataset: TypeAlias = statistics_pb2.DatasetFeatureStatistics
Counts = Mapping[str, float]

# The name under which TFDV lists all the strings that are not UTF-8.
NOT_UTF8 = "__BYTES_VALUE__"
_TYPES = {
    "INT": schema_pb2.INT,
    "FLOAT": schema_pb2.FLOAT,
    "STRING": schema_pb2.BYTES,
    "BYTES": schema_pb2.BYTES,
    "STRUCT": schema_pb2.STRUCT,
}


def feature_name(statistics: Statistics) -> str:
    """The feature's name, in whichever of the two fields it stands."""
    return statistics.name or ".".join(statistics.path.step)


def feature_type(statistics: Statistics) -> schema_pb2.FeatureType:
    """The schema's word for the type of these statistics."""
    name = statistics_pb2.FeatureNameStatistics.Type.Name(statistics.type)
    return _TYPES.get(name, schema_pb2.TYPE_UNKNOWN)


def common_statistics(statistics: Statistics) -> statistics_pb2.CommonStatistics:
    """What is counted of a feature of any type."""
    return getattr(statistics, statistics.WhichOneof("stats") or "num_stats").common_stats


def count_rows(statistics: Statistics) -> tuple[float, float]:
    """(rows that have the feature, rows that lack it), or their weights."""
    common = common_statistics(statistics)
    if common.HasField("weighted_common_stats"):
        weighted = common.weighted_common_stats
        return weighted.num_non_missing, weighted.num_missing
    return common.num_non_missing, common.num_missing


def count_values(statistics: Statistics) -> float:
    """The values in all rows, or their weight."""
    common = common_statistics(statistics)
    if common.HasField("weighted_common_stats"):
        return common.weighted_common_stats.tot_num_values
    return common.tot_num_values


def nest_levels(statistics: Statistics) -> list[tuple[int, int, int]]:
    """(missing, fewest values, most values) at each level of nested lists, outermost first."""
    common = common_statistics(statistics)
    levels = common.presence_and_valency_stats or [common]
    return [(one.num_missing, one.min_num_values, one.max_num_values) for one in levels]


def category_counts(statistics: Statistics) -> Counts | None:
    """How often each listed value occurs: of strings, and of integers with few distinct values.

    At most the 1,000 most frequent strings are listed.  Those that are not UTF-8 count as one.
    """
    if statistics.WhichOneof("stats") == "string_stats":
        strings = statistics.string_stats
        if strings.HasField("weighted_string_stats"):
            return _by_label(strings.weighted_string_stats.rank_histogram)
        counts = _by_label(strings.rank_histogram)
        if strings.invalid_utf8_count:
            counts.setdefault(NOT_UTF8, strings.invalid_utf8_count)
        return counts
    for custom in statistics.custom_stats:
        if custom.name == VALUE_COUNTS:
            return _by_label(custom.rank_histogram)
    return None


def count_unique(statistics: Statistics) -> int | None:
    """The number of distinct values of a categorical feature."""
    if statistics.WhichOneof("stats") == "string_stats":
        return statistics.string_stats.unique
    counts = category_counts(statistics)
    return None if counts is None else len(counts)


def find_histogram(statistics: Statistics, kind: int) -> statistics_pb2.Histogram | None:
    """The histogram of that `HistogramType` over the values."""
    numbers = statistics.num_stats
    weighted = numbers.weighted_numeric_stats.histograms
    for histogram in (*weighted, *numbers.histograms):
        if histogram.type == kind:
            return histogram
    return None


def count_nan(statistics: Statistics) -> int | None:
    histograms = statistics.num_stats.histograms
    return max((histogram.num_nan for histogram in histograms), default=None)


def has_range(statistics: Statistics) -> bool:
    """Whether there is any number but NaN, so that minimum and maximum mean something."""
    histograms = statistics.num_stats.histograms
    if not histograms:
        return common_statistics(statistics).tot_num_values > 0
    return any(histogram.buckets for histogram in histograms)


def _by_label(ranked: statistics_pb2.RankHistogram) -> dict[str, float]:
    return {bucket.label: bucket.sample_count for bucket in ranked.buckets}
