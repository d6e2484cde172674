"""Arrow columns as features: which types can be one, and how values become numpy arrays."""

from typing import Any, Literal

import pyarrow as pa
from numpy.typing import NDArray

Kind = Literal["INT", "FLOAT", "STRING"]

# Arrow's stubs type an array by its element and cannot narrow a type by the predicates of pa.types,
# so code that meets any column has to leave them open.
ArrowArray = Any
ArrowType = Any


def kind_of(data_type: ArrowType) -> Kind | None:
    """The kind of a column's values, None when the type is null and so says nothing.

    Raises:
        TypeError: the type is none that a feature may have.
    """
    types = pa.types
    if types.is_dictionary(data_type):
        return kind_of(data_type.value_type)
    if is_list(data_type) and not is_list(data_type.value_type):
        return kind_of(data_type.value_type)
    if types.is_null(data_type):
        return None
    if types.is_integer(data_type) or types.is_boolean(data_type):
        return "INT"
    if types.is_floating(data_type):
        return "FLOAT"
    if any(
        is_text(data_type)
        for is_text in (
            types.is_string,
            types.is_large_string,
            types.is_string_view,
            types.is_binary,
            types.is_large_binary,
            types.is_binary_view,
        )
    ):
        return "STRING"
    raise TypeError(f"{data_type} is not a number, a bool, a string or a list of these")


def is_list(data_type: ArrowType) -> bool:
    types = pa.types
    return bool(
        types.is_list(data_type)
        or types.is_large_list(data_type)
        or types.is_fixed_size_list(data_type)
    )


def leaf_values(column: ArrowArray) -> ArrowArray:
    """The values of a column, lists laid end to end."""
    return column.flatten() if is_list(column.type) else column


def to_numpy(values: ArrowArray) -> NDArray[Any]:
    """The values that are not null."""
    if values.null_count:
        values = values.drop_null()
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.uint8())
    array: NDArray[Any] = values.to_numpy(zero_copy_only=False)
    return array
