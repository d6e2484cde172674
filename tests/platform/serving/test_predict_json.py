"""Predict requests in JSON: rows and columns mean the same, and nothing but JSON is read."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlplatform.errors import InvalidArgument
from mlplatform.serving.predict_json import MAX_INSTANCES, arrays, read, write
from mlplatform.serving.signature import TensorSpec

ONE = {"x": TensorSpec("float32", (None,))}
# The example of TensorFlow Serving's documentation.
THREE = {
    "tag": TensorSpec("string", (None,)),
    "signal": TensorSpec("int32", (None, 5)),
    "sensor": TensorSpec("float32", (None, 2, 2)),
}
ROWS = [
    {"tag": "foo", "signal": [1, 2, 3, 4, 5], "sensor": [[1, 2], [3, 4]]},
    {"tag": "bar", "signal": [3, 4, 1, 2, 5], "sensor": [[4, 5], [6, 8]]},
]
COLUMNS = {
    "tag": ["foo", "bar"],
    "signal": [[1, 2, 3, 4, 5], [3, 4, 1, 2, 5]],
    "sensor": [[[1, 2], [3, 4]], [[4, 5], [6, 8]]],
}


def asked(signature: dict[str, TensorSpec], /, **document: Any) -> dict[str, Any]:
    found = arrays(read(json.dumps(document).encode()), signature)
    return {name: array.tolist() for name, array in found.items()}


def test_rows_and_columns_of_several_inputs_are_the_same_tensors() -> None:
    expected = {**COLUMNS, "tag": [b"foo", b"bar"]}
    assert asked(THREE, instances=ROWS) == expected
    assert asked(THREE, inputs=COLUMNS) == expected


@pytest.mark.parametrize(
    "document",
    [
        {"instances": [1.0, 2.0]},
        {"instances": [{"x": 1.0}, {"x": 2.0}]},
        {"inputs": [1.0, 2.0]},
        {"inputs": {"x": [1.0, 2.0]}},
    ],
)
def test_one_input_may_be_named_or_not(document: dict[str, Any]) -> None:
    assert asked(ONE, **document) == {"x": [1.0, 2.0]}


def test_base64_is_a_value_and_no_object_of_inputs() -> None:
    words = {"word": TensorSpec("string", (None,))}
    assert asked(words, instances=[{"b64": "/w=="}]) == {"word": [b"\xff"]}
    assert asked({"word": TensorSpec("string", ())}, inputs={"b64": "/w=="}) == {"word": b"\xff"}


def test_the_signature_is_the_named_one_else_the_default() -> None:
    assert read(b'{"inputs": 1, "signature_name": "other"}').signature_name == "other"
    assert read(b'{"inputs": 1}').signature_name == "serving_default"


@pytest.mark.parametrize(
    ("inputs", "document", "told"),
    [
        (ONE, {"instances": []}, "to be a list of 1 to 4096 values"),
        (ONE, {"instances": {"x": 1}}, "to be a list"),
        (ONE, {"instances": [0] * (MAX_INSTANCES + 1)}, "to be a list of 1 to 4096 values"),
        (ONE, {"instances": [{"x": 1}, {"y": 1}]}, "process element: 1 of 'instances'"),
        (ONE, {"instances": [{"x": 1}, 1]}, "process element: 1 of 'instances'"),
        (ONE, {"instances": [1, {"x": 1}]}, "got an object as value 1 of 2"),
        (ONE, {"instances": [{}]}, "must be equal to: x"),
        (THREE, {"instances": [1]}, "expected objects with the inputs {sensor,signal,tag}"),
        (THREE, {"inputs": [1]}, "expected objects with the inputs"),
        (ONE, {"inputs": {"y": 1}}, "Sent extra: {y}. Missing but required: {x}."),
        ({}, {"instances": [1]}, "expected objects with the inputs {}"),
    ],
)
def test_what_are_not_the_inputs_is_refused(
    inputs: dict[str, TensorSpec], document: dict[str, Any], told: str
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        asked(inputs, **document)
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "JSON Parse error"),
        (b"{", "JSON Parse error"),
        (b'{"instances": [NaN]}', "JSON Parse error"),
        (b'{"instances": [-Infinity]}', "JSON Parse error"),
        (b'{"instances": [1e999]}', "JSON Parse error"),
        (b'{"instances": ["\\ud800"]}', "JSON Parse error"),
        (b'{"instances": ["\\udc00 "]}', "JSON Parse error"),
        (b'{"instances": ["\xff"]}', "JSON Parse error"),
        (b'{"instances": ' + b"[" * 30_000 + b"]" * 30_000 + b"}", "JSON Parse error"),
        (b'{"instances": ' + b'{"a":' * 30_000 + b"1" + b"}" * 30_001, "JSON Parse error"),
        (b"[1]", "expected an object, got a list"),
        (b"{}", "Missing 'inputs' or 'instances' key"),
        (b'{"inputs": 1, "instances": [1]}', "only one of 'inputs' or 'instances'"),
        (b'{"inputs": 1, "signature_name": 100}', "'signature_name' key must be a string value."),
        (b'{"inputs": 1, "signature_name": null}', "'signature_name' key must be a string value."),
    ],
)
def test_what_is_no_request_is_refused(body: bytes, told: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        read(body)
    assert told in str(refused.value) and "\n" not in str(refused.value)


@given(st.binary() | st.binary().map(lambda inner: b'{"instances": ["' + inner + b'"]}'))
def test_any_bytes_are_a_request_or_refused(body: bytes) -> None:
    try:
        arrays(read(body), {"word": TensorSpec("string", (None,))})
    except InvalidArgument as error:
        assert "\n" not in str(error)


def test_one_output_is_written_without_its_name_and_several_with_theirs() -> None:
    y, z = np.array([1.5, 2.5], np.float32), np.array([[1], [2]])
    assert json.loads(write({"y": y}, by_row=True)) == {"predictions": [1.5, 2.5]}
    assert json.loads(write({"y": y}, by_row=False)) == {"outputs": [1.5, 2.5]}
    assert json.loads(write({"y": y, "z": z}, by_row=True)) == {
        "predictions": [{"y": 1.5, "z": [1]}, {"y": 2.5, "z": [2]}]
    }
    assert json.loads(write({"y": y, "z": z}, by_row=False)) == {
        "outputs": {"y": [1.5, 2.5], "z": [[1], [2]]}
    }


@pytest.mark.parametrize(
    "outputs",
    [
        {"y": np.array(1)},
        {"y": np.array([1]), "z": np.array([1, 2])},
        {"y": np.array([1]), "z": np.array(1)},
    ],
)
def test_outputs_without_common_rows_are_written_by_columns_only(outputs: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match="the same number of rows"):
        write(outputs, by_row=True)
    columns = {name: found.tolist() for name, found in outputs.items()}
    expected = columns if len(columns) > 1 else columns["y"]
    assert json.loads(write(outputs, by_row=False)) == {"outputs": expected}
