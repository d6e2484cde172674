"""The bundle: all parts of one version, promoted and rolled back as one.

Enters: a directory written by the training stages.  Leaves: its parts, loaded and checked to
belong together.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tensorflow_metadata.proto.v0 import schema_pb2

from mlplatform.artifacts import hash_file, read_json
from mlplatform.data.files.spans import read_parquet
from mlplatform.data.schemas.schema import load_schema
from mlplatform.errors import DataCorrupt
from mlplatform.registry.registry import Version
from mlplatform.training.runtime import tensorflow
from mlplatform.training.state import ROWS
from mlplatform.transform.transform import Transform
from recsys import features
from recsys.apps import AppTable
from recsys.models.serving.files import SERVED, load_arrays
from recsys.models.serving.ranker import ServedRanker
from recsys.models.serving.user import ServedQuery

TRANSFORM = "transform.json"
VECTORS = "app_vectors.npy"
INDEX_OF = "index.json"  # the SHA-256 of the vectors that the index holds
CATALOGUE = "catalogue.parquet"
MAPPED_CATALOGUE = "catalogue.arrow"  # the same, as processes share it
QUERY_TOWER = "query_tower"
RANKER = "ranker"
STATES = "states"  # where training ended, for the next one to begin at; no server reads it
REQUEST_SCHEMA = "schema/requests/schema.pbtxt"


class Exported:
    """The `codes` signature of an exported model, which is loaded when it is first asked."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __call__(self, **inputs: Any) -> Mapping[str, Any]:
        outputs: Mapping[str, Any] = self.model.signatures["codes"](**inputs)
        return outputs

    @cached_property
    def model(self) -> Any:
        """The SavedModel; kept, for it owns the variables."""
        return tensorflow().saved_model.load(str(self._directory))


@dataclass(frozen=True)
class Bundle:
    """Loaded parts.

    `query` and `rank` are the exported models' `codes` signatures, `served_query` and
    `served_rank` what serves in their place, to a few units in the last place.
    """

    transform: Transform
    apps: AppTable
    catalogue: pa.Table  # in the order of `apps.ids`
    vectors: NDArray[np.float32]  # [apps, dim]
    index: Any  # an AppIndex
    query: Any
    rank: Any
    request_schema: schema_pb2.Schema  # what is expected of a request's features
    _models: Any  # keeps the variables alive of models that are not loaded from files
    served_query: ServedQuery | None = None
    served_rank: ServedRanker | None = None

    @classmethod
    def load(cls, directory: Path) -> "Bundle":
        """Load a bundle.

        Raises:
            DataCorrupt: a part is damaged, or two parts belong to different versions.
        """
        from recsys.models.index import AppIndex

        transform = Transform.load(directory / TRANSFORM, features.ALL)
        apps = AppTable.load(directory)
        vectors = np.load(directory / VECTORS, mmap_mode="r", allow_pickle=False)
        index = AppIndex.load(directory)
        if not len(apps) == len(vectors) == index.size:
            raise DataCorrupt(
                f"{directory}: parts of different versions: {len(apps)} apps, {len(vectors)} "
                f"vectors, {index.size} in the index; push the bundle again"
            )
        _require_one_origin(directory, transform)
        query, rank = Exported(directory / QUERY_TOWER), Exported(directory / RANKER)
        served_query, served_rank = load_served(directory)
        for exported, served in ((query, served_query), (rank, served_rank)):
            if served is None:
                _ = exported.model  # it will serve: now is the time to fail
        catalogue = _catalogue(directory)
        schema = load_schema(directory / REQUEST_SCHEMA)
        return cls(
            transform, apps, catalogue, vectors, index, query, rank, schema, None,
            served_query, served_rank,
        )  # fmt: skip

    @classmethod
    def of_version(cls, version: Version) -> "Bundle":
        """Load a pushed version.

        Raises:
            DataCorrupt: as `load` does, or its transform is not the one that was pushed.
        """
        bundle = cls.load(version.path)
        require_transform(version, bundle.transform.fingerprint, TRANSFORM)
        return bundle


def load_served(directory: Path) -> tuple[ServedQuery | None, ServedRanker | None]:
    """What serves in place of the exported models; None where a model says of none.

    Raises:
        DataCorrupt: a file is missing or damaged.
    """
    query, rank = directory / QUERY_TOWER / SERVED, directory / RANKER / SERVED
    return (
        load_arrays(ServedQuery, query) if query.is_dir() else None,
        ServedRanker.load(rank) if rank.is_dir() else None,
    )


def _catalogue(directory: Path) -> pa.Table:
    path = directory / MAPPED_CATALOGUE
    if not path.exists():
        return read_parquet(directory / CATALOGUE)
    try:
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (pa.ArrowInvalid, OSError) as error:
        reason = " ".join(str(error).split())
        raise DataCorrupt(
            f"{path}: not what was written ({reason}); push the bundle again"
        ) from error


def _require_one_origin(directory: Path, transform: Transform) -> None:
    """See that the models speak of the transform's codes, and the index of the vectors."""
    made_of = read_json(directory / INDEX_OF)[VECTORS]
    if made_of != hash_file(directory / VECTORS):
        raise DataCorrupt(
            f"{directory}: parts of different versions: the index was built from other vectors "
            f"than {VECTORS}; push the bundle again"
        )
    for name in (QUERY_TOWER, RANKER):
        learned_with = read_json(directory / STATES / name / ROWS)["transform"]
        if learned_with != transform.fingerprint:
            raise DataCorrupt(
                f"{directory}: parts of different versions: {name} learned the codes of another "
                f"transform than {TRANSFORM} (fingerprint {str(learned_with)[:12]}, it has "
                f"{transform.fingerprint[:12]}); push the bundle again"
            )


def require_transform(version: Version, fingerprint: str, part: str) -> None:
    """See that a part of a version speaks of the codes that the version was pushed with.

    Raises:
        DataCorrupt: it was made with another transform.
    """
    expected = version.manifest.get("transform")
    if fingerprint != expected:
        raise DataCorrupt(
            f"{version.path / part}: made with another transform than version {version.number} "
            f"(fingerprint {fingerprint[:12]}, its manifest has {str(expected)[:12]}); roll back "
            "to another version or push the bundle again"
        )
