"""Training input by three ways: that they are compared on equal values, and what is printed."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.decoding import DATASETS, Dataset, measure_dataset, require_equal
from benchmarks.raw_arrays import raw_arrays
from benchmarks.result import Result
from benchmarks.store import Store
from benchmarks.tf_examples import BATCHED, SINGLE, count, pipelines, write_examples
from mlplatform.transform.feature import Feature

NUMBER = Feature("number", "int64", "A key.")
SHARE = Feature("share", "float32", "A number, or none.")
WORD = Feature("word", "string", "A word, or none.")
LIST = Feature("list", "int64", "Numbers.", width=3)
WORDS = Feature("words", "string", "Words.", width=2)
DECLARED = (NUMBER, SHARE, WORD, LIST, WORDS)
HAND_MADE = Dataset("hand-made", (), DECLARED, ("number",))
MISSING = -(2**63)
WAYS = ("one reader", "a reader a file")

TABLE = pa.table(
    {
        "number": pa.array([3, 1, 2, 0], pa.int64()),
        "share": pa.array([0.5, None, -2.0, 0.0], pa.float32()),
        "word": ["a", None, "ü", "a"],
        "list": [[1, 2, 3, 4], [], None, [-5]],
        "words": pa.array([["x"], ["x", "y"], [], None], pa.list_(pa.string())),
    }
)


def test_raw_arrays_are_dense_and_mark_what_is_missing() -> None:
    arrays = raw_arrays(TABLE, DECLARED)
    np.testing.assert_array_equal(arrays["number"], [3, 1, 2, 0])
    np.testing.assert_array_equal(arrays["share"], np.float32([0.5, np.nan, -2, 0]), strict=True)
    assert arrays["word"].tolist() == [b"a", b"", "ü".encode(), b"a"]
    np.testing.assert_array_equal(
        arrays["list"],
        [[1, 2, 3], [MISSING] * 3, [MISSING] * 3, [-5, MISSING, MISSING]],
    )
    assert arrays["words"].tolist() == [[b"x", b""], [b"x", b"y"], [b"", b""], [b"", b""]]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_examples(raw_arrays(TABLE, DECLARED), tmp_path_factory.mktemp("rows") / "rows", 2)


class TestExamples:
    @pytest.mark.parametrize("parser", [SINGLE, BATCHED])
    @pytest.mark.parametrize("way", WAYS)
    def test_every_way_to_read_gives_our_values_and_all_rows(
        self, files: list[str], parser: str, way: str
    ) -> None:
        dataset = pipelines(files, DECLARED, 3)[parser][way]
        require_equal(HAND_MADE, raw_arrays(TABLE, DECLARED), [dataset])
        assert count(dataset) == 4

    @pytest.mark.parametrize(
        ("column", "row", "value"),
        [("share", 1, 0.0), ("word", 0, b"b"), ("list", 3, 0), ("words", 2, b"x")],
    )
    def test_one_differing_value_is_found_and_its_column_named(
        self, files: list[str], column: str, row: int, value: object
    ) -> None:
        ours = {name: array.copy() for name, array in raw_arrays(TABLE, DECLARED).items()}
        ours[column][row] = value
        with pytest.raises(AssertionError, match=f"hand-made/{column}"):
            require_equal(HAND_MADE, ours, [pipelines(files, DECLARED, 3)[BATCHED]["one reader"]])


@pytest.mark.parametrize("dataset", DATASETS, ids=lambda dataset: dataset.name)
def test_the_figures_of_a_data_set_of_the_store(
    dataset: Dataset, store: Store, tmp_path: Path
) -> None:
    result = Result(settings={})
    measure_dataset(result, dataset, store, tmp_path, rounds=1)
    figures = {name.removeprefix(f"{dataset.name}: "): n for name, n in result.figures.items()}
    assert figures["rows"] > 100
    single = [
        figures[f"rows a second, {SINGLE}, {way}"] for way in ("one reader", "a reader a file")
    ]
    for ours in ("our arrays", "our codes"):
        speed = figures[f"rows a second, {ours}"]
        assert figures[f"{ours}, times {SINGLE}"] == pytest.approx(speed / max(single))
        assert result.limits[f"{dataset.name}: {ours}, times {SINGLE}"] == ("least", 5.0)
