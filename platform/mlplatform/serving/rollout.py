"""Which versions to serve: where the labels stand, short of what cannot be loaded.

Enters: the registry's labels, what is served, what failed.  Leaves: a version for each label.  A
version that failed too often is left out for as long as a label points at it; its label stays where
it is served, and the other labels move on.  A label that is gone stays where it is served.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mlplatform.serving.generation import pause_s

TRIES = 3


@dataclass
class Failures:
    """What could not be loaded, by version: how often, and why the last time."""

    tries: dict[int, int] = field(default_factory=dict)
    errors: dict[int, str] = field(default_factory=dict)
    not_before: float = 0.0  # time.monotonic() of the next try

    def note(self, version: int, error: str, *, enough: bool = False) -> None:
        """Count one failure; it is the last one where it is `enough`."""
        self.tries[version] = TRIES if enough else self.tries.get(version, 0) + 1
        self.errors[version] = error
        self.not_before = time.monotonic() + pause_s(self.tries[version])

    def may_try(self) -> bool:
        return time.monotonic() >= self.not_before

    def given_up(self) -> set[int]:
        return {version for version, tries in self.tries.items() if tries >= TRIES}

    def keep(self, versions: set[int]) -> None:
        """Forget all versions but these."""
        for version in self.tries.keys() - versions:
            del self.tries[version], self.errors[version]
        if not self.tries:
            self.not_before = 0.0


def versions_to_serve(
    order: Sequence[str],
    labels: Mapping[str, int],
    served: Mapping[str, int],
    given_up: set[int],
) -> dict[str, int]:
    """-> a version for each label of `order` that has one.

    Args:
        labels: where they stand in the registry; may have others.
        served: where those that serve now took them to stand.
    """
    chosen = {}
    for label in order:
        number = labels.get(label)
        if number is None or number in given_up:
            number = served.get(label)
        if number is not None:
            chosen[label] = number
    return chosen


def suspect(versions: Mapping[str, int], served: Mapping[str, int], named: int | None) -> int:
    """Which version to blame for a failed load.

    It is one that is not served yet, where there is any: the one that the worker named, or else the
    last label's; so the first label, which must be served, is tried alone before it is given up.
    """
    numbers = list(versions.values())
    candidates = [number for number in numbers if number not in served.values()] or numbers
    return named if named is not None and named in candidates else candidates[-1]
