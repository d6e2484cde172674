"""A SavedModel, called by signature.

Enters: its directory, and arrays by the names of a signature's inputs.  Leaves: arrays by the names
of its outputs, equal to what the SavedModel itself answers; for what does not fit the signature an
error, before TensorFlow sees it.
"""

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

from mlplatform.errors import InvalidArgument, PlatformError, ResourceExhausted
from mlplatform.serving.signature import MAX_TEXT, Signature, listed
from mlplatform.training.runtime import tensorflow

logger = logging.getLogger(__name__)
T = TypeVar("T")


class Unserved(InvalidArgument):
    """A call of the API that is not served, whatever the model."""

    http_status = 501
    grpc_status = "UNIMPLEMENTED"


class Servable:
    """One version of a model; all but its name is for the thread of `Servables.run`."""

    def __init__(self, name: str, version: int, path: Path) -> None:
        self.name = name
        self.version = version
        self._path = path

    @cached_property
    def signature_defs(self) -> dict[str, Any]:
        """The SavedModel's `SignatureDef`s by name, read without loading it."""
        return self._attempt(self._read)

    @cached_property
    def model(self) -> Any:
        """The loaded SavedModel."""
        return self._attempt(lambda: tensorflow(threads=1).saved_model.load(str(self._path)))

    def signature(self, name: str) -> Signature:
        """
        Raises:
            InvalidArgument: the model has no such signature.
        """
        if name not in self._signatures:
            raise InvalidArgument(
                f'Serving signature name: "{name[:MAX_TEXT]}" not found in signature def; '
                f"expected one of {listed(self._signatures)}"
            )
        return self._signatures[name]

    def predict(
        self, signature_name: str, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str] = ()
    ) -> dict[str, NDArray[Any]]:
        """Call a signature; strings are bytes, in arrays of objects.

        Args:
            outputs: those to answer with; none named: all.

        Raises:
            InvalidArgument: something does not fit the signature, or the model refuses it.
            ResourceExhausted: it takes more memory than there is.
        """
        signature = self.signature(signature_name)
        signature.require(inputs, outputs)
        call = self.model.signatures[signature_name]
        import tensorflow as tf  # configured when the model was loaded

        try:
            found = call(
                **{n: tf.constant(a, signature.inputs[n].dtype) for n, a in inputs.items()}
            )
        except (tf.errors.InvalidArgumentError, tf.errors.OutOfRangeError) as error:
            raise InvalidArgument(f"{self.name}: {_said(error.message)}") from None
        except tf.errors.ResourceExhaustedError as error:
            raise ResourceExhausted(f"{self.name}: {_said(error.message)}") from None
        except Exception:
            logger.exception("version %d of model %s: a call failed", self.version, self.name)
            raise PlatformError("the computation failed; the server's log says why") from None
        return {name: _array(found[name]) for name in outputs or signature.outputs}

    def refuse(self, method: str, signature_name: str) -> NoReturn:
        """Say why a call of `classify` or `regress` is not answered.

        Raises:
            InvalidArgument: the signature is for another method.
            Unserved: it is for this one.
        """
        found, asked = self.signature(signature_name).method, f"tensorflow/serving/{method}"
        if found != asked:
            raise InvalidArgument(
                f"Expected {method} signature method_name to be {asked}. Was: {found}; ask predict"
            )
        raise Unserved(f"{method} is not served; ask predict, with serialized tf.train.Examples")

    @cached_property
    def _signatures(self) -> dict[str, Signature]:
        """Those to call: the loader's own have no method."""
        found = self.signature_defs.items()
        return {name: Signature.of(each) for name, each in found if each.method_name}

    def _read(self) -> dict[str, Any]:
        tensorflow(threads=1)
        from tensorflow.core.protobuf import saved_model_pb2

        content = (self._path / "saved_model.pb").read_bytes()
        graph = saved_model_pb2.SavedModel.FromString(content).meta_graphs[0]
        # Copies: a part of a message keeps all of it, and the graph is large.
        return {name: copy.deepcopy(found) for name, found in graph.signature_def.items()}

    def _attempt(self, read: Callable[[], T]) -> T:
        try:
            return read()
        except Exception:  # whatever TensorFlow makes of a damaged file; no client learns its path
            logger.exception("%s: cannot be loaded", self._path)
            raise PlatformError(
                f"version {self.version} of model {self.name} cannot be loaded; the server's log "
                "says why"
            ) from None


def _array(tensor: Any) -> NDArray[Any]:
    # A string that is a scalar comes as bytes, of which numpy would cut trailing zeros.
    return np.asarray(tensor.numpy(), object if tensor.dtype == "string" else None)


def _said(message: str) -> str:
    """What an operation said, without where in the graph and in its author's files it stands."""
    return (message.partition("\n\t [[")[0].split("\n")[-1]).strip() or "refused"
