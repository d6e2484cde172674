"""Which strings are numbers."""

import math

import pytest

from mlplatform.data.schemas.numbers_in_text import as_floats, as_integers


def test_integers_of_64_bits() -> None:
    strings = ["0", "+7", "-007", "9223372036854775807", "-9223372036854775808"]
    assert as_integers(strings) == [0, 7, -7, 2**63 - 1, -(2**63)]
    assert as_integers([]) == []


@pytest.mark.parametrize(
    "string",
    ["", " 1", "1\n", "1_0", "1.0", "1e3", "\u0663", "--1", "9223372036854775808", "9" * 5_000],
)
def test_strings_that_are_no_integers(string: str) -> None:
    assert as_integers(["1", string]) is None


def test_floats() -> None:
    assert as_floats(["1", "-2.5", ".5", "3.", "1e-3", "INF", "-Infinity"]) == [
        1.0,
        -2.5,
        0.5,
        3.0,
        0.001,
        math.inf,
        -math.inf,
    ]
    (nan,) = as_floats(["NaN"]) or ()
    assert math.isnan(nan)


@pytest.mark.parametrize("string", ["", ".", "1e", " 1", "1_0", "$4.99", "0x1", "1,5", "\u0663"])
def test_strings_that_are_no_floats(string: str) -> None:
    assert as_floats(["1", string]) is None
