"""What a model can be called with: its signatures, and whether a call fits.

Enters: `SignatureDef`s as a SavedModel has them, and what a client sent.  Leaves: names, dtypes and
shapes; an error in one line for what does not fit, in TensorFlow Serving's words where it has some.
What a client sent is repeated in part only.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from mlplatform.errors import InvalidArgument

DEFAULT_SIGNATURE = "serving_default"
MAX_ELEMENTS = 1 << 18  # of all inputs of a request
MAX_TEXT = 64  # characters of what was sent that an error repeats


@dataclass(frozen=True)
class TensorSpec:
    """dtype: TensorFlow's name of it.  shape: None for a rank, or a dimension, that may vary."""

    dtype: str
    shape: tuple[int | None, ...] | None

    @classmethod
    def of(cls, info: Any) -> "TensorSpec":
        """That of a `TensorInfo`."""
        import tensorflow as tf

        shape = info.tensor_shape
        sizes = tuple(size.size if size.size >= 0 else None for size in shape.dim)
        return cls(tf.as_dtype(info.dtype).name, None if shape.unknown_rank else sizes)


@dataclass(frozen=True)
class Signature:
    """method: the call of the API that it is for, as 'tensorflow/serving/predict'."""

    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    method: str

    @classmethod
    def of(cls, found: Any) -> "Signature":
        """That of a `SignatureDef`."""
        inputs, outputs = (
            {name: TensorSpec.of(info) for name, info in sorted(infos.items())}
            for infos in (found.inputs, found.outputs)
        )
        return cls(inputs, outputs, found.method_name)

    def require(self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> None:
        """
        Raises:
            InvalidArgument: the signature takes no such inputs, or has no such outputs.
        """
        require_names(self.inputs, inputs)
        require_elements(sum(array.size for array in inputs.values()))
        for name, spec in self.inputs.items():
            _require_tensor(name, spec, inputs[name])
        for name in outputs:
            if name not in self.outputs:
                raise InvalidArgument(
                    f"output tensor alias not found in signature: {name[:MAX_TEXT]} "
                    f"Outputs expected to be in the set {listed(self.outputs)}."
                )
        if len(set(outputs)) < len(outputs):
            raise InvalidArgument(f"duplicate output tensor alias in {listed(outputs)}")


def require_names(expected: Collection[str], given: Collection[str]) -> None:
    """
    Raises:
        InvalidArgument: inputs are missing, or not the signature's.
    """
    extra, missing = set(given) - set(expected), set(expected) - set(given)
    if extra or missing:
        raise InvalidArgument(
            f"inputs do not match signature: expected {listed(expected)}. "
            f"Sent extra: {listed(extra)}. Missing but required: {listed(missing)}."
        )


def require_elements(count: int) -> None:
    """
    Raises:
        InvalidArgument: it is more than a request may have.
    """
    if count > MAX_ELEMENTS:
        raise InvalidArgument(
            f"inputs: expected at most {MAX_ELEMENTS} elements in all, got {count}; ask in parts"
        )


def listed(names: Collection[str]) -> str:
    """As TensorFlow Serving writes a set; the first of many."""
    shown = [name[:MAX_TEXT] for name in sorted(names)]
    return "{" + ",".join(shown[:MAX_TEXT]) + (",…}" if len(shown) > MAX_TEXT else "}")


def _require_tensor(name: str, spec: TensorSpec, array: NDArray[Any]) -> None:
    dtype = "string" if array.dtype == object else array.dtype.name
    if dtype != spec.dtype:
        raise InvalidArgument(f"input {name!r}: expected {spec.dtype}, got {dtype}")
    shape = array.shape
    if spec.shape is not None and not (
        len(spec.shape) == len(shape)
        and all(size in (None, got) for size, got in zip(spec.shape, shape, strict=True))
    ):
        raise InvalidArgument(
            f"input {name!r}: expected shape {_shape(spec.shape)}, got {_shape(shape)}"
        )


def _shape(shape: Sequence[int | None]) -> str:
    return "[" + ",".join("?" if size is None else str(size) for size in shape) + "]"
