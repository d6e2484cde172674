"""A gRPC server behind doors, asked by grpcio's own client as most clients are."""

import asyncio
import logging
import socket
import subprocess
import sys
import threading
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from mlplatform.errors import (
    DeadlineExceeded,
    InvalidArgument,
    PlatformError,
    Unavailable,
)
from mlplatform.serving import http2_frames as h2
from mlplatform.serving.admission import TooMany
from mlplatform.serving.doors import Doors, Keys, RateLimit
from mlplatform.serving.grpc_methods import status_of
from mlplatform.serving.grpc_server import serve
from mlplatform.serving.listening import listen, port_of
from tests.platform.serving.grpc_served import KEY, LIMIT_S, SERVICE, serving, until
from tests.platform.serving.small_grpc import METHOD


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
            "odd": ("OUT_OF_RANGE", "50 % of \N{PARROT}\n", None),
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
        assert served.answered == [(f"/{SERVICE}/Later", "UNAVAILABLE")]


def test_no_call_fails_while_one_of_two_servers_at_an_address_drains() -> None:
    with listen(("127.0.0.1", 0)) as listener:
        address, descriptor = f"127.0.0.1:{port_of(listener)}", listener.fileno()
        servers = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.platform.serving.small_grpc", str(descriptor)],
                stdout=subprocess.PIPE,
                pass_fds=[descriptor],
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


def test_who_waits_to_be_taken_when_a_server_stops_is_taken_by_the_next_one() -> None:
    async def main() -> bytes:
        with listen(("127.0.0.1", 0)) as listener:
            stopping, opened = asyncio.Event(), asyncio.Event()
            stopped = asyncio.create_task(
                serve(listener.dup(), [], Doors(), stopping, LIMIT_S, ready=opened.set)
            )
            await opened.wait()
            # In this thread, so that the server cannot take it before it is told to stop.
            with socket.create_connection(listener.getsockname()) as waiting:
                stopping.set()
                await stopped
                stopping = asyncio.Event()
                following = asyncio.create_task(
                    serve(listener.dup(), [], Doors(), stopping, LIMIT_S)
                )
                told = await asyncio.to_thread(waiting.recv, 4096)
            stopping.set()
            await following
            return told

    assert asyncio.run(main())[3] == h2.SETTINGS
