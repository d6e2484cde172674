"""Numbers that are written as strings.

Enters: strings.  Leaves: the numbers, or None as soon as one string is none.  Blanks and
underscores, which Python allows in numbers, are refused: files of numbers do not have them.
"""

import re
from collections.abc import Iterable

_INTEGER = re.compile(r"[+-]?[0-9]+")
_FLOAT = re.compile(
    r"[+-]?(([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|inf|infinity|nan)", re.IGNORECASE
)
_INT64 = range(-(2**63), 2**63)


def as_integers(strings: Iterable[str]) -> list[int] | None:
    """The integers of 64 bits that `strings` are."""
    numbers = []
    for string in strings:
        # int() refuses strings of thousands of digits, and those are none of 64 bits anyway.
        if len(string) > 100 or not _INTEGER.fullmatch(string) or int(string) not in _INT64:
            return None
        numbers.append(int(string))
    return numbers


def as_floats(strings: Iterable[str]) -> list[float] | None:
    """The numbers that `strings` are, NaN and infinities among them."""
    numbers = []
    for string in strings:
        if not _FLOAT.fullmatch(string):
            return None
        numbers.append(float(string))
    return numbers
