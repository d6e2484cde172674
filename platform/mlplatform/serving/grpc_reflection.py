"""gRPC's server reflection: what can be asked here, for tools that have no .proto files.

Enters: the services' names.  Leaves: methods, behind the doors like everything.  v1 and v1alpha
have the same messages, so both are answered by the library's v1alpha; v1 is not listed, since its
descriptor is not known here.
"""

from collections.abc import AsyncIterator, Iterable
from typing import Any

from grpc_reflection.v1alpha import reflection, reflection_pb2

from mlplatform.serving.grpc_methods import Context, Methods, service, streaming

NAME = reflection.SERVICE_NAME
_V1 = "grpc.reflection.v1.ServerReflection"


def server_reflection(names: Iterable[str]) -> Methods:
    """The service, which lists these."""
    servicer: Any = reflection.ReflectionServicer([*names])

    async def info(requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
        async for request in requests:
            for answer in servicer.ServerReflectionInfo(iter([request]), context):
                yield answer

    method = streaming(info, reflection_pb2.ServerReflectionRequest)
    methods = {"ServerReflectionInfo": method}
    return service(NAME, methods) | service(_V1, methods)
