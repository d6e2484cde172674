"""The benchmark of rankers, on a store of five hundred apps."""

import numpy as np
import pytest

from benchmarks import rankers
from benchmarks.lab import Installs, Lab
from benchmarks.result import Result


def test_all_kinds_are_judged_on_the_same_rows(lab: Lab) -> None:
    judged = rankers.judge(lab)
    assert judged.logits.keys() == judged.installs.keys() == set(rankers.KINDS)
    assert all(len(logits) == len(judged.label) for logits in judged.logits.values())
    assert set(judged.label.tolist()) == {0, 1}
    result = Result(settings={})
    rankers.summarise(result, [judged])
    for kind in rankers.KINDS:
        assert 0.5 < result.figures[f"AUC: {kind}"] < 0.9
        assert 0 < result.figures[f"installs expected per request: {kind}"] < 5


def test_figures_are_means_over_the_seeds() -> None:
    def of(label: list[int], had: float) -> rankers.Judged:
        installs = Installs(np.arange(3), np.full(3, had), np.full(3, int(had)))
        return rankers.Judged(
            np.arange(len(label)),
            np.array(label, np.int8),
            {kind: np.arange(len(label), dtype=np.float32) for kind in rankers.KINDS},
            dict.fromkeys(rankers.KINDS, installs),
        )

    result = Result(settings={})
    rankers.summarise(result, [of([0, 0, 1], 1.0), of([1, 0], 2.0)])
    assert result.figures["AUC: deep"] == 0.5  # of 1 and 0
    assert result.figures["installs per request: deep"] == pytest.approx(1.5)
    assert result.figures["AUC: wide_deep - deep"] == 0
