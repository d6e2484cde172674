"""Retrieval: two towers whose dot product says which apps a user will install next.

Enters: codes of requests, rows of the app table.  Leaves: vectors `[batch, dim] float32` of one
space, apps' and queries'.

The loss is the sampled softmax of tensorflow-recommenders' Retrieval task over the batch's own
apps and some drawn from the whole catalogue, with the log of their sampling probability taken off
(Yi et al., Sampling-Bias-Corrected Neural Modeling, RecSys 2019; Yang et al., Mixed Negative
Sampling, WWW 2020).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs
import tf_keras
from numpy.typing import NDArray

from mlplatform.training.export import save_model
from mlplatform.training.warm_start import Rows
from mlplatform.transform.graph import TransformGraph
from mlplatform.transform.transform import Transform
from recsys import features
from recsys.apps import AppTable
from recsys.columns import Columns
from recsys.models.layers import Dense, FieldEmbedding, HistoryPooling, rows_of, user_layer
from recsys.models.serving.files import SERVED, save_arrays
from recsys.models.serving.user import ServedQuery

EMBED_BATCH = 16_384


@dataclass(frozen=True)
class TowerSettings:
    """Sizes and rates of the two towers."""

    dim: int = 64
    field_dim: int = 16
    hidden: int = 128
    learning_rate: float = 0.02
    accumulator: float = 1.0
    seed: int = 0


class TwoTower(tf.Module):
    """Both towers, sharing the app table; `loss` and `optimizers` are the trainer's contract."""

    def __init__(self, transform: Transform, apps: AppTable, settings: TowerSettings) -> None:
        super().__init__(name="two_tower")
        request = Columns.of(transform, features.REQUEST)
        app = Columns.of(transform, features.APP)
        s, seed = settings, settings.seed
        self.transform = transform
        self.settings = settings
        self.app_ids = tf.Variable(apps.ids, trainable=False, name="app_ids")
        self.app_codes = tf.Variable(apps.codes, trainable=False, name="app_codes")

        self.request_fields = FieldEmbedding(
            request, [f.name for f in features.REQUEST], s.field_dim, seed + 10
        )
        self.history = HistoryPooling(app, features.HISTORY_VIEW, s.field_dim, seed + 20)
        self.query_hidden = Dense(
            self.request_fields.width + self.history.width, s.hidden, seed + 30
        )
        self.query_out = Dense(s.hidden, s.dim, seed + 31)

        self.app_fields = FieldEmbedding(
            app, [f.name for f in features.APP], s.field_dim, seed + 40
        )
        self.app_hidden = Dense(self.app_fields.width, s.hidden, seed + 50)
        self.app_out = Dense(s.hidden, s.dim, seed + 51)
        self.task = tfrs.tasks.Retrieval(
            remove_accidental_hits=True,
        )

    def query(self, request: tf.Tensor, history: tf.Tensor) -> tf.Tensor:
        """`request [batch, columns]` codes, `history [batch, apps]` rows -> `[batch, dim]`."""
        x = tf.concat([self.request_fields(request), self.history(history, self.app_codes)], axis=1)
        return self.query_out(tf.nn.relu(self.query_hidden(x)))

    def app(self, rows: tf.Tensor) -> tf.Tensor:
        """Rows of the app table `[batch]` -> `[batch, dim]`."""
        x = self.app_fields(tf.gather(self.app_codes, rows))
        return self.app_out(tf.nn.relu(self.app_hidden(x)))

    def loss(self, batch: Mapping[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """batch: request, history, app `[batch]`, negatives `[n]`, probability `[batch + n]`."""
        candidates = tf.concat([batch["app"], batch["negatives"]], axis=0)
        total = self.task(
            self.query(batch["request"], batch["history"]),
            self.app(candidates),
            candidate_sampling_probability=batch["probability"],
            candidate_ids=candidates,
            compute_metrics=False,
            compute_batch_metrics=False,
        )
        return total, tf.shape(batch["app"])[0]

    def optimizers(self) -> list[tuple[Any, list[tf.Variable]]]:
        adagrad = tf_keras.optimizers.legacy.Adagrad(
            self.settings.learning_rate, initial_accumulator_value=self.settings.accumulator
        )
        return [(adagrad, list(self.trainable_variables))]

    def rows(self) -> Rows:
        """What the rows of its tables stand for."""
        return rows_of(self, self.transform, {})

    def embed_apps(self) -> NDArray[np.float32]:
        """Vectors of all apps, `[apps, dim]`, in the order of their ids."""
        embed = tf.function(self.app, input_signature=[tf.TensorSpec([None], tf.int32)])
        n = int(self.app_ids.shape[0])
        return np.concatenate(
            [
                embed(tf.range(start, min(start + EMBED_BATCH, n + 1))).numpy()
                for start in range(1, n + 1, EMBED_BATCH)
            ]
        )

    def served(self) -> ServedQuery:
        """The query tower as it serves."""
        user = user_layer(self.request_fields, self.history, self.query_hidden)
        out = self.query_out
        return ServedQuery(user, out.kernel.numpy(), out.bias.numpy())

    def export(self, directory: Path) -> None:
        """Save the query tower with two signatures: `codes`, and `raw`, which transforms first.

        Beside it, in `SERVED`, what serves for `codes`.
        """
        graph = TransformGraph(self.transform, [f.name for f in features.REQUEST])

        @tf.function(
            input_signature=[
                tf.TensorSpec([None, self.request_fields.offsets.size], tf.int32, "request"),
                tf.TensorSpec([None, features.HISTORY_LENGTH], tf.int32, "history"),
            ]
        )
        def codes(request: tf.Tensor, history: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"vector": self.query(request, history)}

        history_spec = tf.TensorSpec([None, features.HISTORY_LENGTH], tf.int64, "history")

        @tf.function
        def raw(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
            history = rows_in_graph(self.app_ids, inputs.pop("history"))
            return {"vector": self.query(join_codes(graph(inputs)), history)}

        served = tf.Module()
        served.model, served.graph = self, graph
        raw_of = raw.get_concrete_function(**graph.signature(), history=history_spec)
        save_model(served, directory, {"codes": codes, "raw": raw_of})
        save_arrays(self.served(), directory / SERVED)


def rows_in_graph(app_ids: tf.Variable, ids: tf.Tensor) -> tf.Tensor:
    """`AppTable.rows_of`, on tensors."""
    flat = tf.reshape(ids, [-1])
    at = tf.minimum(tf.searchsorted(app_ids, flat), tf.size(app_ids) - 1)
    rows = tf.where(tf.gather(app_ids, at) == flat, at + 1, 0)
    return tf.reshape(rows, tf.shape(ids))


def join_codes(codes: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """Codes by feature -> one matrix, as `Columns` lays it out."""
    columns: Sequence[tf.Tensor] = [
        tensor if len(tensor.shape) == 2 else tensor[:, None] for tensor in codes.values()
    ]
    return tf.concat(columns, axis=1)
