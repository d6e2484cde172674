"""The training loop on a model whose solution is known."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mlplatform.errors import FailedPrecondition, InvalidArgument
from mlplatform.training.batches import Batches
from mlplatform.training.trainer import LOSS_EVERY, train
from tests.platform.training.models import LinearRegression, data, legacy, taking, tf


def test_training_reaches_the_least_squares_solution() -> None:
    arrays = data(256)
    batches = Batches(taking(arrays), 256, 256, epochs=120, seed=1)
    model = train(lambda: LinearRegression(3, rate=0.3 / 256), batches).model
    design = np.column_stack([arrays["x"], np.ones(256)]).astype(np.float64)
    solution = np.linalg.lstsq(design, arrays["y"], rcond=None)[0]
    found = [*model.weights.numpy()[:, 0], model.bias.numpy()]
    np.testing.assert_allclose(found, solution, atol=1e-4)


def curve_of(seed: int) -> tuple[Any, Any]:
    batches = Batches(taking(data(100)), 100, 8, epochs=10, seed=seed)
    trained = train(lambda: LinearRegression(3, rate=0.002), batches)
    return trained.curve, trained.model.weights.numpy().tobytes()


def test_a_seed_fixes_the_curve_and_the_weights() -> None:
    assert curve_of(3) == curve_of(3)
    assert curve_of(3) != curve_of(4)


def test_the_curve_is_the_mean_loss_since_its_last_point_and_rows_are_told() -> None:
    y = np.arange(480, dtype=np.float32)
    seen: list[Any] = []

    def take(rows: Any) -> dict[str, Any]:
        seen.append(rows)
        return {"x": np.zeros((len(rows), 3), np.float32), "y": y[rows]}

    told: list[int] = []
    # With a rate of 0 a batch's loss is its sum of squares.
    batches = Batches(take, 480, 4, epochs=1, seed=0)
    curve = train(lambda: LinearRegression(3, rate=0.0), batches, told.append).curve
    assert told == [4] * 120
    ends = [LOSS_EVERY, 2 * LOSS_EVERY, 120]
    assert [point.step for point in curve] == ends
    assert [point.examples for point in curve] == [4 * end for end in ends]
    for start, end, point in zip([0, *ends], ends, curve, strict=False):
        expected = np.mean(np.concatenate(seen[start:end]).astype(np.float64) ** 2)
        assert point.loss == pytest.approx(expected, rel=1e-5)


def spoiled(row: int, n: int) -> Callable[[Any], dict[str, Any]]:
    """Arrays in which one row has a NaN."""
    arrays = taking(data(n))(np.arange(n))
    arrays["x"][row, 0] = np.nan
    return lambda rows: {name: array[rows] for name, array in arrays.items()}


@pytest.mark.parametrize("row", [3, 7, 299])
def test_a_loss_that_is_not_a_number_names_the_step_the_input_and_the_row(row: int) -> None:
    order = np.random.default_rng([0, 0]).permutation(300)
    step = int(np.flatnonzero(order == row)[0]) // 2 + 1
    told: list[int] = []
    with pytest.raises(FailedPrecondition) as raised:
        train(
            lambda: LinearRegression(3, 0.001),
            Batches(spoiled(row, 300), 300, 2, epochs=1, seed=0),
            told.append,
        )
    assert (
        str(raised.value) == f"the loss became nan in step {step}: input 'x' is nan in rows {row}"
    )
    assert sum(told) == -(-step // LOSS_EVERY) * LOSS_EVERY * 2  # no further than it was looked at


def test_the_caller_can_name_rows_in_its_own_words() -> None:
    batches = Batches(
        spoiled(4, 20), 20, 2, epochs=1, seed=0, where=lambda rows: f"day 3, row {rows[0]}"
    )
    with pytest.raises(FailedPrecondition, match="input 'x' is nan in day 3, row 4"):
        train(lambda: LinearRegression(3, 0.001), batches)


def test_a_loss_that_overflows_stops() -> None:
    with pytest.raises(FailedPrecondition, match="learning rate"):
        train(
            lambda: LinearRegression(3, 1e6),
            Batches(taking(data(64)), 64, 4, epochs=5, seed=0),
        )


@pytest.mark.parametrize("error", [ValueError("row 5 is gone"), KeyboardInterrupt()])
def test_an_error_in_take_reaches_the_caller(error: BaseException) -> None:
    take, calls = taking(data(64)), []

    def failing(rows: Any) -> dict[str, Any]:
        calls.append(rows)
        if len(calls) == 3:
            raise error
        return take(rows)

    told: list[int] = []
    with pytest.raises(type(error)) as caught:
        train(
            lambda: LinearRegression(3, 0.001),
            Batches(failing, 64, 4, epochs=1, seed=0),
            told.append,
        )
    assert caught.value is error
    assert told == [4, 4]
    assert "prefetch" not in {thread.name for thread in threading.enumerate()}


def test_a_variable_that_overflows_in_the_last_step_is_told_though_its_loss_was_finite() -> None:
    batches = Batches(taking(data(8)), 8, 8, epochs=1, seed=0)
    with pytest.raises(FailedPrecondition) as raised:
        train(lambda: LinearRegression(3, 3e38), batches)
    assert str(raised.value).startswith("the variable 'bias' was not finite after step 1: all inp")


def test_training_begins_from_what_begin_sets() -> None:
    """One step of AdaGrad from a value and an accumulator that are given."""

    class Slope(tf.Module):  # type: ignore[misc]  # TensorFlow has no types
        def __init__(self) -> None:
            super().__init__()
            self.w = tf.Variable(0.0)

        def loss(self, batch: Any) -> tuple[Any, Any]:
            return tf.reduce_sum(self.w * batch["x"]), tf.size(batch["x"])

        def optimizers(self) -> list[tuple[Any, list[Any]]]:
            return [(legacy.Adagrad(0.5, initial_accumulator_value=0.1), [self.w])]

    def begin(model: Any, variables: Any, slots: Any) -> None:
        variables["w"].assign(7.0)
        slots["w"]["accumulator"].assign(27.0)

    x = np.array([1.0, 2.0], np.float32)
    trained = train(Slope, Batches(lambda rows: {"x": x[rows]}, 2, 2, 1, 0), begin=begin)
    # The gradient is 3: the accumulator comes to 27 + 9 = 36, and the step to 0.5 * 3 / 6.
    assert trained.model.w.numpy() == pytest.approx(6.75, rel=1e-6)
    assert trained.curve[0].loss == 7.0 * 3 / 2


def test_an_optimizer_of_foreign_variables_is_refused_before_any_step() -> None:
    class Astray(LinearRegression):
        def optimizers(self) -> list[tuple[Any, list[Any]]]:
            return [(legacy.SGD(0.1), [tf.Variable(0.0, name="elsewhere")])]

    def take(rows: Any) -> Any:
        raise AssertionError("a batch was made")

    with pytest.raises(InvalidArgument, match="elsewhere"):
        train(lambda: Astray(3, 0.1), Batches(take, 8, 8, epochs=1, seed=0))
