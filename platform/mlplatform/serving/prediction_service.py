"""TensorFlow Serving's PredictionService over gRPC, so that its clients work unchanged.

Enters: what is served.  Leaves: methods for `grpc_server.serve`.  What is not served (Classify,
Regress of a signature that is for it, MultiInference) is UNIMPLEMENTED.

TensorFlow Serving's messages import TensorFlow, which takes seconds; so they are imported when a
handler is made, by a server on its way up.
"""

import math
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlplatform.errors import InvalidArgument
from mlplatform.serving.grpc_methods import Context, Methods, service, unary
from mlplatform.serving.servable import Servable
from mlplatform.serving.servables import ModelSpec, Servables
from mlplatform.serving.signature import DEFAULT_SIGNATURE, MAX_TEXT, require_elements
from mlplatform.training.runtime import tensorflow

SERVICE = "tensorflow.serving.PredictionService"
_METADATA = "signature_def"  # all there is to be asked of a model's metadata
# Where a TensorProto keeps its values, by dtype.
_FIELDS = {
    "bool": "bool_val",
    "float32": "float_val",
    "float64": "double_val",
    "int8": "int_val",
    "int16": "int_val",
    "int32": "int_val",
    "int64": "int64_val",
    "object": "string_val",
    "uint8": "int_val",
    "uint16": "int_val",
    "uint32": "uint32_val",
    "uint64": "uint64_val",
}


def prediction_service(servables: Servables) -> Methods:
    """The service, for `grpc_server.serve`."""
    tensorflow(threads=1)
    from tensorflow_serving.apis import (
        classification_pb2,
        get_model_metadata_pb2,
        predict_pb2,
        regression_pb2,
    )

    async def predict(request: Any, context: Context) -> Any:
        servable = servables.find(model_spec(request.model_spec))
        response = predict_pb2.PredictResponse()
        await servables.run(partial(_predict, servable, request, response))
        return response

    async def metadata(request: Any, context: Context) -> Any:
        if list(request.metadata_field) != [_METADATA]:
            raise InvalidArgument(
                f"GetModelMetadataRequest: expected the metadata_field {_METADATA!r}, got "
                f"{[field[:MAX_TEXT] for field in request.metadata_field[:2]]}"
            )
        servable = servables.find(model_spec(request.model_spec))
        definitions = await servables.run(lambda: servable.signature_defs)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        _say_which(response.model_spec, servable)
        kept = get_model_metadata_pb2.SignatureDefMap(signature_def=definitions)
        response.metadata[_METADATA].Pack(kept)
        return response

    async def refuse(method: str, request: Any, context: Context) -> None:
        servable = servables.find(model_spec(request.model_spec))
        signature = request.model_spec.signature_name or DEFAULT_SIGNATURE
        await servables.run(partial(servable.refuse, method, signature))

    calls = {
        "Predict": unary(predict, predict_pb2.PredictRequest),
        "GetModelMetadata": unary(metadata, get_model_metadata_pb2.GetModelMetadataRequest),
        "Classify": unary(partial(refuse, "classify"), classification_pb2.ClassificationRequest),
        "Regress": unary(partial(refuse, "regress"), regression_pb2.RegressionRequest),
    }
    return service(SERVICE, calls)


def model_spec(spec: Any) -> ModelSpec:
    """Which model a message asks for.

    Raises:
        InvalidArgument: it names none.
    """
    if not spec.name:
        raise InvalidArgument("ModelSpec has no name specified.")
    choice = spec.WhichOneof("version_choice")
    return ModelSpec(
        spec.name,
        version=spec.version.value if choice == "version" else None,
        label=spec.version_label if choice == "version_label" else None,
    )


def _predict(servable: Servable, request: Any, response: Any) -> None:
    name = request.model_spec.signature_name or DEFAULT_SIGNATURE
    require_elements(sum(_elements(name, tensor) for name, tensor in request.inputs.items()))
    inputs = {name: _array(name, tensor) for name, tensor in request.inputs.items()}
    for output, found in servable.predict(name, inputs, list(request.output_filter)).items():
        _fill(response.outputs[output], found)
    _say_which(response.model_spec, servable)
    response.model_spec.signature_name = name


def _say_which(spec: Any, servable: Servable) -> None:
    spec.name = servable.name
    spec.version.value = servable.version


def _elements(name: str, tensor: Any) -> int:
    """How many a tensor says that it has: a few bytes can claim any number, and get them."""
    sizes = [dimension.size for dimension in tensor.tensor_shape.dim]
    if tensor.tensor_shape.unknown_rank or min(sizes, default=0) < 0:
        raise InvalidArgument(f"input {name[:MAX_TEXT]!r}: expected a known shape, got {sizes}")
    return math.prod(sizes)


def _array(name: str, tensor: Any) -> NDArray[Any]:
    import tensorflow as tf

    try:
        return np.asarray(tf.make_ndarray(tensor))
    except (ValueError, TypeError, IndexError, KeyError) as error:
        told = " ".join(str(error).split())[: 2 * MAX_TEXT]
        raise InvalidArgument(f"input {name[:MAX_TEXT]!r}: not a tensor: {told}") from None


def _fill(tensor: Any, found: NDArray[Any]) -> None:
    """Write an array as TensorFlow Serving does: clients read its values from the typed fields."""
    import tensorflow as tf

    field = _FIELDS.get(found.dtype.name)
    if field is None:
        tensor.CopyFrom(tf.make_tensor_proto(found))
        return
    tensor.dtype = tf.as_dtype(found.dtype if field != "string_val" else tf.string).as_datatype_enum
    for size in found.shape:
        tensor.tensor_shape.dim.add().size = size
    getattr(tensor, field).extend(found.ravel().tolist())
