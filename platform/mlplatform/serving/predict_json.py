"""Predict requests and their answers in JSON, in the two forms of TensorFlow Serving's REST API.

Enters: a request's body, and the inputs of the signature that it is for.  Leaves: arrays; and of
the arrays that came out, the answer's body.  Rows and columns: "instances" are rows, each with a
value or list of every input; "inputs" are the inputs, each with all rows.

A request is JSON as RFC 8259 has it, without NaN and Infinity.  An answer has them where the model
does: there is no other way to write them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from numpy.typing import NDArray

from mlplatform.errors import InvalidArgument
from mlplatform.serving.json_tensors import JSON_NAMES, array, is_binary, values
from mlplatform.serving.signature import DEFAULT_SIGNATURE, TensorSpec, listed, require_names

MAX_INSTANCES = 4096


@dataclass(frozen=True)
class Asked:
    """A predict request: by rows, `values` is a list; by columns, of whatever is in "inputs"."""

    signature_name: str
    by_row: bool
    values: Any


def parse(body: bytes) -> dict[str, Any]:
    """A body's JSON.

    Raises:
        InvalidArgument: it is no JSON, too deep, or no object.
    """
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidArgument(f"JSON Parse error: {error}") from None
    if not isinstance(document, dict):
        raise InvalidArgument(f"JSON: expected an object, got {JSON_NAMES[type(document)]}")
    return document


def signature_name(document: Mapping[str, Any]) -> str:
    """
    Raises:
        InvalidArgument: it is no string.
    """
    name = document.get("signature_name", DEFAULT_SIGNATURE)
    if not isinstance(name, str):
        raise InvalidArgument("'signature_name' key must be a string value.")
    return name


def read(body: bytes) -> Asked:
    """What a predict request asks.

    Raises:
        InvalidArgument: it is not JSON, or of neither form.
    """
    document = parse(body)
    forms = [form for form in ("instances", "inputs") if form in document]
    if not forms:
        raise InvalidArgument("Missing 'inputs' or 'instances' key")
    if len(forms) > 1:
        raise InvalidArgument("expecting only one of 'inputs' or 'instances' keys to exist")
    (form,) = forms
    return Asked(signature_name(document), form == "instances", document[form])


def arrays(asked: Asked, inputs: Mapping[str, TensorSpec]) -> dict[str, NDArray[Any]]:
    """The inputs of a signature.

    Raises:
        InvalidArgument: they are not the signature's, or not of its types, or lists are ragged.
    """
    columns = (_columns_of_rows if asked.by_row else _columns)(asked.values, inputs)
    return {name: array(name, column, inputs[name]) for name, column in columns.items()}


def write(outputs: Mapping[str, NDArray[Any]], *, by_row: bool) -> bytes:
    """An answer's body, in the form of the request.

    Raises:
        InvalidArgument: the outputs have no rows that could be written one by one, or a type that
            JSON has no form for.
    """
    columns = {name: values(name, found) for name, found in outputs.items()}
    if not by_row:
        value = columns if len(columns) != 1 else next(iter(columns.values()))
        return json.dumps({"outputs": value}, ensure_ascii=False).encode()
    sizes = {found.shape[:1] for found in outputs.values()}
    if len(sizes) != 1 or () in sizes:
        raise InvalidArgument(
            f"outputs {listed(outputs)}: they have not one and the same number of rows; ask with "
            "'inputs' in place of 'instances'"
        )
    if len(columns) == 1:
        (rows,) = columns.values()
    else:
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return json.dumps({"predictions": rows}, ensure_ascii=False).encode()


def _columns_of_rows(rows: Any, inputs: Mapping[str, TensorSpec]) -> dict[str, Any]:
    if not isinstance(rows, list) or not 0 < len(rows) <= MAX_INSTANCES:
        raise InvalidArgument(f"Expecting 'instances' to be a list of 1 to {MAX_INSTANCES} values")
    if not _is_object(rows[0]):
        return _single(rows, inputs)
    for at, row in enumerate(rows):
        if not _is_object(row) or row.keys() != inputs.keys():
            raise InvalidArgument(
                f"Failed to process element: {at} of 'instances' list. JSON object: keys must be "
                f"equal to: {','.join(inputs)}"
            )
    return {name: [row[name] for row in rows] for name in inputs}


def _columns(value: Any, inputs: Mapping[str, TensorSpec]) -> dict[str, Any]:
    if not _is_object(value):
        return _single(value, inputs)
    require_names(inputs, value)
    return dict(value)


def _single(value: Any, inputs: Mapping[str, TensorSpec]) -> dict[str, Any]:
    if len(inputs) != 1:
        raise InvalidArgument(
            f"expected objects with the inputs {listed(inputs)}, got a plain value or list"
        )
    return dict.fromkeys(inputs, value)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) and not is_binary(value)
