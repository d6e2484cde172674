"""Spans -> the arrays that the models train on and are judged on.

Enters: datasets `positives`, `requests` and `impressions`, the transform and the app table.
Leaves: `Positives` and `Slates`, all int32 codes and rows, ready to be taken by batch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mlplatform.data.files.spans import read_span
from mlplatform.transform.transform import Transform
from recsys import features
from recsys.apps import UNKNOWN, AppTable
from recsys.columns import Columns

Codes = NDArray[np.int32]
NO_APP = -1  # the label of an empty place


@dataclass(frozen=True)
class Positives:
    """Installs: `request [n, columns]` codes, `history [n, 20]` and `app [n]` rows; who, when."""

    request: Codes
    history: Codes
    app: Codes
    user: NDArray[np.int64]
    hour: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.app)

    @classmethod
    def read(
        cls, root: Path, days: Sequence[int], transform: Transform, apps: AppTable
    ) -> "Positives":
        """Positives of apps that the table knows; of the others nothing can be learned."""
        return cls.of(read_span(root, "positives", days), transform, apps)

    @classmethod
    def of(cls, table: pa.Table, transform: Transform, apps: AppTable) -> "Positives":
        app = apps.rows_of(table["app_id"].to_numpy())
        known = np.flatnonzero(app != UNKNOWN)
        table = table.take(pa.array(known))
        return cls(
            Columns.of(transform, features.REQUEST).matrix(transform, table),
            apps.rows_of_lists(table, features.HISTORY),
            app[known],
            table["user_id"].to_numpy(),
            table["hour"].to_numpy(),
        )

    def where(self, rows: NDArray[np.int64]) -> str:
        """Names rows by their span and keys."""
        return "; ".join(
            f"span positives/{self.hour[row] // 24:.0f} at hour {self.hour[row]:.2f} "
            f"by user {self.user[row]}"
            for row in rows
        )

    def take(self, rows: NDArray[np.integer[Any]]) -> "Positives":
        return Positives(**{name: array[rows] for name, array in vars(self).items()})


@dataclass(frozen=True)
class Slates:
    """Requests with what they were shown: `[n, columns]`, `[n, 20]`, then by place `[n, k, …]`.

    label: 1 installed, 0 not, `NO_APP` where the place is empty.
    """

    request: Codes
    history: Codes
    app: Codes
    impression: Codes
    label: NDArray[np.int8]
    user: NDArray[np.int64]
    request_id: NDArray[np.int64]
    hour: NDArray[np.float64]
    metered: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.app)

    @classmethod
    def read(
        cls, root: Path, days: Sequence[int], transform: Transform, apps: AppTable
    ) -> "Slates":
        requests = read_span(root, "requests", days)
        impressions = read_span(root, "impressions", days)
        request_id = requests["request_id"].to_numpy()
        order = np.argsort(request_id)
        row = order[np.searchsorted(request_id[order], impressions["request_id"].to_numpy())]
        place = impressions["position"].to_numpy() - 1
        shape = (len(requests), int(place.max()) + 1)
        columns = Columns.of(transform, features.IMPRESSION)
        app = np.zeros(shape, dtype=np.int32)
        label = np.full(shape, NO_APP, dtype=np.int8)
        impression = np.zeros((*shape, columns.width), dtype=np.int32)
        app[row, place] = apps.rows_of(impressions["app_id"].to_numpy())
        label[row, place] = impressions[features.LABEL.name].to_numpy()
        label[app == UNKNOWN] = NO_APP
        impression[row, place] = columns.matrix(transform, impressions)
        return cls(
            Columns.of(transform, features.REQUEST).matrix(transform, requests),
            apps.rows_of_lists(requests, features.HISTORY),
            app,
            impression,
            label,
            requests["user_id"].to_numpy(),
            request_id,
            requests["hour"].to_numpy(),
            np.asarray(requests["network"].to_pylist()) == "metered",
        )

    def where(self, rows: NDArray[np.int64]) -> str:
        """Names rows by their span and keys."""
        return "; ".join(
            f"span requests/{self.hour[row] // 24:.0f} request {self.request_id[row]}"
            for row in rows
        )

    def take(self, rows: NDArray[np.integer[Any]]) -> "Slates":
        return Slates(**{name: array[rows] for name, array in vars(self).items()})

    def batch(self, rows: NDArray[np.int64]) -> Mapping[str, NDArray[Any]]:
        """The arrays of `Ranker.loss`."""
        names = ("request", "history", "app", "impression", "label")
        return {name: getattr(self, name)[rows] for name in names}

    def at_the_top(self, transform: Transform) -> Codes:
        """`impression` as served: every app as if at the first place."""
        column = Columns.of(transform, features.IMPRESSION).first("position")
        first = transform.codes(transform.by_name["position"], pa.array([1]))[0]
        impression = self.impression.copy()
        impression[:, :, column] = first
        return impression
