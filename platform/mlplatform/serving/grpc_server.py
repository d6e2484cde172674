"""gRPC in a worker's loop: an application's services, behind the doors, and the usual two others.

Enters: an address, handlers, doors.  Leaves: answers, or the status of what was wrong.  Health
(grpc.health.v1) is for probes and needs no key; reflection is behind the doors like everything.

A message is read only after its sender was let in.  A PlatformError ends a call with its status,
and says in the trailing metadata `retry-after-s` when to come again, where that helps.  Anything
else is INTERNAL and a line in the log, with where it happened and no word of the request.

Draining: health says NOT_SERVING, and no more connections are taken.  A server that is told to stop
refuses calls that are on their way to it.  So those connections that are still asked something are
left to grow old, which they do within seconds anyway: at `_AGE_S` a client is told, in time, to ask
on a new one (GOAWAY in two steps), which another worker takes.  Then what is under way is finished.
"""

import asyncio
import logging
import math
import os
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import SERVICE_NAME as HEALTH
from grpc_health.v1.health import aio as health  # type: ignore[attr-defined]
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection import SERVICE_NAME as REFLECTION
from grpc_reflection.v1alpha.reflection import aio as reflection  # type: ignore[attr-defined]

from mlplatform.errors import FailedPrecondition, InvalidArgument, PlatformError
from mlplatform.serving.doors import API_KEY, Doors, retry_after_s

logger = logging.getLogger(__name__)

Answered = Callable[[str, str, float], None]  # method, status by its name, seconds
Call = Callable[[Any, Any], Awaitable[Any]]  # message, context -> message
_KEY = API_KEY.decode()
_LONGEST_TEXT = 1000  # characters of an error; clients take 8 KB of metadata
_AGE_S = 4.0  # that connections are used; it spreads clients over workers, too
_QUIET_S = 1.0  # without a call, and what is still open is only watched
_POLL_S = 0.02


def unary(answer: Call, request: Any) -> "grpc.RpcMethodHandler[Any, Any]":
    """A call with one message each way.

    Args:
        answer: of (message, context) the message to answer with; may raise.
        request: the class of the message that enters.
    """
    return grpc.unary_unary_rpc_method_handler(answer, request.FromString, _serialized)


def status_of(error: PlatformError) -> tuple[grpc.StatusCode, str, tuple[tuple[str, str], ...]]:
    """An error as gRPC: status, text and trailing metadata."""
    again = retry_after_s(error)
    trailing = () if again is None else (("retry-after-s", f"{max(1, math.ceil(again))}"),)
    return grpc.StatusCode[error.grpc_status], str(error)[:_LONGEST_TEXT], trailing


async def serve(
    address: str,
    handlers: Sequence["grpc.GenericRpcHandler[Any, Any]"],
    names: Sequence[str],
    doors: Doors,
    stopping: asyncio.Event,
    drain_s: float,
    answered: Answered = lambda method, status, seconds: None,
    ready: Callable[[], None] | None = None,
    max_message_bytes: int | None = None,
) -> None:
    """Serve until `stopping` is set, and then until nothing is under way or `drain_s` is over.

    Args:
        address: "host:port", shared with others by SO_REUSEPORT.
        names: of the services, for health and reflection.
        answered: told of every call of the handlers, by "/service/method".
        ready: called when connections are taken.
        max_message_bytes: that are read of one; None is the doors' `max_body_bytes`.

    Raises:
        FailedPrecondition: the address is taken.
    """
    longest = doors.max_body_bytes if max_message_bytes is None else max_message_bytes
    server = grpc.aio.server(
        options=(
            ("grpc.so_reuseport", 1),
            ("grpc.max_receive_message_length", longest),
            ("grpc.max_metadata_size", doors.max_header_bytes),
            ("grpc.absolute_max_metadata_size", doors.max_header_bytes),
            ("grpc.max_connection_age_ms", round(1000 * _AGE_S)),
        )
    )
    behind = _Behind([*handlers, _reflection(names)], doors, answered)
    server.add_generic_rpc_handlers((behind,))
    checks = health.HealthServicer()
    for name in ("", *names):
        await checks.set(name, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise FailedPrecondition(
            f"{address}: cannot listen there for gRPC; choose another address, or end the process "
            "that has this one"
        ) from error
    await server.start()
    if ready is not None:
        ready()
    await stopping.wait()
    await checks.enter_graceful_shutdown()
    _listen_no_more(port)
    began = time.monotonic()
    # Ages differ by a tenth.
    last = began + min(1.2 * _AGE_S, drain_s / 2)
    while time.monotonic() < last and not behind.quiet_for(_QUIET_S, began):
        await asyncio.sleep(_POLL_S)
    left_s = max(0.0, began + drain_s - time.monotonic())
    began, stopped = time.monotonic(), asyncio.create_task(server.stop(left_s))
    # A stream that watches health never ends by itself.
    while not stopped.done() and not behind.quiet_for(_QUIET_S, began):
        await asyncio.sleep(_POLL_S)
    await server.stop(0)
    await stopped


def _listen_no_more(port: int) -> None:
    """End this process's listening on a port; the library has no way to do only that."""
    for found in psutil.Process().net_connections("tcp"):
        if found.status == psutil.CONN_LISTEN and found.laddr.port == port:
            with open(os.devnull) as nothing:  # in the socket's place, which so is closed
                os.dup2(nothing.fileno(), found.fd)


class _Behind(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """Handlers behind doors."""

    def __init__(
        self,
        handlers: Sequence["grpc.GenericRpcHandler[Any, Any]"],
        doors: Doors,
        answered: Answered,
    ) -> None:
        self._handlers = handlers
        self._doors = doors
        self._asks = doors.keys is not None or doors.rate is not None
        self._answered = answered
        self._found: dict[str, Any] = {}
        self._under_way = 0
        self._last = 0.0

    def quiet_for(self, seconds: float, since: float) -> bool:
        """Whether no call is under way, and none was for so long, which begins at `since`."""
        return not self._under_way and time.monotonic() - max(self._last, since) > seconds

    def service(self, details: "grpc.HandlerCallDetails") -> Any:
        method = details.method
        found = self._found.get(method)
        if found is None:
            inner = next(filter(None, (each.service(details) for each in self._handlers)), None)
            if inner is None:
                return None
            if inner.unary_unary is not None:
                found = grpc.unary_unary_rpc_method_handler(self._unary(method, inner))
            elif inner.stream_stream is not None:
                found = grpc.stream_stream_rpc_method_handler(
                    self._stream(method, inner.stream_stream),
                    inner.request_deserializer,
                    inner.response_serializer,
                )
            else:
                raise NotImplementedError(f"{method}: a stream on one side only has no doors yet")
            self._found[method] = found
        return found

    def _unary(self, method: str, inner: Any) -> Callable[[bytes, Any], Awaitable[bytes]]:
        answer, parse = inner.unary_unary, inner.request_deserializer or bytes
        serialize = inner.response_serializer or bytes

        async def call(message: bytes, context: Any) -> bytes:
            began, status = time.monotonic(), "OK"
            self._under_way += 1
            try:
                if self._asks:
                    self._let_in(context)
                try:
                    request = parse(message)
                except Exception:
                    raise InvalidArgument(f"{method}: the message cannot be read") from None
                return serialize(await answer(request, context))
            except grpc.aio.AbortError:  # the handler's own
                status = context.code().name
                raise
            except asyncio.CancelledError:  # by the client, its deadline, or the end of the server
                status = "CANCELLED"
                raise
            except Exception as error:
                code, text, trailing = status_of(_told(method, error))
                status = code.name
                return await context.abort(code, text, trailing)
            finally:
                self._under_way -= 1
                self._last = ended = time.monotonic()
                self._answered(method, status, ended - began)

        return call

    def _stream(self, method: str, inner: Any) -> Callable[[Any, Any], AsyncIterator[Any]]:
        async def call(requests: Any, context: Any) -> AsyncIterator[Any]:
            try:
                if self._asks:
                    self._let_in(context)
                async for answer in inner(requests, context):
                    yield answer
            except grpc.aio.AbortError:
                raise
            except Exception as error:
                await context.abort(*status_of(_told(method, error)))

        return call

    def _let_in(self, context: Any) -> None:
        key: bytes | None = None
        if self._doors.keys is not None:
            for name, value in context.invocation_metadata() or ():
                if name == _KEY:
                    key = value.encode() if isinstance(value, str) else value
        # "ipv4:HOST:PORT": a client is its host, whichever of its ports it comes from.
        self._doors.identify(key, context.peer().rpartition(":")[0])


def _told(method: str, error: Exception) -> PlatformError:
    """What a client is told of an error; one that nobody expected is for the log."""
    if isinstance(error, PlatformError):
        return error
    # Not its text, which may quote the request.
    where = "".join(traceback.format_tb(error.__traceback__))
    logger.error("%s failed: %s\n%s", method, type(error).__name__, where)
    return PlatformError("the call failed; the server's log says why")


def _reflection(names: Sequence[str]) -> "grpc.GenericRpcHandler[Any, Any]":
    served = [*names, REFLECTION, HEALTH]
    servicer = reflection.ReflectionServicer(served)  # type: ignore[attr-defined]
    info = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        reflection_pb2.ServerReflectionRequest.FromString,
        _serialized,
    )
    return grpc.method_handlers_generic_handler(REFLECTION, {"ServerReflectionInfo": info})


def _serialized(message: Any) -> bytes:
    return message.SerializeToString()
