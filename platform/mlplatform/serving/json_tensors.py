"""A tensor in JSON: a value, or lists of lists of values.

Enters: JSON, parsed, and the tensor's dtype and shape as a signature has them.  Leaves: an array;
and of an array, what JSON writes.  A string that is no text is {"b64": its bytes}; of the outputs,
all strings of one named `..._bytes` are.  A float is written with the digits that tell it from its
neighbours in its own type, and so reads back as itself.

A list is taken level by level, each as a whole: nothing here recurses.
"""

import base64
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlplatform.errors import InvalidArgument
from mlplatform.serving.signature import TensorSpec

MAX_DEPTH = 16  # of lists in lists
_BINARY = "_bytes"  # ends the names of outputs that are no text
_WRITTEN: dict[str, set[type]] = {"b": {bool}, "i": {int}, "u": {int}, "f": {int, float}}
_NUMBERS = {"bool", "float16", "float32", "float64"} | {
    f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
}
JSON_NAMES = {
    bool: "a boolean",
    int: "a whole number",
    float: "a decimal number",
    str: "a string",
    dict: "an object",
    list: "a list",
    type(None): "null",
}


def array(name: str, value: Any, spec: TensorSpec) -> NDArray[Any]:
    """A value, or lists of lists of values, as an array; strings are bytes, in one of objects.

    An empty list takes the sizes within it from the signature, for it does not show them.

    Raises:
        InvalidArgument: the lists are ragged, or a value is not of the type.
    """
    if spec.dtype not in {"string", *_NUMBERS}:
        raise InvalidArgument(f"input {name!r}: JSON has no form for {spec.dtype}; ask over gRPC")
    shape: list[int] = []
    level = [value]
    while (kinds := set(map(type, level))) == {list}:
        sizes = set(map(len, level))
        if len(sizes) > 1 or len(shape) == MAX_DEPTH:
            raise InvalidArgument(
                f"input {name!r}: expected lists of one size, at most {MAX_DEPTH} deep; got sizes "
                f"{min(sizes)} to {max(sizes)} at level {len(shape)}"
            )
        shape.append(sizes.pop())
        level = list(chain.from_iterable(level))
    if not level and spec.shape is not None:
        shape += [size or 0 for size in spec.shape[len(shape) :]]
    convert = _strings if spec.dtype == "string" else _numbers
    return convert(f"input {name!r}", level, kinds, spec.dtype).reshape(shape)


def values(name: str, found: NDArray[Any]) -> Any:
    """A value, or lists of lists of values, that `json` can write.

    Raises:
        InvalidArgument: JSON has no form for the dtype.
    """
    if found.dtype == object:
        written = np.empty(found.size, object)
        written[:] = [_text(value, name.endswith(_BINARY)) for value in found.flat]
        return written.reshape(found.shape).tolist()
    if found.dtype.name not in _NUMBERS:
        raise InvalidArgument(f"output {name!r}: JSON has no form for {found.dtype}; ask over gRPC")
    if found.dtype in (np.float16, np.float32):
        found = found.astype(str).astype(np.float64)  # its own digits, not those of a double
    return found.tolist()


def is_binary(value: Any) -> bool:
    """Is it a string's bytes, and not an object of several values?"""
    return isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str)


def _numbers(where: str, values: list[Any], kinds: set[type], dtype_name: str) -> NDArray[Any]:
    dtype = np.dtype(dtype_name)
    _require_kinds(where, values, kinds, _WRITTEN[dtype.kind], dtype_name)
    try:
        if dtype.kind != "f":
            return np.array(values, dtype)
        whole = [value for value in values if type(value) is int]
        limit = 2 ** (np.finfo(dtype).nmant + 1)
        if whole and max(-min(whole), max(whole)) > limit:
            raise InvalidArgument(
                f"{where}: cannot convert whole numbers beyond {limit} to {dtype_name} without "
                "loss of precision"
            )
        exact = np.array(values, np.float64)
    except OverflowError:
        raise InvalidArgument(f"{where}: a number is out of {dtype_name}'s range") from None
    with np.errstate(over="ignore"):
        found = exact.astype(dtype)
    if not np.isfinite(found).all():
        raise InvalidArgument(f"{where}: a number is out of {dtype_name}'s range")
    return found


def _strings(where: str, values: list[Any], kinds: set[type], dtype_name: str) -> NDArray[Any]:
    _require_kinds(where, values, kinds, {str, dict}, dtype_name)
    found = np.empty(len(values), object)
    found[:] = [value.encode() if type(value) is str else _bytes(where, value) for value in values]
    return found


def _bytes(where: str, value: dict[str, Any]) -> bytes:
    if not is_binary(value):
        raise InvalidArgument(f'{where}: expected an object {{"b64": a string}}, got another one')
    try:
        return base64.b64decode(value["b64"], validate=True)
    except ValueError:
        raise InvalidArgument(f"{where}: Unable to base64 decode") from None


def _require_kinds(
    where: str, values: list[Any], kinds: set[type], expected: set[type], dtype_name: str
) -> None:
    if kinds - expected:
        at = next(at for at, value in enumerate(values) if type(value) not in expected)
        raise InvalidArgument(
            f"{where}: expected {dtype_name}, got {JSON_NAMES[type(values[at])]} as value {at} "
            f"of {len(values)}"
        )


def _text(value: bytes, is_binary: bool) -> str | dict[str, str]:
    if not is_binary:
        try:
            return value.decode()
        except UnicodeDecodeError:
            pass
    return {"b64": base64.b64encode(value).decode()}
