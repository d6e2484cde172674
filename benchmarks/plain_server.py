"""The same recommendations as one writes them from the tutorials, for `serving` to compare with.

A FastAPI route, tensorflow-recommenders' ScaNN layer with its defaults over the trained vectors,
the exported query tower and ranker as SavedModels, one request after the other, in two workers of
uvicorn.  It gives what a first version would: the best of the 200 nearest apps that the user does
not own.  Of the rest that ours does it does nothing: no newest apps, no devices that are too old,
no variety, no exploration, no log, no deadline.

What is not the point is taken from ours, and fast: profiles, and their codes.

    BENCHMARK_WORKSPACE=W uvicorn benchmarks.plain_server:app --workers 2
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from fastapi import FastAPI
from pydantic import BaseModel

from mlplatform.registry.registry import STABLE, Registry
from mlplatform.training.runtime import tensorflow
from recsys import features
from recsys.columns import Columns
from recsys.online.bundle import CATALOGUE, QUERY_TOWER, RANKER, TRANSFORM, VECTORS

CANDIDATES = 200
WORKSPACE = "BENCHMARK_WORKSPACE"


class Context(BaseModel):
    hour_of_day: int
    network: str


class Query(BaseModel):
    user_id: int
    k: int = 10
    context: Context


class App(BaseModel):
    app_id: int
    title: str
    category: str
    score: float


class Answer(BaseModel):
    apps: list[App]


class Plain:
    """What a worker has loaded."""

    def __init__(self, workspace: Path) -> None:
        from mlplatform.data.files.spans import read_parquet
        from mlplatform.transform.transform import Transform
        from recsys.apps import AppTable
        from recsys.online.encoder import Encoder
        from recsys.online.feature_store import FeatureStore, latest_feature_store

        tf = tensorflow()
        import tensorflow_recommenders as tfrs

        bundle = Registry(workspace / "registry").labelled(STABLE).path
        transform, apps = Transform.load(bundle / TRANSFORM, features.ALL), AppTable.load(bundle)
        self.tf = tf
        self.store = FeatureStore(latest_feature_store(workspace))
        self.encoder = Encoder(transform, apps)
        self.query_tower = tf.saved_model.load(str(bundle / QUERY_TOWER))
        self.ranker = tf.saved_model.load(str(bundle / RANKER))
        self.impression = self._impressions(transform, apps)
        self.app_ids = np.asarray(apps.ids)
        catalogue = read_parquet(bundle / CATALOGUE)
        self.titles = catalogue["title"].to_pylist()
        self.categories = catalogue["category"].to_pylist()
        self.index = tfrs.layers.factorized_top_k.ScaNN(k=CANDIDATES)
        rows = tf.range(1, len(apps) + 1)
        self.index.index(tf.constant(np.load(bundle / VECTORS, allow_pickle=False)), rows)

    def _impressions(self, transform: Any, apps: Any) -> Any:
        """Codes of every app's features of the day, at the top of a list."""
        served = self.store.app_columns(apps.ids)
        top = np.ones(len(apps), np.int64)
        table = pa.table({**served, "position": top})
        codes = Columns.of(transform, features.IMPRESSION).matrix(transform, table)
        return np.concatenate([np.zeros_like(codes[:1]), codes])

    def recommend(self, query: Query) -> Answer:
        tf = self.tf
        (profile,) = self.store.profiles([query.user_id])
        asked = self.encoder.encode([profile | query.context.model_dump()])
        request, history = tf.constant(asked.codes), tf.constant(asked.history)
        vector = self.query_tower.signatures["codes"](request=request, history=history)["vector"]
        _, found = self.index(vector)
        rows = found.numpy()[0]
        rows = rows[~np.isin(rows, asked.owned)]
        logits = self.ranker.signatures["codes"](
            request=request,
            history=history,
            app=tf.constant(rows[None]),
            impression=tf.constant(self.impression[rows][None]),
        )["logit"]
        scores = tf.sigmoid(logits).numpy()[0]
        best = np.argsort(-scores)[: query.k]
        return Answer(
            apps=[
                App(
                    app_id=int(self.app_ids[row - 1]),
                    title=self.titles[row - 1],
                    category=self.categories[row - 1],
                    score=float(score),
                )
                for row, score in zip(rows[best].tolist(), scores[best], strict=True)
            ]
        )


_loaded: dict[str, Plain] = {}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    _loaded["plain"] = plain = Plain(Path(os.environ[WORKSPACE]))
    with plain.store:
        user = next(plain.store.user_ids())
        plain.recommend(Query(user_id=user, context=Context(hour_of_day=20, network="wifi")))
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/v1/recommendations")
async def recommend(query: Query) -> Answer:
    return _loaded["plain"].recommend(query)


@app.get("/readyz")
async def ready() -> dict[str, int]:
    return {"process": os.getpid()}
