"""grpc.health.v1: whether the server takes calls, for probes and load balancers.

Enters: the services' names, and when the server stops.  Leaves: methods, which need no key.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

from grpc_health.v1 import health_pb2

from mlplatform.errors import InvalidArgument, NotFound
from mlplatform.serving.grpc_methods import Context, Method, Methods, service

NAME = "grpc.health.v1.Health"
_Answer = health_pb2.HealthCheckResponse


def health(names: Iterable[str], stopping: asyncio.Event) -> Methods:
    """The service, which says SERVING of these and of "" until `stopping` is set."""
    known = frozenset(("", *names))

    def status(name: str) -> Any:
        if name not in known:
            return _Answer.SERVICE_UNKNOWN
        return _Answer.NOT_SERVING if stopping.is_set() else _Answer.SERVING

    async def check(request: Any, context: Context) -> Any:
        if request.service not in known:
            raise NotFound("health: no service of that name")
        return _Answer(status=status(request.service))

    async def watch(requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
        name = None
        async for request in requests:
            name = request.service
            break
        if name is None:
            raise InvalidArgument("health: expected the name of a service")
        yield _Answer(status=status(name))
        if name in known and not stopping.is_set():
            await stopping.wait()
            yield _Answer(status=status(name))
        await asyncio.Event().wait()  # nothing changes any more

    asked = health_pb2.HealthCheckRequest.FromString
    return service(
        NAME,
        {
            "Check": Method(check, "unary", asked, guarded=False),
            "Watch": Method(watch, "streaming", asked, guarded=False),
        },
    )
