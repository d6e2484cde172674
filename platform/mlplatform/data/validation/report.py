"""A page about a data set: what is in it, where it contradicts its schema, what it drifted from.

Enters: statistics and, where there are any, anomalies, broken rows and the statistics of data to
compare with.  Leaves: one HTML page that needs nothing else.
"""

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from tensorflow_metadata.proto.v0 import anomalies_pb2, statistics_pb2

from mlplatform.data.validation.broken_rows import BrokenRow
from mlplatform.data.validation.distances import Buckets, Floats
from mlplatform.data.validation.facts import (
    category_counts,
    common_statistics,
    count_nan,
    count_values,
    feature_name,
    find_histogram,
)

STANDARD = statistics_pb2.Histogram.STANDARD
BARS = 20
HEIGHT = 40  # pixels
_SHORT = 40


def render(
    title: str,
    statistics: statistics_pb2.DatasetFeatureStatistics,
    anomalies: anomalies_pb2.Anomalies | None = None,
    *,
    broken: Sequence[BrokenRow] = (),
    other: statistics_pb2.DatasetFeatureStatistics | None = None,
    other_name: str = "",
) -> str:
    """The page; `other` is drawn beside `statistics`, as a share of its own rows."""
    others = {feature_name(one): one for one in other.features} if other else {}
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
        Path(__file__).with_name("report.html.j2").read_text(encoding="utf-8")
    )
    return template.render(
        title=title,
        rows=statistics.num_examples,
        judged=anomalies is not None,
        other=other_name if other else "",
        anomalies=list(describe_anomalies(anomalies, broken)) if anomalies else [],
        distances=list(describe_distances(anomalies)) if anomalies else [],
        features=[_describe(one, others.get(feature_name(one))) for one in statistics.features],
    )


def describe_anomalies(
    anomalies: anomalies_pb2.Anomalies, broken: Sequence[BrokenRow] = ()
) -> Iterable[dict[str, Any]]:
    """One entry for the data set, if it is at fault itself, and one for each feature that is."""
    named = dict(sorted(anomalies.anomaly_info.items()))
    if anomalies.HasField("dataset_anomaly_info"):
        named = {"(data set)": anomalies.dataset_anomaly_info, **named}
    for name, info in named.items():
        yield {
            "feature": name,
            "severity": anomalies_pb2.AnomalyInfo.Severity.Name(info.severity).lower(),
            "types": [anomalies_pb2.AnomalyInfo.Type.Name(one.type) for one in info.reason],
            "descriptions": [one.description for one in info.reason],
            "change": _diff(info),
            "rows": [str(one) for one in broken if one.feature == name],
        }


def describe_distances(anomalies: anomalies_pb2.Anomalies) -> Iterable[dict[str, Any]]:
    """One entry for each distance that a comparator of the schema asked for."""
    measures = anomalies_pb2.DriftSkewInfo.Measurement.Type
    for info in anomalies.drift_skew_info:
        for against, measured in (
            ("the previous span", info.drift_measurements),
            ("the serving data", info.skew_measurements),
        ):
            for one in measured:
                if not one.HasField("value"):
                    continue  # there was nothing to compare with
                yield {
                    "feature": ".".join(info.path.step),
                    "against": against,
                    "measure": measures.Name(one.type).lower().replace("_", " "),
                    "value": one.value,
                    "limit": one.threshold,
                    "above": one.value > one.threshold,
                }


def _diff(info: anomalies_pb2.AnomalyInfo) -> str:
    lines: list[str] = []
    for region in info.diff_regions:
        removed = (*region.removed.contents, *region.changed.left_contents)
        added = (*region.added.contents, *region.changed.right_contents)
        lines += [f"- {line}" for line in removed] + [f"+ {line}" for line in added]
    return "\n".join(lines)


def _describe(one: statistics_pb2.FeatureNameStatistics, other: Any) -> dict[str, Any]:
    common = common_statistics(one)
    rows = common.num_non_missing + common.num_missing
    fewest, most = common.min_num_values, common.max_num_values
    return {
        "name": feature_name(one),
        "type": statistics_pb2.FeatureNameStatistics.Type.Name(one.type).lower(),
        "missing": common.num_missing / rows if rows else 1.0,
        "valency": f"{fewest}" if fewest == most else f"{fewest} to {most}",
        "summary": list(_summarise(one)),
        "bars": _bars(one, other),
    }


def _summarise(one: statistics_pb2.FeatureNameStatistics) -> Iterable[tuple[str, str]]:
    if one.HasField("string_stats"):
        strings = one.string_stats
        yield "distinct", f"{strings.unique:,}"
        yield "mean length", f"{strings.avg_length:.3g}"
        if strings.invalid_utf8_count:
            yield "not UTF-8", f"{strings.invalid_utf8_count:,}"
        if strings.top_values:
            top = strings.top_values[0]
            yield "most frequent", f"{_cut(top.value)} ({top.frequency:,.0f})"
        return
    numbers = one.num_stats
    for name, value in (
        ("mean", numbers.mean), ("std", numbers.std_dev), ("min", numbers.min),
        ("median", numbers.median), ("max", numbers.max),
    ):  # fmt: skip
        yield name, f"{value:.4g}"
    yield "zeros", f"{numbers.num_zeros:,}"
    if nans := count_nan(one):
        yield "NaN", f"{nans:,}"


def _bars(one: statistics_pb2.FeatureNameStatistics, other: Any) -> list[dict[str, Any]]:
    """Counts as bars, and where `other` has the feature its share of its own rows beside them."""
    theirs = None
    if one.HasField("string_stats"):
        ranked = dict(islice((category_counts(one) or {}).items(), BARS))
        labels = [_cut(value) for value in ranked]
        counts = np.array(list(ranked.values()))
        if other is not None and other.HasField("string_stats"):
            known = category_counts(other) or {}
            theirs = np.array([known.get(value, 0.0) for value in ranked])
    elif (histogram := find_histogram(one, STANDARD)) is not None:
        labels = [f"{b.low_value:.4g} to {b.high_value:.4g}" for b in histogram.buckets]
        counts = np.array([bucket.sample_count for bucket in histogram.buckets])
        if other is not None and (other_histogram := find_histogram(other, STANDARD)) is not None:
            theirs = _rebin(Buckets.of(other_histogram), histogram)
    else:
        return []
    if not len(counts) or not counts.sum():
        return []
    total = count_values(one) or counts.sum()
    shares = counts / total
    their_total = count_values(other) if other is not None else 0
    their_shares = theirs / their_total if theirs is not None and their_total else None
    top = max(shares.max(), their_shares.max() if their_shares is not None else 0)
    return [
        {
            "label": label,
            "count": float(count),
            "height": round(HEIGHT * float(share / top), 1),
            "other": None
            if their_shares is None
            else round(HEIGHT * float(their_shares[i] / top), 1),
        }
        for i, (label, count, share) in enumerate(zip(labels, counts, shares, strict=True))
    ]


def _rebin(theirs: Buckets, histogram: statistics_pb2.Histogram) -> Floats:
    """Their mass in each bucket of a histogram."""
    lows = np.array([bucket.low_value for bucket in histogram.buckets])
    highs = np.array([bucket.high_value for bucket in histogram.buckets])
    masses = theirs.within(lows, highs)
    for at, _, mass in theirs.at_point:
        holds = (lows <= at) & (at <= highs)
        if holds.any():
            masses[np.argmax(holds)] += mass
    return masses


def _cut(text: str) -> str:
    return text if len(text) <= _SHORT else text[:_SHORT] + "…"
