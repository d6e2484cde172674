"""What is made of a bundle's parts before it is pushed, so that a server has less to do.

Enters: a directory with all parts.  Leaves: the catalogue as processes share it, and the certainty
that what serves says what the exported models say.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mlplatform.data.files.spans import read_parquet
from mlplatform.errors import DataCorrupt
from mlplatform.transform.transform import Transform
from recsys import features
from recsys.apps import AppTable
from recsys.columns import Columns
from recsys.models.serving.ranker import Impressions
from recsys.online.bundle import (
    CATALOGUE,
    MAPPED_CATALOGUE,
    QUERY_TOWER,
    RANKER,
    TRANSFORM,
    Exported,
    load_served,
)

TOLERANCE = 1e-5  # of the largest value, if it is above 1
REQUESTS, APPS = 64, 50  # that are compared
Float = NDArray[np.float32]


def prepare(bundle: Path) -> None:
    """Map the catalogue, and compare what serves with what was exported on random codes.

    Raises:
        DataCorrupt: they differ by more than rounding explains.
    """
    catalogue = read_parquet(bundle / CATALOGUE).unify_dictionaries().combine_chunks()
    with (
        pa.OSFile(str(bundle / MAPPED_CATALOGUE), "wb") as file,
        pa.ipc.new_file(file, catalogue.schema) as writer,
    ):
        writer.write_table(catalogue)
    query, rank = load_served(bundle)
    transform, apps = Transform.load(bundle / TRANSFORM, features.ALL), AppTable.load(bundle)
    app_codes = np.asarray(apps.codes)
    rng = np.random.default_rng(0)
    request = _codes(rng, Columns.of(transform, features.REQUEST), REQUESTS)
    history = rng.integers(0, len(app_codes), (REQUESTS, features.HISTORY_LENGTH), np.int32)
    history[rng.random(history.shape) < np.linspace(0, 1, REQUESTS)[:, None]] = 0
    if query is not None:
        _require_equal(
            bundle / QUERY_TOWER,
            query(request, history, app_codes),
            Exported(bundle / QUERY_TOWER)(request=request, history=history)["vector"].numpy(),
        )
    if rank is not None:
        impression = _codes(rng, Columns.of(transform, features.IMPRESSION), len(app_codes))
        rows = rng.integers(0, len(app_codes), (REQUESTS, APPS), np.int32)
        _require_equal(
            bundle / RANKER,
            rank.on(app_codes, Impressions.of(impression))(request, history, rows),
            Exported(bundle / RANKER)(
                request=request, history=history, app=rows, impression=impression[rows]
            )["logit"].numpy(),
        )


def _codes(rng: np.random.Generator, columns: Columns, n: int) -> NDArray[np.int32]:
    return rng.integers(0, columns.cardinality, (n, columns.width), np.int32)


def _require_equal(model: Path, served: Float, exported: Float) -> None:
    """A model that says what is no number is no damage; it is for the gate to refuse."""
    if np.allclose(served, exported, TOLERANCE, TOLERANCE, equal_nan=True):
        return
    raise DataCorrupt(
        f"{model}: what serves differs from what was exported by up to "
        f"{np.nanmax(np.abs(served - exported)):.1e}, expected at most {TOLERANCE:.0e}; "
        "correct the `served` of the model, then train anew"
    )
