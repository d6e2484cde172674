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
from recsys.models.serving.kernels import COLUMN, HISTORY, LISTED
from recsys.models.serving.ranker import ServedWide, weights_of

if TYPE_CHECKING:
    from recsys.models.ranking import Ranker

FEW_CODES = 4096  # as many sums of weights a server keeps for each right side of a cross
PAST = "history:"


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
            if left.startswith(PAST):
                left_id = past[:, :, self.app.first(left.removeprefix(PAST))]
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

    def served(self) -> ServedWide:
        """The app's own weights added up for every app; every left side with what it meets."""
        weights, ids = self.weights.numpy(), self.app_ids
        rights = list(dict.fromkeys(self.app.first(right) for _, right in self.crosses))
        lefts = [
            (salt_of(f"{left} x {right}"), *read, rights.index(self.app.first(right)))
            for left, right in self.crosses
            for read in self._reads(left)
        ]
        salt, kind, column, meets = zip(*lefts, strict=True) if lefts else ((), (), (), ())
        sizes = [self.app.cardinality[right] for right in rights]
        return ServedWide(
            weights=weights,
            own=weights_of(weights, self.app_codes.numpy(), ids.table, ids.offsets, ids.salts),
            request_ids=self.request_ids.table,
            request_offsets=self.request_ids.offsets,
            app_ids=ids.table,
            app_offsets=ids.offsets,
            impression_ids=self.impression_ids.table,
            impression_offsets=self.impression_ids.offsets,
            impression_salts=self.impression_ids.salts,
            left_salt=np.array(salt, np.int64),
            left_kind=np.array(kind, np.int32),
            left_column=np.array(column, np.int32),
            left_right=np.array(meets, np.int32),
            right_column=np.array(rights, np.int32),
            right_codes=np.array([n if n <= FEW_CODES else 0 for n in sizes], np.int32),
            n_history=np.array(features.CROSS_HISTORY, np.int32),
        )

    def _reads(self, left: str) -> list[tuple[int, int]]:
        """How and in which columns the left side of a cross is read."""
        if left.startswith(PAST):
            return [(HISTORY, self.app.first(left.removeprefix(PAST)))]
        columns = range(self.request.width)[self.request.slices[left]]
        return [(COLUMN if len(columns) == 1 else LISTED, column) for column in columns]

    def optimizer(self) -> Any:
        s = self.settings
        return tf_keras.optimizers.legacy.Ftrl(
            s.wide_rate,
            initial_accumulator_value=s.accumulator,
            l1_regularization_strength=s.wide_l1,
        )


PARTS = (Wide,)
