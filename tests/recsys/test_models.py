"""Both models on six apps: what they learn, what they ignore, and that exports agree."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mlplatform.training.batches import Batches
from mlplatform.training.runtime import tensorflow
from mlplatform.training.trainer import train
from mlplatform.transform.feature import MISSING
from mlplatform.transform.transform import Transform
from recsys import features
from recsys.apps import AppTable
from recsys.columns import Columns

tf = tensorflow()

from recsys.models.rankers import families  # noqa: E402
from recsys.models.ranking import Ranker, RankerSettings  # noqa: E402
from recsys.models.retrieval import TowerSettings, TwoTower  # noqa: E402

KINDS = ("linear", "deep", "wide_deep")
TOWERS = TowerSettings(dim=8, field_dim=2, hidden=16, learning_rate=0.1, seed=3)
ROWS = 64


def ranker_settings(kind: str) -> RankerSettings:
    return RankerSettings(
        kind=kind, field_dim=2, hidden=(16, 8), product=8, wide_buckets=4096, base_rate=0.2, seed=3
    )


@pytest.fixture(scope="module")
def apps(catalogue: pa.Table, transform: Transform) -> AppTable:
    return AppTable.of(catalogue, transform)


def scramble(model: Any, seed: int = 5) -> None:
    """Random weights everywhere, ids and padding included, so that nothing is silent."""
    rng = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        noise = 0.3 * rng.standard_normal(tuple(variable.shape))
        variable.assign(noise.astype(np.float32))


def raw_tensors(table: pa.Table, declared: list[Any]) -> dict[str, Any]:
    """A table as dense tensors, what is missing marked as declared for raw values."""
    tensors = {}
    for feature in declared:
        missing = MISSING[feature.dtype]
        rows = table[feature.column].to_pylist()
        if feature.width > 1:
            rows = [(row or [])[: feature.width] for row in rows]
            rows = [row + [missing] * (feature.width - len(row)) for row in rows]
        else:
            rows = [missing if value is None else value for value in rows]
        tensors[feature.column] = tf.constant(rows, getattr(tf, feature.dtype))
    return tensors


@pytest.fixture(scope="module")
def requests(random_requests: Any) -> pa.Table:
    return random_requests(ROWS, 11)


@pytest.fixture(scope="module")
def request_codes(requests: pa.Table, transform: Transform) -> Any:
    return Columns.of(transform, features.REQUEST).matrix(transform, requests)


@pytest.fixture(scope="module")
def history(requests: pa.Table, apps: AppTable) -> Any:
    return apps.rows_of_lists(requests, features.HISTORY)


@pytest.fixture(scope="module")
def slates(request_codes: Any, history: Any, transform: Transform, random_impressions: Any) -> Any:
    """A batch: four places a request, the last often empty; an even row of an app installs it."""
    rng = np.random.default_rng(4)
    app = rng.integers(1, 7, (ROWS, 4)).astype(np.int32)
    layout = Columns.of(transform, features.IMPRESSION)
    impression = layout.matrix(transform, random_impressions(4 * ROWS, 12))
    label = (app % 2 == 0).astype(np.int8)
    app[::3, 3] = 0
    label[::3, 3] = -1
    return {
        "request": request_codes,
        "history": history,
        "app": app,
        "impression": impression.reshape(ROWS, 4, -1),
        "label": label,
    }


class TestExports:
    def test_the_query_tower_says_the_same_of_codes_and_of_raw_values(
        self,
        transform: Transform,
        apps: AppTable,
        requests: pa.Table,
        request_codes: Any,
        history: Any,
        tmp_path: Path,
    ) -> None:
        model = TwoTower(transform, apps, TOWERS)
        scramble(model)
        model.export(tmp_path / "tower")
        loaded = tf.saved_model.load(str(tmp_path / "tower"))
        coded = loaded.signatures["codes"](
            request=tf.constant(request_codes), history=tf.constant(history)
        )["vector"].numpy()
        raw = loaded.signatures["raw"](
            **raw_tensors(requests, [*features.REQUEST, features.HISTORY])
        )["vector"].numpy()
        assert raw.shape == (ROWS, 8)
        np.testing.assert_allclose(raw, coded, rtol=0, atol=1e-6)
        np.testing.assert_allclose(
            coded, model.query(request_codes, history).numpy(), rtol=0, atol=1e-6
        )
        assert coded.std(axis=0).min() > 1e-3  # the rows are told apart

    @pytest.mark.parametrize("kind", KINDS)
    def test_the_ranker_says_the_same_of_codes_and_of_raw_values(
        self,
        kind: str,
        transform: Transform,
        apps: AppTable,
        requests: pa.Table,
        request_codes: Any,
        history: Any,
        random_impressions: Any,
        tmp_path: Path,
    ) -> None:
        model = Ranker(transform, apps, ranker_settings(kind))
        scramble(model)
        model.export(tmp_path / "ranker")
        loaded = tf.saved_model.load(str(tmp_path / "ranker"))
        impressions = random_impressions(ROWS, 13)
        layout = Columns.of(transform, features.IMPRESSION)
        logit = loaded.signatures["codes"](
            request=tf.constant(request_codes),
            history=tf.constant(history),
            app=tf.constant(apps.rows_of(impressions["app_id"].to_numpy())[:, None]),
            impression=tf.constant(layout.matrix(transform, impressions)[:, None]),
        )["logit"].numpy()
        probability = loaded.signatures["raw"](
            **raw_tensors(requests, [*features.REQUEST, features.HISTORY]),
            **raw_tensors(impressions, list(features.IMPRESSION)),
            app_id=tf.constant(impressions["app_id"].to_numpy()),
        )["probability"].numpy()
        assert probability.shape == (ROWS,)
        expected = 1 / (1 + np.exp(-logit[:, 0].astype(float)))
        np.testing.assert_allclose(probability, expected, rtol=0, atol=1e-6)
        assert probability.std() > 1e-3


class TestTowers:
    def train_on(self, transform: Transform, apps: AppTable, slates: Any, app: Any) -> TwoTower:
        model = TwoTower(transform, apps, TOWERS)
        negatives = np.array([1, 2, 3, 4], dtype=np.int32)

        def take(rows: Any) -> dict[str, Any]:
            return {
                "request": slates["request"][rows],
                "history": slates["history"][rows],
                "app": app[rows],
                "negatives": negatives,
                "probability": np.full(len(rows) + 4, 0.25, dtype=np.float32),
            }

        before = self.mean_loss(model, take(np.arange(ROWS)))
        train(lambda: model, Batches(take, ROWS, 16, epochs=5, seed=1))
        assert self.mean_loss(model, take(np.arange(ROWS))) < before - 0.02
        return model

    def mean_loss(self, model: TwoTower, batch: Any) -> float:
        total, n = model.loss({name: tf.constant(array) for name, array in batch.items()})
        assert int(n) == ROWS
        return float(total) / ROWS

    def test_an_app_never_seen_in_training_has_the_vector_of_its_content(
        self, transform: Transform, apps: AppTable, slates: Any
    ) -> None:
        # Apps 40, 50 and 60 differ in id and developer alone; of them only 40, row 4, is trained.
        assert not (apps.codes[4:, :3] == apps.codes[[5, 6, 4], :3]).any()
        np.testing.assert_array_equal(apps.codes[4, 3:], apps.codes[5, 3:])
        app = np.array([1, 2, 3, 4] * (ROWS // 4), dtype=np.int32)
        unseen = slates | {"history": np.minimum(slates["history"], 4)}
        vectors = self.train_on(transform, apps, unseen, app).embed_apps()
        np.testing.assert_array_equal(vectors[4], vectors[5])
        assert np.abs(vectors[3] - vectors[4]).max() > 1e-4  # what was trained has its own

    def test_before_training_ids_say_nothing(self, transform: Transform, apps: AppTable) -> None:
        vectors = TwoTower(transform, apps, TOWERS).embed_apps()
        assert vectors.shape == (6, 8)
        np.testing.assert_array_equal(vectors[3], vectors[4])
        assert np.abs(vectors[0] - vectors[3]).max() > 1e-3

    def test_padding_in_the_history_does_not_change_the_query(
        self, transform: Transform, apps: AppTable, request_codes: Any
    ) -> None:
        model = TwoTower(transform, apps, TOWERS)
        scramble(model)
        padded = np.zeros((ROWS, features.HISTORY_LENGTH), dtype=np.int32)
        padded[:, :2] = [3, 5]
        np.testing.assert_allclose(
            model.query(request_codes, padded).numpy(),
            model.query(request_codes, padded[:, :2]).numpy(),
            rtol=0, atol=1e-5,
        )  # fmt: skip


class TestRanker:
    def logits(self, model: Ranker, batch: Any, **changed: Any) -> Any:
        batch = batch | changed
        names = ("request", "history", "app", "impression")
        return model.logits(*(tf.constant(batch[name]) for name in names)).numpy()

    def loss(self, model: Ranker, batch: Any) -> tuple[float, float]:
        total, n = model.loss({name: tf.constant(array) for name, array in batch.items()})
        return float(total), float(n)

    @pytest.mark.parametrize("kind", KINDS)
    def test_every_kind_learns_and_its_loss_falls(
        self, kind: str, transform: Transform, apps: AppTable, slates: Any
    ) -> None:
        model = Ranker(transform, apps, ranker_settings(kind))
        before, n = self.loss(model, slates)
        assert n == (slates["label"] >= 0).sum()

        def take(rows: Any) -> dict[str, Any]:
            return {name: array[rows] for name, array in slates.items()}

        curve = train(lambda: model, Batches(take, ROWS, 16, epochs=6, seed=1)).curve
        assert curve[-1].examples == 6 * n
        after, _ = self.loss(model, slates)
        assert after < 0.8 * before
        # What it learned is that apps in even rows are installed.
        logits = self.logits(model, slates)
        shown = slates["label"] >= 0
        assert (
            logits[shown & (slates["label"] == 1)].mean()
            > logits[shown & (slates["label"] == 0)].mean() + 0.5
        )

    def test_an_untrained_linear_model_says_the_base_rate(
        self, transform: Transform, apps: AppTable, slates: Any
    ) -> None:
        logits = self.logits(Ranker(transform, apps, ranker_settings("linear")), slates)
        np.testing.assert_allclose(logits, np.log(0.2 / 0.8), rtol=1e-6)

    def test_the_kinds_differ_in_the_parts_they_have(
        self, transform: Transform, apps: AppTable
    ) -> None:
        parts = {
            kind: set(Ranker(transform, apps, ranker_settings(kind)).parts) for kind in families()
        }
        assert parts == {
            "additive": {"additive"},
            "linear": {"wide"},
            "deep": {"deep"},
            "wide_deep": {"wide", "deep"},
        }

    @pytest.mark.parametrize("kind", KINDS)
    def test_padding_in_the_history_does_not_change_the_logits(
        self, kind: str, transform: Transform, apps: AppTable, slates: Any
    ) -> None:
        model = Ranker(transform, apps, ranker_settings(kind))
        scramble(model)
        padded = np.zeros((ROWS, features.HISTORY_LENGTH), dtype=np.int32)
        padded[:, :2] = [3, 5]
        whole = self.logits(model, slates, history=padded)
        np.testing.assert_allclose(
            whole, self.logits(model, slates, history=padded[:, :2]), rtol=0, atol=1e-5
        )
        # The two apps themselves do count.
        other = self.logits(model, slates, history=padded[:, :1])
        assert np.abs(whole - other).max() > 1e-3

    @pytest.mark.parametrize("kind", KINDS)
    def test_empty_places_do_not_change_the_loss(
        self, kind: str, transform: Transform, apps: AppTable, slates: Any
    ) -> None:
        model = Ranker(transform, apps, ranker_settings(kind))
        scramble(model)
        rng = np.random.default_rng(8)
        longer = slates | {
            name: np.concatenate([slates[name], rng.permutation(slates[name])], axis=1)
            for name in ("app", "impression")
        }
        longer["label"] = np.concatenate([slates["label"], np.full((ROWS, 4), -1, np.int8)], axis=1)
        total, n = self.loss(model, slates)
        assert self.loss(model, longer) == (pytest.approx(total, rel=1e-5), n)

    def test_the_loss_is_the_cross_entropy_of_the_places_shown(
        self, transform: Transform, apps: AppTable, slates: Any
    ) -> None:
        model = Ranker(transform, apps, ranker_settings("wide_deep"))
        scramble(model)
        p = 1 / (1 + np.exp(-self.logits(model, slates).astype(float)))
        label = slates["label"]
        expected = -np.log(p[label == 1]).sum() - np.log(1 - p[label == 0]).sum()
        assert self.loss(model, slates)[0] == pytest.approx(expected, rel=1e-5)

    def test_what_is_shown_beside_an_app_does_not_change_its_logit(
        self, transform: Transform, apps: AppTable, slates: Any
    ) -> None:
        model = Ranker(transform, apps, ranker_settings("wide_deep"))
        scramble(model)
        alone = self.logits(
            model, slates, app=slates["app"][:, 1:2], impression=slates["impression"][:, 1:2]
        )
        np.testing.assert_allclose(self.logits(model, slates)[:, 1:2], alone, rtol=0, atol=1e-5)
