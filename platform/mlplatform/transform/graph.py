"""The transform inside a TensorFlow graph, so that an exported model takes raw values.

Enters: dense raw tensors, missing values marked as in `feature.MISSING`.  Leaves: the codes and
z-scores that `Transform.apply` gives for the same values, to the bit.  Infinite numbers, which it
refuses, lie beyond all limits and have infinite z-scores.
"""

from typing import Any

import tensorflow as tf

from mlplatform.transform.feature import (
    FIRST_OF_VOCABULARY,
    MISSING,
    OUT_OF_VOCABULARY,
    Bucketize,
    Crossed,
    Feature,
    Hashed,
    Quantiles,
    Vocabulary,
    ZScore,
)
from mlplatform.transform.hashing import hash_tensorflow
from mlplatform.transform.near_zero import flush_tensorflow
from mlplatform.transform.transform import Transform
from mlplatform.transform.zscore import standardize_tensorflow

DTYPES: dict[str, Any] = {"int64": tf.int64, "float32": tf.float32, "string": tf.string}


class TransformGraph(tf.Module):
    """Applies some features of a transform to raw tensors `[…]` or `[…, width]`."""

    def __init__(self, transform: Transform, names: list[str]) -> None:
        super().__init__(name="transform")
        self.transform = transform
        self.names = names
        self._tables: dict[str, Any] = {
            feature.name: _vocabulary_table(transform, feature)
            for feature in transform.read_for(names)
            if isinstance(feature.transform, Vocabulary)
        }

    def signature(self) -> dict[str, tf.TensorSpec]:
        """One raw input a column that is read, `[batch]` or `[batch, width]`, under its name."""
        specs = {}
        for feature in self.transform.read_for(self.names):
            shape = [None] if feature.width == 1 else [None, feature.width]
            specs[feature.column] = tf.TensorSpec(shape, DTYPES[feature.dtype], feature.column)
        return specs

    def __call__(self, raw: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        read = {
            feature.name: self._read(feature, raw[feature.column])
            for feature in self.transform.read_for(self.names)
        }
        return {
            name: read[name] if name in read else self._cross(name, read) for name in self.names
        }

    @tf.autograph.experimental.do_not_convert  # which does not know `match`
    def _read(self, feature: Feature, values: tf.Tensor) -> tf.Tensor:
        missing = _is_missing(feature, values)
        if feature.default is not None:
            values = tf.where(missing, tf.constant(feature.default, values.dtype), values)
            missing = tf.zeros_like(missing)
        match feature.transform:
            case Vocabulary():
                codes = self._tables[feature.name].lookup(values)
            case Quantiles() | Bucketize():
                limits = tf.constant(self.transform.limits(feature), tf.float32)
                numbers = flush_tensorflow(tf.cast(values, tf.float32))
                flat = tf.searchsorted(limits, tf.reshape(numbers, [-1]), side="right")
                codes = 1 + tf.reshape(flat, tf.shape(numbers))
            case Hashed(buckets=buckets, salt=salt):
                codes = 1 + hash_tensorflow(buckets, salt, values)
            case ZScore():
                scale = self.transform.scales[feature.name]
                scores = standardize_tensorflow(tf.cast(values, tf.float32), scale)
                return tf.where(missing, tf.zeros_like(scores), scores)
            case _:
                raise AssertionError(f"feature {feature.name!r} has no transform")
        return tf.where(missing, 0, codes)

    def _cross(self, name: str, codes: dict[str, tf.Tensor]) -> tf.Tensor:
        cross = self.transform.by_name[name].transform
        assert isinstance(cross, Crossed)
        ids = []
        for part in cross.of:
            stable = codes[part]
            if part in self._tables:  # the others' codes are their ids
                stable = tf.gather(tf.constant(self.transform.stable_ids(part)), stable)
            ids.append(stable)
        return 1 + hash_tensorflow(cross.buckets, cross.salt, *ids)


def _is_missing(feature: Feature, values: tf.Tensor) -> tf.Tensor:
    if feature.dtype == "float32":
        return tf.math.is_nan(values)
    return tf.equal(values, tf.constant(MISSING[feature.dtype], values.dtype))


def _vocabulary_table(transform: Transform, feature: Feature) -> Any:
    values = transform.vocabulary(feature)
    # The marker stands there too: a table may not be empty, and what is missing is masked anyway.
    keys = tf.constant([MISSING[feature.dtype], *values], DTYPES[feature.dtype])
    codes = tf.concat([[0], tf.range(len(values)) + FIRST_OF_VOCABULARY], axis=0)
    initializer = tf.lookup.KeyValueTensorInitializer(keys, codes)
    return tf.lookup.StaticHashTable(initializer, default_value=OUT_OF_VOCABULARY)
