"""The two formulas of z-scores, bit for bit, on any numbers and scales."""

import mlplatform  # noqa: F401  # first: it sets what TensorFlow reads from the environment

# isort: split

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.training.runtime import tensorflow
from mlplatform.transform.zscore import Scale, standardize_numpy, standardize_tensorflow
from tests.platform.transform.by_hand import FLOAT_MAX, float32

tf = tensorflow()
TINY = 2.0**-126
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


def test_scores_are_distances_from_the_mean_in_deviations() -> None:
    scale = Scale.of(5.0, 2.0)
    scores = standardize_numpy(np.array([5, 9, 2, 5.5], np.float32), scale)
    assert scores.dtype == np.float32
    assert scores.tolist() == [0.0, 2.0, -1.5, 0.25]


@pytest.mark.parametrize(
    ("mean", "deviation", "expected"),
    [
        (0.1, 3.0, (float(np.float32(0.1)), float(np.float32(1 / 3)))),
        (1e-40, 1.0, (0.0, 1.0)),
        (7.0, 0.0, (7.0, 0.0)),
        (0.0, 1e-60, (0.0, FLOAT_MAX)),
        (0.0, 3e38, (0.0, TINY)),
    ],
)
def test_a_scale_is_of_float32_and_never_subnormal_or_infinite(
    mean: float, deviation: float, expected: tuple[float, float]
) -> None:
    scale = Scale.of(mean, deviation)
    assert (scale.mean, scale.scale) == expected


def test_what_float32_cannot_hold_is_infinite_but_0_for_a_constant_feature() -> None:
    numbers = np.array([FLOAT_MAX, -FLOAT_MAX, np.inf], np.float32)
    for scale, expected in ((Scale(0.0, 2.0), [np.inf, -np.inf, np.inf]), (Scale(7, 0.0), [0] * 3)):
        assert standardize_numpy(numbers, scale).tolist() == expected
        assert standardize_tensorflow(tf.constant(numbers), scale).numpy().tolist() == expected


BITS = st.integers(0, 2**32 - 1)
EDGES = st.sampled_from([0x00800000, 0x007FFFFF, 0x01000000, 0x00FFFFFF, 1, 0, 0x7F7FFFFF])


@settings(deadline=None, max_examples=300)
@given(
    bits=st.lists(BITS | EDGES | EDGES.map(lambda n: n | 2**31), min_size=1, max_size=20),
    mean=FLOATS | st.sampled_from([0.0, 2.0**-124, -(2.0**-120)]),
    deviation=st.floats(0, 1e39, exclude_min=True) | st.sampled_from([1e-36, 1.0]),
)
def test_numpy_and_tensorflow_agree_on_any_float32(
    bits: list[int], mean: float, deviation: float
) -> None:
    numbers = np.array(bits, np.uint32).view(np.float32)
    numbers = numbers[~np.isnan(numbers)]
    scale = Scale.of(mean, deviation)
    # Distances around the smallest normal number, whose product with the scale is rounded there.
    close = np.float32(scale.mean) + np.array([1, -1, 3], np.float32) * np.float32(
        min(TINY / scale.scale, FLOAT_MAX / 4)
    )
    numbers = np.concatenate([numbers, close])
    in_numpy = standardize_numpy(numbers, scale)
    in_tensorflow = standardize_tensorflow(tf.constant(numbers), scale).numpy()
    assert in_numpy.tobytes() == in_tensorflow.tobytes()
    expected = [float32(float32(float32(n) - scale.mean) * scale.scale) for n in numbers]
    assert in_numpy.tobytes() == np.array(expected, np.float32).tobytes()
