"""The hash in numpy, in TensorFlow and in Python's integers; and ids of values."""

import mlplatform  # noqa: F401  # first: it sets what TensorFlow reads from the environment

# isort: split
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.training.runtime import tensorflow
from mlplatform.transform.hashing import hash_numpy, hash_tensorflow, hash_values
from tests.platform.transform.by_hand import INT_MAX, INT_MIN, bucket_of

INTS = st.integers(INT_MIN, INT_MAX) | st.sampled_from([INT_MIN, INT_MIN + 1, INT_MAX, 0, -1])


@settings(deadline=None, max_examples=60)
@given(
    values=st.lists(st.tuples(INTS, INTS), min_size=1, max_size=8),
    buckets=st.integers(1, 2**31 - 1),
    salt=st.integers(INT_MIN, INT_MAX),
)
def test_the_two_hashes_agree_on_any_integers(
    values: list[tuple[int, int]], buckets: int, salt: int
) -> None:
    tf = tensorflow()
    a, b = np.array(values, dtype=np.int64).T
    in_numpy = hash_numpy(buckets, salt, a, b)
    in_tensorflow = hash_tensorflow(buckets, salt, tf.constant(a), tf.constant(b)).numpy()
    assert in_numpy.dtype == in_tensorflow.dtype == np.int32
    expected = [bucket_of(buckets, salt, *pair) for pair in values]
    assert in_numpy.tolist() == in_tensorflow.tolist() == expected


def test_a_crossed_hash_broadcasts_alike() -> None:
    tf = tensorflow()
    a, b = np.arange(6, dtype=np.int64).reshape(2, 3), np.array([5, 6, 7], dtype=np.int32)
    in_numpy = hash_numpy(101, 3, a, b)
    in_tensorflow = hash_tensorflow(101, 3, tf.constant(a), tf.constant(b)).numpy()
    expected = [[bucket_of(101, 3, int(x), int(y)) for x, y in zip(r, b, strict=True)] for r in a]
    assert in_numpy.tolist() == in_tensorflow.tolist() == expected


def test_hashed_buckets_fill_evenly_and_differ_by_salt() -> None:
    ids = np.arange(100_000, dtype=np.int64)
    counts = np.bincount(hash_numpy(100, 1, ids), minlength=100)
    # Chi-squared with 99 degrees of freedom: beyond 170 with probability 1e-5.
    assert ((counts - 1000) ** 2 / 1000).sum() < 170
    assert np.mean(hash_numpy(100, 1, ids) == hash_numpy(100, 2, ids)) < 0.02


def test_ids_of_values_are_blake2b_and_never_change() -> None:
    # Expected: from the pseudocode of RFC 7693, typed in apart from any library.
    assert hash_values(["", "ü", "1"]).tolist() == [
        1302987713380520597,
        -5953534774083968421,
        2750519231791321455,
    ]
    assert hash_values([1, -7, INT_MIN, INT_MAX]).tolist() == [
        5926931043130427529,
        1378333047098339080,
        -8087249646291567122,
        7226193931657400541,
    ]


def test_an_integer_and_its_digits_have_different_ids() -> None:
    assert hash_values([1]).tolist() != hash_values(["1"]).tolist()


def test_no_values_have_no_ids() -> None:
    ids = hash_values([])
    assert ids.dtype == np.int64 and ids.tolist() == []
