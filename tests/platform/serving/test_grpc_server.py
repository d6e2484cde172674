"""A gRPC server behind doors, asked by grpcio's own client as most clients are."""

import asyncio
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
import uvloop
from google.protobuf.wrappers_pb2 import StringValue
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from mlplatform.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PlatformError,
    Unavailable,
)
from mlplatform.serving.admission import TooMany
from mlplatform.serving.doors import Doors, Keys, RateLimit
from mlplatform.serving.grpc_server import serve, status_of, unary
from mlplatform.serving.listening import address_of, keep_port
from tests.platform.serving.small_grpc import METHOD

LIMIT_S = 20.0
SERVICE = "test.Words"
KEY = "k" * 32
ERRORS: dict[str, Callable[[], Exception]] = {
    "missing": lambda: NotFound("no such thing"),
    "busy": lambda: TooMany("too many wait", 0.03),
    "away": lambda: Unavailable("ask again"),
    "broken": lambda: ZeroDivisionError("secret"),
}


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
    """Echo answers, or fails as it is told; Later answers once it is released."""
    up, ended = threading.Event(), threading.Event()
    made: list[Served] = []
    failures: list[BaseException] = []

    async def echo(request: StringValue, context: Any) -> StringValue:
        made[0].asked.append(request.value)
        if request.value in ERRORS:
            raise ERRORS[request.value]()
        if request.value == "aborted":
            await context.abort(grpc.StatusCode.OUT_OF_RANGE, "the handler's own")
        return request

    async def later(request: StringValue, context: Any) -> StringValue:
        made[0].asked.append(request.value)
        await made[0].release.wait()
        return request

    async def main() -> None:
        with keep_port(("127.0.0.1", 0)) as kept:
            address = address_of(kept)
            loop, stopping = asyncio.get_running_loop(), asyncio.Event()
            with grpc.insecure_channel(address) as channel:
                served = Served(channel, address, loop, stopping, asyncio.Event(), ended)
                made.append(served)
                methods = {"Echo": unary(echo, StringValue), "Later": unary(later, StringValue)}
                handler = grpc.method_handlers_generic_handler(SERVICE, methods)
                await serve(
                    address, [handler], [SERVICE], doors or Doors(), stopping, drain_s,
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


def trailing(error: Any) -> dict[str, str]:
    return dict(error.trailing_metadata() or ())


@pytest.mark.parametrize(
    ("error", "code", "again"),
    [
        (PlatformError("x"), "INTERNAL", None),
        (InvalidArgument("x"), "INVALID_ARGUMENT", None),
        (DeadlineExceeded("x"), "DEADLINE_EXCEEDED", None),
        (TooMany("x", 0.03), "RESOURCE_EXHAUSTED", "1"),
        (TooMany("x", 2.5), "RESOURCE_EXHAUSTED", "3"),
        (Unavailable("x"), "UNAVAILABLE", "1"),
    ],
)
def test_an_error_has_the_status_of_its_class_and_says_when_to_come_again(
    error: PlatformError, code: str, again: str | None
) -> None:
    expected = () if again is None else (("retry-after-s", again),)
    assert status_of(error) == (grpc.StatusCode[code], "x", expected)


def test_calls_are_answered_and_counted_by_method_and_status(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with serving() as served:
        assert served.ask("hello") == "hello"
        expected = {
            "missing": ("NOT_FOUND", "no such thing", None),
            "busy": ("RESOURCE_EXHAUSTED", "too many wait", "1"),
            "away": ("UNAVAILABLE", "ask again", "1"),
            "broken": ("INTERNAL", "the call failed; the server's log says why", None),
            "aborted": ("OUT_OF_RANGE", "the handler's own", None),
        }
        for word, (code, text, again) in expected.items():
            error: Any = served.refused(word)
            assert (error.code().name, error.details()) == (code, text)
            assert trailing(error).get("retry-after-s") == again
        garbled: Any = served.channel.unary_unary(f"/{SERVICE}/Echo")
        with pytest.raises(grpc.RpcError) as caught:
            garbled(b"\xff\xff", timeout=LIMIT_S)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert served.refused(name="Nothing").code().name == "UNIMPLEMENTED"
        codes = ["OK", *(code for code, _, _ in expected.values()), "INVALID_ARGUMENT"]
        until(lambda: len(served.answered) == len(codes))
        assert served.answered == [(f"/{SERVICE}/Echo", code) for code in codes]
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    said = record.getMessage()
    assert f"/{SERVICE}/Echo failed: ZeroDivisionError" in said and "secret" not in said


def test_a_call_that_its_client_gave_up_is_counted_as_cancelled() -> None:
    with serving() as served:
        call = served.method("Later").future(StringValue())
        until(lambda: bool(served.asked))
        call.cancel()
        until(lambda: served.answered == [(f"/{SERVICE}/Later", "CANCELLED")])


def test_who_has_no_key_is_turned_away_before_the_message_is_read() -> None:
    with serving(Doors(keys=Keys([KEY]))) as served:
        for metadata in ((), (("x-api-key", "w" * 32),)):
            error: Any = served.refused("hello", metadata=metadata)
            assert error.code() is grpc.StatusCode.UNAUTHENTICATED
        garbled = served.channel.unary_unary(f"/{SERVICE}/Echo")
        with pytest.raises(grpc.RpcError) as caught:
            garbled(b"\xff\xff", timeout=LIMIT_S)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert served.asked == []
        assert served.ask("hello", metadata=(("x-api-key", KEY),)) == "hello"
        assert served.health() == "SERVING"  # for probes, which have no key
        with pytest.raises(grpc.RpcError) as caught:
            ProtoReflectionDescriptorDatabase(served.channel).get_services()
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_a_host_that_asks_too_often_is_refused_from_whichever_port_it_comes() -> None:
    rate = RateLimit(0.001, burst=2)
    with serving(Doors(rate=rate)) as served:
        assert served.ask("1") == "1"
        local = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(served.address, local) as other:
            call = other.unary_unary(f"/{SERVICE}/Echo")
            call(StringValue(value="2").SerializeToString(), timeout=LIMIT_S)
        error: Any = served.refused("3")
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert 900 <= int(trailing(error)["retry-after-s"]) <= 1000
        assert served.asked == ["1", "2"]


def test_more_than_is_read_is_refused_and_the_cap_itself_is_not() -> None:
    def of_bytes(size: int) -> str:
        # A tag, a length in two bytes, and the text.
        word = "x" * (size - 3)
        assert StringValue(value=word).ByteSize() == size
        return word

    with serving(Doors(max_body_bytes=1000)) as served:
        assert len(served.ask(of_bytes(1000))) == 997
        error: Any = served.refused(of_bytes(1001))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    with serving(Doors(max_body_bytes=1000), max_message_bytes=2000) as served:
        assert len(served.ask(of_bytes(2000))) == 1997
        assert served.refused(of_bytes(2001)).code().name == "RESOURCE_EXHAUSTED"
    with serving(Doors(max_header_bytes=2000)) as served:
        assert served.ask("a", metadata=(("x-pad", "p" * 500),)) == "a"
        error = served.refused("b", metadata=(("x-pad", "p" * 2000),))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert served.asked == ["a"]


def test_reflection_names_the_services() -> None:
    with serving() as served:
        names = ProtoReflectionDescriptorDatabase(served.channel).get_services()
        assert set(names) == {
            SERVICE,
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
        }


def test_draining_finishes_what_is_under_way_and_ends_though_health_is_watched() -> None:
    with serving() as served:
        assert (served.health(), served.health(SERVICE)) == ("SERVING", "SERVING")
        stub = health_pb2_grpc.HealthStub(served.channel)
        watched = stub.Watch(health_pb2.HealthCheckRequest(service=SERVICE), timeout=LIMIT_S)
        assert next(watched).status == health_pb2.HealthCheckResponse.SERVING
        call = served.method("Later").future(StringValue(value="mine"), timeout=LIMIT_S)
        until(lambda: served.asked == ["mine"])
        served.stop()
        assert next(watched).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert not served.ended.wait(1.5)  # a call is under way
        served.loop.call_soon_threadsafe(served.release.set)
        assert call.result().value == "mine"
        assert served.ended.wait(LIMIT_S / 2)
        local = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(served.address, local) as other:
            with pytest.raises(grpc.RpcError) as caught:
                other.unary_unary(f"/{SERVICE}/Echo")(b"", timeout=LIMIT_S)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_call_that_takes_longer_than_draining_may_is_cut_off() -> None:
    with serving(drain_s=0.2) as served:
        call = served.method("Later").future(StringValue(), timeout=LIMIT_S)
        until(lambda: len(served.asked) == 1)
        served.stop()
        assert call.exception() is not None
        assert served.ended.wait(LIMIT_S)
        assert served.answered == [(f"/{SERVICE}/Later", "CANCELLED")]


def test_no_call_fails_while_one_of_two_servers_at_an_address_drains() -> None:
    with keep_port(("127.0.0.1", 0)) as kept:
        address = address_of(kept)
        servers = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.platform.serving.small_grpc", address],
                stdout=subprocess.PIPE,
            )
            for _ in range(2)
        ]
        over = threading.Event()
        calls: list[str] = []

        def ask() -> None:
            local = [("grpc.use_local_subchannel_pool", 1)]
            with grpc.insecure_channel(address, local) as channel:
                echo = channel.unary_unary(METHOD)
                while not over.is_set():
                    try:
                        echo(b"", timeout=LIMIT_S)
                        calls.append("OK")
                    except grpc.RpcError as error:
                        calls.append(f"{error.code()}: {error.details()}")

        askers = [threading.Thread(target=ask) for _ in range(8)]
        try:
            for server in servers:
                assert server.stdout is not None
                assert server.stdout.readline() == b"serving\n"
            for asker in askers:
                asker.start()
            until(lambda: len(calls) > 100)
            servers[0].terminate()
            assert servers[0].wait(LIMIT_S) == 0
            seen = len(calls)
            until(lambda: len(calls) > seen + 100)
        finally:
            over.set()
            for asker in askers:
                asker.join(LIMIT_S)
            for server in servers:
                server.terminate()
                server.communicate()
        assert set(calls) == {"OK"}


def test_an_address_that_is_taken_is_an_error() -> None:
    import socket

    async def nobody() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = address_of(taken)
            await serve(address, [], [], Doors(), asyncio.Event(), 0.1)

    waiting: Awaitable[None] = nobody()
    with pytest.raises(FailedPrecondition, match="cannot listen there for gRPC"):
        asyncio.run(waiting)
