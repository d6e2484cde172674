"""Statistics against values computed by hand or by numpy from the raw arrays."""

import math
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_metadata.proto.v0 import statistics_pb2

from mlplatform.data.files.columns import kind_of
from mlplatform.data.files.contents import BATCH_ROWS
from mlplatform.data.files.shards import Shards, read_batches
from mlplatform.data.statistics import numeric, sketches
from mlplatform.data.statistics.accumulators import FeatureAccumulator
from mlplatform.data.statistics.compute import compute_statistics
from mlplatform.data.statistics.sketches import RowSample, ValueCounts, hash_bytes
from mlplatform.errors import DataCorrupt, InvalidArgument, NotFound

NAN, INF = math.nan, math.inf


def describe(column: Any, seed: int = 0) -> Any:
    kind = kind_of(column.type)
    assert kind is not None
    return FeatureAccumulator.of(column, kind, seed).describe()


def describe_split(column: Any, cuts: list[int], order: list[int]) -> Any:
    """The statistics of a column cut into parts that are merged in some order."""
    kind = kind_of(column.type)
    assert kind is not None
    ends = sorted({0, *cuts, len(column)})
    parts = [
        FeatureAccumulator.of(column.slice(start, end - start), kind, seed=start)
        for start, end in pairwise(ends)
    ]
    merged = FeatureAccumulator.empty(kind)
    for index in sorted(range(len(parts)), key=lambda i: order[i % len(order)]):
        merged = FeatureAccumulator.merge([merged, parts[index]])
    return merged.describe()


def write(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=2)
    return path


def by_name(statistics: Any) -> dict[str, Any]:
    return {feature.path.step[0]: feature for feature in statistics.features}


def test_numeric_statistics_of_values_with_nulls_nan_and_infinity() -> None:
    stats = describe(pa.array([1.0, None, 0.0, NAN, 4.0, INF, 3.0, -INF, -INF])).num_stats
    common = stats.common_stats
    assert (common.num_non_missing, common.tot_num_values) == (8, 8)
    assert (common.min_num_values, common.max_num_values, common.avg_num_values) == (1, 1, 1)
    assert (stats.min, stats.max) == (-INF, INF)
    assert stats.mean == 2.0  # of 1, 0, 4, 3
    assert stats.std_dev == pytest.approx(math.sqrt(2.5))
    assert (stats.median, stats.num_zeros) == (2.0, 1)
    standard, quantiles = stats.histograms
    assert standard.type == statistics_pb2.Histogram.STANDARD
    assert quantiles.type == statistics_pb2.Histogram.QUANTILES
    assert standard.num_nan == quantiles.num_nan == 1
    assert len(standard.buckets) == 12
    assert len(quantiles.buckets) == 10
    first, last = standard.buckets[0], standard.buckets[-1]
    assert (first.low_value, first.high_value, first.sample_count) == (-INF, -INF, 2)
    assert (last.low_value, last.high_value, last.sample_count) == (INF, INF, 1)
    assert [b.sample_count for b in standard.buckets[1:-1]] == [1, 0, 1, 0, 0, 0, 0, 1, 0, 1]
    assert (quantiles.buckets[0].low_value, quantiles.buckets[-1].high_value) == (0.0, 4.0)


def test_the_median_of_numbers_whose_sum_overflows() -> None:
    assert describe(pa.array([1.7e308, 1.6e308])).num_stats.median == pytest.approx(1.65e308)
    assert describe(pa.array([5e-324, 5e-324])).num_stats.median == 5e-324


def test_histograms_agree_with_numpy() -> None:
    values = np.random.default_rng(7).lognormal(size=5_000)
    standard, quantiles = describe(pa.array(values)).num_stats.histograms
    counts, edges = np.histogram(values, bins=10)
    assert [b.sample_count for b in standard.buckets] == counts.tolist()
    assert [b.low_value for b in standard.buckets] == pytest.approx(edges[:-1].tolist())
    expected = np.quantile(values, np.arange(11) / 10)
    assert [b.low_value for b in quantiles.buckets] == pytest.approx(expected[:-1].tolist())
    assert [b.high_value for b in quantiles.buckets] == pytest.approx(expected[1:].tolist())
    assert {b.sample_count for b in quantiles.buckets} == {500.0}


def test_constant_and_huge_values_have_sound_histograms() -> None:
    constant = describe(pa.array([5, 5, 5])).num_stats.histograms[0].buckets
    assert [(b.low_value, b.high_value, b.sample_count) for b in constant] == [(5, 5, 3)]
    huge = describe(pa.array([-1e308, 1e308])).num_stats.histograms[0].buckets
    assert sum(b.sample_count for b in huge) == 2
    assert (huge[0].low_value, huge[-1].high_value) == (-1e308, 1e308)


def test_only_nan_has_no_minimum() -> None:
    stats = describe(pa.array([NAN, NAN])).num_stats
    assert stats.histograms[0].num_nan == 2
    assert not stats.histograms[0].buckets
    assert (stats.min, stats.max, stats.mean) == (0, 0, 0)


@pytest.mark.parametrize(
    ("column", "name", "mean"),
    [
        (pa.array([True, False, True, None]), "INT", 2 / 3),
        (pa.array([1, 2, 6], pa.int8()), "INT", 3.0),
        (pa.array([2**64 - 1], pa.uint64()), "INT", 2.0**64),
        (pa.array([0.5, 1.5], pa.float16()), "FLOAT", 1.0),
        (pa.array([1, 2, 6]).dictionary_encode(), "INT", 3.0),
    ],
)
def test_every_numeric_type(column: Any, name: str, mean: float) -> None:
    assert kind_of(column.type) == name
    assert describe(column).num_stats.mean == pytest.approx(mean)


@pytest.mark.parametrize("list_type", [pa.list_, pa.large_list])
def test_an_explicit_empty_list_is_present(list_type: Any) -> None:
    stats = describe(pa.array([[1, 2, None], None, [], [5]], list_type(pa.int64()))).num_stats
    common = stats.common_stats
    assert (common.num_non_missing, common.min_num_values, common.max_num_values) == (3, 0, 3)
    assert (common.tot_num_values, common.avg_num_values) == (4, pytest.approx(4 / 3))
    assert stats.mean == pytest.approx(8 / 3)


def test_string_statistics() -> None:
    text = ["b", "a", None, "a", "ccc", "é", "b", "a"]
    for column in (
        pa.array(text),
        pa.array(text, pa.large_string()),
        pa.array(text, pa.string_view()),
        pa.array(text).dictionary_encode(),
        pa.array([None if s is None else s.encode() for s in text], pa.binary()),
        pa.array([text[:3], None, text[3:], []]),
    ):
        stats = describe(column).string_stats
        assert stats.unique == 4
        expected = [("a", 3), ("b", 2), ("ccc", 1), ("é", 1)]
        assert [(top.value, top.frequency) for top in stats.top_values] == expected
        ranked = stats.rank_histogram.buckets
        assert [(b.label, b.sample_count) for b in ranked] == expected
        assert [(b.low_rank, b.high_rank) for b in ranked] == [(i, i) for i in range(4)]
        assert stats.avg_length == pytest.approx((6 * 1 - 1 + 3 + 2) / 7)


def test_dictionary_with_a_null_and_a_repeated_value() -> None:
    column = pa.DictionaryArray.from_arrays(
        pa.array([0, 1, 2, 1, None]), pa.array(["a", None, "a"])
    )
    stats = describe(column).string_stats
    assert stats.common_stats.num_non_missing == 2
    assert [(top.value, top.frequency) for top in stats.top_values] == [("a", 2)]


def test_invalid_utf8_is_counted_and_not_listed() -> None:
    stats = describe(pa.array([b"ok", b"\xff\xfe", b"\xff\xfe", b"\x80"])).string_stats
    assert (stats.invalid_utf8_count, stats.unique) == (3, 1)
    assert [top.value for top in stats.top_values] == ["ok"]
    assert stats.common_stats.tot_num_values == 4


def test_string_hashes_depend_on_every_byte_and_not_on_the_slice() -> None:
    strings = [b"", b"\0", b"a", b"a\0", b"12345678", b"123456789", b"x" * 256, b"x" * 257]
    array = pa.array([*strings, b"x" * 256 + b"y"], pa.binary())
    hashes = hash_bytes(array)
    assert len(set(hashes.tolist())) == len(array)
    assert hash_bytes(array.slice(3, 4)).tolist() == hashes[3:7].tolist()


def test_distinct_strings_beyond_the_exact_limit() -> None:
    values = pa.array([f"value {i}".encode() for i in range(100_000)], pa.binary())
    ones = np.ones(len(values), np.int64)
    counted = ValueCounts.of(values, ones)
    assert len(counted.values) == sketches.KEPT_PER_PART
    assert counted.distinct() == pytest.approx(100_000, rel=0.03)
    assert counted.shortfall == 1
    assert ValueCounts.merge([counted, counted]).smallest.tolist() == counted.smallest.tolist()


def test_frequent_strings_survive_a_long_tail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sketches, "KEPT_PER_PART", 50)
    monkeypatch.setattr(sketches, "KEPT_MERGED", 100)
    drawn = np.random.default_rng(3).zipf(1.5, 20_000) % 5_000
    column = pa.array([f"v{i}" for i in drawn])
    described = describe_split(column, [5_000, 10_000, 15_000], order=[2, 0, 3, 1])
    true = Counter(column.to_pylist())
    (shortfall,) = (stat.num for stat in described.custom_stats)
    assert shortfall <= 4 * len(column) / 50
    for top in described.string_stats.top_values:
        assert 0 <= true[top.value] - top.frequency <= shortfall


def test_quantiles_of_a_large_column_stay_within_their_bound() -> None:
    values = np.random.default_rng(5).permutation(200_000).astype(np.float64)
    cuts = [30_000, 90_000, 150_000]
    stats = describe_split(pa.array(values), cuts, order=[1, 3, 0, 2]).num_stats
    assert stats.median / 200_000 == pytest.approx(0.5, abs=0.011)
    for decile, bucket in enumerate(stats.histograms[1].buckets):
        assert bucket.low_value / 200_000 == pytest.approx(decile / 10, abs=0.011)
    assert sum(b.sample_count for b in stats.histograms[0].buckets) == pytest.approx(200_000)


def test_sample_does_not_depend_on_the_order_of_merging() -> None:
    parts = [RowSample.of(np.full(20_000, float(i)), seed=i) for i in range(5)]
    forth, back = RowSample.merge(parts), RowSample.merge(parts[::-1])
    assert len(forth.keys) == sketches.SAMPLE_SIZE
    assert sorted(zip(forth.keys, forth.values, strict=True)) == sorted(
        zip(back.keys, back.values, strict=True)
    )


FLOATS = st.none() | st.sampled_from([NAN, INF, -INF]) | st.floats(-1e6, 1e6)
COLUMNS = st.one_of(
    st.lists(FLOATS).map(lambda v: pa.array(v, pa.float64())),
    st.lists(st.none() | st.integers(-(2**40), 2**40)).map(lambda v: pa.array(v, pa.int64())),
    st.lists(st.none() | st.text(max_size=12)).map(lambda v: pa.array(v, pa.string())),
    st.lists(st.none() | st.lists(FLOATS)).map(lambda v: pa.array(v, pa.list_(pa.float64()))),
    st.lists(st.none() | st.lists(st.sampled_from(["a", "b", "c"]))).map(
        lambda v: pa.array(v, pa.list_(pa.string()))
    ),
)


@settings(max_examples=200, deadline=None)
@given(COLUMNS, st.lists(st.integers(0, 60)), st.permutations(list(range(12))))
def test_any_split_in_any_order_gives_the_same_statistics(
    column: Any, cuts: list[int], order: list[int]
) -> None:
    whole = describe(column)
    split = describe_split(column, [cut for cut in cuts if cut < len(column)], order)
    for stats in (whole, split):
        # Moments are exact up to rounding only.
        if stats.HasField("num_stats"):
            stats.num_stats.mean = round(stats.num_stats.mean, 3)
            stats.num_stats.std_dev = round(stats.num_stats.std_dev, 3)
    if whole.HasField("num_stats"):
        assert split.num_stats.mean == pytest.approx(whole.num_stats.mean, rel=1e-9, abs=2e-3)
        assert split.num_stats.std_dev == pytest.approx(whole.num_stats.std_dev, rel=1e-6, abs=2e-3)
        split.num_stats.mean, split.num_stats.std_dev = (
            whole.num_stats.mean,
            whole.num_stats.std_dev,
        )
    assert split == whole


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=60))
def test_moments_agree_with_numpy(values: list[float]) -> None:
    stats = describe(pa.array(values)).num_stats
    scale = max(map(abs, values)) + 1e-300
    assert stats.mean == pytest.approx(np.mean(values), abs=1e-12 * scale)
    assert stats.std_dev == pytest.approx(np.std(values), abs=1e-9 * scale)
    assert (stats.min, stats.max) == (min(values), max(values))
    assert stats.median == pytest.approx(np.median(values), abs=1e-12 * scale)


def test_pipeline_over_several_data_sets_and_files(tmp_path: Path) -> None:
    a = write(tmp_path / "a.parquet", n=[1, None, 3], s=["x", "y", "x"], t=[["p"], None, []])
    b = write(tmp_path / "b.parquet", n=[5, 7], s=["z", None])  # lacks t
    c = write(tmp_path / "c.parquet", n=pa.array([], pa.int64()))
    result = compute_statistics({"train": [a, b], "same": [b, a], "empty": [c]})
    train, same, empty = result.datasets
    assert (train.name, train.num_examples, empty.num_examples) == ("train", 5, 0)
    features = by_name(train)
    assert list(features) == ["n", "s", "t"]
    number = features["n"]
    assert number.type == statistics_pb2.FeatureNameStatistics.INT
    assert (number.num_stats.common_stats.num_missing, number.num_stats.mean) == (1, 4.0)
    string = features["s"].string_stats
    assert [(t.value, t.frequency) for t in string.top_values] == [("x", 2), ("y", 1), ("z", 1)]
    tags = features["t"].string_stats.common_stats
    assert (tags.num_non_missing, tags.num_missing, tags.tot_num_values) == (2, 3, 1)
    assert list(same.features) == list(train.features)
    (nothing,) = empty.features
    assert nothing.type == statistics_pb2.FeatureNameStatistics.INT
    assert nothing.path.step == ["n"]
    common = nothing.num_stats.common_stats
    assert (common.num_non_missing, common.num_missing) == (0, 0)


def test_pipeline_takes_options_unchanged(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", n=[1, 2])
    options = ["--runner=FnApiRunner", f"--temp_location={tmp_path / 'shared'}"]
    result = compute_statistics({"one": [path]}, beam_options=options)
    assert result.datasets[0].features[0].num_stats.mean == 1.5
    assert list((tmp_path / "shared").iterdir()) == []


def test_columns_of_type_null_take_the_type_of_other_files(tmp_path: Path) -> None:
    a = write(tmp_path / "a.parquet", n=pa.nulls(2), t=pa.array([[], []]), z=pa.nulls(2))
    b = write(tmp_path / "b.parquet", n=[1.5, 2.5], t=[["p"], []])
    features = by_name(compute_statistics({"d": [a, b]}).datasets[0])
    assert features["n"].num_stats.common_stats.num_missing == 2
    assert features["n"].num_stats.mean == 2.0
    assert features["t"].string_stats.common_stats.num_non_missing == 4
    assert features["z"].type == statistics_pb2.FeatureNameStatistics.STRING
    assert features["z"].string_stats.common_stats.num_missing == 4


def test_row_groups_read_as_batches_know_their_first_row(tmp_path: Path) -> None:
    rows = 2 * BATCH_ROWS + 10
    values = pa.array(np.arange(rows))
    pq.write_table(pa.table({"n": values}), tmp_path / "n.parquet", row_group_size=BATCH_ROWS + 5)
    shards = Shards.open("d", [tmp_path / "n.parquet"])
    read = [
        (row, batch.column(0)[0].as_py()) for p in shards.pieces for row, batch in read_batches(p)
    ]
    assert len(read) == 4
    assert all(row == value for row, value in read)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"nowhere\.parquet: expected a Parquet file"):
        compute_statistics({"d": [tmp_path / "nowhere.parquet"]})


def test_truncated_file(tmp_path: Path) -> None:
    path = write(tmp_path / "cut.parquet", n=list(range(1_000)))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataCorrupt, match=r"cut\.parquet: expected a Parquet file") as caught:
        compute_statistics({"d": [path]})
    assert "\n" not in str(caught.value)


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "none.parquet").touch()
    with pytest.raises(
        DataCorrupt, match=r"none\.parquet: expected a Parquet file, got one without"
    ):
        compute_statistics({"d": [tmp_path / "none.parquet"]})


def test_two_thousand_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "wide.parquet", **{f"c{n}": [n, 3 * n] for n in range(2_000)})
    (data_set,) = compute_statistics({"d": [path]}).datasets
    assert [feature.num_stats.mean for feature in data_set.features] == [
        2 * n for n in range(2_000)
    ]


def test_a_column_that_only_an_empty_file_has(tmp_path: Path) -> None:
    a = write(tmp_path / "a.parquet", n=[1, 2])
    b = write(tmp_path / "b.parquet", n=pa.array([], pa.int64()), m=pa.array([], pa.float32()))
    found = by_name(compute_statistics({"d": [a, b]}).datasets[0])
    assert found["m"].type == statistics_pb2.FeatureNameStatistics.FLOAT
    assert found["m"].num_stats.common_stats.num_missing == 2


def test_integers_of_few_values_are_counted(tmp_path: Path) -> None:
    counts = {"few": [3, -1, 3, 2**40, 3, -1], "many": list(range(6))}
    a = write(tmp_path / "a.parquet", **{name: values[:4] for name, values in counts.items()})
    b = write(tmp_path / "b.parquet", **{name: values[4:] for name, values in counts.items()})
    found = by_name(compute_statistics({"d": [a, b]}).datasets[0])
    (few,) = found["few"].custom_stats
    assert few.name == numeric.VALUE_COUNTS
    listed = [(bucket.label, bucket.sample_count) for bucket in few.rank_histogram.buckets]
    assert listed == [("3", 3), ("-1", 2), (str(2**40), 1)]
    assert len(found["many"].custom_stats[0].rank_histogram.buckets) == 6


def test_integers_of_many_values_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numeric, "MOST_CATEGORIES", 3)
    assert describe(pa.array([1, 2, 3, 1])).custom_stats
    assert not describe(pa.array([1, 2, 3, 4])).custom_stats
    # Each part has few, all together too many.
    assert not describe_split(pa.array([1, 2, 3, 4]), [2], order=[0]).custom_stats
    assert not describe(pa.array([2**63], pa.uint64())).custom_stats
    assert not describe(pa.array([1.0, 2.0])).custom_stats


def test_numbers_of_values_have_a_histogram() -> None:
    stats = describe(pa.array([[1], [1, 2], None, [], *[[1] * 5] * 7])).num_stats
    histogram = stats.common_stats.num_values_histogram
    assert histogram.type == statistics_pb2.Histogram.QUANTILES
    assert [b.low_value for b in histogram.buckets] == [0, 0, 1, 2, 5, 5, 5, 5, 5, 5]
    assert histogram.buckets[-1].high_value == 5
    assert {b.sample_count for b in histogram.buckets} == {1.0}
    scalar = describe(pa.array([1.5, None])).num_stats.common_stats.num_values_histogram
    assert {(b.low_value, b.high_value) for b in scalar.buckets} == {(1, 1)}


def test_damaged_row_group(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.parquet", n=[1])
    path = tmp_path / "damaged.parquet"
    pq.write_table(pa.table({"n": list(range(1_000))}), path, write_page_checksum=True)
    content = bytearray(path.read_bytes())
    content[100] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataCorrupt, match=r"damaged\.parquet: expected readable row") as caught:
        compute_statistics({"good": [whole], "bad": [path]})
    assert "\n" not in str(caught.value)


def test_damaged_dictionary_codes(tmp_path: Path) -> None:
    path = tmp_path / "codes.parquet"
    pq.write_table(pa.table({"s": [f"v{i % 3}" for i in range(1_000)]}), path, compression="none")
    content = path.read_bytes()
    chunk: Any = pq.read_metadata(path).row_group(0).column(0)
    end = chunk.dictionary_page_offset + chunk.total_compressed_size
    path.write_bytes(content[: end - 40] + b"\xff" * 40 + content[end:])
    with pytest.raises(DataCorrupt, match=r"codes\.parquet: expected readable row groups"):
        compute_statistics({"d": [path]})


def test_duplicate_columns(tmp_path: Path) -> None:
    table = pa.table([pa.array([1]), pa.array([2])], names=["n", "n"])
    pq.write_table(table, tmp_path / "twice.parquet")
    with pytest.raises(DataCorrupt, match=r"twice\.parquet: .*'n' more than once"):
        compute_statistics({"d": [tmp_path / "twice.parquet"]})


def test_files_that_disagree_on_a_type(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a.parquet", n=[1]), write(tmp_path / "b.parquet", n=["x"])
    with pytest.raises(InvalidArgument, match=r"b\.parquet: expected column 'n' to be INT"):
        compute_statistics({"d": [a, b]})


@pytest.mark.parametrize("column", [pa.array([{"a": 1}]), pa.array([[[1]]])])
def test_columns_that_cannot_be_features(tmp_path: Path, column: Any) -> None:
    path = write(tmp_path / "a.parquet", odd=column)
    with pytest.raises(InvalidArgument, match="column 'odd' cannot be a feature"):
        compute_statistics({"d": [path]})


def test_data_set_without_files() -> None:
    with pytest.raises(InvalidArgument, match="'d': expected at least one file"):
        compute_statistics({"d": []})
