"""TensorFlow Serving's ModelService over gRPC.

Enters: what is served.  Leaves: methods for `grpc_server.serve`.  What is served follows the
labels; it is not for those who ask for predictions to say, so a new configuration is refused.
"""

from typing import Any

from mlplatform.errors import FailedPrecondition
from mlplatform.serving.grpc_methods import Context, Methods, service, unary
from mlplatform.serving.prediction_service import model_spec
from mlplatform.serving.servables import Servables
from mlplatform.training.runtime import tensorflow

SERVICE = "tensorflow.serving.ModelService"


def model_service(servables: Servables) -> Methods:
    """The service, for `grpc_server.serve`."""
    tensorflow(threads=1)
    from tensorflow.core.protobuf import error_codes_pb2
    from tensorflow_serving.apis import get_model_status_pb2, model_management_pb2

    async def status(request: Any, context: Context) -> Any:
        response = get_model_status_pb2.GetModelStatusResponse()
        for version, found in servables.status(model_spec(request.model_spec)).items():
            told = response.model_version_status.add()
            told.version = version
            told.state = get_model_status_pb2.ModelVersionStatus.State.Value(found.state)
            told.status.error_code = error_codes_pb2.UNKNOWN if found.error else error_codes_pb2.OK
            told.status.error_message = found.error
        return response

    async def reload(request: Any, context: Context) -> Any:
        raise FailedPrecondition(
            "what is served follows the registry's labels; move a label in place of a new "
            "configuration"
        )

    calls = {
        "GetModelStatus": unary(status, get_model_status_pb2.GetModelStatusRequest),
        "HandleReloadConfigRequest": unary(reload, model_management_pb2.ReloadConfigRequest),
    }
    return service(SERVICE, calls)
