"""The encoder: the raw features of the few requests of one call to codes, in microseconds.

Enters: feature values by name, as JSON or the feature store gives them.  Leaves: `Requests`, equal
to the bit to what the transform makes of the same rows in a table, which costs a millisecond
whatever their number.

A value is coded by one lookup, made ready when the transform is known: in a dict of a vocabulary's
values, or among the limits of buckets.  The transform compares numbers as float32.  Rounding never
changes the order of two numbers, so instead of every value the limits are moved, once: to the least
number that rounding takes to the limit.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mlplatform.errors import InvalidArgument
from mlplatform.transform.feature import (
    FIRST_OF_VOCABULARY,
    MISSING,
    OUT_OF_VOCABULARY,
    Bucketize,
    Feature,
    Quantiles,
    Vocabulary,
)
from mlplatform.transform.near_zero import NEAR_ZERO
from mlplatform.transform.transform import Transform
from recsys import features
from recsys.apps import AppTable
from recsys.online.requests import OWNED_LENGTH, Requests

Code = Callable[[Any], int]
Int = NDArray[np.int64]
_HISTORY, _OWNED = features.HISTORY.name, features.OWNED.name
_BEYOND = 2.0**128  # what float32 would have after its largest number
_LARGEST = math.nextafter(_BEYOND - 2.0**103, 0)  # float64 that is finite as float32


class Encoder:
    """Encodes requests for one transform and one app table."""

    def __init__(self, transform: Transform, apps: AppTable) -> None:
        """Make the lookups.

        Raises:
            InvalidArgument: a feature of requests is coded in a way that there is no lookup for.
        """
        self._coders = [(f.column, f.width, coder(transform, f)) for f in features.REQUEST]
        self._width = sum(feature.width for feature in features.REQUEST)
        self._app_ids = np.asarray(apps.ids)  # not as a memmap, which is slow to index

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> Requests:
        """Codes and rows of apps of some requests.

        Args:
            rows: raw values by name of feature, of the declared type; a float may be given as an
                int.  None and absent are missing, of which a list is empty; of a list longer than
                the feature is wide, the first values count.  An app's id is never None.

        Raises:
            InvalidArgument: a number is NaN, or infinite as float32.
        """
        n = len(rows)
        codes: list[int] = []
        history_ids: list[int] = []
        owned_ids: list[int] = []
        counts: list[tuple[int, int]] = []
        os_versions: list[float] = []
        add, coders = codes.append, self._coders
        for row in rows:
            get = row.get
            for name, width, code in coders:
                if width == 1:
                    add(code(get(name)))
                else:
                    first = [code(one) for one in (get(name) or ())[:width]]
                    codes += first + [0] * (width - len(first))
            history = (get(_HISTORY) or ())[: features.HISTORY_LENGTH]
            owned = (get(_OWNED) or ())[:OWNED_LENGTH]
            history_ids += history
            owned_ids += owned
            counts.append((len(history), len(owned)))
            os_version = get("os_version")
            os_versions.append(math.nan if os_version is None else os_version)
        of_history, of_owned = _rows_of_apps(
            self._app_ids,
            np.array(history_ids, np.int64),
            np.array(owned_ids, np.int64),
            np.array(counts, np.int64).reshape(n, 2),
            features.HISTORY_LENGTH,
            OWNED_LENGTH,
        )
        return Requests(
            np.array(codes, np.int32).reshape(n, self._width),
            of_history,
            of_owned,
            np.array(os_versions, np.float32),
        )


@njit(nogil=True, cache=True)
def _rows_of_apps(  # type: ignore[no-untyped-def]
    app_ids: Int, history_ids: Int, owned_ids: Int, counts: Int, history_width, owned_width
):
    """Rows of the app table, `[n, history_width]` and `[n, owned_width]`, padded with 0.

    Args:
        app_ids: rising, of all apps.
        history_ids, owned_ids: those of one request behind those of the other.
        counts: `[n, 2]`, how many of either each request has.
    """
    history = np.zeros((len(counts), history_width), np.int32)
    owned = np.zeros((len(counts), owned_width), np.int32)
    at_history = at_owned = 0
    for i in range(len(counts)):
        for j in range(counts[i, 0]):
            history[i, j] = _row_of(app_ids, history_ids[at_history + j])
        for j in range(counts[i, 1]):
            # What was installed last stands first among what is owned: it is looked up once.
            is_same = j < counts[i, 0] and owned_ids[at_owned + j] == history_ids[at_history + j]
            owned[i, j] = history[i, j] if is_same else _row_of(app_ids, owned_ids[at_owned + j])
        at_history += counts[i, 0]
        at_owned += counts[i, 1]
    return history, owned


@njit(nogil=True, cache=True)
def _row_of(app_ids, app_id):  # type: ignore[no-untyped-def]
    """As `AppTable.rows_of`; numpy's search costs more than this for a few ids."""
    guess = app_id - app_ids[0]  # right where ids have no gaps
    if 0 <= guess < len(app_ids) and app_ids[guess] == app_id:
        return guess + 1
    first, size = 0, len(app_ids)
    while size > 1:  # without a branch that a processor could guess wrong
        half = size // 2
        first += half * (app_ids[first + half] <= app_id)
        size -= half
    return first + 1 if app_ids[first] == app_id else 0


def coder(transform: Transform, feature: Feature) -> Code:
    """One raw value, None if it is missing, to its code.

    Raises:
        InvalidArgument: the feature has neither a vocabulary nor buckets.
    """
    match feature.transform:
        case Vocabulary():
            return _vocabulary_coder(transform, feature)
        case Quantiles() | Bucketize():
            return _bucket_coder(transform, feature)
    raise InvalidArgument(
        f"feature {feature.name!r}: expected a vocabulary or buckets, got "
        f"{type(feature.transform).__name__}; teach the encoder to look its codes up"
    )


class _Vocabulary(dict[Any, int]):
    """The code of each value; to ask it for another one costs no call of Python's until then."""

    def __missing__(self, value: Any) -> int:
        return OUT_OF_VOCABULARY


def _vocabulary_coder(transform: Transform, feature: Feature) -> Code:
    values = enumerate(transform.vocabulary(feature), FIRST_OF_VOCABULARY)
    lookup = _Vocabulary({value: code for code, value in values})
    missing = 0 if feature.default is None else lookup[feature.default]
    lookup |= {None: missing, MISSING[feature.dtype]: missing}
    return lookup.__getitem__


def _bucket_coder(transform: Transform, feature: Feature) -> Code:
    is_whole = feature.dtype == "int64"
    least: list[Any] = [
        (least_integer if is_whole else least_number)(limit) for limit in transform.limits(feature)
    ]
    default: Any = feature.default
    missing = 0 if default is None else 1 + bisect_right(least, default)
    if is_whole:
        marker = MISSING[feature.dtype]
        return lambda value: (
            missing if value is None or value == marker else 1 + bisect_right(least, value)
        )

    def code(value: Any) -> int:
        if value is None:
            return missing
        if not -_LARGEST <= value <= _LARGEST:  # which NaN is not
            raise InvalidArgument(
                f"feature {feature.name!r}: expected a finite number or none, got {value}; correct "
                "the request"
            )
        return 1 + bisect_right(least, value)

    return code


def least_number(limit: np.float32) -> float:
    """The least float64 that as float32, near zero made 0, is not below the limit."""
    middle, is_in = _middle(limit)
    return middle if is_in else math.nextafter(middle, math.inf)


def least_integer(limit: np.float32) -> int:
    """The least integer that as float32, near zero made 0, is not below the limit."""
    middle, is_in = _middle(limit)
    return math.ceil(middle) if is_in else math.floor(middle) + 1


def _middle(limit: np.float32) -> tuple[float, bool]:
    """Halfway from the last float32 below the limit; and whether it rounds to the limit itself."""
    # All between the two numbers nearest to zero is 0, and so on a limit of 0 or above it.
    least = limit if limit else np.nextafter(np.float32(-NEAR_ZERO), np.float32(0))
    below = max(float(np.nextafter(least, np.float32(-np.inf))), -_BEYOND)
    middle = (below + float(least)) / 2
    with np.errstate(over="ignore"):
        return middle, bool(np.float32(middle) >= least)
