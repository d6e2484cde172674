"""Requests made from the served schema, sound and broken, through all that a request passes."""

import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mlplatform.data.validation.broken_rows import broken_rows
from mlplatform.errors import InvalidArgument
from mlplatform.pipeline import Workspace
from mlplatform.training.batches import Batches
from mlplatform.training.trainer import train
from recsys import features
from recsys.columns import Columns
from recsys.models.ranking import Ranker, RankerSettings
from recsys.online.bundle import Bundle
from recsys.online.feature_store import VISIT_FEATURES, FeatureStore
from recsys.online.recommender import Recommender
from tests.recsys.services import service
from tests.schema_rows import Row, arrow_table, faults, served, valid_rows

with warnings.catch_warnings():
    # Starlette's preference among HTTP clients.
    warnings.filterwarnings("ignore", "Using `httpx` with `starlette.testclient`")
    from starlette.testclient import TestClient

FUZZ = settings(max_examples=40, deadline=None, database=None)


@pytest.fixture(scope="module")
def recommender(finished: Path) -> Iterator[Recommender]:
    def artifact(stage: str) -> Path:
        found = Workspace(finished).latest(stage)
        assert found is not None
        return found

    bundle = Bundle.load(artifact("evaluate") / "bundle")
    with FeatureStore(artifact("build_feature_store")) as store:
        yield Recommender(bundle, store)


@pytest.fixture(scope="module")
def client(recommender: Recommender) -> Iterator[TestClient]:
    with TestClient(service(recommender, 1), raise_server_exceptions=False) as client:
        yield client


def requests_of(rows: list[Row], recommender: Recommender) -> pa.Table:
    """As the recommender takes them; a request's `owned` is no feature of a model."""
    table = arrow_table(rows, served(recommender.bundle.request_schema, features.SERVING))
    return table.append_column("owned", pa.array([[]] * len(rows), pa.list_(pa.int64())))


def drawn(recommender: Recommender) -> st.SearchStrategy[tuple[list[Row], bool]]:
    """Some rows, and whether one of them has a fault."""
    schema = recommender.bundle.request_schema
    valid = st.lists(valid_rows(schema, features.SERVING), min_size=1, max_size=4)

    def plant(rows: list[Row], fault: tuple[str, str, Any]) -> tuple[list[Row], bool]:
        feature, _, cell = fault
        return [rows[0] | {feature: cell}, *rows[1:]], True

    planted = st.builds(plant, valid, st.sampled_from(faults(schema, features.SERVING)))
    return valid.map(lambda rows: (rows, False)) | planted


def has_nonfinite(rows: list[Row]) -> bool:
    cells = [cell for row in rows for cell in row.values() if isinstance(cell, float)]
    return not all(math.isfinite(cell) for cell in cells)


def test_the_served_schema_asks_for_every_feature_of_a_request(recommender: Recommender) -> None:
    schema = recommender.bundle.request_schema
    names = {feature.name for feature in served(schema, features.SERVING)}
    assert names == {f.name for f in (*features.REQUEST, features.HISTORY)}


def test_every_row_is_recommended_to_or_refused_for_a_number_that_is_none(
    recommender: Recommender,
) -> None:
    @FUZZ
    @given(drawn(recommender))
    def check(case: tuple[list[Row], bool]) -> None:
        rows, is_faulty = case
        table = requests_of(rows, recommender)
        (batch,) = table.drop_columns(["owned"]).combine_chunks().to_batches()
        broken = list(broken_rows(batch, recommender.bundle.request_schema, features.SERVING))
        assert bool(broken) == is_faulty
        if has_nonfinite(rows):
            with pytest.raises(InvalidArgument, match="finite"):
                recommender.recommend(table, 5)
            return
        answer = recommender.recommend(table, 5)
        assert answer.app_ids.shape == (len(rows), 5)
        # On an operating system too old for any app, no app is left.
        runs_any = np.array([row["os_version"] is None or row["os_version"] >= 8 for row in rows])
        assert (answer.app_ids[runs_any] >= 0).all()
        assert ((answer.scores >= 0) & (answer.scores < 1)).all()

    check()


def test_no_inline_profile_makes_the_server_fail(
    recommender: Recommender, client: TestClient
) -> None:
    @FUZZ
    @given(drawn(recommender))
    def check(case: tuple[list[Row], bool]) -> None:
        for row in case[0]:
            finite = {
                name: None if isinstance(cell, float) and not math.isfinite(cell) else cell
                for name, cell in row.items()
            }
            profile = {name: c for name, c in finite.items() if name not in VISIT_FEATURES}
            context = {name: finite[name] for name in VISIT_FEATURES}
            answer = client.post(
                "/v1/recommendations", json={"profile": profile, "context": context, "k": 3}
            )
            # The service's own limits are narrower than the schema's.
            assert answer.status_code in (200, 422), answer.text
            if answer.status_code == 200:
                assert len(answer.json()["apps"]) <= 3

    check()


def test_a_training_step_survives_every_row(recommender: Recommender) -> None:
    bundle = recommender.bundle
    request = Columns.of(bundle.transform, features.REQUEST)
    impression = Columns.of(bundle.transform, features.IMPRESSION)
    model = Ranker(bundle.transform, bundle.apps, RankerSettings(wide_buckets=1024))

    @settings(max_examples=8, deadline=None, database=None)
    @given(drawn(recommender))
    def check(case: tuple[list[Row], bool]) -> None:
        rows = case[0]
        if has_nonfinite(rows):
            return
        table = requests_of([rows[i % len(rows)] for i in range(4)], recommender)
        arrays = {
            "request": request.matrix(bundle.transform, table),
            "history": bundle.apps.rows_of_lists(table, features.HISTORY),
            "app": np.arange(1, 13, dtype=np.int32).reshape(4, 3),
            "impression": np.zeros((4, 3, impression.width), dtype=np.int32),
            "label": np.eye(4, 3, dtype=np.int8),
        }

        def take(at: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
            return {name: array[at] for name, array in arrays.items()}

        (point,) = train(lambda: model, Batches(take, 4, 4, epochs=1, seed=0)).curve
        assert math.isfinite(point.loss)

    check()
