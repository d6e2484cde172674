"""The benchmark of retrieval, on a few thousand vectors, and what is read off its curves."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from benchmarks import full_run, retrieval
from benchmarks.curves import Point, cpu_at, picture
from benchmarks.indexes import contestants
from benchmarks.result import Result
from mlplatform.errors import NotFound
from recsys.models.index import IndexSettings, exact_search

SETTINGS = IndexSettings(leaves=40, leaves_to_search=10, reorder=200, dimensions=32)
N, DIM = 4_000, 64


def vectors(n: int, seed: int) -> NDArray[np.float32]:
    """Points around some topics."""
    rng = np.random.default_rng(seed)
    topics = np.random.default_rng(99).standard_normal((40, DIM))
    points = topics[rng.integers(0, 40, n)] + 0.4 * rng.standard_normal((n, DIM))
    return points.astype(np.float32)


class TestCurves:
    def test_between_two_points_the_logarithm_of_cpu_is_linear(self) -> None:
        curve = [Point(1, 0.90, 10.0), Point(2, 0.94, 40.0), Point(3, 0.98, 160.0)]
        assert cpu_at(0.96, curve) == pytest.approx(80.0)  # the geometric mean of 40 and 160
        assert cpu_at(0.91, curve) == pytest.approx(10 * 4**0.25)
        assert cpu_at(0.94, curve) == pytest.approx(40.0)

    def test_a_curve_that_ends_below_has_no_cost_and_one_that_begins_above_its_least(self) -> None:
        curve = [Point(1, 0.96, 20.0), Point(2, 0.98, 30.0)]
        assert cpu_at(0.99, curve) is None
        assert cpu_at(0.95, curve) == 20.0
        assert cpu_at(0.95, []) is None

    @given(
        st.lists(st.tuples(st.floats(0, 1), st.floats(0.1, 1e6)), min_size=1, max_size=8),
        st.floats(0, 1),
    )
    def test_the_cost_is_never_outside_the_costs_of_the_curve(
        self, points: list[tuple[float, float]], recall: float
    ) -> None:
        curve = [Point(n, *point) for n, point in enumerate(points)]
        cost = cpu_at(recall, curve)
        costs = [point.cpu_us for point in curve]
        if recall > max(point.recall for point in curve):
            assert cost is None
        else:
            assert cost is not None
            assert min(costs) * (1 - 1e-9) <= cost <= max(costs) * (1 + 1e-9)

    def test_the_picture_is_a_png(self) -> None:
        curves = {"ours": [Point(1, 0.9, 10.0)], "other": [Point(1, 0.8, 20.0)]}
        assert picture(curves, 0.95).startswith(b"\x89PNG")


@pytest.mark.parametrize("name", contestants(SETTINGS))
def test_every_contestant_finds_the_true_best_when_it_spares_no_effort(name: str) -> None:
    contestant = contestants(SETTINGS)[name]
    if not contestant.installed:
        pytest.skip(f"{contestant.needs} is not installed; run make comparison")
    contestant.load_library()
    apps, queries = vectors(N, 1), vectors(16, 2)
    index = contestant.build(apps, vectors(500, 3))
    true = exact_search(apps, queries, 10)
    found = index.search(queries, 10, max(contestant.efforts))
    assert found.shape == (16, 10)
    shares = [len(set(a) & set(b)) / 10 for a, b in zip(found.tolist(), true.tolist(), strict=True)]
    # The layer's defaults score by codes alone.
    assert np.mean(shares) > (0.5 if "defaults" in name else 0.8)
    assert index.size_bytes() > N


def test_the_figures_of_the_contestants_that_are_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrieval, "RECALL", 0.5)
    retrieval.save_vectors(tmp_path, vectors(N, 1), vectors(500, 3), vectors(60, 2))
    result = Result(settings={})
    names = ["ours", "hnswlib"]
    retrieval.measure_indexes(result, tmp_path, SETTINGS, rounds=1, names=names)
    for name in names if find_spec("hnswlib") else names[:1]:
        assert 0.5 < result.figures[f"{name}: highest recall"] <= 1
        for figure in ("seconds to build", "MB in files", retrieval.AT):
            assert result.figures[f"{name}: {figure}"] > 0
    if find_spec("hnswlib"):
        own, other = (result.figures[f"{name}: {retrieval.AT}"] for name in names)
        assert result.figures[retrieval.RATIO] == pytest.approx(other / own)
        assert result.limits[retrieval.RATIO] == ("least", 1.0)
        assert result.settings["missing"] == []
    assert result.limits[f"ours: {retrieval.AT}"] == ("most", 200.0)
    assert 0.5 < result.figures["as served: recall@100"] <= 1
    assert result.picture is not None


def test_a_contestant_that_is_not_installed_is_named_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.indexes.find_spec", lambda name: name == "scann" or None)
    retrieval.save_vectors(tmp_path, vectors(N, 1), vectors(500, 3), vectors(60, 2))
    result = Result(settings={})
    retrieval.measure_indexes(result, tmp_path, SETTINGS, rounds=1, names=["ours", "faiss"])
    said = capsys.readouterr().err
    assert said == "not measured, since not installed: faiss; run make comparison\n"
    assert result.settings["missing"] == ["faiss"]
    assert list(result.settings["curves"]) == ["ours"]
    assert retrieval.RATIO not in result.limits


class TestFullRun:
    def test_a_named_workspace_without_a_finished_run_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(full_run.VARIABLE, str(tmp_path / "none"))
        with pytest.raises(NotFound, match="expected the workspace of a finished main job"):
            full_run.full_workspace()

    def test_a_named_workspace_with_a_finished_run_is_taken_as_it_is(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pushed = tmp_path / "artifacts" / "push" / "0123"
        pushed.mkdir(parents=True)
        (pushed / "stage.json").write_text("{}")
        monkeypatch.setenv(full_run.VARIABLE, str(tmp_path))
        assert full_run.full_workspace() == tmp_path
        assert sorted(path.name for path in tmp_path.iterdir()) == ["artifacts", "workspace.json"]
