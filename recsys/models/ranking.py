"""Ranking: a model of whether a shown app is installed.

Enters: a request and its slate, `[requests, slate]` rows of the app table.  Leaves: logits of
the same shape.  Working by slate, the user's half is computed once a request.

A ranker is the sum of its family's parts, trained jointly, each by an optimizer of its own (Cheng
et al., Wide & Deep Learning for Recommender Systems, 2016).  The families are in `rankers/`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from mlplatform.training.export import save_model
from mlplatform.training.warm_start import Rows
from mlplatform.transform.graph import TransformGraph
from mlplatform.transform.transform import Transform
from recsys import features
from recsys.apps import AppTable
from recsys.columns import Columns
from recsys.models.layers import rows_of
from recsys.models.rankers import parts_of
from recsys.models.retrieval import join_codes, rows_in_graph
from recsys.models.serving.files import SERVED
from recsys.models.serving.ranker import ServedRanker


@dataclass(frozen=True)
class RankerSettings:
    """Sizes and rates; `kind` is the name of a family, a module of `rankers`."""

    kind: str = "wide_deep"
    field_dim: int = 8
    hidden: tuple[int, int] = (64, 32)
    product: int = 32
    wide_buckets: int = 1 << 20
    wide_rate: float = 0.05
    wide_l1: float = 3.0
    deep_rate: float = 0.1
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
        self.parts = {part.__name__.lower(): part(self) for part in parts_of(settings.kind)}

    def logits(
        self, request: tf.Tensor, history: tf.Tensor, rows: tf.Tensor, impression: tf.Tensor
    ) -> tf.Tensor:
        """Codes `[b, columns]`, rows `[b, apps]`, `[b, k]`, codes `[b, k, columns]` -> `[b, k]`."""
        codes = tf.gather(self.app_codes, rows)
        logits = tf.fill(tf.shape(rows), self.bias)
        for part in self.parts.values():
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
        bias = tf_keras.optimizers.legacy.Adagrad(
            s.deep_rate, initial_accumulator_value=s.accumulator
        )
        parts = [(part.optimizer(), list(part.trainable_variables)) for part in self.parts.values()]
        return [*parts, (bias, [self.bias])]

    def rows(self) -> Rows:
        """What the rows of its tables stand for."""
        hashes = {
            f"parts.{name}.{variable}": how
            for name, part in self.parts.items()
            for variable, how in part.hashes.items()
        }
        return rows_of(self, self.transform, hashes)

    def served(self) -> ServedRanker | None:
        """The ranker as it serves; None if a part does not say how."""
        forms: list[Any] = [getattr(part, "served", None) for part in self.parts.values()]
        if None in forms:
            return None
        return ServedRanker(float(self.bias.numpy()), tuple(form() for form in forms))

    def export(self, directory: Path) -> None:
        """Save two signatures: `codes` by slate, and `raw`, one app a row, transform inside.

        Beside it, in `SERVED`, what serves for `codes`, if every part says what that is.
        """
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
        fast = self.served()
        if fast is not None:
            fast.save(directory / SERVED)
