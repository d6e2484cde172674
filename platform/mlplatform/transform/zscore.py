"""Z-scores: one formula in numpy and in TensorFlow, equal to the bit.

Enters: float32 values and the `Scale` of their feature.  Leaves: (value - mean) * scale in float32,
every step rounded to nearest and 0 where it is near zero.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from mlplatform.transform.near_zero import flush_numpy, flush_tensorflow

if TYPE_CHECKING:
    import tensorflow as tf


@dataclass(frozen=True)
class Scale:
    """Two numbers that float32 holds exactly; a scale of 0 makes every value 0."""

    mean: float
    scale: float

    @classmethod
    def of(cls, mean: float, deviation: float) -> Self:
        """Rounded to float32; the scale, which is 0 for no deviation, kept among normal numbers."""
        limits = np.finfo(np.float32)
        scale = np.clip(1 / deviation, limits.tiny, limits.max) if deviation else 0.0
        return cls(float(flush_numpy(np.array(mean, np.float32))), float(np.float32(scale)))


def standardize_numpy(numbers: NDArray[np.float32], scale: Scale) -> NDArray[np.float32]:
    """`[…] float32 -> […] float32`; a result beyond float32 is infinite."""
    if not scale.scale:
        return np.zeros_like(numbers)
    with np.errstate(over="ignore", under="ignore"):
        distance = flush_numpy(flush_numpy(numbers) - np.float32(scale.mean))
        return flush_numpy(distance * np.float32(scale.scale))


def standardize_tensorflow(numbers: "tf.Tensor", scale: Scale) -> "tf.Tensor":
    """The same as `standardize_numpy`, on tensors."""
    import tensorflow as tf

    if not scale.scale:
        return tf.zeros_like(numbers)
    distance = flush_tensorflow(flush_tensorflow(numbers) - scale.mean)
    return flush_tensorflow(distance * scale.scale)
