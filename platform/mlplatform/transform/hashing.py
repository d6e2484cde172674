"""The hash of integers, for hashed features and crosses: one formula in numpy and in TensorFlow.

It uses int64 multiplication that wraps around, xor and arithmetic shifts, which both libraries
define alike, so the two agree on every input.  Values of a vocabulary become integers by BLAKE2,
once for each vocabulary.
"""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import tensorflow as tf

FIRST_MULTIPLIER = -0x61C8864680B583EB  # the golden ratio in 64 bits, as a signed integer
SECOND_MULTIPLIER = -0x4B47D0C5A2C9E57B  # any odd number will do


def hash_numpy(buckets: int, salt: int, *values: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
    """Bucket in [0, buckets) of each tuple of the broadcast `values`, int32."""
    with np.errstate(over="ignore"):
        mixed = np.asarray(salt, dtype=np.int64)
        for value in values:
            mixed = (mixed ^ value.astype(np.int64)) * np.int64(FIRST_MULTIPLIER)
            mixed = mixed ^ (mixed >> 29)
            mixed = mixed * np.int64(SECOND_MULTIPLIER)
            mixed = mixed ^ (mixed >> 32)
    return np.mod(mixed, buckets).astype(np.int32)


def hash_tensorflow(buckets: int, salt: int, *values: "tf.Tensor") -> "tf.Tensor":
    """The same as `hash_numpy`, on tensors."""
    import tensorflow as tf

    mixed = tf.constant(salt, dtype=tf.int64)
    for value in values:
        mixed = tf.bitwise.bitwise_xor(mixed, tf.cast(value, tf.int64)) * FIRST_MULTIPLIER
        mixed = tf.bitwise.bitwise_xor(
            mixed, tf.bitwise.right_shift(mixed, tf.constant(29, tf.int64))
        )
        mixed = mixed * SECOND_MULTIPLIER
        mixed = tf.bitwise.bitwise_xor(
            mixed, tf.bitwise.right_shift(mixed, tf.constant(32, tf.int64))
        )
    return tf.cast(tf.math.floormod(mixed, buckets), tf.int32)


def hash_values(values: Sequence[int | str]) -> NDArray[np.int64]:
    """BLAKE2b of 64 bits (RFC 7693) of each value's UTF-8 or decimal digits, `[len(values)]`.

    The type takes part as BLAKE2's 'personal' string, so 1 and "1" differ.
    """
    digests = [
        hashlib.blake2b(
            str(value).encode(), digest_size=8, person=type(value).__name__.encode()
        ).digest()
        for value in values
    ]
    return np.frombuffer(b"".join(digests), "<i8").astype(np.int64)
