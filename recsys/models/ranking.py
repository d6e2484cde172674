"""Ranking: a wide and deep model of whether a shown app is installed.

Enters: a request and its slate, `[requests, slate]` rows of the app table.  Leaves: logits of
the same shape.  Working by slate, the user's half is computed once a request.

The wide part is linear in hashed crosses, trained with FTRL and L1; the deep part is a small
network over embeddings, trained with AdaGrad; they are trained jointly (Cheng et al., Wide & Deep
Learning for Recommender Systems, 2016).  The first deep layer is a user half, an app half and a
product of both, so serving can compute the app half ahead.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from mlplatform.training.export import save_model
from mlplatform.transform.graph import TransformGraph
from mlplatform.transform.hashing import hash_tensorflow
from mlplatform.transform.transform import Transform
from recsys import features
from recsys.apps import AppTable
from recsys.columns import Columns
from recsys.models.layers import Dense, FieldEmbedding, HistoryPooling
from recsys.models.retrieval import join_codes, rows_in_graph


@dataclass(frozen=True)
class RankerSettings:
    """Sizes and rates; `kind` is 'linear' (wide alone), 'deep' (deep alone) or 'wide_deep'."""

    kind: str = "wide_deep"
    field_dim: int = 8
    hidden: tuple[int, int] = (64, 32)
    product: int = 32
    wide_buckets: int = 1 << 20
    wide_rate: float = 0.05
    wide_l1: float = 3.0
    deep_rate: float = 0.05
    accumulator: float = 1.0
    base_rate: float = 0.015
    seed: int = 0


class Ranker(tf.Module):
    """`loss` and `optimizers` are the trainer's contract."""

    def __init__(self, transform: Transform, apps: AppTable, settings: RankerSettings) -> None:
        super().__init__(name="ranker")
        self.transform = transform
        self.settings = settings
        self.request = Columns.of(transform, features.REQUEST)
        self.app = Columns.of(transform, features.APP)
        self.impression = Columns.of(transform, features.IMPRESSION)
        self.app_ids = tf.Variable(apps.ids, trainable=False, name="app_ids")
        self.app_codes = tf.Variable(apps.codes, trainable=False, name="app_codes")
        odds = settings.base_rate / (1 - settings.base_rate)
        self.bias = tf.Variable(np.float32(np.log(odds)), name="bias")
        self.wide = None if settings.kind == "deep" else Wide(self)
        self.deep = None if settings.kind == "linear" else Deep(self)

    def logits(
        self, request: tf.Tensor, history: tf.Tensor, rows: tf.Tensor, impression: tf.Tensor
    ) -> tf.Tensor:
        """Codes `[b, columns]`, rows `[b, apps]`, `[b, k]`, codes `[b, k, columns]` -> `[b, k]`."""
        codes = tf.gather(self.app_codes, rows)
        logits = tf.fill(tf.shape(rows), self.bias)
        for part in (self.wide, self.deep):
            if part is not None:
                logits += part(request, history, codes, impression)
        return logits

    def loss(self, batch: Mapping[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """batch: request, history, app, impression as in `logits`, label `[b, k]` (-1: no app)."""
        logits = self.logits(batch["request"], batch["history"], batch["app"], batch["impression"])
        label = tf.cast(batch["label"], tf.float32)
        shown = tf.cast(batch["label"] >= 0, tf.float32)
        losses = tf.nn.sigmoid_cross_entropy_with_logits(label * shown, logits)
        return tf.reduce_sum(losses * shown), tf.reduce_sum(shown)

    def optimizers(self) -> list[tuple[Any, list[tf.Variable]]]:
        s = self.settings
        legacy = tf_keras.optimizers.legacy
        groups: list[tuple[Any, list[tf.Variable]]] = []
        deep = [self.bias]
        if self.wide is not None:
            ftrl = legacy.Ftrl(
                s.wide_rate,
                initial_accumulator_value=s.accumulator,
                l1_regularization_strength=s.wide_l1,
            )
            groups.append((ftrl, [self.wide.weights]))
        if self.deep is not None:
            deep += list(self.deep.trainable_variables)
        return [
            *groups,
            (legacy.Adagrad(s.deep_rate, initial_accumulator_value=s.accumulator), deep),
        ]

    def export(self, directory: Path) -> None:
        """Save two signatures: `codes` by slate, and `raw`, one app a row, transform inside."""
        request_graph = TransformGraph(self.transform, [f.name for f in features.REQUEST])
        impression_graph = TransformGraph(self.transform, [f.name for f in features.IMPRESSION])

        @tf.function(
            input_signature=[
                tf.TensorSpec([None, self.request.width], tf.int32, "request"),
                tf.TensorSpec([None, features.HISTORY_LENGTH], tf.int32, "history"),
                tf.TensorSpec([None, None], tf.int32, "app"),
                tf.TensorSpec([None, None, self.impression.width], tf.int32, "impression"),
            ]
        )
        def codes(
            request: tf.Tensor, history: tf.Tensor, app: tf.Tensor, impression: tf.Tensor
        ) -> dict[str, tf.Tensor]:
            return {"logit": self.logits(request, history, app, impression)}

        @tf.function
        def raw(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
            history = rows_in_graph(self.app_ids, inputs["history"])
            rows = rows_in_graph(self.app_ids, inputs["app_id"])
            request = join_codes(request_graph(inputs))
            impression = join_codes(impression_graph(inputs))
            logits = self.logits(request, history, rows[:, None], impression[:, None])
            return {"probability": tf.sigmoid(logits[:, 0])}

        served = tf.Module()
        served.model, served.graphs = self, [request_graph, impression_graph]
        specs = {
            **request_graph.signature(),
            **impression_graph.signature(),
            "history": tf.TensorSpec([None, features.HISTORY_LENGTH], tf.int64, "history"),
            "app_id": tf.TensorSpec([None], tf.int64, "app_id"),
        }
        save_model(served, directory, {"codes": codes, "raw": raw.get_concrete_function(**specs)})


class Wide(tf.Module):
    """A weight for every code of the app and the impression, and for every declared cross."""

    def __init__(self, ranker: Ranker) -> None:
        super().__init__(name="wide")
        self.request, self.app = ranker.request, ranker.app
        self.app_codes = ranker.app_codes
        self.buckets = ranker.settings.wide_buckets
        self.weights = tf.Variable(np.zeros(self.buckets, np.float32), name="weights")

    def __call__(
        self, request: tf.Tensor, history: tf.Tensor, app: tf.Tensor, impression: tf.Tensor
    ) -> tf.Tensor:
        """-> `[b, k]`."""
        own = tf.concat([app, impression], axis=-1)
        hashed = [self._hash(len(features.CROSSES), tf.range(own.shape[-1]), own)]
        masks = [tf.ones_like(hashed[0], tf.float32)]
        last = history[:, : features.CROSS_HISTORY]
        history_codes = tf.gather(self.app_codes, last)  # [b, h, columns]
        for number, (left, right) in enumerate(features.CROSSES):
            right_code = app[:, :, self.app.first(right), None]  # [b, k, 1]
            if left.startswith("history:"):
                left_code = history_codes[:, :, self.app.first(left.removeprefix("history:"))]
                present = last > 0
            else:
                left_code = request[:, self.request.slices[left]]
                present = tf.ones_like(left_code, tf.bool)
                if left_code.shape[1] > 1:
                    present = left_code > 0
            hashed.append(self._hash(number, left_code[:, None, :], right_code))
            mask = tf.cast(present, tf.float32)[:, None, :]
            masks.append(tf.broadcast_to(mask, tf.shape(hashed[-1])))
        weights = tf.gather(self.weights, tf.concat(hashed, axis=-1))
        return tf.reduce_sum(weights * tf.concat(masks, axis=-1), axis=-1)

    def _hash(self, salt: int, *codes: tf.Tensor) -> tf.Tensor:
        return hash_tensorflow(self.buckets, salt, *codes)


class Deep(tf.Module):
    """Embeddings of all fields, then two hidden layers."""

    def __init__(self, ranker: Ranker) -> None:
        super().__init__(name="deep")
        s, seed = ranker.settings, ranker.settings.seed
        first, second = s.hidden
        self.app_codes = ranker.app_codes
        self.request_fields = FieldEmbedding(
            ranker.request, [f.name for f in features.REQUEST], s.field_dim, seed + 10
        )
        self.history = HistoryPooling(ranker.app, features.HISTORY_VIEW, s.field_dim, seed + 20)
        self.app_fields = FieldEmbedding(
            ranker.app, [f.name for f in features.APP], s.field_dim, seed + 40
        )
        self.impression_fields = FieldEmbedding(
            ranker.impression, [f.name for f in features.IMPRESSION], s.field_dim, seed + 60
        )
        user_width = self.request_fields.width + self.history.width
        app_width = self.app_fields.width
        self.user_half = Dense(user_width, first, seed + 70)
        self.app_half = Dense(app_width, first, seed + 71, bias=False)
        self.impression_half = Dense(self.impression_fields.width, first, seed + 72, bias=False)
        self.user_factor = Dense(user_width, s.product, seed + 73)
        self.app_factor = Dense(app_width, s.product, seed + 74)
        self.product_half = Dense(s.product, first, seed + 75, bias=False)
        self.second = Dense(first, second, seed + 76)
        self.out = Dense(second, 1, seed + 77, bias=False)

    def __call__(
        self, request: tf.Tensor, history: tf.Tensor, app: tf.Tensor, impression: tf.Tensor
    ) -> tf.Tensor:
        """-> `[b, k]`."""
        user = tf.concat([self.request_fields(request), self.history(history, self.app_codes)], 1)
        item = self.app_fields(app)
        product = self.user_factor(user)[:, None, :] * self.app_factor(item)
        hidden = tf.nn.relu(
            self.user_half(user)[:, None, :]
            + self.app_half(item)
            + self.impression_half(self.impression_fields(impression))
            + self.product_half(product)
        )
        return self.out(tf.nn.relu(self.second(hidden)))[:, :, 0]
