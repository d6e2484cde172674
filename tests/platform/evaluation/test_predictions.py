"""Hashes of keys: the same key always has one, two keys have two."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlplatform.errors import InvalidArgument
from mlplatform.evaluation.predictions import hash_keys

TEXTS = st.lists(st.text(max_size=12), min_size=1, max_size=30)


@given(texts=TEXTS, start=st.integers(0, 5))
def test_strings_have_one_hash_each_however_they_are_stored(texts: list[str], start: int) -> None:
    array = pa.array(texts)
    found = hash_keys(array, "x").tolist()
    assert len(set(found)) == len(set(texts))
    assert dict(zip(texts, found, strict=True)) == dict(zip(texts[::-1], found[::-1], strict=True))
    assert hash_keys(array[start:], "x").tolist() == found[start:]
    for other in (
        array.dictionary_encode(),
        array.cast(pa.large_string()),
        array.cast(pa.binary()),
    ):
        assert hash_keys(other, "x").tolist() == found


@given(numbers=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1))
def test_integers_have_one_hash_each(numbers: list[int]) -> None:
    found = hash_keys(pa.array(numbers, pa.int64()), "x")
    assert len(set(found.tolist())) == len(set(numbers))


def test_the_width_of_an_integer_does_not_matter() -> None:
    wide = hash_keys(pa.array([-1, 0, 127], pa.int64()), "x").tolist()
    assert hash_keys(pa.array([-1, 0, 127], pa.int8()), "x").tolist() == wide
    assert (
        hash_keys(pa.array([False, True]), "x").tolist()
        == hash_keys(pa.array([0, 1]), "x").tolist()
    )


def test_the_first_bits_spread_keys_evenly() -> None:
    for keys in (pa.array(np.arange(25_600)), pa.array([f"user-{n}" for n in range(25_600)])):
        counts = np.bincount(hash_keys(keys, "x") >> np.uint64(56), minlength=256)
        # Chi-square of 255 degrees of freedom: its mean plus or minus five standard deviations.
        assert 142 < ((counts - 100) ** 2 / 100).sum() < 368


def test_other_keys_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="here: expected strings or integers, got double"):
        hash_keys(pa.array([1.5]), "here")
