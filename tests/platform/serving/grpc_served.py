"""A gRPC server of the test's, in a thread of its own, and a channel to it."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
import uvloop
from google.protobuf.wrappers_pb2 import StringValue
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mlplatform.errors import NotFound, PlatformError, Unavailable
from mlplatform.serving.admission import TooMany
from mlplatform.serving.doors import Doors
from mlplatform.serving.grpc_methods import Context, Reply, hot, service, streaming, unary
from mlplatform.serving.grpc_server import serve
from mlplatform.serving.listening import listen, port_of

LIMIT_S = 20.0
SERVICE = "test.Words"
KEY = "k" * 32
ERRORS: dict[str, Callable[[], Exception]] = {
    "missing": lambda: NotFound("no such thing"),
    "busy": lambda: TooMany("too many wait", 0.03),
    "away": lambda: Unavailable("ask again"),
    "broken": lambda: ZeroDivisionError("secret"),
    "odd": lambda: OutOfRange("50 % of \N{PARROT}\n"),
}


class OutOfRange(PlatformError):
    grpc_status = "OUT_OF_RANGE"


@dataclass
class Served:
    """A server of the test's: whom to call, and what it said of that."""

    channel: grpc.Channel
    address: str
    loop: asyncio.AbstractEventLoop
    stopping: asyncio.Event
    release: asyncio.Event
    ended: threading.Event
    answered: list[tuple[str, str]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    left: list[float | None] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)

    def method(self, name: str) -> Callable[..., Any]:
        return self.channel.unary_unary(
            f"/{SERVICE}/{name}", StringValue.SerializeToString, StringValue.FromString
        )

    def ask(self, word: str = "", name: str = "Echo", **options: Any) -> str:
        return str(self.method(name)(StringValue(value=word), timeout=LIMIT_S, **options).value)

    def refused(self, word: str = "", name: str = "Echo", **options: Any) -> grpc.RpcError:
        with pytest.raises(grpc.RpcError) as caught:
            self.ask(word, name, **options)
        return caught.value

    def health(self, service: str = "") -> str:
        stub = health_pb2_grpc.HealthStub(self.channel)
        found = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=LIMIT_S)
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(found.status))

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.stopping.set)


@contextmanager
def serving(
    doors: Doors | None = None, drain_s: float = LIMIT_S, max_message_bytes: int | None = None
) -> Iterator[Served]:
    """Echo answers, or fails as it is told, and Hot does so without a task; Later answers once it
    is released; Talk says everything twice."""
    up, ended = threading.Event(), threading.Event()
    made: list[Served] = []
    failures: list[BaseException] = []

    async def echo(request: StringValue, context: Any) -> StringValue:
        made[0].asked.append(request.value)
        if request.value in ERRORS:
            raise ERRORS[request.value]()
        return request

    def echo_hot(request: StringValue, context: Context, reply: Reply) -> None:
        made[0].asked.append(request.value)
        made[0].left.append(context.time_remaining())
        if request.value in ERRORS:
            raise ERRORS[request.value]()
        if request.value.startswith("reply"):
            reply(ERRORS[request.value.removeprefix("reply ")]())
        asyncio.get_running_loop().call_soon(reply, request)
        reply(request)
        reply(NotFound("the second answer"))

    async def later(request: StringValue, context: Any) -> StringValue:
        made[0].asked.append(request.value)
        try:
            await made[0].release.wait()
        except asyncio.CancelledError:
            made[0].cancelled.append(request.value)
            raise
        return request

    async def talk(
        requests: AsyncIterator[StringValue], context: Context
    ) -> AsyncIterator[StringValue]:
        async for request in requests:
            if request.value in ERRORS:
                raise ERRORS[request.value]()
            for _ in range(2):
                yield request

    async def main() -> None:
        with listen(("127.0.0.1", 0)) as listener:
            address = f"127.0.0.1:{port_of(listener)}"
            loop, stopping = asyncio.get_running_loop(), asyncio.Event()
            with grpc.insecure_channel(address) as channel:
                served = Served(channel, address, loop, stopping, asyncio.Event(), ended)
                made.append(served)
                methods = {
                    "Echo": unary(echo, StringValue),
                    "Hot": hot(echo_hot, StringValue),
                    "Later": unary(later, StringValue),
                    "Talk": streaming(talk, StringValue),
                }
                await serve(
                    listener, [service(SERVICE, methods)], doors or Doors(), stopping,
                    drain_s,
                    lambda method, status, seconds: served.answered.append((method, status)),
                    up.set, max_message_bytes,
                )  # fmt: skip
                ended.set()
                await asyncio.to_thread(done.wait)

    def run() -> None:
        try:
            uvloop.run(main())
        except BaseException as error:
            failures.append(error)
            up.set()

    done = threading.Event()
    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert up.wait(LIMIT_S)
        assert not failures
        yield made[0]
    finally:
        made[0].stop()
        made[0].loop.call_soon_threadsafe(made[0].release.set)
        done.set()
        thread.join(LIMIT_S)
    assert not thread.is_alive() and not failures


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT_S
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)
