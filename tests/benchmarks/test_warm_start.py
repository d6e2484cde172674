"""The benchmark of warm starts, on one day of a store of five hundred apps."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import warm_start
from benchmarks.lab import Installs, Lab, Learned
from benchmarks.result import Result


@pytest.fixture(scope="module")
def measured(lab: Lab) -> tuple[Result, dict[str, list[Installs]]]:
    curves: dict[str, warm_start.Curves] = {
        model: {arm: [] for arm in warm_start.ARMS[:3]} for model in ("towers", "ranker")
    }
    installs: dict[str, list[Installs]] = {arm: [] for arm in warm_start.ARMS}
    warm_start.live(lab, 1, curves, installs)
    result = Result(settings={})
    warm_start.summarise(result, curves, installs)
    return result, installs


def test_the_same_visits_are_answered_by_every_model(
    measured: tuple[Result, dict[str, list[Installs]]],
) -> None:
    _, installs = measured
    assert installs.keys() == set(warm_start.ARMS)
    (first, *others) = [found[0] for found in installs.values()]
    assert len(first.user) == len(first.expected) == len(first.had) > 500
    assert all((one.user == first.user).all() for one in others)
    assert all(0 < one.expected.mean() < 5 for one in (first, *others))


def test_the_cold_models_at_equal_cost_see_as_much_as_the_warm(
    measured: tuple[Result, dict[str, list[Installs]]],
) -> None:
    result, _ = measured
    for model in ("towers", "ranker"):
        warm, cold, equal = (
            result.figures[f"{model}: examples, {arm}"] for arm in warm_start.ARMS[:3]
        )
        assert warm == equal < cold / 3
        losses = [
            result.figures[f"{model}: final held-out loss, {arm}"] for arm in warm_start.ARMS[:3]
        ]
        assert np.isfinite(losses).all()
        assert losses[0] < losses[2]  # of two days' learning, more than of one


def test_the_picture_is_a_png(
    measured: tuple[Result, dict[str, list[Installs]]], tmp_path: Path
) -> None:
    result, _ = measured
    result.write(tmp_path / "warm.json")
    assert (tmp_path / "warm.png").read_bytes()[:4] == b"\x89PNG"


def test_the_work_is_read_off_the_curve() -> None:
    learned = Learned(None, [(0, 3.0), (10, 2.0), (20, 1.5), (30, 1.6)], Path(), 1.0)
    assert learned.examples_to(3.5) == 0
    assert learned.examples_to(1.7) == 20
    assert learned.examples_to(1.0) == np.inf
