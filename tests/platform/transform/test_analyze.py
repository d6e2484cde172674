"""Vocabularies and boundaries against Counter and numpy, from small Parquet files."""

from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlplatform.errors import DataCorrupt, InvalidArgument, NotFound
from mlplatform.transform.analyze import analyze
from mlplatform.transform.feature import (
    Bucketize,
    Crossed,
    Feature,
    Hashed,
    Quantiles,
    Vocabulary,
    ZScore,
)
from mlplatform.transform.transform import Transform
from mlplatform.transform.zscore import Scale

ROWS = 900
WORDS = ["", "ü", "a", "Z", "zz", "日本", *(f"w{n}" for n in range(20))]
FEATURES = (
    Feature("word", "string", "", Vocabulary()),
    Feature("common", "string", "", Vocabulary(min_count=20), source="word"),
    Feature("top", "string", "", Vocabulary(top_k=4), source="word"),
    Feature("tag", "string", "", Vocabulary(min_count=5, top_k=8), source="tags", width=3),
    Feature("other_word", "string", "", Vocabulary(shared_with="word")),
    Feature("level", "int64", "", Vocabulary()),
    Feature("amount", "float32", "", Quantiles(10)),
    Feature("lumpy", "int64", "", Quantiles(8)),
    Feature("nothing", "float32", "", Quantiles(4)),
    Feature("id", "int64", "", Hashed(64)),
    Feature("fixed", "float32", "", Bucketize((1.0, 50.0)), source="amount"),
    Feature("score", "float32", "", ZScore(), source="amount"),
    Feature("score_of_level", "int64", "", ZScore(), source="level"),
    Feature("score_of_counts", "int64", "", ZScore(), source="counts", width=2),
    Feature("score_of_nothing", "float32", "", ZScore(), source="nothing"),
    Feature("score_of_huge", "float32", "", ZScore(), source="huge"),
    Feature("pair", "int64", "", Crossed(("word", "level"), 1 << 16)),
)


def columns(seed: int = 5) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, len(WORDS) + 1)

    def word() -> str | None:
        return None if rng.random() < 0.05 else str(rng.choice(WORDS, p=weights / weights.sum()))

    amounts = rng.lognormal(3, 2, ROWS).astype(np.float32).astype(object)
    amounts[::50], amounts[7::50], amounts[9::60] = None, float("nan"), float("inf")
    return {
        "word": pa.array([word() for _ in range(ROWS)]),
        "other_word": pa.array(["only here"] * ROWS),
        "tags": pa.array(
            [None if n % 17 == 0 else [word() for _ in range(n % 4)] for n in range(ROWS)],
            pa.list_(pa.string()),
        ),
        "level": pa.array([int(n) for n in rng.integers(-12, 12, ROWS)]),
        "amount": pa.array(amounts.tolist(), pa.float32()),
        "lumpy": pa.array(
            [0 if rng.random() < 0.6 else int(rng.integers(1, 999)) for _ in range(ROWS)]
        ),
        "nothing": pa.nulls(ROWS, pa.float32()),
        "id": pa.array(range(ROWS)),
        "counts": pa.array([None if n % 5 == 0 else [n, -n, 7][: n % 4] for n in range(ROWS)]),
        # Their sum in float64 depends on the order, and beyond float32 there is no value.
        "huge": pa.array(
            [(-1) ** n * 10.0 ** (n % 38) for n in range(ROWS - 2)] + [1e300, -1e39], pa.float64()
        ),
    }


def split(table: pa.Table, folder: Path, ends: list[int], row_group_size: int) -> list[Path]:
    folder.mkdir()
    paths = []
    for number, (start, end) in enumerate(zip([0, *ends], [*ends, len(table)], strict=True)):
        paths.append(folder / f"part-{number}.parquet")
        pq.write_table(table.slice(start, end - start), paths[-1], row_group_size=row_group_size)
    return paths


def ranked(values: Any) -> list[tuple[Any, int]]:
    counts = Counter(value for value in values if value not in (None, ""))
    return sorted(counts.items(), key=lambda item: (-item[1], str(item[0]).encode()))


@pytest.fixture(scope="module")
def raw() -> dict[str, Any]:
    return columns()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("analyze")


@pytest.fixture(scope="module")
def found(raw: dict[str, Any], folder: Path) -> Transform:
    paths = split(pa.table(raw), folder / "whole", [100, 101, 640], 64)
    return analyze({"rows": FEATURES}, {"rows": paths})


def test_a_vocabulary_holds_every_value_the_most_frequent_first(
    found: Transform, raw: dict[str, Any]
) -> None:
    expected = ranked(raw["word"].to_pylist())
    assert len(expected) > 20
    assert list(found.vocabularies["word"]) == [word for word, _ in expected]


def test_rare_values_are_left_out(found: Transform, raw: dict[str, Any]) -> None:
    expected = [word for word, n in ranked(raw["word"].to_pylist()) if n >= 20]
    assert 4 < len(expected) < 20
    assert list(found.vocabularies["common"]) == expected


def test_the_vocabulary_ends_at_top_k(found: Transform, raw: dict[str, Any]) -> None:
    assert list(found.vocabularies["top"]) == [w for w, _ in ranked(raw["word"].to_pylist())[:4]]


def test_integers_stay_integers(found: Transform, raw: dict[str, Any]) -> None:
    expected = [value for value, _ in ranked(raw["level"].to_pylist())]
    assert list(found.vocabularies["level"]) == expected
    assert {type(value) for value in found.vocabularies["level"]} == {int}


def test_lists_count_each_of_their_values(found: Transform, raw: dict[str, Any]) -> None:
    values = [value for one in raw["tags"].to_pylist() for value in one or []]
    expected = [tag for tag, n in ranked(values) if n >= 5][:8]
    assert list(found.vocabularies["tag"]) == expected


def test_a_shared_vocabulary_is_its_owners(found: Transform) -> None:
    assert "other_word" not in found.vocabularies
    assert found.vocabulary(found.by_name["other_word"]) == found.vocabularies["word"]
    assert found.cardinality("other_word") == found.cardinality("word")


def test_boundaries_are_the_quantiles_of_the_finite_values(
    found: Transform, raw: dict[str, Any]
) -> None:
    values = np.array([v for v in raw["amount"].to_pylist() if v is not None], np.float64)
    values = values[np.isfinite(values)]
    assert len(values) < ROWS - 40
    limits = found.boundaries["amount"]
    assert limits.dtype == np.float32
    np.testing.assert_allclose(limits, np.quantile(values, np.arange(1, 10) / 10), rtol=1e-6)
    codes = found.apply(pa.table({"amount": values.astype(np.float32)}), ["amount"])["amount"]
    np.testing.assert_allclose(np.bincount(codes)[1:], len(values) / 10, atol=1)


def test_a_value_that_spans_several_buckets_gets_one(found: Transform, raw: dict[str, Any]) -> None:
    values = np.array(raw["lumpy"].to_pylist())
    limits = found.boundaries["lumpy"].tolist()
    inner = np.quantile(values, np.arange(1, 8) / 8)
    assert (inner == 0).sum() > 2
    assert limits == sorted(set(inner.tolist()))
    codes = found.apply(pa.table({"lumpy": values}), ["lumpy"])["lumpy"]
    assert set(codes[values == 0].tolist()) == {2}


def test_a_column_without_values_has_no_boundaries(found: Transform) -> None:
    assert found.boundaries["nothing"].tolist() == []
    assert found.cardinality("nothing") == 2


def test_every_feature_is_kept_and_fixed_codes_need_no_analysis(found: Transform) -> None:
    assert found.features == FEATURES
    for name in ("id", "fixed", "pair"):
        assert name not in {*found.vocabularies, *found.boundaries, *found.scales}
    assert found.cardinality("id") == 65
    assert found.cardinality("fixed") == 4
    assert found.cardinality("pair") == 1 + (1 << 16)


def scale_of(values: Any) -> Scale:
    """By numpy's extended precision, rounded to float32 at the end."""
    numbers = np.array([v for v in values if v is not None], np.float32).astype(np.longdouble)
    mean = np.float32(numbers.mean())
    return Scale(float(mean), float(np.float32(1 / numbers.std())))


def test_a_z_score_is_scaled_by_the_finite_values(found: Transform, raw: dict[str, Any]) -> None:
    amounts = [v for v in raw["amount"].to_pylist() if v is not None and np.isfinite(v)]
    assert len(amounts) < ROWS - 40
    assert found.scales["score"] == scale_of(amounts)
    scores = found.apply(pa.table({"amount": pa.array(amounts, pa.float32())}), ["score"])["score"]
    assert abs(scores.mean()) < 1e-5 and abs(scores.std() - 1) < 1e-5


def test_a_z_score_of_integers_and_of_lists_counts_each_value(
    found: Transform, raw: dict[str, Any]
) -> None:
    assert found.scales["score_of_level"] == scale_of(raw["level"].to_pylist())
    counts = [value for one in raw["counts"].to_pylist() for value in one or []]
    assert found.scales["score_of_counts"] == scale_of(counts)


def test_a_z_score_of_numbers_of_all_sizes_leaves_out_what_float32_cannot_hold(
    found: Transform, raw: dict[str, Any]
) -> None:
    exact = [Fraction(float(np.float32(v))) for v in raw["huge"].to_pylist()[:-2]]
    mean = sum(exact) / len(exact)
    deviation = float(sum((v - mean) ** 2 for v in exact) / len(exact)) ** 0.5
    scale = found.scales["score_of_huge"]
    assert scale == Scale(float(np.float32(float(mean))), float(np.float32(1 / deviation)))


def test_a_column_without_values_has_a_z_score_of_0(found: Transform) -> None:
    assert found.scales["score_of_nothing"] == Scale(0.0, 0.0)


def test_markers_of_missing_integers_do_not_move_the_z_score(tmp_path: Path) -> None:
    paths = split(pa.table({"x": [-(2**63)] * 5 + [1, 3]}), tmp_path / "a", [], 9)
    transform = analyze({"a": [Feature("x", "int64", "", ZScore())]}, {"a": paths})
    assert dict(transform.scales) == {"x": Scale(2.0, 1.0)}


def test_limits_that_are_one_as_float32_are_one(tmp_path: Path) -> None:
    values = [2**24 + n for n in (0, 1, 0, 1, 0, 1, 2, 2)]
    paths = split(pa.table({"x": values}), tmp_path / "a", [], 9)
    transform = analyze({"a": [Feature("x", "int64", "", Quantiles(8))]}, {"a": paths})
    limits = transform.boundaries["x"].tolist()
    assert limits == sorted(set(limits)) and limits[0] == 2**24


def test_quantiles_between_the_extremes_of_float32_are_finite(tmp_path: Path) -> None:
    far = float(np.finfo(np.float32).max)
    column = pa.array([-far, -far, far, far], pa.float32())
    paths = split(pa.table({"x": column}), tmp_path / "a", [], 9)
    transform = analyze({"a": [Feature("x", "float32", "", Quantiles(2))]}, {"a": paths})
    assert transform.boundaries["x"].tolist() == [0.0]


@pytest.mark.parametrize(
    ("feature", "column", "expected"),
    [
        (Feature("x", "float32", "", Quantiles(4)), ["much"], "'x'.*INT or FLOAT, got STRING"),
        (Feature("x", "int64", "", ZScore()), [1.5], "'x'.*INT, got FLOAT"),
        (Feature("x", "int64", "", Vocabulary()), ["five"], "'x'.*INT, got STRING"),
        (Feature("x", "string", "", Vocabulary()), [5], "'x'.*STRING, got INT"),
    ],
)
def test_a_column_of_another_type_is_named(
    feature: Feature, column: list[Any], expected: str, tmp_path: Path
) -> None:
    paths = split(pa.table({"x": column}), tmp_path / "a", [], 1)
    with pytest.raises(InvalidArgument, match=expected):
        analyze({"a": [feature]}, {"a": paths})


def test_a_cross_of_an_undeclared_feature_is_refused_before_any_file_is_read(
    tmp_path: Path,
) -> None:
    cross = Feature("x", "int64", "", Crossed(("word", "other"), 8))
    with pytest.raises(InvalidArgument, match=r"'x'.*'other'"):
        analyze({"a": [FEATURES[0], cross]}, {"a": [tmp_path / "absent.parquet"]})


def test_neither_the_order_of_files_nor_how_they_are_cut_matters(
    found: Transform, raw: dict[str, Any], folder: Path
) -> None:
    paths = sorted((folder / "whole").iterdir())
    shuffled = analyze({"rows": FEATURES}, {"rows": [paths[n] for n in (2, 0, 3, 1)]})
    assert shuffled.fingerprint == found.fingerprint
    one_file = split(pa.table(raw), folder / "one file", [], ROWS)
    assert analyze({"rows": FEATURES}, {"rows": one_file}).fingerprint == found.fingerprint


def test_each_data_set_is_asked_for_its_own_features(tmp_path: Path) -> None:
    a = split(pa.table({"x": ["p", "q", "q"]}), tmp_path / "a", [], 3)
    b = split(pa.table({"x": ["r"], "y": [4]}), tmp_path / "b", [], 3)
    transform = analyze(
        {
            "a": [Feature("x", "string", "", Vocabulary())],
            "b": [Feature("y", "int64", "", Vocabulary())],
        },
        {"a": a, "b": b},
    )
    assert dict(transform.vocabularies) == {"x": ("q", "p"), "y": (4,)}


def test_a_file_may_lack_a_column_that_others_have(tmp_path: Path) -> None:
    a = split(pa.table({"x": ["p", "q", "q"], "n": [1.0, 2.0, 3.0]}), tmp_path / "a", [], 3)
    b = split(pa.table({"z": [1]}), tmp_path / "b", [], 1)
    wanted = [Feature("x", "string", "", Vocabulary()), Feature("n", "float32", "", Quantiles(2))]
    transform = analyze({"a": wanted}, {"a": [*a, *b]})
    assert transform.vocabularies["x"] == ("q", "p")
    assert transform.boundaries["n"].tolist() == [2.0]


def test_markers_of_missing_integers_are_no_quantiles(tmp_path: Path) -> None:
    values = [-(2**63)] * 5 + [1, 2, 3, 4]
    paths = split(pa.table({"x": values}), tmp_path / "a", [], 9)
    transform = analyze({"a": [Feature("x", "int64", "", Quantiles(2))]}, {"a": paths})
    assert transform.boundaries["x"].tolist() == [2.5]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"absent\.parquet"):
        analyze({"a": [FEATURES[0]]}, {"a": [tmp_path / "absent.parquet"]})


def test_no_files_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="'a'"):
        analyze({"a": [FEATURES[0]]}, {"a": []})


def test_a_damaged_page_is_named(tmp_path: Path) -> None:
    path = tmp_path / "damaged.parquet"
    pq.write_table(pa.table({"word": ["a long word"] * 50 + ["b"]}), path, write_page_checksum=True)
    content = bytearray(path.read_bytes())
    content[content.index(b"a long word")] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataCorrupt, match=r"damaged\.parquet"):
        analyze({"a": [FEATURES[0]]}, {"a": [path]})


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    paths = split(pa.table({"x": ["p"]}), tmp_path / "a", [], 3)
    with pytest.raises(InvalidArgument, match="'word'"):
        analyze({"a": [FEATURES[0]]}, {"a": paths})
