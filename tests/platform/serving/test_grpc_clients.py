"""The gRPC server asked by grpcio's clients, the blocking one and asyncio's."""

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from mlplatform.serving import http2
from mlplatform.serving.doors import Doors
from tests.platform.serving.grpc_served import LIMIT_S, SERVICE, Served, serving, until

MIB = 1 << 20


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving(Doors(), max_message_bytes=4 * MIB) as served:
        yield served


def talk(served: Served) -> Any:
    return served.channel.stream_stream(
        f"/{SERVICE}/Talk", StringValue.SerializeToString, StringValue.FromString
    )


def test_a_hot_method_answers_once_and_fails_as_others_do(served: Served) -> None:
    assert served.ask("hello", "Hot") == "hello"
    for word in ("missing", "reply missing"):
        error: Any = served.refused(word, "Hot")
        assert (error.code().name, error.details()) == ("NOT_FOUND", "no such thing")
    error = served.refused("reply busy", "Hot")
    assert error.code().name == "RESOURCE_EXHAUSTED"
    assert dict(error.trailing_metadata())["retry-after-s"] == "1"
    for word in ("broken", "reply broken"):
        assert served.refused(word, "Hot").code().name == "INTERNAL"


def test_a_method_is_told_how_long_its_client_waits(served: Served) -> None:
    served.left.clear()
    call = served.method("Hot")
    call(StringValue(value="a"), timeout=7.0)
    call(StringValue(value="b"))
    (some, none) = served.left
    assert none is None
    assert some is not None and 1.0 < some <= 7.1  # the client rounds up


def test_after_its_deadline_a_call_is_over_and_its_task_cancelled() -> None:
    with serving() as served:
        began = time.monotonic()
        # The client's own clock ends the call; the server's is what cancels the task.
        with pytest.raises(grpc.RpcError) as caught:
            served.method("Later")(StringValue(value="late"), timeout=0.1)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert time.monotonic() - began < LIMIT_S / 2
        until(lambda: served.cancelled == ["late"])
        until(lambda: len(served.answered) == 1)
        assert served.answered[0][1] in ("DEADLINE_EXCEEDED", "CANCELLED")  # whoever was first
        assert served.ask("next") == "next"


def test_a_call_that_is_given_up_is_cancelled_in_the_server_too() -> None:
    with serving() as served:
        call = served.method("Later").future(StringValue(value="given up"))
        until(lambda: served.asked == ["given up"])
        call.cancel()
        until(lambda: served.cancelled == ["given up"])
        assert served.ask("next") == "next"


@pytest.mark.parametrize("size", [0, 1, 16_379, 16_380, 65_536, 300_000, 4 * MIB - 5])
def test_messages_of_any_size_go_both_ways(served: Served, size: int) -> None:
    word = os.urandom(size // 2).hex() + "x" * (size % 2)
    for name in ("Echo", "Hot"):
        assert served.ask(word, name) == word


def test_many_large_messages_at_once_do_not_block_each_other(served: Served) -> None:
    words = [chr(65 + n) * (MIB + n) for n in range(20)]
    echo = served.method("Echo")
    calls = [echo.future(StringValue(value=word), timeout=LIMIT_S) for word in words]
    assert [call.result().value for call in calls] == words


def test_who_sends_more_at_once_than_is_kept_is_refused() -> None:
    # Requests of 1 MiB that are not complete, of which a connection keeps 16.
    with serving(Doors(), max_message_bytes=MIB) as served:
        release = threading.Event()

        def halves() -> Iterator[StringValue]:
            yield StringValue(value="x" * (MIB - 10))
            release.wait(LIMIT_S)

        upload = served.channel.stream_unary(
            f"/{SERVICE}/Echo", StringValue.SerializeToString, StringValue.FromString
        )
        calls = [upload.future(halves(), timeout=LIMIT_S) for _ in range(24)]
        until(lambda: any(call.done() for call in calls))
        done = [call for call in calls if call.done()]
        assert {call.code().name for call in done} == {"RESOURCE_EXHAUSTED"}
        release.set()
        codes = [call.code().name for call in calls]
        assert codes.count("OK") >= 16
        assert set(codes) == {"OK", "RESOURCE_EXHAUSTED"}


@pytest.mark.parametrize("how", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compressed_messages_are_read_up_to_their_unpacked_size(how: grpc.Compression) -> None:
    with serving(Doors(max_body_bytes=100_000)) as served:
        word = "ab" * 20_000
        for name in ("Echo", "Hot"):
            assert served.ask(word, name, compression=how) == word
        error: Any = served.refused("z" * 5 * MIB, compression=how)
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "100000 bytes" in error.details()


def test_metadata_of_any_bytes_are_understood(served: Served) -> None:
    for _ in range(50):
        odd = (("x-odd-bin", os.urandom(60)), ("x-plain", os.urandom(20).hex()))
        assert served.ask("hello", metadata=odd) == "hello"


def test_messages_stream_both_ways_and_an_error_ends_them(served: Served) -> None:
    words = ["a", "", "b" * 300_000, "c"]
    found = talk(served)((StringValue(value=word) for word in words), timeout=LIMIT_S)
    assert [each.value for each in found] == [word for word in words for _ in range(2)]
    assert list(talk(served)(iter([]), timeout=LIMIT_S)) == []
    found = talk(served)(
        (StringValue(value=word) for word in ("a", "missing", "b")), timeout=LIMIT_S
    )
    assert [next(found).value, next(found).value] == ["a", "a"]
    with pytest.raises(grpc.RpcError) as caught:
        next(found)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_stream_waits_for_a_client_that_does_not_read(served: Served) -> None:
    sent = []

    def many() -> Iterator[StringValue]:
        for n in range(64):
            sent.append(n)
            yield StringValue(value=str(n) * MIB)

    found = talk(served)(many(), timeout=LIMIT_S)
    next(found)
    time.sleep(0.3)
    assert len(sent) < 64  # what was not read keeps the rest with the client
    count = sum(1 for _ in found)
    assert (count, len(sent)) == (127, 64)


def test_a_thousand_calls_at_once_on_one_connection_are_answered(served: Served) -> None:
    async def ask() -> list[str]:
        async with grpc.aio.insecure_channel(served.address) as channel:
            call = channel.unary_unary(
                f"/{SERVICE}/Hot", StringValue.SerializeToString, StringValue.FromString
            )
            asked = [call(StringValue(value=str(n)), timeout=LIMIT_S) for n in range(1500)]
            return [answer.value for answer in await asyncio.gather(*asked)]

    assert asyncio.run(ask()) == [str(n) for n in range(1500)]


def test_reflection_describes_what_is_known_in_both_versions(served: Served) -> None:
    request = reflection_pb2.ServerReflectionRequest(
        file_containing_symbol="google.protobuf.StringValue"
    )
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(served.channel)
    answers = list(stub.ServerReflectionInfo(iter([request, request]), timeout=LIMIT_S))
    assert len(answers) == 2
    assert b"StringValue" in answers[0].file_descriptor_response.file_descriptor_proto[0]
    v1 = served.channel.stream_stream(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        reflection_pb2.ServerReflectionRequest.SerializeToString,
        reflection_pb2.ServerReflectionResponse.FromString,
    )
    assert list(v1(iter([request]), timeout=LIMIT_S)) == answers[:1]


def test_health_knows_its_services_and_no_others(served: Served) -> None:
    stub: Any = health_pb2_grpc.HealthStub(served.channel)
    with pytest.raises(grpc.RpcError) as caught:
        stub.Check(health_pb2.HealthCheckRequest(service="other"), timeout=LIMIT_S)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    watched = stub.Watch(health_pb2.HealthCheckRequest(service="other"), timeout=LIMIT_S)
    assert next(watched).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    watched.cancel()


def test_no_call_fails_though_connections_grow_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http2, "AGE_S", 0.05)
    ended, close = [], http2.Connection.close

    def counted(connection: http2.Connection) -> None:
        ended.append(connection)
        close(connection)

    monkeypatch.setattr(http2.Connection, "close", counted)
    with serving() as served:
        end = time.monotonic() + 1.5

        async def ask(call: Any) -> int:
            count = 0
            while time.monotonic() < end:
                await call(StringValue(value="a"), timeout=LIMIT_S)
                count += 1
            return count

        async def main() -> int:
            async with grpc.aio.insecure_channel(served.address) as channel:
                call = channel.unary_unary(
                    f"/{SERVICE}/Hot", StringValue.SerializeToString, StringValue.FromString
                )
                return sum(await asyncio.gather(*(ask(call) for _ in range(8))))

        assert asyncio.run(main()) > 100
        assert len(ended) > 10
