"""What a user had installed at any moment: point-in-time, by the hour the install was reported.

Enters: tables of installs (user_id, app_id, arrival_hour).  Leaves, for (user, hour) pairs, the
apps known by then.  All lookups are one binary search over all pairs together.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Int = NDArray[np.int64]
_SECONDS = 1 << 33  # room for a user's own clock within the sort key
_EPOCH = 1 << 32  # the key of hour 0


@dataclass(frozen=True)
class InstallHistory:
    """Installs sorted by user and time: `key` is both in one number, `app` the app's id."""

    key: Int
    app: Int

    @classmethod
    def of(cls, installs: pa.Table) -> "InstallHistory":
        key = _key(installs["user_id"].to_numpy(), installs["arrival_hour"].to_numpy())
        app = installs["app_id"].to_numpy()
        order = np.lexsort((app, key))
        return cls(key[order], app[order])

    def counts(self, user: Int, hour: NDArray[np.float64]) -> Int:
        """How many apps each user had before `hour`."""
        first, end = self._span(user, hour)
        return end - first

    def latest(
        self,
        user: Int,
        hour: NDArray[np.float64],
        most: int,
        since: NDArray[np.float64] | None = None,
    ) -> tuple[Int, Int]:
        """Each user's last apps before `hour`, the latest first, at most `most` of them.

        Returns the ids, one user's after another's, and how many each user has. `since` leaves
        out those reported before it.
        """
        first, end = self._span(user, hour)
        if since is not None:
            first = np.maximum(first, np.searchsorted(self.key, _key(user, since)))
        count = np.minimum(end - first, most)
        back = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        return self.app[np.repeat(end, count) - 1 - back], count

    def _span(self, user: Int, hour: NDArray[np.float64]) -> tuple[Int, Int]:
        first = np.searchsorted(self.key, user * _SECONDS)
        return first, np.searchsorted(self.key, _key(user, hour))


def _key(user: Int, hour: NDArray[np.float64]) -> Int:
    key: Int = user * _SECONDS + _EPOCH + np.floor(hour * 3600).astype(np.int64)
    return key
