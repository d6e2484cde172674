"""What has happened so far: which apps every user owns, and which they were shown.

The world answers from it, so that owned apps are not installed again, complements pull,
substitutes push and repetition tires.  It is a function of the events before a day.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Int = NDArray[np.int64]
_STATE = ("owned", "owned_group", "n_owned", "category_counts", "shown")
OWNED_MOST = 64  # of a user's apps, the latest that still count


@dataclass
class Memory:
    """State at the start of a day. `app_group`, `app_category` are the catalogue's columns."""

    app_group: NDArray[np.int32]
    app_category: NDArray[np.int16]
    owned: NDArray[np.int32] = field(repr=False)  # [users, 64] app ids, -1 for none
    owned_group: NDArray[np.int32] = field(repr=False)  # [users, 64], -1 for none
    n_owned: NDArray[np.int32] = field(repr=False)  # [users], may exceed 64
    category_counts: NDArray[np.int16] = field(repr=False)  # [users, categories]
    shown: NDArray[np.uint64] = field(repr=False)  # sorted keys of (user, app), one a day shown

    @classmethod
    def empty(
        cls,
        n_users: int,
        n_categories: int,
        app_group: NDArray[np.int32],
        app_category: NDArray[np.int16],
    ) -> "Memory":
        return cls(
            app_group,
            app_category,
            np.full((n_users, OWNED_MOST), -1, dtype=np.int32),
            np.full((n_users, OWNED_MOST), -1, dtype=np.int32),
            np.zeros(n_users, dtype=np.int32),
            np.zeros((n_users, n_categories), dtype=np.int16),
            np.empty(0, dtype=np.uint64),
        )

    def grown(self, n_users: int) -> "Memory":
        """The same with room for users who have signed up since; they own and have seen nothing."""
        state = {}
        for name in ("owned", "owned_group", "n_owned", "category_counts"):
            known = getattr(self, name)
            empty = -1 if name.startswith("owned") else 0
            new = np.full((n_users - len(known), *known.shape[1:]), empty, known.dtype)
            state[name] = np.concatenate([known, new])
        return replace(self, **state)

    def save(self, directory: Path) -> None:
        """Write the state as plain .npy files, `memory.*`."""
        for name in _STATE:
            np.save(directory / f"memory.{name}.npy", getattr(self, name), allow_pickle=False)

    @classmethod
    def load(
        cls, directory: Path, app_group: NDArray[np.int32], app_category: NDArray[np.int16]
    ) -> "Memory":
        """Read what `save` wrote."""
        return cls(
            app_group,
            app_category,
            *(np.load(directory / f"memory.{name}.npy", allow_pickle=False) for name in _STATE),
        )

    def install(self, user: Int, app: Int) -> None:
        """Add installs, given in order of time; a full list forgets its oldest."""
        order = np.argsort(user, kind="stable")
        user, app = user[order], app[order]
        first = np.flatnonzero(np.r_[True, user[1:] != user[:-1]]) if len(user) else user
        nth = np.arange(len(user)) - np.repeat(first, np.diff(np.r_[first, len(user)]))
        slot = (self.n_owned[user] + nth) % OWNED_MOST
        self.owned[user, slot] = app
        self.owned_group[user, slot] = self.app_group[app]
        np.add.at(self.n_owned, user, 1)
        np.add.at(self.category_counts, (user, self.app_category[app]), 1)

    def show(self, user: Int, app: Int) -> None:
        """Add one day's impressions; seen twice in a day counts once."""
        self.shown = np.sort(np.concatenate([self.shown, np.unique(pair_key(user, app))]))

    def owns(self, user: Int, app: Int) -> NDArray[np.bool_]:
        owned: NDArray[np.bool_] = (self.owned[user] == app[:, None]).any(axis=1)
        return owned

    def owns_group(self, user: Int, group: NDArray[np.int32]) -> NDArray[np.bool_]:
        owned: NDArray[np.bool_] = (self.owned_group[user] == group[:, None]).any(axis=1)
        return owned

    def times_shown(self, user: Int, app: Int) -> Int:
        """On how many earlier days the user was shown the app."""
        key = pair_key(user, app)
        return np.searchsorted(self.shown, key, "right") - np.searchsorted(self.shown, key, "left")


def pair_key(user: Int, app: Int) -> NDArray[np.uint64]:
    """One sortable number for a (user, app) pair."""
    return (user.astype(np.uint64) << np.uint64(32)) | app.astype(np.uint64)
