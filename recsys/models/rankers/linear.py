"""Linear in the app's values and in crosses: the wide part alone.

Trained with FTRL and L1, which keeps most weights at zero (McMahan et al., Ad Click Prediction: a
View from the Trenches, KDD 2013; Cheng et al., Wide & Deep, 2016, section 3.1).
"""

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import tensorflow as tf
import tf_keras

from mlplatform.transform.hashing import hash_tensorflow
from recsys import features
from recsys.models.layers import StableIds, salt_of

if TYPE_CHECKING:
    from recsys.models.ranking import Ranker


class Wide(tf.Module):
    """A weight for every value of the app and the impression, and for every declared cross.

    They share one table, addressed by a hash of what the weight belongs to and of stable ids: a
    weight follows its key while vocabularies change and crosses come and go.
    """

    crosses: ClassVar[tuple[tuple[str, str], ...]] = features.CROSSES
    hashes: ClassVar[dict[str, str]] = {"weights": "the name of a column or a cross, stable ids"}

    def __init__(self, ranker: "Ranker") -> None:
        super().__init__(name="wide")
        self.settings = ranker.settings
        self.request, self.app = ranker.request, ranker.app
        self.app_codes = ranker.app_codes
        self.buckets = ranker.settings.wide_buckets
        self.request_ids, self.app_ids, self.impression_ids = (
            StableIds(columns, ranker.transform)
            for columns in (ranker.request, ranker.app, ranker.impression)
        )
        self.weights = tf.Variable(np.zeros(self.buckets, np.float32), name="weights")

    def __call__(
        self, request: tf.Tensor, history: tf.Tensor, app: tf.Tensor, impression: tf.Tensor
    ) -> tf.Tensor:
        """-> `[b, k]`."""
        request, app = self.request_ids(request), self.app_ids(app)
        own = tf.concat([app, self.impression_ids(impression)], axis=-1)
        salts = np.concatenate([self.app_ids.salts, self.impression_ids.salts])
        hashed = [hash_tensorflow(self.buckets, 0, salts, own)]
        masks = [tf.ones_like(hashed[0], tf.float32)]
        last = history[:, : features.CROSS_HISTORY]
        past = self.app_ids(tf.gather(self.app_codes, last))  # [b, h, columns]
        for left, right in self.crosses:
            right_id = app[:, :, self.app.first(right), None]  # [b, k, 1]
            if left.startswith("history:"):
                left_id = past[:, :, self.app.first(left.removeprefix("history:"))]
                present = last > 0
            else:
                left_id = request[:, self.request.slices[left]]
                present = tf.ones_like(left_id, tf.bool)
                if left_id.shape[1] > 1:
                    present = left_id != 0  # the id of a missing value
            salt = salt_of(f"{left} x {right}")
            hashed.append(hash_tensorflow(self.buckets, salt, left_id[:, None, :], right_id))
            mask = tf.cast(present, tf.float32)[:, None, :]
            masks.append(tf.broadcast_to(mask, tf.shape(hashed[-1])))
        weights = tf.gather(self.weights, tf.concat(hashed, axis=-1))
        return tf.reduce_sum(weights * tf.concat(masks, axis=-1), axis=-1)

    def optimizer(self) -> Any:
        s = self.settings
        return tf_keras.optimizers.legacy.Ftrl(
            s.wide_rate,
            initial_accumulator_value=s.accumulator,
            l1_regularization_strength=s.wide_l1,
        )


PARTS = (Wide,)
