"""What is near zero is 0 in numpy and in TensorFlow alike."""

import mlplatform  # noqa: F401  # first: it sets what TensorFlow reads from the environment

# isort: split
import numpy as np

from mlplatform.training.runtime import tensorflow
from mlplatform.transform.near_zero import NEAR_ZERO, flush_numpy, flush_tensorflow


def test_numbers_nearer_to_zero_than_the_limit_are_0_and_others_stay() -> None:
    limit = np.float32(NEAR_ZERO)
    near = [np.nextafter(limit, np.float32(0)), np.float32(2.0**-126), np.float32(2.0**-149)]
    numbers = np.array([*near, 0.0, limit, 1.0, np.inf], np.float32)
    both = np.concatenate([numbers, -numbers])
    expected = np.array([0, 0, 0, 0, 2.0**-125, 1, np.inf], np.float32)
    expected = np.concatenate([expected, np.where(expected == 0, expected, -expected)])
    assert flush_numpy(both).tobytes() == expected.tobytes()
    tf = tensorflow()
    assert flush_tensorflow(tf.constant(both)).numpy().tobytes() == expected.tobytes()
    assert np.isnan(flush_numpy(np.array([np.nan], np.float32))).all()
