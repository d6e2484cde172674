"""Float32 numbers near zero, made 0 alike in numpy and in TensorFlow.

TensorFlow's threads take subnormal numbers as 0, and processors differ in which results of
arithmetic they still round up to normal ones.  So both sides make 0 of whatever is nearer to it
than `NEAR_ZERO`, before they compare and after they compute.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import tensorflow as tf

NEAR_ZERO = 2.0**-125  # twice the smallest normal float32


def flush_numpy(numbers: NDArray[np.float32]) -> NDArray[np.float32]:
    """`[…] float32 -> […] float32`; NaN stays."""
    return np.where(np.abs(numbers) < np.float32(NEAR_ZERO), np.float32(0), numbers)


def flush_tensorflow(numbers: "tf.Tensor") -> "tf.Tensor":
    """The same as `flush_numpy`, on tensors."""
    import tensorflow as tf

    return tf.where(tf.abs(numbers) < NEAR_ZERO, tf.zeros_like(numbers), numbers)
