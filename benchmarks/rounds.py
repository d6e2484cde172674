"""Contestants measured in turn, several times: absolute speeds drift on a machine, ratios do not.

Enters: what to measure.  Leaves: medians over the rounds, and medians of the rounds' quotients.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Rounds:
    """by_name: the figure of each contestant in each round."""

    by_name: Mapping[str, tuple[float, ...]]

    @classmethod
    def run(cls, number: int, contestants: Mapping[str, Callable[[], float]]) -> "Rounds":
        """Let every contestant give its figure once a round; every other round is reversed.

        So none always follows the same one, and a drift within a round cancels out.
        """
        found: dict[str, list[float]] = {name: [] for name in contestants}
        for one in range(number):
            order = list(contestants) if one % 2 == 0 else list(contestants)[::-1]
            for name in order:
                found[name].append(contestants[name]())
        return cls({name: tuple(figures) for name, figures in found.items()})

    def median(self, name: str) -> float:
        return statistics.median(self.by_name[name])

    def ratio(self, name: str, to: Sequence[str]) -> float:
        """How many times the highest figure of `to` the figure of `name` is, in the same round."""
        highest = map(max, zip(*(self.by_name[other] for other in to), strict=True))
        return statistics.median(
            figure / other for figure, other in zip(self.by_name[name], highest, strict=True)
        )
