"""The benchmark of evaluation, on a few thousand rows."""

from pathlib import Path

import numpy as np

from benchmarks import evaluation
from benchmarks.result import Result


def test_rows_a_second_are_of_all_files_and_slices(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(evaluation, "FILE_ROWS", 3000)
    result = Result(settings={})
    evaluation.measure_speed(result, tmp_path, 8000)
    assert len(list(tmp_path.iterdir())) == 3
    assert result.figures["slices"] == sum(evaluation.COLUMNS.values())
    assert result.figures["rows a second, median of 3"] > 0


def test_every_simulation_is_counted_and_most_intervals_hold_the_truth(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(evaluation, "SIMULATIONS_AT_ONCE", 50)
    result = Result(settings={})
    evaluation.measure_coverage(result, tmp_path, users=60, simulations=130)
    held = [value for name, value in result.figures.items() if name.endswith("hold the truth")]
    assert len(held) == len(result.limits) == 3
    times = 130 * np.array(held)
    assert np.allclose(times, times.round()) and (times > 110).all() and (times <= 130).all()
