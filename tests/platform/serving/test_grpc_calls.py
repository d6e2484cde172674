"""gRPC's calls, frame by frame: what grpcio's client does not send."""

import asyncio
import gzip
from typing import Any
from urllib.parse import unquote

import pytest
from google.protobuf.wrappers_pb2 import StringValue
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.serving import http2_frames as h2
from mlplatform.serving.doors import Doors, Keys
from mlplatform.serving.grpc_methods import Context, Reply, hot, service, streaming, unary
from mlplatform.serving.grpc_protocol import GrpcConnection, Site
from mlplatform.serving.hpack import Decoder, literal
from mlplatform.serving.http2_frames import frame, number
from tests.platform.serving.http2_wire import Wire, in_loop

LONGEST = 1000
KEY = "k" * 32
LAST = h2.END_STREAM
HELLO = StringValue(value="hello").SerializeToString()


def framed(message: bytes, compressed: bool = False) -> bytes:
    return bytes([compressed]) + len(message).to_bytes(4, "big") + message


class Client:
    """A connection to a server of four methods, and the hand of its client."""

    def __init__(self, doors: Doors | None = None) -> None:
        self.answered: list[tuple[str, str]] = []
        self.asked: list[str] = []
        self.replies: list[Reply] = []
        self.release = asyncio.Event()
        self.full = False

        async def later(request: StringValue, context: Context) -> StringValue:
            await self.release.wait()
            return request

        def keep(request: StringValue, context: Context, reply: Reply) -> None:
            self.asked.append(request.value)
            self.replies.append(reply)

        def echo(request: StringValue, context: Context, reply: Reply) -> None:
            self.asked.append(request.value)
            reply(request)

        async def talk(requests: Any, context: Context) -> Any:
            async for request in requests:
                self.asked.append(request.value)
                await self.release.wait()
                yield request

        methods = {
            "Echo": hot(echo, StringValue),
            "Keep": hot(keep, StringValue),
            "Later": unary(later, StringValue),
            "Talk": streaming(talk, StringValue),
        }
        self.site = Site(
            service("test.Words", methods),
            doors or Doors(max_body_bytes=LONGEST),
            lambda method, status, seconds: self.answered.append((method[12:], status)),
            LONGEST,
            lambda: self.full,
        )
        self.connection = GrpcConnection(self.site)
        self.wire = Wire()
        self.connection.connection_made(self.wire)
        self.connection.data_received(h2.PREFACE + frame(h2.SETTINGS, 0, 0, b""))
        self.wire.frames()
        self.decoder: Decoder[Any] = Decoder(dict, 1 << 20)
        self.next = 1

    def head(self, method: str = "Echo", flags: int = 0, **said: str) -> int:
        fields = {
            ":method": "POST", ":scheme": "http", ":path": f"/test.Words/{method}",
            "content-type": "application/grpc", "te": "trailers",
        }  # fmt: skip
        fields |= {name.replace("_", "-"): value for name, value in said.items()}
        block = b"".join(literal(name.encode(), value.encode()) for name, value in fields.items())
        stream, self.next = self.next, self.next + 2
        self.connection.data_received(frame(h2.HEADERS, flags | h2.END_HEADERS, stream, block))
        return stream

    def data(self, stream: int, data: bytes, flags: int = LAST) -> None:
        self.connection.data_received(frame(h2.DATA, flags, stream, data))

    def ask(self, body: bytes, method: str = "Echo", **said: str) -> dict[str, str]:
        stream = self.head(method, **said)
        self.data(stream, body)
        return self.told(stream)

    def told(self, stream: int) -> dict[str, str]:
        """The fields of all that was sent on the one stream, and its data as `data`."""
        found: dict[str, str] = {}
        for kind, _, of, payload in self.wire.frames():
            if of == stream and kind == h2.HEADERS:
                said = self.decoder.decode(payload)
                found |= {name.decode(): value.decode() for name, value in said.items()}
            elif of == stream and kind == h2.DATA:
                found["data"] = found.get("data", "") + payload.hex()
        return found


@in_loop
async def test_an_answer_is_a_head_a_message_and_a_status() -> None:
    assert Client().ask(framed(HELLO)) == {
        ":status": "200",
        "content-type": "application/grpc",
        "data": framed(HELLO).hex(),
        "grpc-status": "0",
    }


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ({":method": "GET"}, "405"),
        ({"content_type": "application/json"}, "415"),
        ({"content_type": "application/grpcx"}, "415"),
        ({"content_type": ""}, "415"),
    ],
)
@in_loop
async def test_what_is_no_grpc_gets_an_http_status(said: dict[str, str], status: str) -> None:
    client = Client()
    assert client.ask(framed(HELLO), **said) == {":status": status}
    assert client.asked == [] and not client.connection.streams


@pytest.mark.parametrize("kind", ["application/grpc+proto", "application/grpc;charset=utf-8"])
@in_loop
async def test_a_type_may_say_more(kind: str) -> None:
    assert Client().ask(framed(HELLO), content_type=kind)["grpc-status"] == "0"


UNIMPLEMENTED, INVALID, EXHAUSTED, DEADLINE = "12", "3", "8", "4"
COMPRESSED = gzip.compress(HELLO)
BODIES: dict[str, tuple[bytes, dict[str, str], str, str]] = {
    # Name: body, fields, status, a part of the message.
    "no method": (framed(HELLO), {":path": "/test.Words/No"}, UNIMPLEMENTED, "no method /test"),
    "no message": (b"", {}, INVALID, "exactly one message"),
    "half a prefix": (bytes(3), {}, INVALID, "exactly one message"),
    "cut off": (framed(HELLO)[:-1], {}, INVALID, "exactly one message"),
    "two messages": (framed(HELLO) * 2, {}, INVALID, "exactly one message"),
    "unreadable": (framed(b"\xff\xff"), {}, INVALID, "/test.Words/Echo: the message cannot be"),
    "too long": (framed(bytes(LONGEST + 1)), {}, EXHAUSTED, "1001 bytes is too long"),
    "too long, it says": (b"\x00\xff\xff\xff\xff", {}, EXHAUSTED, "4294967295 bytes is too long"),
    "unknown encoding": (framed(HELLO), {"grpc_encoding": "br"}, UNIMPLEMENTED, "br is not read"),
    "encoding unsaid": (framed(COMPRESSED, True), {}, INVALID, "does not say how"),
    "not gzip": (framed(HELLO, True), {"grpc_encoding": "gzip"}, INVALID, "cannot be read"),
    "half of gzip": (
        framed(COMPRESSED[:-9], True), {"grpc_encoding": "gzip"}, INVALID, "is cut off",
    ),
    "a bomb": (
        framed(gzip.compress(bytes(100_000)), True), {"grpc_encoding": "gzip"}, EXHAUSTED,
        "at most 1000",
    ),
    "no timeout": (framed(HELLO), {"grpc_timeout": "soon"}, INVALID, "no duration: soon"),
    "a long timeout": (framed(HELLO), {"grpc_timeout": "123456789S"}, INVALID, "no duration"),
}  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
@in_loop
async def test_a_request_with_a_fault_is_told_of_it(name: str) -> None:
    body, said, status, text = BODIES[name]
    client = Client()
    for split in range(2):  # in one frame and in two
        stream = client.head(**said)
        if split:
            client.data(stream, body[:2], 0)
        client.data(stream, body[2:] if split else body)
        told = client.told(stream)
        assert told["grpc-status"] == status
        assert text in unquote(told["grpc-message"])
        assert ("grpc-accept-encoding" in told) == (name == "unknown encoding")
    assert client.asked == [] and client.connection.held == 0


@in_loop
async def test_a_compressed_message_is_read_and_an_identical_one_may_be_sent() -> None:
    client = Client()
    said = client.ask(framed(COMPRESSED, True), grpc_encoding="gzip")
    assert said["data"] == framed(HELLO).hex()
    assert client.ask(framed(HELLO), grpc_encoding="gzip")["grpc-status"] == "0"
    assert client.ask(framed(HELLO), grpc_encoding="identity")["grpc-status"] == "0"


@in_loop
async def test_a_message_that_is_too_long_is_refused_before_it_has_come() -> None:
    client = Client()
    stream = client.head()
    client.data(stream, framed(bytes(LONGEST + 1))[:10], 0)
    assert client.told(stream)["grpc-status"] == EXHAUSTED
    client.data(stream, bytes(100))
    assert client.connection.held == 0 and not client.connection.closing


@in_loop
async def test_who_has_no_key_is_refused_before_the_message_came() -> None:
    client = Client(Doors(keys=Keys([KEY])))
    stream = client.head()
    assert client.told(stream)["grpc-status"] == "16"
    assert client.ask(framed(HELLO), x_api_key=KEY)["grpc-status"] == "0"
    assert client.answered == [("Echo", "UNAUTHENTICATED"), ("Echo", "OK")]


@pytest.mark.parametrize("timeout", ["20m", "20000u", "0S", "1n"])
@in_loop
async def test_a_deadline_ends_any_call_and_what_is_answered_later_is_dropped(timeout: str) -> None:
    client = Client()
    streams = [client.head(name, grpc_timeout=timeout) for name in ("Keep", "Later", "Talk")]
    for stream in streams:
        client.data(stream, framed(HELLO), 0 if stream == streams[2] else LAST)
    incomplete = client.head("Keep", grpc_timeout=timeout)
    while client.connection.streams:
        await asyncio.sleep(0.005)
    ended = [
        (stream, client.decoder.decode(payload)[b"grpc-status"].decode())
        for kind, _, stream, payload in client.wire.frames()
        if kind == h2.HEADERS
    ]
    assert sorted(ended) == [(stream, DEADLINE) for stream in [*streams, incomplete]]
    for reply in client.replies:
        reply(StringValue())
    client.release.set()
    await asyncio.sleep(0.01)
    assert client.wire.frames() == []
    expected = [("Keep", "DEADLINE_EXCEEDED")] * 2 + [("Later", "DEADLINE_EXCEEDED")]
    assert sorted(client.answered) == expected


@in_loop
async def test_a_call_in_time_is_not_ended_by_anothers_deadline() -> None:
    client = Client()
    for timeout in ("10S", "10m", "5S"):
        client.data(client.head("Keep", grpc_timeout=timeout), framed(HELLO))
    while len(client.connection.streams) > 2:
        await asyncio.sleep(0.005)
    assert client.told(3)["grpc-status"] == DEADLINE
    for reply in client.replies:
        reply(StringValue())
    assert client.told(1)["grpc-status"] == "0"
    assert [status for _, status in client.answered] == ["DEADLINE_EXCEEDED", "OK", "OK"]


@in_loop
async def test_of_several_deadlines_each_has_its_turn() -> None:
    client = Client()
    for timeout in ("5m", "60m", "30m"):
        client.data(client.head("Keep", grpc_timeout=timeout), framed(HELLO))
    ended: list[int] = []
    while client.connection.streams:
        await asyncio.sleep(0.002)
        ended += [stream for kind, _, stream, _ in client.wire.frames() if kind == h2.HEADERS]
    assert ended == [1, 5, 3]


@in_loop
async def test_a_call_that_was_given_up_is_counted_once_and_its_answer_dropped() -> None:
    client = Client()
    stream = client.head("Keep")
    client.data(stream, framed(HELLO))
    client.connection.data_received(frame(h2.RST_STREAM, 0, stream, number(h2.CANCEL)))
    client.replies[0](StringValue())
    assert client.wire.frames() == []
    assert client.answered == [("Keep", "CANCELLED")]


@in_loop
async def test_messages_of_a_stream_wait_in_its_window_until_they_are_taken() -> None:
    client = Client()
    stream = client.head("Talk")
    whole = framed(StringValue(value="x" * 900).SerializeToString())
    window = client.site.limits.window_bytes
    for _ in range(window // len(whole)):
        client.data(stream, whole, 0)
        await asyncio.sleep(0)
    kinds = {(kind, of) for kind, _, of, _ in client.wire.frames()}
    assert (h2.WINDOW_UPDATE, stream) not in kinds
    client.release.set()
    while (h2.WINDOW_UPDATE, stream) not in kinds:
        await asyncio.sleep(0.005)
        kinds |= {(kind, of) for kind, _, of, _ in client.wire.frames()}
    client.connection.cut()
    assert not client.connection.streams


@in_loop
async def test_a_stream_makes_no_more_answers_than_its_client_has_room_for() -> None:
    client = Client()
    client.release.set()
    stream = client.head("Talk")
    whole = framed(StringValue(value="x" * 900).SerializeToString())
    answers = h2.FIRST_WINDOW_BYTES // len(whole)  # that fit whole
    for _ in range(answers + 20):
        client.data(stream, whole, 0)
        for _ in range(5):
            await asyncio.sleep(0)
    assert len(client.asked) == answers + 1
    client.connection.data_received(frame(h2.WINDOW_UPDATE, 0, stream, number(1 << 20)))
    client.connection.data_received(frame(h2.WINDOW_UPDATE, 0, 0, number(1 << 20)))
    client.data(stream, b"")
    while client.connection.streams:
        await asyncio.sleep(0)
    told = client.told(stream)
    assert told["grpc-status"] == "0"
    assert told["data"] == whole.hex() * (answers + 20)


@in_loop
async def test_for_want_of_room_hot_calls_are_refused_unread() -> None:
    client = Client()
    client.full = True
    told = client.ask(framed(b"\xff\xff"))
    assert (told["grpc-status"], told["retry-after-s"]) == (EXHAUSTED, "1")
    client.release.set()
    stream = client.head("Later")
    client.data(stream, framed(HELLO))
    while client.connection.streams:
        await asyncio.sleep(0)
    assert client.told(stream)["grpc-status"] == "0"
    client.full = False
    assert client.ask(framed(HELLO))["grpc-status"] == "0"
    assert client.answered == [
        ("Echo", "RESOURCE_EXHAUSTED"), ("Later", "OK"), ("Echo", "OK"),
    ]  # fmt: skip


@in_loop
async def test_what_goes_wrong_after_the_answer_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def hasty(request: StringValue, context: Context, reply: Reply) -> None:
        reply(request)
        raise ZeroDivisionError(request.value)

    client = Client()
    client.site.methods[b"/test.Words/Echo"] = ("/test.Words/Echo", hot(hasty, StringValue))
    assert client.ask(framed(HELLO))["grpc-status"] == "0"
    (record,) = caplog.records
    assert "/test.Words/Echo failed: ZeroDivisionError" in record.getMessage()
    assert "hello" not in record.getMessage()


parts = st.lists(st.binary(max_size=20) | st.just(framed(HELLO)), max_size=5)


@given(
    st.lists(st.tuples(st.sampled_from(["Echo", "Keep", "Later", "Talk"]), parts), max_size=6),
    st.sampled_from(["identity", "gzip", "deflate"]),
)
@settings(max_examples=200, deadline=None)
@in_loop
async def test_no_bodies_whatever_leave_anything_behind(
    calls: list[tuple[str, list[bytes]]], encoding: str
) -> None:
    client = Client()
    client.release.set()
    for method, sent in calls:
        stream = client.head(method, grpc_encoding=encoding)
        for part in sent:
            client.data(stream, part, 0)
        client.data(stream, b"")
    for reply in client.replies:
        reply(StringValue())
    for _ in range(50):
        await asyncio.sleep(0)
    assert not client.connection.streams and client.connection.held == 0
    assert len(client.answered) == sum(method != "Talk" for method, _ in calls)
    assert {status for _, status in client.answered} <= {
        "OK", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED",
    }  # fmt: skip
