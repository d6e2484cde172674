"""What serves says what the exported models say, for every family, of any codes."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.errors import DataCorrupt
from mlplatform.training.runtime import tensorflow
from mlplatform.transform.hashing import hash_numpy
from mlplatform.transform.transform import Transform
from recsys import features
from recsys.apps import AppTable
from recsys.columns import Columns

tf = tensorflow()

from recsys.models.ranking import Ranker, RankerSettings  # noqa: E402
from recsys.models.retrieval import TowerSettings, TwoTower  # noqa: E402
from recsys.models.serving import kernels  # noqa: E402
from recsys.models.serving.files import SERVED, load_arrays, save_arrays  # noqa: E402
from recsys.models.serving.ranker import Impressions, ServedRanker  # noqa: E402
from recsys.models.serving.user import ServedQuery  # noqa: E402

KINDS = ("linear", "additive", "deep", "wide_deep")
PARITY = settings(max_examples=30, deadline=None)
SEEDS = st.integers(0, 2**32 - 1)


def ranker(transform: Transform, apps: AppTable, kind: str, **more: Any) -> Ranker:
    wanted = RankerSettings(kind=kind, field_dim=3, hidden=(12, 7), product=5, wide_buckets=4096)
    model = Ranker(transform, apps, replace(wanted, **more))
    rng = np.random.default_rng(5)
    for variable in model.trainable_variables:
        shape = tuple(variable.shape)
        variable.assign(0.3 * rng.standard_normal(shape, dtype=np.float32))
    return model


@pytest.fixture(scope="module")
def apps(catalogue: pa.Table, transform: Transform) -> AppTable:
    return AppTable.of(catalogue, transform)


@dataclass(frozen=True)
class Drawn:
    """Valid codes of requests, rows of their past apps and candidates, a day's impressions."""

    request: Any
    history: Any
    rows: Any
    impression: Any  # [apps + 1, columns]

    @classmethod
    def of(cls, seed: int, transform: Transform, apps: AppTable) -> "Drawn":
        rng = np.random.default_rng(seed)
        b, k, n = int(rng.integers(1, 6)), int(rng.integers(1, 9)), len(apps) + 1

        def codes(group: tuple[features.Feature, ...], size: int) -> Any:
            layout = Columns.of(transform, group)
            return rng.integers(0, layout.cardinality, (size, layout.width), np.int32)

        history = rng.integers(0, n, (b, features.HISTORY_LENGTH), np.int32)
        history[rng.random(history.shape) < rng.random()] = 0
        history[0] *= rng.integers(0, 2, dtype=np.int32)  # now and then all of it is empty
        rows = rng.integers(0, n, (b, k), np.int32)
        return cls(codes(features.REQUEST, b), history, rows, codes(features.IMPRESSION, n))

    def logits(self, served: ServedRanker, apps: AppTable) -> Any:
        score = served.on(apps.codes, Impressions.of(self.impression))
        return score(self.request, self.history, self.rows)


@pytest.mark.parametrize("kind", KINDS)
def test_a_ranker_serves_the_logits_that_it_exports(
    kind: str, transform: Transform, apps: AppTable, tmp_path: Path
) -> None:
    ranker(transform, apps, kind).export(tmp_path / "ranker")
    exported = tf.saved_model.load(str(tmp_path / "ranker"))
    served = ServedRanker.load(tmp_path / "ranker" / SERVED)

    @PARITY
    @given(SEEDS)
    def check(seed: int) -> None:
        drawn = Drawn.of(seed, transform, apps)
        expected = exported.signatures["codes"](
            request=tf.constant(drawn.request),
            history=tf.constant(drawn.history),
            app=tf.constant(drawn.rows),
            impression=tf.constant(drawn.impression[drawn.rows]),
        )["logit"].numpy()
        np.testing.assert_allclose(drawn.logits(served, apps), expected, rtol=1e-5, atol=1e-5)

    check()


def test_the_query_tower_serves_the_vectors_that_it_exports(
    transform: Transform, apps: AppTable, tmp_path: Path
) -> None:
    model = TwoTower(transform, apps, TowerSettings(dim=6, field_dim=3, hidden=9))
    rng = np.random.default_rng(6)
    for variable in model.trainable_variables:
        variable.assign(0.3 * rng.standard_normal(tuple(variable.shape), dtype=np.float32))
    model.export(tmp_path / "tower")
    exported = tf.saved_model.load(str(tmp_path / "tower"))
    served = load_arrays(ServedQuery, tmp_path / "tower" / SERVED)

    @PARITY
    @given(SEEDS)
    def check(seed: int) -> None:
        drawn = Drawn.of(seed, transform, apps)
        expected = exported.signatures["codes"](
            request=tf.constant(drawn.request), history=tf.constant(drawn.history)
        )["vector"].numpy()
        given_ = served(drawn.request, drawn.history, apps.codes)
        np.testing.assert_allclose(given_, expected, rtol=1e-5, atol=1e-5)

    check()


def test_buckets_need_not_be_a_power_of_two(transform: Transform, apps: AppTable) -> None:
    model = ranker(transform, apps, "linear", wide_buckets=1001)
    served = model.served()
    assert served is not None
    for seed in range(20):
        drawn = Drawn.of(seed, transform, apps)
        expected = model.logits(
            drawn.request, drawn.history, drawn.rows, drawn.impression[drawn.rows]
        ).numpy()
        np.testing.assert_allclose(drawn.logits(served, apps), expected, rtol=1e-5, atol=1e-5)


def test_a_right_side_of_many_codes_is_ended_for_each_app_with_the_same_sum(
    transform: Transform, apps: AppTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ranker(transform, apps, "linear")
    few = model.served()
    monkeypatch.setattr("recsys.models.rankers.linear.FEW_CODES", 0)
    many = model.served()
    assert few is not None and many is not None
    assert few.parts[0].right_codes.any()  # type: ignore[attr-defined]
    assert not many.parts[0].right_codes.any()  # type: ignore[attr-defined]
    for seed in range(20):
        drawn = Drawn.of(seed, transform, apps)
        assert (drawn.logits(few, apps) == drawn.logits(many, apps)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_request_is_told_the_same_bits_whoever_asks_with_it(
    kind: str, transform: Transform, apps: AppTable
) -> None:
    served = ranker(transform, apps, kind).served()
    assert served is not None
    drawn = Drawn.of(3, transform, apps)
    score = served.on(apps.codes, Impressions.of(drawn.impression))
    together = score(drawn.request, drawn.history, drawn.rows)
    assert len(together) > 1
    for q in range(len(together)):
        one = slice(q, q + 1)
        alone = score(drawn.request[one], drawn.history[one], drawn.rows[one])
        assert alone.tobytes() == together[one].tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_are_no_number_make_logits_that_are_none(
    kind: str, transform: Transform, apps: AppTable
) -> None:
    model = ranker(transform, apps, kind)
    for variable in model.trainable_variables:
        variable.assign(np.full(tuple(variable.shape), np.nan, np.float32))
    served = model.served()
    assert served is not None
    assert np.isnan(Drawn.of(1, transform, apps).logits(served, apps)).all()


def test_one_broken_layer_within_the_network_is_not_hidden_by_what_follows(
    transform: Transform, apps: AppTable
) -> None:
    model = ranker(transform, apps, "deep")
    kernel = model.parts["deep"].product_half.kernel
    kernel.assign(np.full(tuple(kernel.shape), np.nan, np.float32))
    served = model.served()
    assert served is not None
    assert np.isnan(Drawn.of(1, transform, apps).logits(served, apps)).all()


def test_a_family_with_a_part_that_does_not_say_how_it_serves_has_its_exported_form_alone(
    transform: Transform, apps: AppTable, tmp_path: Path
) -> None:
    model = ranker(transform, apps, "linear")

    class Constant(tf.Module):  # type: ignore[misc, name-defined]
        def __call__(self, request: Any, history: Any, app: Any, impression: Any) -> Any:
            return tf.ones(tf.shape(app)[:2])

    model.parts["constant"] = Constant()
    assert model.served() is None
    model.export(tmp_path / "ranker")
    assert (tmp_path / "ranker" / "saved_model.pb").exists()
    assert not (tmp_path / "ranker" / SERVED).exists()


def test_apps_that_are_alike_on_a_day_share_a_state() -> None:
    codes = np.array([[1, 0, 2], [0, 3, 2], [1, 0, 2], [1, 3, 0], [0, 3, 2]], np.int32)
    impressions = Impressions.of(codes)
    assert (impressions.codes[impressions.state_of] == codes).all()
    assert len(impressions.codes) == 3
    assert len(np.unique(impressions.codes, axis=0)) == 3


@given(*3 * [st.integers(-(2**63), 2**63 - 1)])
def test_the_hash_ends_where_the_transforms_own_does(salt: int, left: int, right: int) -> None:
    mixed = int(kernels.mix(kernels.mix(salt, left), right))
    expected = hash_numpy(997, salt, np.array([left]), np.array([right]))
    assert mixed % 997 == expected[0]


class TestFiles:
    @pytest.fixture
    def saved(self, transform: Transform, apps: AppTable, tmp_path: Path) -> Path:
        served = ranker(transform, apps, "wide_deep").served()
        assert served is not None
        served.save(tmp_path / SERVED)
        return tmp_path / SERVED

    def test_what_is_mapped_is_read_only_and_what_was_saved(
        self, saved: Path, transform: Transform, apps: AppTable
    ) -> None:
        before = ranker(transform, apps, "wide_deep").served()
        after = ServedRanker.load(saved)
        assert before is not None
        drawn = Drawn.of(9, transform, apps)
        assert (drawn.logits(before, apps) == drawn.logits(after, apps)).all()
        assert not after.parts[1].app.flags.writeable  # type: ignore[attr-defined]

    def test_an_additive_ranker_has_no_crosses_and_empty_files(
        self, transform: Transform, apps: AppTable, tmp_path: Path
    ) -> None:
        served = ranker(transform, apps, "additive").served()
        assert served is not None
        served.save(tmp_path / "additive")
        (part,) = ServedRanker.load(tmp_path / "additive").parts
        assert len(part.left_salt) == len(part.right_column) == 0  # type: ignore[attr-defined]

    @pytest.mark.parametrize(
        ("spoil", "said"),
        [
            (lambda d: (d / "bias.npy").unlink(), r"bias\.npy: not what was written"),
            (lambda d: (d / "0.ServedWide/own.npy").write_bytes(b"?"), r"own\.npy: not what was"),
            (lambda d: (d / "1.ServedDeep/user/bias.npy").unlink(), r"user/bias\.npy: not what"),
            (
                lambda d: (d / "0.ServedWide").rename(d / "0.ServedOther"),
                "a part of unknown kind 'ServedOther', expected one of ServedWide, ServedDeep",
            ),
        ],
    )
    def test_a_damaged_one_is_refused_and_the_file_is_named(
        self, saved: Path, spoil: Callable[[Path], Any], said: str
    ) -> None:
        spoil(saved)
        with pytest.raises(DataCorrupt, match=said):
            ServedRanker.load(saved)

    def test_dataclasses_within_dataclasses_come_back(
        self, transform: Transform, apps: AppTable, tmp_path: Path
    ) -> None:
        served = TwoTower(transform, apps, TowerSettings(dim=4, field_dim=2, hidden=8)).served()
        save_arrays(served, tmp_path / "query")
        loaded = load_arrays(ServedQuery, tmp_path / "query")
        assert (loaded.user.request == served.user.request).all()
        assert loaded.kernel.shape == (8, 4)
