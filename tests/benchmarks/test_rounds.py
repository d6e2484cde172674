"""Contestants measured in turn."""

import pytest

from benchmarks.rounds import Rounds


def contestant(name: str, figures: list[float], calls: list[str]) -> object:
    figure = iter(figures)

    def measure() -> float:
        calls.append(name)
        return next(figure)

    return measure


def test_every_other_round_runs_in_reverse() -> None:
    calls: list[str] = []
    contestants = {name: contestant(name, [1.0] * 3, calls) for name in "abc"}
    Rounds.run(3, contestants)  # type: ignore[arg-type]
    assert "".join(calls) == "abc" + "cba" + "abc"


class TestFigures:
    rounds = Rounds({"ours": (10.0, 90.0, 40.0), "one": (5.0, 10.0, 20.0), "two": (2.0, 30.0, 4.0)})

    def test_the_median_is_over_the_rounds(self) -> None:
        assert self.rounds.median("ours") == 40

    def test_a_ratio_is_the_median_of_the_quotients_of_each_round(self) -> None:
        # 2, 9 and 2; the quotient of the medians would be 4.
        assert self.rounds.ratio("ours", to=["one"]) == 2

    def test_of_several_the_best_of_each_round_is_compared_with(self) -> None:
        # 10/5, 90/30, 40/20; with 'two' alone it would be 5, 3 and 10.
        assert self.rounds.ratio("ours", to=["one", "two"]) == pytest.approx(2)
        assert self.rounds.ratio("ours", to=["two"]) == 5
