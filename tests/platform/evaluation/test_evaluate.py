"""Figures against their definitions, and what must not change them: files, order, runner."""

import math
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.errors import DataCorrupt, InvalidArgument, NotFound, PlatformError, Unavailable
from mlplatform.evaluation.evaluate import evaluate
from mlplatform.evaluation.figures import Evaluation
from mlplatform.evaluation.list_metrics import NDCG, UserAUC
from mlplatform.evaluation.rank_metrics import MRR, RankNDCG, Recall
from mlplatform.evaluation.row_metrics import AUC, Calibration, LogLoss, MeanLabel, MeanPrediction
from mlplatform.evaluation.task import Model, Task
from tests.platform.evaluation import naive
from tests.platform.evaluation.naive import Row, write

METRICS = (AUC(), LogLoss(), Calibration(), UserAUC(), NDCG(2), MeanLabel(), MeanPrediction())
TASK = Task(
    user="customer",
    models={"new": Model("new"), "old": Model("old")},
    metrics=METRICS,
    label="clicked",
    query="query",
    slices=(("country",), ("country", "device")),
    least_rows=1,
)
PROBABILITIES = st.sampled_from([0.0, 0.125, 0.5, 0.7, 1.0])
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "customer": st.integers(-1, 2),
            "part": st.integers(0, 1),
            "clicked": st.integers(0, 1),
            "new": PROBABILITIES,
            "old": PROBABILITIES,
            "country": st.sampled_from(["BR", "DE", None]),
            "device": st.integers(0, 1),
        }
    ),
    min_size=1,
    max_size=14,
)
SCHEMA = pa.schema(
    {
        "customer": pa.int64(),
        "part": pa.int64(),
        "clicked": pa.int8(),
        "new": pa.float64(),
        "old": pa.float64(),
        "country": pa.string(),
        "device": pa.int32(),
        "query": pa.string(),
    }
)


@pytest.fixture
def no_beam(monkeypatch: pytest.MonkeyPatch) -> None:
    naive.without_beam(monkeypatch)


def in_files(folder: str | Path, *files: list[Row]) -> list[Path]:
    paths = [Path(folder) / f"{number}.parquet" for number in range(len(files))]
    for path, rows in zip(paths, files, strict=True):
        rows = [row | {"query": f"{row['customer']} {row['part']}"} for row in rows]
        pq.write_table(pa.Table.from_pylist(rows, SCHEMA), path, row_group_size=5)
    return paths


@settings(deadline=None, max_examples=60)
@given(rows=ROWS)
def test_every_figure_of_every_slice_is_what_its_definition_says(rows: list[Row]) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        naive.without_beam(patch)
        found = evaluate(in_files(folder, rows), TASK)
    rows = [row | {"query": f"{row['customer']} {row['part']}"} for row in rows]
    expected_slices = {
        ", ".join(f"{column}={row[column]}" for column in columns)
        for row in rows
        for columns in TASK.slices
        if row["country"] is not None
    }
    assert set(found.slices) == expected_slices
    for one in (found.overall, *found.slices.values()):
        inside = [row for row in rows if all(str(row[c]) == value for c, value in one.where)]
        assert one.rows == len(inside)
        assert one.users == len({row["customer"] for row in inside})
        for score in ("new", "old"):
            expected = {
                "AUC": naive.auc(inside, score),
                "log loss": naive.log_loss(inside, score),
                "calibration": naive.calibration(inside, score),
                "AUC within users": naive.user_auc(inside, score),
                "NDCG@2": naive.ndcg(inside, score, 2),
                "mean prediction": naive.mean(row[score] for row in inside),
            }
            for name, value in expected.items():
                figure = one.figures[f"{name}: {score}"].value
                assert figure == pytest.approx(value, abs=1e-7, nan_ok=True), name
        for name in ("AUC", "log loss", "calibration", "AUC within users", "NDCG@2"):
            new, old = (one.figures[f"{name}: {score}"].value for score in ("new", "old"))
            difference = one.figures[f"{name}: new - old"].value
            assert difference == pytest.approx(new - old, abs=1e-12, nan_ok=True)
        clicked = naive.mean(row["clicked"] for row in inside)
        assert one.figures["mean label"].value == pytest.approx(clicked, abs=1e-9)


@settings(deadline=None, max_examples=30)
@given(
    rows=ROWS,
    order=st.randoms(use_true_random=False),
    seed=st.integers(0, 1000),
    cuts=st.lists(st.integers(0, 14), max_size=3),
)
def test_neither_order_nor_files_change_a_bit(
    rows: list[Row], order: Any, seed: int, cuts: list[int]
) -> None:
    rng = np.random.default_rng(seed)
    for row in rows:
        row |= {"new": rng.random(), "old": rng.random()}
    shuffled = list(rows)
    order.shuffle(shuffled)
    bounds = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    parts = [shuffled[a:b] for a, b in pairwise(bounds)]
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        naive.without_beam(patch)
        patch.setattr("mlplatform.evaluation.survey.MOST_CUTS", 6)
        one = evaluate(in_files(folder, rows), TASK).to_json()
        other = evaluate(in_files(folder, *parts), TASK).to_json()
    assert one == other


def made_up(rows: int, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    customer = rng.integers(0, rows // 8 + 1, rows)
    taste = rng.normal(0, 0.7, rows // 8 + 1)[customer]
    odds = rng.normal(-1, 1, rows) + taste
    return {
        "customer": customer,
        "query": customer * 10 + rng.integers(0, 2, rows),
        "clicked": (rng.random(rows) < 1 / (1 + np.exp(-odds))).astype(np.int8),
        "new": 1 / (1 + np.exp(-odds + rng.normal(0, 0.3, rows))),
        "old": 1 / (1 + np.exp(-odds + rng.normal(0, 1, rows))),
        "country": np.array(["BR", "DE", "JP"])[rng.integers(0, 3, rows)],
        "device": rng.integers(0, 2, rows),
    }


def test_on_any_beam_runner_the_result_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = made_up(3000)
    half = {name: values[:1500] for name, values in columns.items()}
    rest = {name: values[1500:] for name, values in columns.items()}
    files = [write(tmp_path / "a.parquet", rest), write(tmp_path / "b.parquet", half)]
    local = evaluate(files, TASK).to_json()
    assert local == evaluate(files, TASK, ["--runner=BundleBasedDirectRunner"]).to_json()
    naive.without_beam(monkeypatch)
    assert local == evaluate([write(tmp_path / "c.parquet", columns)], TASK).to_json()


@pytest.mark.usefixtures("no_beam")
def test_the_auc_of_many_scores_is_exact_to_four_places(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    rows = 60_000
    odds = rng.normal(-4, 2, rows)
    clicked = rng.random(rows) < 1 / (1 + np.exp(-odds))
    # As scores, all of them are close together, which a grid that knows no data would not resolve.
    score = 7 + 1e-6 * odds
    table = {
        "customer": rng.integers(0, 5000, rows), "clicked": clicked, "new": score,
        "country": np.where(odds < -4, "low", "high"),
    }  # fmt: skip
    task = Task(
        "customer", {"new": Model("new", "score")}, (AUC(),), "clicked", slices=(("country",),)
    )
    found = evaluate([write(tmp_path / "a.parquet", table)], task)
    for name, inside in (("", odds < 99), ("country=low", odds < -4), ("country=high", odds >= -4)):
        up, down = np.sort(score[inside & clicked]), score[inside & ~clicked]
        beaten = len(up) - np.searchsorted(up, down, "right")
        exact = beaten.sum() / (len(up) * len(down))
        figure = (found.slices[name] if name else found.overall).figures["AUC: new"]
        assert figure.value == pytest.approx(exact, abs=1e-4)
        assert figure.value != 0.5


@pytest.mark.usefixtures("no_beam")
def test_scores_that_are_all_tied_order_nothing(tmp_path: Path) -> None:
    rows = {"customer": [1, 1, 2], "clicked": [1, 0, 0], "new": [0.3, 0.3, 0.3]}
    task = Task("customer", {"new": Model("new")}, (AUC(), UserAUC()), "clicked")
    figures = evaluate([write(tmp_path / "a.parquet", rows)], task).overall.figures
    assert figures["AUC: new"].value == figures["AUC within users: new"].value == 0.5


@pytest.mark.usefixtures("no_beam")
def test_a_slice_of_one_label_has_no_auc_and_stops_nothing(tmp_path: Path) -> None:
    columns = made_up(600)
    columns["clicked"] = np.where(columns["country"] == "JP", 0, columns["clicked"])
    found = evaluate([write(tmp_path / "a.parquet", columns)], TASK)
    figures = found.slices["country=JP"].figures
    for name in ("AUC: new", "AUC within users: old", "NDCG@2: new", "calibration: new - old"):
        assert all(map(math.isnan, vars(figures[name]).values())), name
    assert figures["log loss: new"].low < figures["log loss: new"].value
    assert figures["mean label"].value == 0


@pytest.mark.usefixtures("no_beam")
def test_no_rows_have_no_figures_and_stop_nothing(tmp_path: Path) -> None:
    found = evaluate(in_files(tmp_path, []), TASK)
    assert (found.overall.rows, found.overall.users, found.slices) == (0, 0, {})
    assert all(math.isnan(figure.value) for figure in found.overall.figures.values())
    assert found == found and Evaluation.from_json(found.to_json()).to_json() == found.to_json()


@pytest.mark.usefixtures("no_beam")
def test_equal_models_differ_by_nothing_in_every_resample(tmp_path: Path) -> None:
    columns = made_up(500) | {"old": made_up(500)["new"]}
    found = evaluate([write(tmp_path / "a.parquet", columns)], TASK)
    for name in ("AUC", "log loss", "NDCG@2", "calibration"):
        difference = found.overall.figures[f"{name}: new - old"]
        assert (difference.low, difference.value, difference.high) == (0, 0, 0)


@pytest.mark.usefixtures("no_beam")
def test_small_slices_are_dropped_and_counted(tmp_path: Path) -> None:
    rows = {"customer": range(10), "clicked": [0, 1] * 5, "new": [0.5] * 10, "g": [*"aaaaabbbbc"]}
    task = Task(
        "customer", {"new": Model("new")}, (AUC(),), "clicked", slices=(("g",),), least_rows=5
    )
    found = evaluate([write(tmp_path / "a.parquet", rows)], task)
    assert (list(found.slices), found.dropped) == (["g=a"], 2)
    assert found.slices["g=a"].columns == ("g",)


@pytest.mark.usefixtures("no_beam")
def test_a_metric_is_told_of_the_models_that_give_what_it_reads(tmp_path: Path) -> None:
    rows = {"customer": [1, 2, 3, 4], "clicked": [0, 1, 0, 1], "new": [0.1, 0.9, 0.4, 0.3]}
    rows |= {"popular": [3, 900, 20, 1]}
    models = {"new": Model("new"), "popular": Model("popular", "score")}
    task = Task("customer", models, (AUC(), LogLoss()), "clicked")
    figures = evaluate([write(tmp_path / "a.parquet", rows)], task).overall.figures
    assert set(figures) == {"AUC: new", "AUC: popular", "AUC: new - popular", "log loss: new"}
    assert figures["AUC: popular"].value == 0.5


@pytest.mark.usefixtures("no_beam")
def test_retrieval_is_judged_by_the_rank_of_what_was_wanted(tmp_path: Path) -> None:
    rows = {"customer": ["a", "b", "c", "c"], "new": [1, 0, 3, 10], "old": [0, 0, 2, 11]}
    models = {name: Model(name, "rank") for name in ("new", "old")}
    task = Task("customer", models, (Recall(10), RankNDCG(3), MRR()))
    found = evaluate([write(tmp_path / "a.parquet", rows)], task).overall
    values = {name: figure.value for name, figure in found.figures.items()}
    assert (found.rows, found.users) == (4, 3)
    assert values["recall@10: new"] == 0.75 and values["recall@10: old"] == 0.25
    assert values["NDCG@3: new"] == pytest.approx((1 + 1 / 2) / 4)
    assert values["MRR: new"] == pytest.approx((1 + 1 / 3 + 1 / 10) / 4)
    assert values["MRR: new - old"] == pytest.approx(values["MRR: new"] - (1 / 2 + 1 / 11) / 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"new": [0.1, float("nan"), 0.5]}, "model 'new' in column 'new', got nan in row 1"),
        ({"new": [0.1, None, 0.5]}, "model 'new' in column 'new', got none in row 1"),
        ({"old": [0.1, 0.2, 1.5]}, "model 'old' in column 'old', got 1.5 in row 2"),
        ({"new": ["a", "b", "c"]}, "model 'new' in column 'new', got "),
        ({"clicked": [0, 1, 2]}, "0 or 1 of the label in column 'clicked', got 2 in row 2"),
        ({"clicked": [0, None, 1]}, "got none in row 1"),
        ({"customer": [1, None, 2]}, "a key of the row in column 'customer', got none in row 1"),
        ({"customer": [1.5, 2.5, 3.5]}, "'customer': expected strings or integers, got double"),
        ({"country": [0.5, 1.5, 2.5]}, "'country' of strings or integers to slice by, got double"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_one_line_that_says_where(
    tmp_path: Path, change: dict[str, Any], message: str, no_beam: None
) -> None:
    columns = {name: values[:3] for name, values in made_up(20).items()}
    path = write(tmp_path / "rows.parquet", columns | change)
    with pytest.raises(InvalidArgument) as error:
        evaluate([path], TASK)
    assert str(error.value).startswith(f"{path}: ") and message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_wrong_value_is_the_same_line_through_beam(tmp_path: Path) -> None:
    columns = {name: values[:3] for name, values in made_up(20).items()}
    path = write(tmp_path / "rows.parquet", columns | {"new": [0.1, float("nan"), 0.5]})
    with pytest.raises(InvalidArgument, match=r"rows.parquet: .*model 'new' .*, got nan in row 1"):
        evaluate([path], TASK)


@pytest.mark.usefixtures("no_beam")
def test_a_rank_is_whole_and_not_below_zero(tmp_path: Path) -> None:
    task = Task("customer", {"new": Model("new", "rank")}, (MRR(),))
    for wrong in (-1.0, 1.5):
        path = write(tmp_path / "a.parquet", {"customer": [1, 2], "new": [1.0, wrong]})
        with pytest.raises(InvalidArgument, match=f"whole ranks from 0 .* got {wrong} in row 1"):
            evaluate([path], task)


@pytest.mark.usefixtures("no_beam")
def test_columns_have_to_be_there_in_every_file_and_once(tmp_path: Path) -> None:
    columns = made_up(50)
    whole = write(tmp_path / "a.parquet", columns)
    without = write(tmp_path / "b.parquet", {n: v for n, v in columns.items() if n != "old"})
    with pytest.raises(InvalidArgument, match="got none named 'old'"):
        evaluate([without], TASK)
    with pytest.raises(InvalidArgument, match=r"b.parquet: expected a column 'old', got customer"):
        evaluate([whole, without], TASK)
    twice = tmp_path / "c.parquet"
    pq.write_table(pa.table([[1], [2]], names=["new", "new"]), twice)
    with pytest.raises(DataCorrupt, match="more than once"):
        evaluate([twice], TASK)
    with pytest.raises(NotFound):
        evaluate([tmp_path / "d.parquet"], TASK)


@pytest.mark.usefixtures("no_beam")
def test_slices_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.parquet", made_up(1000) | {"country": np.arange(1000)})
    with pytest.raises(InvalidArgument, match=r"'country': expected at most 500 values .* 1,000"):
        evaluate([path], TASK)
    monkeypatch.setattr("mlplatform.evaluation.tally.MOST_SLICES", 8)
    path = write(tmp_path / "a.parquet", made_up(1000))
    with pytest.raises(InvalidArgument, match="at most 8 slices of 1 rows or more, got 9"):
        evaluate([path], TASK)


def test_rows_that_a_runner_loses_are_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    naive.without_beam(monkeypatch)
    whole = naive.combine

    def lossy(*arguments: Any) -> bytes:
        pieces, summarise, *others = arguments
        return whole(pieces, lambda piece: list(summarise(piece))[1:], *others)

    monkeypatch.setattr("mlplatform.evaluation.evaluate.combine_over_pieces", lossy)
    with pytest.raises(Unavailable, match="lost rows: expected 2,000 rows, got 1,"):
        evaluate([write(tmp_path / "a.parquet", made_up(2000))], TASK)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": {}}, "at least one model"),
        ({"metrics": ()}, "at least one model and one metric"),
        ({"metrics": (AUC(), AUC())}, "distinct metrics"),
        ({"metrics": (NDCG(3),), "query": None}, "a column of queries for 'NDCG@3'"),
        ({"label": None}, "a column of labels for 'AUC'"),
        ({"metrics": (Recall(5),)}, "a model that gives a rank for 'recall@5'"),
        ({"slices": ((),)}, "slices by distinct columns"),
        ({"slices": (("country", "country"),)}, "slices by distinct columns"),
        ({"models": {"new": Model("new", "score")}, "metrics": (AUC(),), "search": ("country",)},
         "a candidate that gives probabilities, to search"),
    ],
)  # fmt: skip
def test_a_task_that_contradicts_itself_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(PlatformError, match=message):
        Task(**(vars(TASK) | change))
