"""Tensors in JSON: they come back as they went, and what is none is refused in one line."""

import json
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from mlplatform.errors import InvalidArgument
from mlplatform.serving.json_tensors import MAX_DEPTH, array, values
from mlplatform.serving.signature import TensorSpec

WHOLE = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
DECIMAL = ["float16", "float32", "float64"]
SHAPES = npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
NUMBERS = st.sampled_from([*WHOLE, *DECIMAL, "bool"]).flatmap(
    lambda dtype: npst.arrays(
        dtype,
        SHAPES,
        elements=npst.from_dtype(np.dtype(dtype), allow_nan=False, allow_infinity=False),
    )
)
STRINGS = npst.arrays(object, SHAPES, elements=st.binary(max_size=5), fill=st.nothing())
DECIMALS = st.floats(allow_nan=False, allow_infinity=False)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | DECIMALS | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.just("b64") | st.text(max_size=2), inner, max_size=2)
    ),
    max_leaves=8,
)


def through_json(found: NDArray[Any], name: str = "x") -> NDArray[Any]:
    """What a client would read and send back."""
    text = json.dumps(values(name, found))
    dtype = "string" if found.dtype == object else found.dtype.name
    return array(name, msgspec.json.decode(text), TensorSpec(dtype, found.shape))


@given(NUMBERS)
def test_numbers_of_any_dtype_and_shape_survive_json_both_ways(found: NDArray[Any]) -> None:
    back = through_json(found)
    assert (back.dtype, back.shape) == (found.dtype, found.shape)
    assert back.tobytes() == found.tobytes()  # to the bit: the sign of zero too


@given(STRINGS, st.sampled_from(["x", "x_bytes"]))
def test_strings_of_any_bytes_and_shape_survive_json_both_ways(
    found: NDArray[Any], name: str
) -> None:
    back = through_json(found, name)
    assert (back.dtype, back.shape, back.tolist()) == (object, found.shape, found.tolist())


@given(JSON_VALUES, st.sampled_from([*WHOLE, *DECIMAL, "bool", "string", "complex64"]))
def test_any_json_is_a_tensor_or_refused_in_one_line(value: Any, dtype: str) -> None:
    try:
        found = array("x", value, TensorSpec(dtype, None))
    except InvalidArgument as error:
        assert "'x'" in str(error) and "\n" not in str(error)
    else:
        assert found.dtype == (object if dtype == "string" else dtype)


def test_a_list_of_lists_is_an_array_of_that_shape() -> None:
    found = array("x", [[1, 2, 3], [4, 5, 6]], TensorSpec("int32", (None, 3)))
    assert found.dtype == np.int32
    assert found.tolist() == [[1, 2, 3], [4, 5, 6]]


def test_a_value_without_a_list_is_a_scalar() -> None:
    assert array("x", 7.5, TensorSpec("float32", ())).shape == ()
    assert values("y", np.array(7.5, np.float32)) == 7.5


@pytest.mark.parametrize(
    ("value", "declared", "shape"),
    [
        ([], (None, 3), (0, 3)),
        ([[], []], (None, None, 4), (2, 0, 4)),
        ([], (None, None), (0, 0)),
        ([], None, (0,)),
    ],
)
def test_an_empty_list_takes_the_sizes_within_it_from_the_signature(
    value: list[Any], declared: tuple[int | None, ...] | None, shape: tuple[int, ...]
) -> None:
    assert array("x", value, TensorSpec("float32", declared)).shape == shape


def test_a_float_is_written_with_its_own_digits() -> None:
    assert json.dumps(values("y", np.array([0.2, 2.5, 3e38, 1e-5], np.float32))) == (
        "[0.2, 2.5, 3e+38, 1e-05]"
    )
    assert json.dumps(values("y", np.array([0.1], np.float16))) == "[0.1]"


@pytest.mark.parametrize("dtype", DECIMAL)
def test_what_is_not_finite_is_written_as_javascript_does(dtype: str) -> None:
    found = values("y", np.array([np.nan, np.inf, -np.inf], dtype))
    assert json.dumps(found) == "[NaN, Infinity, -Infinity]"


def test_bytes_are_written_in_base64_where_the_name_says_so_or_they_are_no_text() -> None:
    found = np.array([b"text", b"\xff\x00"], object)
    assert values("word", found) == ["text", {"b64": "/wA="}]
    assert values("word_bytes", found) == [{"b64": "dGV4dA=="}, {"b64": "/wA="}]


def test_text_and_base64_are_read_as_bytes() -> None:
    found = array("x", ["é", {"b64": "/wA="}], TensorSpec("string", (None,)))
    assert found.tolist() == [b"\xc3\xa9", b"\xff\x00"]


@pytest.mark.parametrize(
    ("value", "dtype", "told"),
    [
        ([1.0, "2"], "float32", "expected float32, got a string as value 1 of 2"),
        ([1, True], "int32", "expected int32, got a boolean as value 1 of 2"),
        ([1.5], "int64", "expected int64, got a decimal number as value 0 of 1"),
        ([1], "bool", "expected bool, got a whole number"),
        ([None], "float32", "got null"),
        ([1, [2]], "int32", "got a list as value 1 of 2"),
        ([{"b64": "AA=="}], "float32", "got an object"),
        ([[1, 2], [3]], "int32", "expected lists of one size, at most 16 deep; got sizes 1 to 2"),
        (128, "int8", "out of int8's range"),
        (-1, "uint64", "out of uint64's range"),
        (2**63, "int64", "out of int64's range"),
        (1e39, "float32", "out of float32's range"),
        (1e5, "float16", "out of float16's range"),
        (2**24 + 1, "float32", "without loss of precision"),
        (-(2**53) - 1, "float64", "without loss of precision"),
        (10**400, "float64", "without loss of precision"),
        ({"b64": "!"}, "string", "Unable to base64 decode"),
        ({"b64": "é"}, "string", "Unable to base64 decode"),
        ({"b64": 1}, "string", "expected an object"),
        ({"b64": "AA==", "c": 1}, "string", "expected an object"),
        (1, "complex64", "JSON has no form for complex64"),
    ],
)
def test_what_is_not_of_the_type_is_refused(value: Any, dtype: str, told: str) -> None:
    with pytest.raises(InvalidArgument, match="input 'x': ") as refused:
        array("x", value, TensorSpec(dtype, None))
    assert told in str(refused.value)


@pytest.mark.parametrize(("value", "dtype"), [(2**24, "float32"), (-(2**53), "float64")])
def test_the_largest_whole_number_that_a_float_tells_from_its_neighbours_is_taken(
    value: int, dtype: str
) -> None:
    assert int(array("x", value, TensorSpec(dtype, ()))) == value


def test_lists_are_nested_to_a_depth_and_no_further() -> None:
    value: Any = 1
    for _ in range(MAX_DEPTH):
        value = [value]
    assert array("x", value, TensorSpec("int32", None)).shape == (1,) * MAX_DEPTH
    with pytest.raises(InvalidArgument, match="at most 16 deep"):
        array("x", [value], TensorSpec("int32", None))


def test_an_output_that_json_has_no_form_for_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="output 'z': JSON has no form for complex64"):
        values("z", np.array([1j], np.complex64))
