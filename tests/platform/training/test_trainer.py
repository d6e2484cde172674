"""The training loop on a model whose solution is known."""

import threading
from collections.abc import Callable, Mapping
from typing import Any

import mlplatform  # noqa: F401  # first: it sets what TensorFlow reads from the environment

# isort: split
import numpy as np
import pytest

from mlplatform.errors import FailedPrecondition
from mlplatform.training.runtime import tensorflow
from mlplatform.training.trainer import LOSS_EVERY, PREFETCHED, Batches, train

tf = tensorflow()


class LinearRegression(tf.Module):
    """Squared error of x @ weights + bias; the bias has an optimizer of its own."""

    def __init__(self, features: int, rate: float) -> None:
        super().__init__()
        self.weights = tf.Variable(tf.zeros([features, 1]))
        self.bias = tf.Variable(0.0)
        self.rate = rate

    def loss(self, batch: Mapping[str, Any]) -> tuple[Any, Any]:
        predicted = tf.squeeze(batch["x"] @ self.weights, 1) + self.bias
        return tf.reduce_sum((predicted - batch["y"]) ** 2), tf.shape(batch["y"])[0]

    def optimizers(self) -> list[tuple[Any, list[Any]]]:
        sgd = tf.keras.optimizers.legacy.SGD
        return [(sgd(self.rate), [self.weights]), (sgd(self.rate), [self.bias])]


def data(rows: int, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 3)).astype(np.float32)
    noise = rng.normal(0, 0.3, rows)
    return {"x": x, "y": (x @ [1.5, -2.0, 0.5] + 0.7 + noise).astype(np.float32)}


def taking(arrays: Mapping[str, Any]) -> Callable[[Any], dict[str, Any]]:
    return lambda rows: {name: array[rows] for name, array in arrays.items()}


def test_training_reaches_the_least_squares_solution() -> None:
    arrays = data(256)
    model = LinearRegression(3, rate=0.3 / 256)
    train(model, Batches(taking(arrays), 256, 256, epochs=120, seed=1))
    design = np.column_stack([arrays["x"], np.ones(256)]).astype(np.float64)
    solution = np.linalg.lstsq(design, arrays["y"], rcond=None)[0]
    found = [*model.weights.numpy()[:, 0], model.bias.numpy()]
    np.testing.assert_allclose(found, solution, atol=1e-4)


def curve_of(seed: int) -> tuple[Any, Any]:
    model = LinearRegression(3, rate=0.002)
    curve = train(model, Batches(taking(data(100)), 100, 8, epochs=10, seed=seed))
    return curve, model.weights.numpy().tobytes()


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
    model = LinearRegression(3, rate=0.0)  # a batch's loss is its sum of squares
    curve = train(model, Batches(take, 480, 4, epochs=1, seed=0), told.append)
    assert told == [4] * 120
    ends = [LOSS_EVERY, 2 * LOSS_EVERY, 120]
    assert [rows for rows, _ in curve] == [4 * end for end in ends]
    for start, end, (_, loss) in zip([0, *ends], ends, curve, strict=False):
        expected = np.mean(np.concatenate(seen[start:end]).astype(np.float64) ** 2)
        assert loss == pytest.approx(expected, rel=1e-5)


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
            LinearRegression(3, 0.001),
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
        train(LinearRegression(3, 0.001), batches)


def test_a_loss_that_overflows_stops() -> None:
    with pytest.raises(FailedPrecondition, match="learning rate"):
        train(LinearRegression(3, 1e6), Batches(taking(data(64)), 64, 4, epochs=5, seed=0))


def test_too_few_rows_for_a_batch_are_refused() -> None:
    with pytest.raises(FailedPrecondition, match=r"batch takes 8 rows.*only 7"):
        train(LinearRegression(3, 0.1), Batches(taking(data(7)), 7, 8, epochs=1, seed=0))


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
        train(LinearRegression(3, 0.001), Batches(failing, 64, 4, epochs=1, seed=0), told.append)
    assert caught.value is error
    assert told == [4, 4]
    assert "prefetch" not in {thread.name for thread in threading.enumerate()}


def test_a_caller_that_stops_early_stops_the_thread() -> None:
    batches = iter(Batches(taking(data(1000)), 1000, 1, epochs=1, seed=0))
    next(batches)
    assert "prefetch" in {thread.name for thread in threading.enumerate()}
    batches.close()  # type: ignore[attr-defined]  # a generator
    assert "prefetch" not in {thread.name for thread in threading.enumerate()}


def rows_of(batches: Batches) -> list[Any]:
    return [batch["row"].tolist() for batch in batches]


def row_batches(n_rows: int, batch_size: int, epochs: int, seed: int = 0) -> Batches:
    return Batches(lambda rows: {"row": rows}, n_rows, batch_size, epochs, seed)


def test_every_row_is_seen_once_an_epoch() -> None:
    batches = row_batches(60, 5, epochs=3)
    seen = rows_of(batches)
    assert len(seen) == batches.steps == 36
    epochs = [seen[start : start + 12] for start in (0, 12, 24)]
    for epoch in epochs:
        assert sorted(row for batch in epoch for row in batch) == list(range(60))
        assert epoch[0] != [0, 1, 2, 3, 4]
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


def test_a_rest_is_left_out_of_its_epoch() -> None:
    batches = row_batches(11, 4, epochs=50)
    seen = rows_of(batches)
    assert len(seen) == batches.steps == 100
    assert {len(batch) for batch in seen} == {4}
    for first, second in zip(seen[::2], seen[1::2], strict=True):
        assert len({*first, *second}) == 8
    assert {row for batch in seen for row in batch} == set(range(11))


def test_a_seed_fixes_the_order_of_the_rows() -> None:
    assert rows_of(row_batches(40, 4, 2, seed=1)) == rows_of(row_batches(40, 4, 2, seed=1))
    assert rows_of(row_batches(40, 4, 2, seed=1)) != rows_of(row_batches(40, 4, 2, seed=2))


def test_only_a_few_batches_are_made_ahead() -> None:
    taken = threading.Semaphore(0)
    count = 0

    def take(rows: Any) -> dict[str, Any]:
        nonlocal count
        count += 1
        taken.release()
        return {"row": rows}

    batches = iter(Batches(take, 100, 1, epochs=1, seed=0))
    next(batches)
    for _ in range(PREFETCHED + 2):  # those in the queue, the one given out, the one in hand
        assert taken.acquire(timeout=30)
    assert not taken.acquire(timeout=0.3)
    assert count == PREFETCHED + 2
    batches.close()  # type: ignore[attr-defined]  # a generator
