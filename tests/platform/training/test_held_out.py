"""Held-out batches: what is judged, and when training ends."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from mlplatform.errors import FailedPrecondition, InvalidArgument
from mlplatform.training.batches import Batches
from mlplatform.training.curve import Point, best_of
from mlplatform.training.held_out import HeldOut
from mlplatform.training.runtime import set_seed
from mlplatform.training.trainer import train
from tests.platform.training.models import (
    Clicks,
    LinearRegression,
    click_batches,
    clicks,
    data,
    taking,
    tf,
)

STILL = Batches(taking(data(40)), 40, 4, epochs=1, seed=0)


def judged(curve: Any) -> list[Point]:
    return [point for point in curve if point.held_out is not None]


def test_the_held_out_loss_is_the_mean_over_its_examples() -> None:
    held_out = data(24, seed=3)
    judge = HeldOut(Batches(taking(held_out), 24, 8, 1, 0), every=4, patience=9)
    curve = train(lambda: LinearRegression(3, rate=0.0), STILL, held_out=judge).curve
    # A model that says 0 and learns nothing.
    expected = np.mean(held_out["y"].astype(np.float64) ** 2)
    assert [point.step for point in judged(curve)] == [4, 8, 10]
    for point in curve:
        assert point.held_out == pytest.approx(expected, rel=1e-6)


def test_a_rest_of_the_held_out_rows_is_the_same_each_time() -> None:
    seen: list[Any] = []

    def take(rows: Any) -> Any:
        seen.append(rows.tolist())
        return taking(data(27))(rows)

    judge = HeldOut(Batches(take, 27, 8, 1, seed=0), every=5, patience=9)
    train(lambda: LinearRegression(3, 0.0), STILL, held_out=judge)
    assert seen[:3] == seen[3:] and len(seen) == 6
    assert len({row for rows in seen for row in rows}) == 24


def test_metrics_are_totals_over_weights() -> None:
    held_out = clicks(96, seed=2)
    judge = HeldOut(Batches(taking(held_out), 96, 16, 1, 0), every=50, patience=1)
    trained = train(Clicks, click_batches(320, 16, epochs=2), held_out=judge)
    values = trained.model
    vectors = values.table.numpy().astype(np.float64)[held_out["key"]]
    logits = vectors @ values.head["out"].numpy() + values.head["bias"].numpy()
    accuracy = np.mean((logits > 0) == (held_out["click"] > 0.5))
    (point,) = judged(trained.curve)
    assert point.metrics == {"accuracy": accuracy}
    assert 0.5 < accuracy < 1


def test_judging_changes_nothing_of_what_is_learned() -> None:
    def weights(**given: Any) -> bytes:
        set_seed(0)
        trained = train(Clicks, click_batches(320, 16, epochs=1), **given)
        return bytes(trained.model.table.numpy().tobytes())

    judge = HeldOut(click_batches(32, 8, 1, seed=1), every=20, patience=9)
    assert weights() == weights(held_out=judge)


class Walk(tf.Module):  # type: ignore[misc]  # TensorFlow has no types
    """Its one weight goes up by 1 a step; the held-out loss is what a table says of it."""

    LOSSES = (9.0, 5.0, 4.0, 4.5, 4.0, 6.0, 3.0, 1.0)

    def __init__(self) -> None:
        super().__init__()
        self.w = tf.Variable(0.0)

    def loss(self, batch: Any) -> tuple[Any, Any]:
        number = tf.cast(self.w, tf.int32)
        rows = tf.size(batch["x"])
        known = tf.gather(tf.constant(self.LOSSES), number) * tf.cast(rows, tf.float32)
        return tf.where(batch["held_out"][0] > 0, known, -self.w), rows

    def optimizers(self) -> list[tuple[Any, list[Any]]]:
        return [(tf.keras.optimizers.legacy.SGD(1.0), [self.w])]


def walk(patience: int) -> tuple[int, float]:
    """The steps taken, of 7, and the weight in the end."""

    def batches(epochs: int, held_out: float) -> Batches:
        arrays = {"x": np.zeros(2), "held_out": np.full(2, held_out)}
        return Batches(taking(arrays), 2, 2, epochs, 0)

    judge = HeldOut(batches(1, held_out=1.0), every=1, patience=patience)
    trained = train(Walk, batches(7, held_out=0.0), held_out=judge)
    assert [point.held_out for point in trained.curve] == [
        Walk.LOSSES[point.step] for point in trained.curve
    ]
    return len(trained.curve), float(trained.model.w.numpy())


@pytest.mark.parametrize(
    ("patience", "last", "best"), [(1, 3, 2), (2, 4, 2), (3, 5, 2), (4, 7, 7), (9, 7, 7)]
)
def test_training_ends_when_patience_does_and_the_best_variables_stay(
    patience: int, last: int, best: int
) -> None:
    assert walk(patience) == (last, best)


@dataclass(frozen=True)
class Cut(Batches):
    """Batches that end early."""

    until: int = 0

    @property
    def steps(self) -> int:
        return self.until


def test_the_best_slots_and_iterations_stay_too() -> None:
    def end(**given: Any) -> Any:
        set_seed(0)
        trained = train(lambda: Clicks(rate=0.2), held_out=judge, **given)
        optimizers = [optimizer for optimizer, _ in trained.optimizers]
        return trained.curve, [
            weight.numpy().tobytes() for one in optimizers for weight in one.weights
        ]

    judge = HeldOut(click_batches(64, 16, 1, seed=1), every=5, patience=3)
    batches = click_batches(160, 16, epochs=3)
    curve, weights = end(batches=batches)
    best = best_of(curve)
    assert best is not None and best.step < curve[-1].step
    # As if training had ended there.
    cut_curve, cut_weights = end(batches=Cut(**vars(batches), until=best.step))
    assert cut_curve == tuple(point for point in curve if point.step <= best.step)
    assert cut_weights == weights


def test_a_held_out_loss_that_is_not_a_number_names_the_input_and_the_row() -> None:
    arrays = data(24)
    arrays["x"][17, 1] = np.inf
    judge = HeldOut(Batches(taking(arrays), 24, 8, 1, 0), every=5, patience=9)
    with pytest.raises(FailedPrecondition) as raised:
        train(lambda: LinearRegression(3, 0.001), STILL, held_out=judge)
    message = str(raised.value)
    assert message.startswith("the held-out loss became ")
    assert message.endswith(" after step 5: input 'x' is inf in rows 17")


def test_a_metric_without_weight_is_refused() -> None:
    class Unweighted(LinearRegression):
        def measures(self, batch: Any) -> Any:
            return {"share": (tf.constant(0.0), tf.constant(0.0))}

    judge = HeldOut(STILL, every=5, patience=9)
    with pytest.raises(InvalidArgument, match="metric share has a weight of 0 in all of 40 rows"):
        train(lambda: Unweighted(3, 0.001), STILL, held_out=judge)


def test_too_few_held_out_rows_are_refused_before_anything_is_built() -> None:
    def build() -> Any:
        raise AssertionError("a model was built")

    judge = HeldOut(replace(STILL, n_rows=3), every=5, patience=9)
    with pytest.raises(FailedPrecondition, match="only 3"):
        train(build, STILL, held_out=judge)


@pytest.mark.parametrize(("every", "patience"), [(0, 1), (1, 0)])
def test_settings_below_one_are_refused(every: int, patience: int) -> None:
    with pytest.raises(InvalidArgument, match=f"every={every}, patience={patience}"):
        HeldOut(STILL, every, patience)
