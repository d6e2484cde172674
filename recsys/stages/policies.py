"""What a recommender is compared with in the world: lists that need no model.

Enters: visits, and what the world knows.  Leaves: slates, `[visits, SLATE]` app ids.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from data_gen import keyed
from data_gen.memory import Memory
from data_gen.world import Requests, World
from recsys.serving_log import SLATE

Int = NDArray[np.int64]
_BLOCK = 256  # visits at once
_ORACLE_BLOCK = 4096  # it looks at every app anew for each block, and compares them in smaller ones


def popular(ids: Int, memory: Memory, visits: Requests) -> Int:
    """The most popular apps that the user does not own; `ids` are all, the most popular first."""
    top = ids[: SLATE + memory.owned.shape[1]]
    slates = np.empty((len(visits), SLATE), np.int64)
    for rows in _blocks(visits, _BLOCK):
        owned = (memory.owned[visits.user[rows]][:, None, :] == top[None, :, None]).any(axis=2)
        slates[rows] = top[np.argsort(owned, axis=1, kind="stable")[:, :SLATE]]
    return slates


def at_random(visits: Requests, live_apps: int, seed: int) -> Int:
    """Any apps, all alike."""
    draw = keyed.uniform(seed, "random policy", visits.request_id[:, None], np.arange(SLATE))
    return (draw * live_apps).astype(np.int64)


def oracle(
    world: World,
    visits: Requests,
    memory: Memory,
    advance: Callable[[int], None] = lambda visits: None,
) -> Int:
    """The apps that the user is most likely to install, by the truth itself."""
    live = world.config.apps_by(int(visits.day[0]))
    slates = np.empty((len(visits), SLATE), np.int64)
    for rows in _blocks(visits, _ORACLE_BLOCK):
        slates[rows] = world.oracle_slates(visits.take(rows), SLATE, memory, live)
        advance(rows.stop - rows.start)
    return slates


def _blocks(visits: Requests, size: int) -> list[slice]:
    n = len(visits)
    return [slice(at, min(at + size, n)) for at in range(0, n, size)]
