"""A made-up store of some hundred apps, with models that have learned nothing."""

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tensorflow_metadata.proto.v0 import schema_pb2

from mlplatform.training.runtime import tensorflow
from mlplatform.transform.transform import Transform
from recsys.apps import AppTable
from recsys.online.bundle import Bundle
from recsys.online.feature_store import FeatureStore
from recsys.online.recommender import Recommender

tensorflow()

from recsys.models.ranking import Ranker, RankerSettings  # noqa: E402
from recsys.models.retrieval import TowerSettings, TwoTower  # noqa: E402

APPS = 400
NEWEST = range(0, APPS, 12)  # positions of apps that are a day old; there are more than FRESH


class Exact:
    """An index that misses nothing."""

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        self.vectors = vectors

    def search(self, queries: Any, k: int) -> tuple[Any, Any]:
        # One by one, as an index does: a product of matrices depends on how many rows it has.
        scores = np.stack([self.vectors @ query for query in queries])
        at = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        best = np.take_along_axis(scores, at, axis=1)
        return np.where(np.isfinite(best), at, -1), best


def catalogue_of(n: int) -> pa.Table:
    rng = np.random.default_rng(1)
    categories = np.array(["GAME", "TOOLS", "FAMILY", "NEW"])
    return pa.table(
        {
            "app_id": 10 * np.arange(1, n + 1),
            "title": [f"App {i}" for i in range(n)],
            "developer_id": rng.integers(0, 40, n),
            "category": pa.array(categories[rng.integers(0, 4, n)]).dictionary_encode(),
            "tags": [["chess"] if i % 2 else ["yoga", "notes"] for i in range(n)],
            "size_mb": pa.array(rng.choice([5, 20, 80], n), pa.float32()),
            "price_usd": pa.array(rng.choice([0, 1, 5], n), pa.float32()),
            "rating": pa.array(rng.uniform(1, 5, n), pa.float32()),
            "reviews": rng.integers(0, 2000, n),
            "installs": rng.choice([100, 1000], n),
            "content_rating": rng.choice(["Everyone", "Teen"], n),
            "min_os": rng.choice([4, 5, 8], n),
        }
    )


class Store:
    """What the recommender asks a feature store."""

    day = 7

    def __init__(self, n: int) -> None:
        rng = np.random.default_rng(2)
        self.columns = {
            "app_age_days": np.where(np.isin(np.arange(n), NEWEST), 1, 100),
            "recent_impressions": rng.integers(0, 200, n),
            "recent_installs": rng.integers(0, 20, n),
            "recent_install_rate": rng.uniform(0, 0.1, n).astype(np.float32),
        }

    def profiles_raw(self, users: Sequence[int]) -> list[bytes | None]:
        """Users 0 to 99 are known; they have installed the app of their number and the next."""
        return [
            msgspec.msgpack.encode({"country": "BR", "history": (h := [10 * (u + 1), 10 * (u + 2)]),
                                    "owned": h}) if u < 100 else None
            for u in users
        ]  # fmt: skip

    def decode(self, profile: bytes) -> dict[str, Any]:
        return cast(dict[str, Any], msgspec.msgpack.decode(profile))

    def app_columns(self, app_ids: NDArray[np.int64]) -> dict[str, Any]:
        return {name: column[app_ids // 10 - 1] for name, column in self.columns.items()}


def recommender_of(transform: Transform, n: int) -> Recommender:
    catalogue = catalogue_of(n)
    apps = AppTable.of(catalogue, transform)
    towers = TwoTower(transform, apps, TowerSettings(dim=8, field_dim=2, hidden=16))
    ranker = Ranker(transform, apps, RankerSettings(field_dim=2, hidden=(8, 4), wide_buckets=1024))
    rng = np.random.default_rng(3)
    for variable in (*towers.trainable_variables, *ranker.trainable_variables):
        variable.assign(0.3 * rng.standard_normal(tuple(variable.shape), dtype=np.float32))

    def query(request: Any, history: Any) -> Any:
        return {"vector": towers.query(request, history)}

    def rank(request: Any, history: Any, app: Any, impression: Any) -> Any:
        return {"logit": ranker.logits(request, history, app, impression)}

    vectors = towers.embed_apps()
    bundle = Bundle(
        transform, apps, catalogue, vectors, Exact(vectors), query, rank, schema_pb2.Schema(),
        (towers, ranker), towers.served(), ranker.served(),
    )  # fmt: skip
    return Recommender(bundle, cast(FeatureStore, Store(n)))


def with_ranker_of(recommender: Recommender, logits: Any) -> Recommender:
    """The same with another ranker, a function of rows."""

    def rank(request: Any, history: Any, app: Any, impression: Any) -> Any:
        return {"logit": SimpleNamespace(numpy=lambda: logits(app).astype(np.float32))}

    bundle = replace(recommender.bundle, rank=rank, served_rank=None)
    return Recommender(bundle, recommender.store)
