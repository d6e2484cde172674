"""Requests as the recommender takes them: codes, and rows of the app table.

The encoder makes them one by one from a service's JSON, `Recommender.requests` many at once from a
table; both give the same bits.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recsys import features

OWNED_LENGTH = features.OWNED.width  # of what a user owns, the newest; a longer list is cut


@dataclass(frozen=True)
class Requests:
    """`b` requests, column by column; C-contiguous."""

    codes: npt.NDArray[np.int32]  # [b, columns] of `features.REQUEST`, in the layout of `Columns`
    history: npt.NDArray[np.int32]  # [b, HISTORY_LENGTH] rows of the app table; 0 none
    owned: npt.NDArray[np.int32]  # [b, OWNED_LENGTH] rows of the app table; 0 none
    os_version: npt.NDArray[np.float32]  # [b]; NaN unknown

    def __len__(self) -> int:
        return len(self.codes)

    def slice(self, start: int, n: int) -> "Requests":
        """At most n of them from `start` on."""
        return Requests(**{name: array[start : start + n] for name, array in vars(self).items()})
