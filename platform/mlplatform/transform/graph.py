"""The transform inside a TensorFlow graph, so that an exported model takes raw values.

Enters: dense raw tensors, missing values marked as in `feature.MISSING`.  Leaves: the codes that
`Transform.apply` gives for the same values, to the bit.
"""

from typing import Any

import tensorflow as tf

from mlplatform.transform.feature import MISSING, Feature, Hashed, Quantiles, Vocabulary
from mlplatform.transform.hashing import hash_tensorflow
from mlplatform.transform.transform import FIRST_OF_VOCABULARY, OUT_OF_VOCABULARY, Transform

DTYPES: dict[str, Any] = {"int64": tf.int64, "float32": tf.float32, "string": tf.string}


class TransformGraph(tf.Module):
    """Applies some features of a transform to raw tensors `[…]` or `[…, width]`."""

    def __init__(self, transform: Transform, names: list[str]) -> None:
        super().__init__(name="transform")
        self.transform = transform
        self.names = names
        self._tables: dict[str, Any] = {}
        for name in names:
            feature = transform.by_name[name]
            if isinstance(feature.transform, Vocabulary):
                self._tables[name] = _vocabulary_table(transform, feature)

    def signature(self) -> dict[str, tf.TensorSpec]:
        """One raw input a feature, `[batch]` or `[batch, width]`, under its column's name."""
        specs = {}
        for name in self.names:
            feature = self.transform.by_name[name]
            shape = [None] if feature.width == 1 else [None, feature.width]
            specs[feature.column] = tf.TensorSpec(shape, DTYPES[feature.dtype], feature.column)
        return specs

    def __call__(self, raw: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {name: self._codes(name, raw) for name in self.names}

    @tf.autograph.experimental.do_not_convert  # which does not know `match`
    def _codes(self, name: str, raw: dict[str, tf.Tensor]) -> tf.Tensor:
        feature = self.transform.by_name[name]
        values = raw[feature.column]
        missing = _is_missing(feature, values)
        if feature.default is not None:
            values = tf.where(missing, tf.constant(feature.default, values.dtype), values)
            missing = tf.zeros_like(missing)
        match feature.transform:
            case Vocabulary():
                codes = self._tables[name].lookup(values)
            case Quantiles():
                boundaries = tf.constant(self.transform.boundaries[name], tf.float32)
                numbers = tf.cast(values, tf.float32)
                flat = tf.searchsorted(boundaries, tf.reshape(numbers, [-1]), side="right")
                codes = 1 + tf.reshape(flat, tf.shape(numbers))
            case Hashed(buckets=buckets, salt=salt):
                codes = 1 + hash_tensorflow(buckets, salt, values)
            case None:
                raise AssertionError(f"feature {name!r} has no transform")
        return tf.where(missing, 0, codes)


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
