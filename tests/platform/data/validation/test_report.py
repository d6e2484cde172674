"""The page about a data set: what its bars stand for."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlplatform.data.statistics.compute import compute_statistics
from mlplatform.data.validation import report
from mlplatform.data.validation.facts import Statistics, feature_name


def bars(folder: Path, ours: Any, theirs: Any, **options: Any) -> list[dict[str, Any]]:
    """The bars of feature `x` in a data set beside another one."""
    described: list[Statistics] = []
    for name, table in (("ours", ours), ("theirs", theirs)):
        path = folder / f"{name}.parquet"
        pq.write_table(pa.table(table), path)
        (statistics,) = compute_statistics({name: [path]}, **options).datasets
        described.append(next(one for one in statistics.features if feature_name(one) == "x"))
    return report._bars(*described)


def test_strings_are_drawn_as_shares_of_their_own_rows(tmp_path: Path) -> None:
    ours, theirs = ["a", "a", "a", "b"], ["b", "c"]
    assert bars(tmp_path, {"x": ours}, {"x": theirs}) == [
        {"label": "a", "count": 3, "height": report.HEIGHT, "other": 0},
        # 1 of 4, and 1 of 2, where the highest bar is 3 of 4
        {"label": "b", "count": 1, "height": 13.3, "other": 26.7},
    ]


def test_weighted_rows_are_drawn_by_their_weight(tmp_path: Path) -> None:
    ours = {"x": ["a", "b"], "w": [1.0, 3.0]}
    found = bars(tmp_path, ours, ours, weight="w")
    assert [(bar["label"], bar["count"]) for bar in found] == [("b", 3), ("a", 1)]
    assert [bar["height"] for bar in found] == [bar["other"] for bar in found] == [40, 13.3]


def test_numbers_are_drawn_in_the_buckets_of_the_data_set(tmp_path: Path) -> None:
    found = bars(tmp_path, {"x": [0.0, 0.0, 10.0, 10.0]}, {"x": [0.0, 10.0, 10.0, 10.0]})
    assert [bar["count"] for bar in (found[0], found[-1])] == [2, 2]
    assert sum(bar["count"] for bar in found) == 4
    # a quarter and three quarters, to a half and a half; 3 of 4 is the highest
    assert [bar["height"] for bar in (found[0], found[-1])] == [26.7, 26.7]
    assert [bar["other"] for bar in (found[0], found[-1])] == [13.3, 40]


@pytest.mark.parametrize("theirs", [[2.5], [2.0, 3.0]])
def test_one_value_is_one_bar(tmp_path: Path, theirs: list[float]) -> None:
    (bar,) = bars(tmp_path, {"x": [2.5, 2.5]}, {"x": theirs})
    assert (bar["label"], bar["count"], bar["height"]) == ("2.5 to 2.5", 2, report.HEIGHT)
    assert bar["other"] == (report.HEIGHT if theirs == [2.5] else 0)


def test_a_type_that_changed_has_nothing_beside_it(tmp_path: Path) -> None:
    (bar,) = bars(tmp_path, {"x": [2.5, 2.5]}, {"x": ["a"]})
    assert bar["other"] is None
