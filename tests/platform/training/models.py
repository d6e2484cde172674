"""Small models for tests of training, and the data that they learn from."""

from collections.abc import Callable, Mapping
from typing import Any

import mlplatform  # noqa: F401  # first: it sets what TensorFlow reads from the environment

# isort: split
import numpy as np

from mlplatform.training.batches import Batches
from mlplatform.training.runtime import tensorflow

tf = tensorflow()
legacy = tf.keras.optimizers.legacy


class LinearRegression(tf.Module):  # type: ignore[misc]  # TensorFlow has no types
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
        return [(legacy.SGD(self.rate), [self.weights]), (legacy.SGD(self.rate), [self.bias])]


def data(rows: int, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 3)).astype(np.float32)
    noise = rng.normal(0, 0.3, rows)
    return {"x": x, "y": (x @ [1.5, -2.0, 0.5] + 0.7 + noise).astype(np.float32)}


def taking(arrays: Mapping[str, Any]) -> Callable[[Any], dict[str, Any]]:
    return lambda rows: {name: array[rows] for name, array in arrays.items()}


class Clicks(tf.Module):  # type: ignore[misc]  # TensorFlow has no types
    """Cross entropy of a logit that an embedding and a bias give; sparse gradients, three slots.

    It has a table that is not trained, and so no part of its state.
    """

    KEYS = 40

    def __init__(self, rate: float = 0.05) -> None:
        super().__init__()
        rng = np.random.default_rng(1)
        self.table = tf.Variable(0.1 * rng.normal(size=(self.KEYS, 4)).astype(np.float32))
        self.head = {"out": tf.Variable(np.ones(4, np.float32)), "bias": tf.Variable(0.0)}
        self.shift = tf.Variable(np.zeros(self.KEYS, np.float32), trainable=False)
        self.rate = rate

    def logits(self, batch: Mapping[str, Any]) -> Any:
        vectors = tf.gather(self.table, batch["key"])
        shift = tf.gather(self.shift, batch["key"])
        return tf.reduce_sum(vectors * self.head["out"], 1) + self.head["bias"] + shift

    def loss(self, batch: Mapping[str, Any]) -> tuple[Any, Any]:
        losses = tf.nn.sigmoid_cross_entropy_with_logits(batch["click"], self.logits(batch))
        return tf.reduce_sum(losses), tf.size(losses)

    def measures(self, batch: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        right = (self.logits(batch) > 0) == (batch["click"] > 0.5)
        return {"accuracy": (tf.reduce_sum(tf.cast(right, tf.float32)), tf.size(right))}

    def optimizers(self) -> list[tuple[Any, list[Any]]]:
        head = [self.head["out"], self.head["bias"]]
        ftrl = legacy.Ftrl(self.rate, l1_regularization_strength=0.001)
        return [(ftrl, [self.table]), (legacy.Adam(self.rate), head)]


def clicks(rows: int, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    key = rng.integers(0, Clicks.KEYS, rows).astype(np.int32)
    return {"key": key, "click": (rng.random(rows) < 0.2 + 0.6 * (key % 2)).astype(np.float32)}


def click_batches(rows: int, batch_size: int, epochs: int, seed: int = 0) -> Batches:
    return Batches(taking(clicks(rows, seed)), rows, batch_size, epochs, seed)
