"""The app table: every app's codes, as training and serving look them up.

Enters: the catalogue snapshot and the transform.  Leaves: sorted app ids and a code matrix whose
row 0 stands for an unknown app, so that row = position of the id + 1.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mlplatform.transform.feature import Feature
from mlplatform.transform.transform import Transform, flatten_lists
from recsys import features
from recsys.columns import Columns

UNKNOWN = 0


@dataclass(frozen=True)
class AppTable:
    """`ids [apps] int64`, rising; `codes [apps + 1, columns] int32`."""

    ids: NDArray[np.int64]
    codes: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def of(cls, apps: pa.Table, transform: Transform) -> "AppTable":
        apps = apps.sort_by("app_id")
        codes = Columns.of(transform, features.APP).matrix(transform, apps)
        return cls(apps["app_id"].to_numpy(), np.concatenate([np.zeros_like(codes[:1]), codes]))

    def rows_of(self, app_ids: NDArray[np.int64]) -> NDArray[np.int32]:
        """The row of each id, 0 for one that is not in the table; any shape."""
        at = np.minimum(np.searchsorted(self.ids, app_ids), len(self.ids) - 1)
        return np.where(self.ids[at] == app_ids, at + 1, UNKNOWN).astype(np.int32)

    def rows_of_lists(self, table: pa.Table, feature: Feature) -> NDArray[np.int32]:
        """Rows of a column of id lists, `[len(table), feature.width]`, padded with 0."""
        lists = table[feature.column].combine_chunks()
        flat, row, place = flatten_lists(lists, feature.width)
        rows = np.zeros((len(table), feature.width), dtype=np.int32)
        rows[row, place] = self.rows_of(flat.to_numpy(zero_copy_only=False))
        return rows

    def save(self, directory: Path) -> None:
        np.save(directory / "app_ids.npy", self.ids, allow_pickle=False)
        np.save(directory / "app_codes.npy", self.codes, allow_pickle=False)

    @classmethod
    def load(cls, directory: Path) -> "AppTable":
        """Map the files that `save` wrote."""
        return cls(
            np.load(directory / "app_ids.npy", mmap_mode="r"),
            np.load(directory / "app_codes.npy", mmap_mode="r"),
        )
