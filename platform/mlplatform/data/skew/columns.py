"""Two columns of the same rows, compared value by value.

Enters: a feature's columns from training and from serving.  Leaves: the two in one Arrow type, then
which rows agree, how far numbers are apart, which values stand for which.  A null row is missing,
an empty list is a value; lists agree as a whole, in order; NaN agrees with NaN.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mlplatform.data.files.columns import ArrowArray, ArrowType, is_list, kind_of
from mlplatform.data.files.contents import first_line
from mlplatform.errors import InvalidArgument

TOP_CONFUSIONS = 10
FEW_VALUES = 64
Mask = NDArray[np.bool_]
Value = Any  # of JSON: None, bool, int, float, str, or a tuple of these


@dataclass(frozen=True)
class Confusion:
    """How many rows have one value in training and another in serving."""

    training: Value
    serving: Value
    count: int


def align(what: str, training: ArrowArray, serving: ArrowArray) -> tuple[ArrowArray, ArrowArray]:
    """Both columns, each as one array, in a type that holds the values of either without loss.

    Integers and bools become bool, int64 or uint64; beside floats, float64; strings and bytes
    become bytes; lists become lists of these.

    Args:
        what: names the columns in the message.

    Raises:
        InvalidArgument: there is no such type, or a value does not fit it.
    """
    types = training.type, serving.type
    try:
        common = _common_type(*types)
        aligned = [_as_one_array(column).cast(common) for column in (training, serving)]
    except (TypeError, pa.ArrowInvalid) as error:
        raise InvalidArgument(
            f"{what}: expected values that can be compared without loss, got {types[0]} "
            f"in training and {types[1]} in serving ({first_line(error)}); give both sides one "
            "type, or leave the column out"
        ) from error
    return aligned[0], aligned[1]


def equal(training: ArrowArray, serving: ArrowArray, tolerance: float) -> Mask:
    """Which rows of two aligned columns agree; two nulls do.

    Args:
        tolerance: floats agree if they differ by at most this share of the larger magnitude.
    """
    if is_list(training.type):
        return _equal_lists(training, serving, tolerance)
    if pa.types.is_floating(training.type):
        same = _equal_floats(_numbers(training), _numbers(serving), tolerance)
    else:
        same = _mask(pc.fill_null(pc.equal(training, serving), False))
    here, there = is_present(training), is_present(serving)
    return np.where(here & there, same, here == there)


def is_present(column: ArrowArray) -> Mask:
    return _mask(column.is_valid())


def distances(training: ArrowArray, serving: ArrowArray) -> tuple[float, float] | tuple[None, None]:
    """Mean and maximum of the absolute difference where both sides have a finite number.

    None for what are no numbers and where no row has two.  What float64 cannot hold becomes the
    largest that it can, for JSON has no infinity.
    """
    if not (pa.types.is_integer(training.type) or pa.types.is_floating(training.type)):
        return None, None
    here, there = _numbers(training), _numbers(serving)
    finite = np.isfinite(here) & np.isfinite(there)
    if not finite.any():
        return None, None
    with np.errstate(over="ignore"):
        distance = np.abs(here[finite] - there[finite])
        mean, most = np.nan_to_num([distance.mean(), distance.max()])
    return float(mean), float(most)


def confusions(training: ArrowArray, serving: ArrowArray) -> tuple[Confusion, ...]:
    """The most frequent pairs of values, then in the order of the values.

    Args:
        training, serving: what rows hold that have a value on both sides, but not the same.

    Returns:
        Nothing for floats, for lists, and for integers of more than `FEW_VALUES` distinct values.
    """
    if not len(training) or is_list(training.type) or pa.types.is_floating(training.type):
        return ()
    distinct = (pc.count_distinct(column).as_py() for column in (training, serving))
    if pa.types.is_integer(training.type) and max(distinct) > FEW_VALUES:
        return ()
    sides = ["training", "serving"]
    pairs: Any = pa.table([training, serving], names=sides).group_by(sides)
    counted = pairs.aggregate([([], "count_all")])
    ranking: Any = [("count_all", "descending"), *((side, "ascending") for side in sides)]
    top = counted.take(pc.select_k_unstable(counted, min(TOP_CONFUSIONS, len(counted)), ranking))
    columns = (plain(top["training"]), plain(top["serving"]), top["count_all"].to_pylist())
    return tuple(Confusion(*row) for row in zip(*columns, strict=True))


def plain(column: ArrowArray) -> list[Value]:
    """Values that JSON can hold and that equal themselves: NaN and infinities become strings."""
    return [_plain(value) for value in column.to_pylist()]


def _plain(value: Any) -> Value:
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    if isinstance(value, list):
        return tuple(_plain(one) for one in value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _common_type(*types: ArrowType) -> ArrowType:
    known = [one for one in types if not pa.types.is_null(one)]
    kinds = {kind_of(one) for one in known} - {None}
    if "STRING" in kinds and len(kinds) > 1:
        raise TypeError("a string is no number")
    if len({is_list(one) for one in known}) > 1:
        raise TypeError("a list is no single value")
    leaves = [leaf for leaf in map(_leaf_type, known) if not pa.types.is_null(leaf)]
    if "STRING" in kinds:
        common: ArrowType = pa.large_binary()
    elif "FLOAT" in kinds:
        common = pa.float64()
    elif leaves and all(map(pa.types.is_boolean, leaves)):
        common = pa.bool_()
    elif leaves and all(map(pa.types.is_unsigned_integer, leaves)):
        common = pa.uint64()
    else:
        common = pa.int64()
    return pa.large_list(common) if any(map(is_list, known)) else common


def _leaf_type(data_type: ArrowType) -> ArrowType:
    if is_list(data_type) or pa.types.is_dictionary(data_type):
        return _leaf_type(data_type.value_type)
    return data_type


def _as_one_array(column: ArrowArray) -> ArrowArray:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _equal_lists(training: ArrowArray, serving: ArrowArray, tolerance: float) -> Mask:
    here, there = (
        pc.fill_null(pc.list_value_length(column), -1).to_numpy() for column in (training, serving)
    )
    same: Mask = here == there
    # Lists of one length are laid end to end and compared as single values.
    rows = np.flatnonzero(same & (here > 0))
    here_laid, there_laid = (c.take(pa.array(rows)).flatten() for c in (training, serving))
    row_of_leaf = np.repeat(rows, here[rows])
    same[row_of_leaf[~equal(here_laid, there_laid, tolerance)]] = False
    return same


def _equal_floats(
    here: NDArray[np.float64], there: NDArray[np.float64], tolerance: float
) -> NDArray[np.bool_]:
    same = (here == there) | (np.isnan(here) & np.isnan(there))
    if tolerance:
        # An infinity would be within any share of itself.
        finite = np.isfinite(here) & np.isfinite(there)
        with np.errstate(over="ignore", invalid="ignore"):
            allowed = tolerance * np.maximum(np.abs(here), np.abs(there))
            same |= finite & (np.abs(here - there) <= allowed)
    return same


def _numbers(column: ArrowArray) -> NDArray[np.float64]:
    """As float64, NaN where there is none."""
    numbers: NDArray[np.float64] = column.cast(pa.float64(), safe=False).to_numpy(
        zero_copy_only=False
    )
    return numbers


def _mask(column: ArrowArray) -> Mask:
    mask: Mask = column.to_numpy(zero_copy_only=False)
    return mask
