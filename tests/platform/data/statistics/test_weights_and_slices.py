"""Weighted statistics and slices, against values computed by hand and by numpy."""

import math
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.data.statistics import slices, summaries
from mlplatform.data.statistics.compute import compute_statistics
from mlplatform.data.statistics.slices import slice_rows
from mlplatform.data.statistics.weights import from_units, to_units
from mlplatform.errors import InvalidArgument

INF, NAN = math.inf, math.nan


def write(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=3)
    return path


def features_of(data_set: Any) -> dict[str, Any]:
    return {feature.path.step[0]: feature for feature in data_set.features}


def test_weighted_statistics_by_hand(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.parquet",
        w=[2.0, 0.5, 1.0, 0.0, 4.0],
        x=[1.0, 3.0, None, 100.0, 2.0],
        s=["a", "b", "b", None, "c"],
        t=[["p", "q"], [], None, ["p"], ["p", None]],
    )
    (data_set,) = compute_statistics({"d": [path]}, weight="w").datasets
    assert (data_set.num_examples, data_set.weighted_num_examples) == (5, 7.5)
    features = features_of(data_set)

    x = features["x"].num_stats
    common = x.common_stats.weighted_common_stats
    assert (common.num_non_missing, common.num_missing, common.tot_num_values) == (6.5, 1.0, 6.5)
    mean = (2 * 1 + 0.5 * 3 + 4 * 2) / 6.5
    variance = (2 * (1 - mean) ** 2 + 0.5 * (3 - mean) ** 2 + 4 * (2 - mean) ** 2) / 6.5
    weighted = x.weighted_numeric_stats
    assert weighted.mean == pytest.approx(mean)
    assert weighted.std_dev == pytest.approx(math.sqrt(variance))
    assert (weighted.median, x.median) == (2.0, 2.5)
    standard, quantiles = weighted.histograms
    assert [b.sample_count for b in standard.buckets] == pytest.approx([6.5, *[0] * 9])
    assert [b.low_value for b in quantiles.buckets] == [1, 1, 1, 1, *[2] * 6]
    assert sum(b.sample_count for b in quantiles.buckets) == pytest.approx(6.5)

    s = features["s"].string_stats
    assert [(t.value, t.frequency) for t in s.top_values] == [("b", 2), ("a", 1), ("c", 1)]
    expected = [("c", 4.0), ("a", 2.0), ("b", 1.5)]
    ranked = s.weighted_string_stats
    assert [(t.value, t.frequency) for t in ranked.top_values] == expected
    assert [(b.label, b.sample_count) for b in ranked.rank_histogram.buckets] == expected

    t = features["t"].string_stats
    common = t.common_stats.weighted_common_stats
    assert (common.num_non_missing, common.num_missing) == (6.5, 1.0)
    assert common.tot_num_values == 2 * 2 + 0.5 * 0 + 0 * 1 + 4 * 2  # a null in a list counts
    assert common.avg_num_values == 12 / 6.5
    top = [(v.value, v.frequency) for v in t.weighted_string_stats.top_values]
    assert top == [("p", 6.0), ("q", 2.0)]


def test_infinities_weigh_in_buckets_of_their_own(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", w=[1, 2, 3, 4, 5], x=[-INF, INF, NAN, 7.0, INF])
    (data_set,) = compute_statistics({"d": [path]}, weight="w").datasets
    standard = features_of(data_set)["x"].num_stats.weighted_numeric_stats.histograms[0]
    assert [(b.low_value, b.sample_count) for b in standard.buckets] == [
        (-INF, 1),
        (7, 4),
        (INF, 7),
    ]


def test_integer_weights_say_how_often_a_row_stands_there(tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    weights, x = generator.integers(0, 5, 400), generator.normal(size=400).round(1)
    once = write(tmp_path / "once.parquet", w=weights, x=x)
    often = write(tmp_path / "often.parquet", x=np.repeat(x, weights))
    (light,) = compute_statistics({"d": [once]}, weight="w").datasets
    (heavy,) = compute_statistics({"d": [often]}).datasets
    assert light.weighted_num_examples == heavy.num_examples == weights.sum()
    weighted = features_of(light)["x"].num_stats.weighted_numeric_stats
    plain = features_of(heavy)["x"].num_stats
    assert weighted.mean == pytest.approx(plain.mean)
    assert weighted.std_dev == pytest.approx(plain.std_dev)
    expected = np.quantile(np.repeat(x, weights), np.arange(1, 10) / 10, method="inverted_cdf")
    assert [b.low_value for b in weighted.histograms[1].buckets][1:] == expected.tolist()


def test_without_a_weight_nothing_is_weighted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", x=[1, 2], s=["a", None])
    (data_set,) = compute_statistics({"d": [path]}).datasets
    assert data_set.weighted_num_examples == 0
    for feature in data_set.features:
        stats = getattr(feature, feature.WhichOneof("stats"))
        assert not stats.common_stats.HasField("weighted_common_stats")
        assert not stats.HasField(f"weighted_{'numeric' if feature.type == 0 else 'string'}_stats")


@pytest.mark.parametrize(
    ("weights", "got"),
    [
        ([1.0, None], "none in row 1"),
        ([1.0, -0.5], "-0.5 in row 1"),
        ([NAN, 1.0], "nan in row 0"),
        ([1, 1, 1, 2**25], "33554432 in row 3"),
        ([[1.0], [2.0, 3.0]], "in row 1"),
        ([[2.0], None], "None in row 1"),
        ([[1.0], [2.0], [None]], "none in row 2"),
    ],
)
def test_weights_that_are_none(tmp_path: Path, weights: Any, got: str) -> None:
    path = write(tmp_path / "a.parquet", w=weights, x=[1] * len(weights))
    with pytest.raises(InvalidArgument, match=r"a\.parquet: expected .*'w'.*" + got) as caught:
        compute_statistics({"d": [path]}, weight="w")
    assert "\n" not in str(caught.value)


def test_a_column_of_no_rows_has_empty_weighted_statistics(tmp_path: Path) -> None:
    nulls = write(tmp_path / "nulls.parquet", w=[1.0, 2.0], x=pa.nulls(2, pa.float64()))
    rows = write(tmp_path / "rows.parquet", w=[1.0, 2.0])
    columns = write(
        tmp_path / "columns.parquet", w=pa.array([], pa.float64()), x=pa.array([], pa.float64())
    )
    (one,) = compute_statistics({"d": [nulls]}, weight="w").datasets
    (other,) = compute_statistics({"d": [rows, columns]}, weight="w").datasets
    assert features_of(one)["x"] == features_of(other)["x"]
    common = features_of(one)["x"].num_stats.common_stats
    assert common.weighted_common_stats.num_missing == 3.0


def test_weights_in_lists_of_one(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", w=[[1.5], [2.0]], x=[1, 2])
    (data_set,) = compute_statistics({"d": [path]}, weight="w").datasets
    assert data_set.weighted_num_examples == 3.5
    assert features_of(data_set)["x"].num_stats.weighted_numeric_stats.mean == 5.5 / 3.5


def test_a_file_or_a_data_set_without_weights(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a.parquet", w=[1.0]), write(tmp_path / "b.parquet", x=["s"])
    with pytest.raises(InvalidArgument, match=r"b\.parquet: expected a column 'w' with one weight"):
        compute_statistics({"d": [a, b]}, weight="w")
    with pytest.raises(InvalidArgument, match=r"'d': expected a column 'w' of numbers .* got none"):
        compute_statistics({"d": [b]}, weight="w")
    with pytest.raises(InvalidArgument, match=r"'x' of numbers .* got one of strings"):
        compute_statistics({"d": [b]}, weight="x")


@settings(max_examples=200)
@given(st.lists(st.floats(0, 2.0**40), min_size=1), st.randoms())
def test_sums_of_units_do_not_depend_on_the_order(
    sums: list[float], shuffler: random.Random
) -> None:
    units = to_units(np.array(sums))
    again = sums[:]
    shuffler.shuffle(again)
    assert (to_units(np.array(again)).sum(axis=0) == units.sum(axis=0)).all()
    assert from_units(units.sum(axis=0)) == pytest.approx(math.fsum(sums), rel=1e-15, abs=1e-13)
    assert from_units(units).tolist() == pytest.approx(sums, rel=1e-15, abs=1e-15)


def test_slices_are_data_sets_of_their_rows(tmp_path: Path) -> None:
    a = write(
        tmp_path / "a.parquet",
        c=["x", "y", None, "x"],
        n=[1, 2, 1, 1],
        v=[10.0, 20.0, 30.0, None],
        w=[1.0, 2.0, 3.0, 4.0],
    )
    b = write(tmp_path / "b.parquet", c=["y", "x"], w=[5.0, 6.0])  # lacks n and v
    result = compute_statistics({"d": [a, b]}, slice_by=["c", "n"], weight="w")
    names = ["d", "d/c=x", "d/c=y", "d/n=1", "d/n=2"]
    assert [one.name for one in result.datasets] == names
    assert [one.num_examples for one in result.datasets] == [6, 3, 2, 3, 1]
    assert [one.weighted_num_examples for one in result.datasets] == [21, 11, 7, 8, 2]
    found = {one.name: features_of(one) for one in result.datasets}
    assert all(list(features) == ["c", "n", "v", "w"] for features in found.values())
    v = found["d/c=x"]["v"].num_stats
    assert (v.mean, v.common_stats.num_non_missing, v.common_stats.num_missing) == (10.0, 1, 2)
    assert v.common_stats.weighted_common_stats.num_missing == 10
    v = found["d/c=y"]["v"].num_stats.common_stats
    assert (v.num_non_missing, v.num_missing) == (1, 1)
    c = found["d/n=1"]["c"].string_stats
    assert (c.unique, c.common_stats.num_missing) == (1, 1)


def test_a_row_with_a_list_is_once_in_the_slice_of_each_value() -> None:
    lists = [["p", "q", "p"], [], None, ["q", None], ["p"]]
    for column in (pa.array(lists), pa.array(lists, pa.large_list(pa.string()))):
        batch = pa.record_batch({"t": column})
        got = {name: rows.tolist() for name, rows in slice_rows("d", batch, ["t", "absent"])}
        assert got == {"d/t=p": [0, 4], "d/t=q": [0, 3]}


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([True, False, True]), {"d/x=1": [0, 2], "d/x=0": [1]}),
        (pa.array(["a", "b", "a"]).dictionary_encode(), {"d/x=a": [0, 2], "d/x=b": [1]}),
        (pa.array([b"\xff", b"a", None]), {"d/x=\\xff": [0], "d/x=a": [1]}),
        (pa.array([-5, None, 2**40]), {"d/x=-5": [0], "d/x=1099511627776": [2]}),
        (pa.nulls(2), {}),
        (pa.array([], pa.string()), {}),
    ],
)
def test_what_can_slice(column: Any, expected: dict[str, list[int]]) -> None:
    batch = pa.record_batch({"x": column})
    assert {n: rows.tolist() for n, rows in slice_rows("d", batch, ["x"])} == expected


def test_too_many_slices_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "MOST_SLICES", 4)
    four = write(tmp_path / "four.parquet", id=["a", "b", "c", "d", "a"])
    assert len(compute_statistics({"d": [four]}, slice_by=["id"]).datasets) == 5
    more = write(tmp_path / "more.parquet", id=["e"])
    for files in ([four, more], [write(tmp_path / "five.parquet", id=list("abcde"))]):
        with pytest.raises(InvalidArgument, match="'d': expected at most 4 slices, got 5"):
            compute_statistics({"d": files}, slice_by=["id"])


def test_columns_that_cannot_slice(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", x=[1.5])
    for name, got in (("x", "one of floats"), ("y", "none")):
        with pytest.raises(InvalidArgument, match=f"'{name}' of strings or integers .*got {got}"):
            compute_statistics({"d": [path]}, slice_by=[name])


ROW = st.fixed_dictionaries(
    {
        "c": st.sampled_from(["x", "y", None]),
        "i": st.none() | st.integers(-3, 3),
        "f": st.none() | st.sampled_from([0.0, 0.5, -2.0, 8.25, NAN, INF]),
        "l": st.none() | st.lists(st.sampled_from(["p", "q"]), max_size=3),
        "w": st.integers(0, 64).map(lambda n: n / 4),
    }
)
TYPES = {
    "c": pa.string(),
    "i": pa.int64(),
    "f": pa.float64(),
    "l": pa.list_(pa.string()),
    "w": pa.float64(),
}


def table_of(rows: list[dict[str, Any]], *, drop_empty: bool = False) -> pa.Table:
    table = pa.table({n: pa.array([row[n] for row in rows], t) for n, t in TYPES.items()})
    if drop_empty:
        return table.drop([n for n in "cifl" if table[n].null_count == len(table)])
    return table


def assert_same(one: Any, other: Any) -> None:
    """Moments are the same up to rounding when rows are spread otherwise, all else exactly."""
    for data_set, again in zip(one.datasets, other.datasets, strict=True):
        for feature, repeated in zip(data_set.features, again.features, strict=True):
            if feature.HasField("num_stats"):
                numbers, those = feature.num_stats, repeated.num_stats
                pairs = [(numbers, those)]
                if numbers.HasField("weighted_numeric_stats"):
                    pairs.append((numbers.weighted_numeric_stats, those.weighted_numeric_stats))
                for stats, compared in pairs:
                    assert compared.mean == pytest.approx(stats.mean, abs=1e-12)
                    assert compared.std_dev == pytest.approx(stats.std_dev, abs=1e-6)
                    compared.mean, compared.std_dev = stats.mean, stats.std_dev
    assert one == other


@settings(max_examples=25, deadline=None)
@given(
    st.lists(ROW, min_size=1, max_size=30), st.lists(st.integers(0, 30), max_size=3), st.randoms()
)
def test_any_split_into_files_in_any_order_gives_the_same(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[dict[str, Any]],
    cuts: list[int],
    shuffler: random.Random,
) -> None:
    root = tmp_path_factory.mktemp("split")
    pq.write_table(table_of(rows), root / "whole.parquet")
    mixed = rows[:]
    shuffler.shuffle(mixed)
    ends = sorted({0, *(cut for cut in cuts if cut < len(rows)), len(rows)})
    paths = []
    for number, (start, end) in enumerate(pairwise(ends)):
        paths.append(root / f"{number}.parquet")
        pq.write_table(
            table_of(mixed[start:end], drop_empty=number > 0), paths[-1], row_group_size=4
        )
    pq.write_table(table_of([]), root / "columns.parquet")  # all columns, in their order
    paths.append(root / "columns.parquet")
    shuffler.shuffle(paths)
    options: dict[str, Any] = {"weight": "w", "slice_by": ["c", "l", "i"]}
    whole = compute_statistics({"d": [root / "whole.parquet"]}, **options)
    split = compute_statistics({"d": paths}, **options)
    for one in split.datasets:  # columns stand in the order of the first file that has them
        one.features.sort(key=lambda feature: list(TYPES).index(feature.path.step[0]))
    assert_same(whole, split)


def test_the_bytes_do_not_depend_on_runner_workers_or_the_order_of_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(11)
    files = [
        write(
            tmp_path / f"{number}.parquet",
            x=generator.normal(size=300) * 10.0 ** generator.integers(-8, 8, 300),
            s=generator.integers(0, 3, 300).astype(str),
            w=generator.random(300),
        )
        for number in range(5)
    ]
    monkeypatch.setattr(summaries, "_MERGED_AT_ONCE", 3)
    monkeypatch.setattr(summaries, "_WORKERS", 1)
    expected = compute_statistics({"d": files}, weight="w", slice_by=["s"])
    monkeypatch.setattr(summaries, "_WORKERS", 5)
    for beam_options in (None, ["--runner=BundleBasedDirectRunner"]):
        again = compute_statistics(
            {"d": files[::-1]}, weight="w", slice_by=["s"], beam_options=beam_options
        )
        assert again.SerializeToString(deterministic=True) == expected.SerializeToString(
            deterministic=True
        )
