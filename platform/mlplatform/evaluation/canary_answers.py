"""What is wrong with a JSON answer: a place where it is not what was expected.

Enters: an answer's bytes, and the golden answer.  Leaves: nothing, or one line: where, what was
expected, what came.  Any JSON will do.
"""

import json
import math
from collections.abc import Iterator
from typing import Any

_KINDS = {dict: "an object", list: "a list", str: "text", bool: "true or false"}
_NUMBER = "a number"  # whole or not
_NOT_FINITE, _SHAPE, _VALUE = range(3)  # ranks of faults
_DOUBLE_DIGITS = 308  # a longer whole number is no double
_SHOWN = 60  # characters of a value


def fault_of(body: bytes, expected: Any, rtol: float, atol: float) -> str | None:
    """The worst fault of an answer, the first of its kind; None if it has none.

    It must be JSON of the expected shape: the same keys, lists as long.  Numbers must be finite
    and within `atol + rtol * |expected|`, except where both are whole: these are counts and keys,
    and a key that is near another is another.  All else must be equal.  A number that is not finite
    is worse than a wrong shape, which is worse than a wrong value: it is likely to be their cause.
    """
    try:
        answer = json.loads(body, parse_int=_whole)
    except (ValueError, RecursionError) as error:
        return f"expected JSON, got {_shown(body.decode(errors='replace'))} ({error})"
    found = min(_faults(answer, expected, rtol, atol, ""), key=lambda fault: fault[0], default=None)
    return found and found[1]


def _faults(
    answer: Any, expected: Any, rtol: float, atol: float, at: str
) -> Iterator[tuple[int, str]]:
    """Every fault with its rank, the worst have the lowest; no deeper than `expected`."""
    where = f"{at}: " if at else ""
    parts: list[tuple[str, Any, Any]] = []
    if _kind(answer) != _kind(expected):
        yield _SHAPE, f"{where}expected {_kind(expected)}, got {_shown(answer)}"
    elif isinstance(expected, dict):
        for key in sorted(expected.keys() - answer.keys()):
            yield _SHAPE, f"{where}expected the key {_shown(key)}, got an object without it"
        for key in sorted(answer.keys() - expected.keys()):
            yield _SHAPE, f"{where}expected no key {_shown(key)}, got one"
        both = [key for key in expected if key in answer]
        parts = [(f"{at}.{key}".lstrip("."), answer[key], expected[key]) for key in both]
    elif isinstance(expected, list):
        if len(answer) != len(expected):
            yield _SHAPE, f"{where}expected a list of {len(expected)}, got one of {len(answer)}"
        pairs = enumerate(zip(answer, expected, strict=False))
        parts = [(f"{at}[{place}]", a, e) for place, (a, e) in pairs]
    elif _kind(expected) == _NUMBER:
        if not math.isfinite(answer):
            yield _NOT_FINITE, f"{where}expected a finite number, got {_shown(answer)}"
        elif isinstance(answer, int) and isinstance(expected, int):
            if answer != expected:
                yield _VALUE, f"{where}expected {expected}, got {answer}"
        # Written so that an expected NaN, which compares false with everything, is a fault.
        elif not abs(answer - expected) <= (room := atol + rtol * abs(expected)):
            yield _VALUE, f"{where}expected {expected!r} give or take {room:.3g}, got {answer!r}"
    elif answer != expected:
        yield _VALUE, f"{where}expected {_shown(expected)}, got {_shown(answer)}"
    for place, a, e in parts:
        yield from _faults(a, e, rtol, atol, place)


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) <= _DOUBLE_DIGITS else float(digits)


def _kind(value: Any) -> str:
    return "null" if value is None else _KINDS.get(type(value), _NUMBER)


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
