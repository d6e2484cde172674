"""The two models as a plain script has them, after the tutorials of TensorFlow Recommenders.

A Keras Embedding a feature, Keras Dense layers, `tfrs.Model` for the towers and Keras' own
`WideDeepModel` for the ranker, made for `compile` and `fit`.  They have the parameters of
`recsys.models` and give the same losses.

Enters: integer codes by group ('request', 'history', 'app', …) and feature, `[batch, width]`, of a
history `[batch, places, width]`; missing is code 0.
"""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf
import tensorflow_recommenders as tfrs
import tf_keras

Codes = Mapping[str, tf.Tensor]
Sizes = Mapping[str, Mapping[str, int]]  # group -> feature -> how many codes it has

# Of the ranker: the total over a batch, as ours.
LOSS = tf_keras.losses.BinaryCrossentropy(from_logits=True, reduction=tf_keras.losses.Reduction.SUM)


class Fields(tf_keras.layers.Layer):
    """Embeddings of features side by side: `[…, width]` each -> `[…, sum of widths * dim]`."""

    def __init__(self, sizes: Mapping[str, int], dim: int) -> None:
        super().__init__()
        self.tables = {name: tf_keras.layers.Embedding(n, dim) for name, n in sizes.items()}

    def call(self, codes: Codes) -> tf.Tensor:
        vectors = [table(codes[name]) for name, table in self.tables.items()]
        flat = [tf.reshape(v, [*v.shape[:-2], v.shape[-2] * v.shape[-1]]) for v in vectors]
        return tf.concat(flat, axis=-1)


class MeanOfHistory(tf_keras.layers.Layer):
    """The mean of what a user's apps look like; a place is empty if all its codes are 0."""

    def __init__(self, sizes: Mapping[str, int], dim: int) -> None:
        super().__init__()
        self.fields = Fields(sizes, dim)

    def call(self, codes: Codes) -> tf.Tensor:
        taken = tf.reduce_any(tf.concat(list(codes.values()), axis=-1) > 0, axis=-1)
        taken = tf.cast(taken, tf.float32)[..., None]
        total = tf.reduce_sum(self.fields(codes) * taken, axis=1)
        return total / tf.maximum(tf.reduce_sum(taken, axis=1), 1.0)


class TwoTower(tfrs.Model):
    """Retrieval by two towers, with in-batch negatives and some drawn from the whole catalogue."""

    def __init__(self, sizes: Sizes, *, field_dim: int, hidden: int, dim: int) -> None:
        super().__init__()
        self.request = Fields(sizes["request"], field_dim)
        self.owned = MeanOfHistory(sizes["history"], field_dim)
        self.query = _mlp(hidden, dim)
        self.fields = Fields(sizes["app"], field_dim)
        self.app = _mlp(hidden, dim)
        self.task = tfrs.tasks.Retrieval(remove_accidental_hits=True)

    def compute_loss(self, inputs: Mapping[str, Any], training: bool = False) -> tf.Tensor:
        user = [self.request(inputs["request"]), self.owned(inputs["history"])]
        return self.task(
            self.query(tf.concat(user, axis=1)),
            self.app(self.fields(inputs["app"])),
            candidate_sampling_probability=inputs["probability"],
            candidate_ids=inputs["id"],
            compute_metrics=False,
            compute_batch_metrics=False,
        )


class Wide(tf_keras.Model):
    """A weight for every row of a hashed cross: `[batch, crosses]` -> `[batch, 1]`."""

    def __init__(self, buckets: int) -> None:
        super().__init__()
        self.table = tf_keras.layers.Embedding(buckets, 1, embeddings_initializer="zeros")

    def call(self, inputs: Codes) -> tf.Tensor:
        weights = self.table(inputs["row"])[:, :, 0]
        return tf.reduce_sum(weights * inputs["present"], axis=1, keepdims=True)


class Deep(tf_keras.Model):
    """Embeddings of all fields, a product of user and app, two hidden layers: -> `[batch, 1]`.

    The place in the list is added beside them.

    slate: how many rows of 'app' and 'impression', one after another, each request stands for.
    """

    def __init__(
        self, sizes: Sizes, *, field_dim: int, hidden: tuple[int, int], product: int, slate: int
    ) -> None:
        super().__init__()
        self.slate = slate
        self.request = Fields(sizes["request"], field_dim)
        self.owned = MeanOfHistory(sizes["history"], field_dim)
        self.app = Fields(sizes["app"], field_dim)
        self.impression = Fields(sizes["impression"], field_dim)
        self.place = Fields(sizes["place"], 1)
        self.user_factor = tf_keras.layers.Dense(product)
        self.app_factor = tf_keras.layers.Dense(product)
        self.first = tf_keras.layers.Dense(hidden[0], activation="relu")
        self.second = tf_keras.layers.Dense(hidden[1], activation="relu")
        self.out = tf_keras.layers.Dense(1)

    def call(self, inputs: Mapping[str, Codes]) -> tf.Tensor:
        user = tf.concat([self.request(inputs["request"]), self.owned(inputs["history"])], axis=1)
        factor = self.user_factor(user)
        if self.slate > 1:
            user = tf.repeat(user, self.slate, axis=0)
            factor = tf.repeat(factor, self.slate, axis=0)
        app = self.app(inputs["app"])
        product = factor * self.app_factor(app)
        fields = [user, app, self.impression(inputs["impression"]), product]
        wanted = self.out(self.second(self.first(tf.concat(fields, axis=1))))
        return wanted + self.place(inputs["impression"])


def wide_and_deep(wide: Wide, deep: Deep) -> tf_keras.Model:
    """To be given ((wide inputs, deep inputs), labels), and two optimizers in that order."""
    return tf_keras.experimental.WideDeepModel(wide, deep)


def _mlp(hidden: int, out: int) -> tf_keras.Sequential:
    layers = tf_keras.layers
    return tf_keras.Sequential([layers.Dense(hidden, activation="relu"), layers.Dense(out)])
