"""A small network over embeddings of all fields: the deep part alone.

Trained with AdaGrad.  The first layer is a user half, an app half and a product of both, so serving
can compute the app half ahead (Cheng et al., Wide & Deep, 2016, section 3.2).  The place in the
list is added beside the network, not put into it: it tells whether an app was looked at, and a
network that mixes it with what the app is learns the log's ranker too (Zhao et al., Recommending
What Video to Watch Next, RecSys 2019, section 4.3).
"""

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import tensorflow as tf
import tf_keras
from numpy.typing import NDArray

from recsys import features
from recsys.models.layers import Dense, FieldEmbedding, HistoryPooling, user_layer
from recsys.models.serving.ranker import ServedDeep

if TYPE_CHECKING:
    from recsys.models.ranking import Ranker

EMBED_BATCH = 16_384


class Deep(tf.Module):
    """Embeddings of all fields, then two hidden layers."""

    hashes: ClassVar[dict[str, str]] = {}

    def __init__(self, ranker: "Ranker") -> None:
        super().__init__(name="deep")
        s, seed = ranker.settings, ranker.settings.seed
        self.settings = s
        first, second = s.hidden
        self.app_codes = ranker.app_codes
        self.request_fields = FieldEmbedding(
            ranker.request, [f.name for f in features.REQUEST], s.field_dim, seed + 10
        )
        self.history = HistoryPooling(ranker.app, features.HISTORY_VIEW, s.field_dim, seed + 20)
        self.app_fields = FieldEmbedding(
            ranker.app, [f.name for f in features.APP], s.field_dim, seed + 40
        )
        served = [f.name for f in features.IMPRESSION if not f.training_only]
        self.impression_fields = FieldEmbedding(ranker.impression, served, s.field_dim, seed + 60)
        place = [f.name for f in features.IMPRESSION if f.training_only]
        self.place = FieldEmbedding(ranker.impression, place, 1, seed + 61)
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
        wanted = self.out(tf.nn.relu(self.second(hidden)))
        return tf.reduce_sum(wanted + self.place(impression), axis=-1)

    def served(self) -> ServedDeep:
        """Both halves and factors side by side, those of the apps worked out for every app."""
        impression, impression_offsets = self.impression_fields.folded(
            self.impression_half.kernel.numpy()
        )
        place, place_offsets = self.place.folded(np.ones((self.place.width, 1)))
        return ServedDeep(
            user=user_layer(self.request_fields, self.history, self.user_half, self.user_factor),
            app=self._embed_apps(),
            impression=impression,
            impression_offsets=impression_offsets,
            impression_columns=self.impression_fields.columns,
            place=place[:, 0],
            place_offsets=place_offsets,
            place_columns=self.place.columns,
            product=self.product_half.kernel.numpy(),
            kernel=self.second.kernel.numpy(),
            bias=self.second.bias.numpy(),
            out=self.out.kernel.numpy()[:, 0],
        )

    def _embed_apps(self) -> NDArray[np.float32]:
        """Every app's half and factor, `[apps + 1, first + product]`."""

        @tf.function(input_signature=[tf.TensorSpec([None], tf.int32)])
        def embed(rows: tf.Tensor) -> tf.Tensor:
            item = self.app_fields(tf.gather(self.app_codes, rows))
            return tf.concat([self.app_half(item), self.app_factor(item)], axis=1)

        n = int(self.app_codes.shape[0])
        return np.concatenate(
            [
                embed(tf.range(start, min(start + EMBED_BATCH, n))).numpy()
                for start in range(0, n, EMBED_BATCH)
            ]
        )

    def optimizer(self) -> Any:
        s = self.settings
        return tf_keras.optimizers.legacy.Adagrad(
            s.deep_rate, initial_accumulator_value=s.accumulator
        )


PARTS = (Deep,)
