"""HTTP/2 as a server speaks it, frame by frame, over a transport that only writes down."""

import asyncio
import random
import socket
import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.serving import http2
from mlplatform.serving import http2_frames as h2
from mlplatform.serving.hpack import Decoder, Field, literal
from mlplatform.serving.http2 import Connection
from mlplatform.serving.http2_frames import Limits, frame, number
from mlplatform.serving.http2_stream import Stream
from tests.platform.serving.http2_wire import Frame, Wire, in_loop

PLAIN = h2.END_HEADERS
LAST = h2.END_STREAM
WINDOW = 100_000
# POST, http, the path /
REQUEST = b"\x83\x86\x84" + literal(b":authority", b"here")
ANSWER, END = b"\x88", literal(b"said", b"all")


class Echo(Stream):
    """Answers with what it got, once that is complete; or with `Peer.answer`."""

    connection: "Peer"

    def __init__(self, connection: "Peer", stream_id: int) -> None:
        super().__init__(connection, stream_id)
        self.body = b""
        self.gone = False

    def received(self, data: bytes) -> None:
        self.body += data
        self.consumed(len(data))
        if self.received_all and self.connection.answers:
            self.answer()

    def answer(self) -> None:
        self.send(ANSWER, self.connection.answer or self.body, END)

    def lost(self) -> None:
        self.gone = True

    def cut(self) -> None:
        self.send(trailers=ANSWER)


class Peer(Connection):
    """A server's connection, and the client's hand on it."""

    def __init__(self, answers: bool = True, greet: bool = True) -> None:
        super().__init__(Limits(1000, WINDOW, streams=10))
        self.answers = answers
        self.answer = b""
        self.opened: list[Echo] = []
        self.heads: list[list[Field] | None] = []
        self.wire = Wire()
        self.connection_made(self.wire)
        if greet:
            self.data_received(h2.PREFACE)
            self.get(h2.SETTINGS, 0, 0)
            self.wire.sent.clear()

    def read(self, fields: list[Field] | None) -> Any:
        if fields is not None:
            h2.check_request(fields)
        self.heads.append(fields)
        return fields

    def open(self, stream_id: int, head: Any) -> Echo:
        self.opened.append(Echo(self, stream_id))
        return self.opened[-1]

    def get(self, kind: int, flags: int, stream: int, payload: bytes = b"") -> None:
        self.data_received(frame(kind, flags, stream, payload))


def test_limits_are_told_as_they_are() -> None:
    settings = b"".join(
        struct.pack(">HI", name, value) for name, value in ((3, 7), (4, 100_000), (6, 1000))
    )
    expected = struct.pack(">IBI", 18 << 8 | 4, 0, 0) + settings
    expected += struct.pack(">IBII", 4 << 8 | 8, 0, 0, 100_000 - 65_535)
    assert Limits(1000, 100_000, 7).settings() == expected


@in_loop
async def test_settings_are_told_first_and_the_clients_are_acknowledged() -> None:
    peer = Peer(greet=False)
    assert peer.wire.frames()[0][0] == h2.SETTINGS
    peer.data_received(h2.PREFACE)
    peer.get(h2.SETTINGS, 0, 0, struct.pack(">HI", 0x99, 1))  # unknown, and to be ignored
    assert peer.wire.frames() == [(h2.SETTINGS, h2.ACK, 0, b"")]


def conversation() -> bytes:
    block = REQUEST + literal(b"x-long", b"v" * 200)
    return b"".join(
        [
            h2.PREFACE,
            frame(h2.SETTINGS, 0, 0, b""),
            frame(h2.HEADERS, PLAIN, 1, REQUEST),
            frame(h2.DATA, 0, 1, b"hel"),
            frame(0x55, 0xFF, 1, b"no such type"),
            frame(
                h2.HEADERS,
                LAST | h2.PADDED | h2.HAS_PRIORITY,
                3,
                b"\x02" + bytes(5) + block[:9] + bytes(2),
            ),
            frame(h2.CONTINUATION, 0, 3, block[9:50]),
            frame(h2.CONTINUATION, PLAIN, 3, block[50:]),
            frame(h2.DATA, LAST | h2.PADDED, 1, b"\x03lo" + bytes(3)),
            frame(h2.PRIORITY, 0, 1, bytes(5)),
            frame(h2.PING, 0, 0, b"12345678"),
            frame(h2.HEADERS, PLAIN, 5, REQUEST),
            frame(h2.DATA, 0, 5, b"trailers follow"),
            frame(h2.HEADERS, PLAIN | LAST, 5, literal(b"a", b"b")),
        ]
    )  # fmt: skip


ANSWERED = [
    (h2.HEADERS, PLAIN, 3, ANSWER),
    (h2.HEADERS, PLAIN | LAST, 3, END),
    (h2.HEADERS, PLAIN, 1, ANSWER),
    (h2.DATA, 0, 1, b"hello"),
    (h2.HEADERS, PLAIN | LAST, 1, END),
    (h2.PING, h2.ACK, 0, b"12345678"),
    (h2.HEADERS, PLAIN, 5, ANSWER),
    (h2.DATA, 0, 5, b"trailers follow"),
    (h2.HEADERS, PLAIN | LAST, 5, END),
]


@given(st.lists(st.integers(0, len(conversation())), max_size=30).map(sorted))
@in_loop
async def test_requests_are_answered_however_their_bytes_are_cut(cuts: list[int]) -> None:
    peer, sent = Peer(greet=False), conversation()
    for start, end in zip([0, *cuts], [*cuts, len(sent)], strict=True):
        if start < end:
            peer.data_received(sent[start:end])
    assert peer.wire.frames()[3:] == ANSWERED
    assert peer.heads[1] == [
        (b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/"),
        (b":authority", b"here"), (b"x-long", b"v" * 200),
    ]  # fmt: skip
    assert not peer.streams


class TestFlowControl:
    @given(st.lists(st.tuples(st.booleans(), st.integers(1, 60_000)), max_size=30))
    @settings(max_examples=50, deadline=None)
    @in_loop
    async def test_no_more_is_sent_than_there_is_room_for(
        self, updates: list[tuple[bool, int]]
    ) -> None:
        peer = Peer()
        peer.answer = random.Random(1).randbytes(200_000)
        for stream in (1, 3):
            peer.get(h2.HEADERS, PLAIN | LAST, stream, REQUEST)
        room = {0: 65_535, 1: 65_535, 3: 65_535}
        came = {1: b"", 3: b""}
        done = set()

        def take() -> None:
            for kind, flags, stream, payload in peer.wire.frames():
                if kind == h2.DATA:
                    assert len(payload) <= 16_384
                    came[stream] += payload
                    room[stream] -= len(payload)
                    room[0] -= len(payload)
                elif kind == h2.HEADERS and flags & LAST:
                    done.add(stream)
            assert min(room.values()) >= 0
            for stream, body in came.items():
                assert peer.answer.startswith(body)
                assert (stream in done) == (body == peer.answer)
                # Nothing waits that could be sent.
                assert stream in done or not min(room[0], room[stream])

        take()
        for whole, more in updates:
            for stream in (0, 1, 3) if whole else (1, 0):
                room[stream] += more
                peer.get(h2.WINDOW_UPDATE, 0, stream, number(more))
            take()
        for stream in room:
            room[stream] += 400_000
            peer.get(h2.WINDOW_UPDATE, 0, stream, number(400_000))
        take()
        assert done == {1, 3}
        assert peer.unsent == 0 and not peer.waiting and not peer.streams

    @in_loop
    async def test_the_clients_settings_change_windows_and_frames(self) -> None:
        peer = Peer()
        peer.get(h2.SETTINGS, 0, 0, struct.pack(">HI", h2.INITIAL_WINDOW_SIZE, 10))
        peer.get(h2.WINDOW_UPDATE, 0, 0, number(100_000))
        peer.answer = bytes(50_000)
        peer.get(h2.HEADERS, PLAIN | LAST, 1, REQUEST)
        assert [len(payload) for kind, *_, payload in peer.wire.frames() if kind == h2.DATA] == [10]
        # Less than was sent: the window is below nothing.
        peer.get(h2.SETTINGS, 0, 0, struct.pack(">HI", h2.INITIAL_WINDOW_SIZE, 4))
        peer.get(h2.WINDOW_UPDATE, 0, 1, number(6))
        assert not any(kind == h2.DATA for kind, *_ in peer.wire.frames())
        more = struct.pack(">HIHI", h2.MAX_FRAME_SIZE, 20_000, h2.INITIAL_WINDOW_SIZE, 30_000)
        peer.get(h2.SETTINGS, 0, 0, more)
        sizes = [len(payload) for kind, *_, payload in peer.wire.frames() if kind == h2.DATA]
        assert sizes == [20_000, 9_996]

    @in_loop
    async def test_room_is_given_for_what_is_consumed(self) -> None:
        peer = Peer()
        peer.get(h2.HEADERS, PLAIN, 1, REQUEST)
        given = {0: WINDOW, 1: WINDOW}
        for _ in range(1000):
            for stream in given:
                given[stream] -= 500
                assert given[stream] >= 0  # a client that waits for room has it
            peer.get(h2.DATA, h2.PADDED, 1, b"\xc7" + b"x" * 300 + bytes(199))
            for kind, _, stream, payload in peer.wire.frames():
                assert kind == h2.WINDOW_UPDATE
                given[stream] += int.from_bytes(payload, "big")
                assert given[stream] <= WINDOW
        assert peer.opened[0].body == b"x" * 300_000

    @in_loop
    async def test_what_is_not_consumed_fills_the_window_and_no_more(self) -> None:
        peer = Peer()
        peer.get(h2.HEADERS, PLAIN, 1, REQUEST)
        stream = peer.opened[0]
        stream.consumed = lambda length: None  # type: ignore[method-assign]
        for _ in range(10):
            peer.get(h2.DATA, 0, 1, bytes(WINDOW // 10))
        assert peer.wire.faults() == []
        peer.get(h2.DATA, 0, 1, b"x")
        assert peer.wire.faults() == [(h2.RST_STREAM, 1, h2.FLOW_CONTROL_ERROR)]
        assert stream.gone

    @in_loop
    async def test_a_client_that_reads_nothing_is_not_read(self) -> None:
        peer = Peer()
        peer.pause_writing()
        assert not peer.wire.reading
        peer.resume_writing()
        assert peer.wire.reading

    @in_loop
    async def test_who_leaves_too_much_unread_gets_no_new_stream(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(http2, "_UNSENT_BYTES", 100_000)
        peer = Peer()
        peer.answer = bytes(180_000)
        for stream in (1, 3):
            peer.get(h2.HEADERS, PLAIN | LAST, stream, REQUEST)
        assert peer.wire.faults() == [(h2.RST_STREAM, 3, h2.REFUSED_STREAM)]
        peer.get(h2.RST_STREAM, 0, 1, number(h2.CANCEL))
        assert peer.unsent == 0
        peer.get(h2.HEADERS, PLAIN | LAST, 5, REQUEST)
        assert 5 in peer.streams


UPPER = b"\x83\x86\x84" + literal(b"X-Upper", b"")
FAULTS: dict[str, tuple[list[Frame], int, int]] = {
    # Name: frames behind the first request, the stream that ends or 0, the error code.
    "even stream": ([(h2.HEADERS, PLAIN, 2, REQUEST)], 0, h2.PROTOCOL_ERROR),
    "head of stream 0": ([(h2.HEADERS, PLAIN, 0, REQUEST)], 0, h2.PROTOCOL_ERROR),
    "data of stream 0": ([(h2.DATA, 0, 0, b"x")], 0, h2.PROTOCOL_ERROR),
    "data of no stream": ([(h2.DATA, 0, 9, b"x")], 0, h2.PROTOCOL_ERROR),
    "reset of no stream": ([(h2.RST_STREAM, 0, 9, bytes(4))], 0, h2.PROTOCOL_ERROR),
    "window of no stream": ([(h2.WINDOW_UPDATE, 0, 9, number(1))], 0, h2.PROTOCOL_ERROR),
    "no more window": ([(h2.WINDOW_UPDATE, 0, 0, number(0))], 0, h2.PROTOCOL_ERROR),
    "no more window of a stream": ([(h2.WINDOW_UPDATE, 0, 1, number(0))], 1, h2.PROTOCOL_ERROR),
    "window": ([(h2.WINDOW_UPDATE, 0, 0, number(h2.LARGEST))], 0, h2.FLOW_CONTROL_ERROR),
    "stream's window": ([(h2.WINDOW_UPDATE, 0, 1, number(h2.LARGEST))], 1, h2.FLOW_CONTROL_ERROR),
    "window of another size": ([(h2.WINDOW_UPDATE, 0, 0, bytes(5))], 0, h2.FRAME_SIZE_ERROR),
    "reset of another size": ([(h2.RST_STREAM, 0, 1, bytes(3))], 0, h2.FRAME_SIZE_ERROR),
    "ping of another size": ([(h2.PING, 0, 0, bytes(7))], 0, h2.FRAME_SIZE_ERROR),
    "ping of a stream": ([(h2.PING, 0, 1, bytes(8))], 0, h2.PROTOCOL_ERROR),
    "settings of a stream": ([(h2.SETTINGS, 0, 1, b"")], 0, h2.PROTOCOL_ERROR),
    "settings cut off": ([(h2.SETTINGS, 0, 0, bytes(5))], 0, h2.FRAME_SIZE_ERROR),
    "acknowledged settings": ([(h2.SETTINGS, h2.ACK, 0, bytes(6))], 0, h2.FRAME_SIZE_ERROR),
    "push setting": ([(h2.SETTINGS, 0, 0, struct.pack(">HI", 2, 2))], 0, h2.PROTOCOL_ERROR),
    "window setting": (
        [(h2.SETTINGS, 0, 0, struct.pack(">HI", 4, 2**31))], 0, h2.FLOW_CONTROL_ERROR,
    ),
    "small frames": ([(h2.SETTINGS, 0, 0, struct.pack(">HI", 5, 16_383))], 0, h2.PROTOCOL_ERROR),
    "large frames": ([(h2.SETTINGS, 0, 0, struct.pack(">HI", 5, 2**24))], 0, h2.PROTOCOL_ERROR),
    "a push": ([(h2.PUSH_PROMISE, PLAIN, 1, bytes(4))], 0, h2.PROTOCOL_ERROR),
    "goaway of a stream": ([(h2.GOAWAY, 0, 1, bytes(8))], 0, h2.PROTOCOL_ERROR),
    "padding only": ([(h2.DATA, h2.PADDED, 1, b"\x04abc")], 0, h2.PROTOCOL_ERROR),
    "no padding": ([(h2.DATA, h2.PADDED, 1, b"")], 0, h2.PROTOCOL_ERROR),
    "no priority": ([(h2.HEADERS, PLAIN | h2.HAS_PRIORITY, 3, bytes(4))], 0, h2.FRAME_SIZE_ERROR),
    "a long frame": ([(h2.DATA, 0, 1, bytes(16_385))], 0, h2.FRAME_SIZE_ERROR),
    "continuation alone": ([(h2.CONTINUATION, PLAIN, 1, b"")], 0, h2.PROTOCOL_ERROR),
    "a head interrupted": (
        [(h2.HEADERS, 0, 3, REQUEST), (h2.PING, 0, 0, bytes(8))], 0, h2.PROTOCOL_ERROR,
    ),
    "a head of another stream": (
        [(h2.HEADERS, 0, 3, REQUEST), (h2.CONTINUATION, PLAIN, 5, b"")], 0, h2.PROTOCOL_ERROR,
    ),
    "garbled": ([(h2.HEADERS, PLAIN, 3, b"\x80")], 0, h2.COMPRESSION_ERROR),
    "upper case": ([(h2.HEADERS, PLAIN, 3, UPPER)], 3, h2.PROTOCOL_ERROR),
    "no path": ([(h2.HEADERS, PLAIN, 3, b"\x83\x86")], 3, h2.PROTOCOL_ERROR),
    "two paths": ([(h2.HEADERS, PLAIN, 3, b"\x83\x86\x84\x84")], 3, h2.PROTOCOL_ERROR),
    "a status": ([(h2.HEADERS, PLAIN, 3, REQUEST[:3] + ANSWER)], 3, h2.PROTOCOL_ERROR),
    "a late path": (
        [(h2.HEADERS, PLAIN, 3, b"\x83\x86" + literal(b"a", b"") + b"\x84")], 3, h2.PROTOCOL_ERROR,
    ),
    "of a connection": (
        [(h2.HEADERS, PLAIN, 3, REQUEST + literal(b"connection", b""))], 3, h2.PROTOCOL_ERROR,
    ),
    "a line's end": (
        [(h2.HEADERS, PLAIN, 3, REQUEST + literal(b"a", b"b\r\nc"))], 3, h2.PROTOCOL_ERROR,
    ),
    "trailers that end nothing": ([(h2.HEADERS, PLAIN, 1, REQUEST)], 1, h2.PROTOCOL_ERROR),
    "data behind the end": (
        [(h2.DATA, LAST, 1, b""), (h2.DATA, 0, 1, b"x")], 1, h2.STREAM_CLOSED,
    ),
    "trailers behind the end": (
        [(h2.DATA, LAST, 1, b""), (h2.HEADERS, PLAIN | LAST, 1, REQUEST)], 1, h2.STREAM_CLOSED,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
@in_loop
async def test_a_mistake_ends_the_stream_or_the_connection(name: str) -> None:
    frames, stream, code = FAULTS[name]
    peer = Peer(answers=False)
    peer.get(h2.HEADERS, PLAIN, 1, REQUEST)
    for one in frames:
        peer.get(*one)
    if stream:
        assert peer.wire.faults() == [(h2.RST_STREAM, stream, code)]
        assert stream not in peer.streams and not peer.closing
        assert peer.opened[0].gone == (stream == 1)
    else:
        assert peer.wire.faults() == [(h2.GOAWAY, 0, code)]
        assert peer.wire.ended and peer.opened[0].gone


@pytest.mark.parametrize("greeting", [b"GET / HTTP/1.1\r\n", h2.PREFACE[:-1] + b"\r"])
@in_loop
async def test_who_speaks_something_else_is_told_so(greeting: bytes) -> None:
    peer = Peer(greet=False)
    peer.data_received(greeting)
    assert peer.wire.faults() == [(h2.GOAWAY, 0, h2.PROTOCOL_ERROR)]
    assert peer.wire.ended


@in_loop
async def test_who_says_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http2, "PREFACE_S", 0.01)
    monkeypatch.setattr(http2, "_LINGER_S", 0.01)
    peer = Peer(greet=False)
    peer.data_received(h2.PREFACE[:5])
    while not peer.wire.aborted:
        await asyncio.sleep(0.005)
    assert peer.wire.ended


@in_loop
async def test_settings_come_first() -> None:
    peer = Peer(greet=False)
    peer.data_received(h2.PREFACE)
    peer.get(h2.PING, 0, 0, bytes(8))
    assert peer.wire.faults() == [(h2.GOAWAY, 0, h2.PROTOCOL_ERROR)]


@in_loop
async def test_what_crosses_the_end_of_a_stream_is_ignored() -> None:
    peer = Peer()
    peer.get(h2.HEADERS, PLAIN | LAST, 1, REQUEST)
    peer.get(h2.HEADERS, PLAIN | LAST, 5, REQUEST)
    peer.wire.frames()
    for stream in (1, 3):  # 3 was left out, and so is closed
        peer.get(h2.DATA, 0, stream, b"late")
        peer.get(h2.WINDOW_UPDATE, 0, stream, number(1))
        peer.get(h2.RST_STREAM, 0, stream, number(h2.CANCEL))
        peer.get(h2.HEADERS, PLAIN | LAST, stream, b"\x40\x01a\x01b")
    assert peer.wire.frames() == []
    peer.get(h2.HEADERS, PLAIN | LAST, 7, REQUEST + b"\xbe")  # the table was kept up
    assert peer.heads[-1] is not None and peer.heads[-1][-1] == (b"a", b"b")


@in_loop
async def test_an_answer_before_the_request_is_complete_asks_for_no_more_of_it() -> None:
    peer = Peer()
    peer.get(h2.HEADERS, PLAIN, 1, REQUEST)
    peer.opened[0].answer()
    kinds = [(kind, flags, payload) for kind, flags, _, payload in peer.wire.frames()]
    assert kinds[-2:] == [
        (h2.HEADERS, PLAIN | LAST, END),
        (h2.RST_STREAM, 0, number(h2.NO_ERROR)),
    ]
    peer.opened[0].answer()  # too late, and dropped
    assert peer.wire.frames() == [] and not peer.opened[0].gone


@in_loop
async def test_more_streams_than_were_offered_are_refused() -> None:
    peer = Peer(answers=False)
    for stream in range(1, 23, 2):
        peer.get(h2.HEADERS, PLAIN, stream, REQUEST)
    assert peer.wire.faults() == [(h2.RST_STREAM, 21, h2.REFUSED_STREAM)]
    peer.get(h2.RST_STREAM, 0, 1, number(h2.CANCEL))
    assert peer.opened[0].gone
    peer.get(h2.HEADERS, PLAIN, 23, REQUEST)
    assert len(peer.streams) == 10 and 23 in peer.streams


@in_loop
async def test_a_head_that_is_too_long_is_told_and_one_without_end_is_no_head() -> None:
    peer = Peer()
    peer.get(h2.HEADERS, PLAIN | LAST, 1, REQUEST + literal(b"a", bytes(900)))
    assert peer.heads[-1] is None
    assert not peer.closing
    peer.get(h2.HEADERS, 0, 3, REQUEST)
    for _ in range(20):
        peer.get(h2.CONTINUATION, 0, 3, literal(b"a", b"v" * 200))
    assert peer.wire.faults() == [(h2.GOAWAY, 0, h2.ENHANCE_YOUR_CALM)]


NOTHING: dict[str, Callable[[int], bytes]] = {
    "resets": lambda n: (
        frame(h2.HEADERS, PLAIN, 3 + 2 * n, REQUEST)
        + frame(h2.RST_STREAM, 0, 3 + 2 * n, number(h2.CANCEL))
    ),
    # The client has the server reset: MadeYouReset, CVE-2025-8671.
    "faults": lambda n: (
        frame(h2.HEADERS, PLAIN, 3 + 2 * n, REQUEST)
        + frame(h2.WINDOW_UPDATE, 0, 3 + 2 * n, number(0))
    ),
    "pings": lambda n: frame(h2.PING, 0, 0, bytes(8)),
    "settings": lambda n: frame(h2.SETTINGS, 0, 0, b""),
    "empty data": lambda n: frame(h2.DATA, 0, 1, b""),
    "priorities": lambda n: frame(h2.PRIORITY, 0, 1, bytes(5)),
    "unknown": lambda n: frame(0xEE, 0, 1, b""),
    "late data": lambda n: frame(h2.RST_STREAM if not n else h2.DATA, 0, 1, number(8)),
}


@pytest.mark.parametrize("name", NOTHING)
@in_loop
async def test_a_flood_of_nothing_ends_the_connection(name: str) -> None:
    peer = Peer(answers=False)
    peer.get(h2.HEADERS, PLAIN, 1, REQUEST)
    for n in range(1000):
        peer.data_received(NOTHING[name](n))
    assert not peer.closing
    # Two seconds' worth, lest the count begins anew in the midst of it.
    peer.data_received(b"".join(map(NOTHING[name], range(1000, 10_000))))
    assert peer.wire.faults()[-1] == (h2.GOAWAY, 0, h2.ENHANCE_YOUR_CALM)
    assert peer.wire.ended and not peer.streams


class TestLeaving:
    @in_loop
    async def test_it_ends_in_two_steps_and_what_comes_in_between_is_served(self) -> None:
        peer = Peer()
        peer.get(h2.HEADERS, PLAIN, 1, REQUEST)
        peer.go_away()
        (goaway, ping) = peer.wire.frames()
        assert goaway == (h2.GOAWAY, 0, 0, number(2**31 - 1) + number(h2.NO_ERROR))
        assert ping[0] == h2.PING
        peer.get(h2.HEADERS, PLAIN | LAST, 3, REQUEST)
        assert peer.wire.frames()[-1] == (h2.HEADERS, PLAIN | LAST, 3, END)
        assert not peer.quiet
        peer.get(h2.PING, h2.ACK, 0, ping[3])
        assert peer.wire.frames() == [(h2.GOAWAY, 0, 0, number(3) + number(h2.NO_ERROR))]
        peer.get(h2.HEADERS, PLAIN | LAST, 5, REQUEST)  # the client knows that it was not heard
        peer.get(h2.DATA, 0, 5, b"x")
        assert peer.wire.frames() == [] and not peer.wire.ended and not peer.quiet
        peer.opened[0].lasting = True  # type: ignore[misc]
        assert peer.quiet
        peer.get(h2.DATA, LAST, 1, b"hello")
        assert peer.wire.frames()[-1] == (h2.HEADERS, PLAIN | LAST, 1, END)
        assert peer.wire.ended and not peer.wire.aborted

    @in_loop
    async def test_it_happens_at_an_age_and_does_not_wait_for_a_deaf_client(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("AGE_S", "_LAST_CALL_S", "_GRACE_S", "_LINGER_S"):
            monkeypatch.setattr(http2, name, 0.01)
        peer = Peer(answers=False)
        peer.get(h2.HEADERS, PLAIN, 1, REQUEST)
        while not peer.wire.aborted:
            await asyncio.sleep(0.005)
        kinds = [(kind, stream) for kind, _, stream, _ in peer.wire.frames()]
        assert kinds == [
            (h2.GOAWAY, 0), (h2.PING, 0), (h2.GOAWAY, 0), (h2.HEADERS, 1), (h2.RST_STREAM, 1),
        ]  # fmt: skip

    @in_loop
    async def test_a_client_that_goes_loses_its_streams(self) -> None:
        peer = Peer(answers=False)
        peer.get(h2.HEADERS, PLAIN, 1, REQUEST)
        peer.connection_lost(None)
        assert peer.opened[0].gone and not peer.streams
        peer.opened[0].answer()
        peer.go_away()
        assert peer.wire.frames() == []

    @in_loop
    async def test_a_client_that_reset_the_connection_unseen_is_let_go(self) -> None:
        peer, loop = Peer(), asyncio.get_running_loop()
        server = await loop.create_server(lambda: peer, "127.0.0.1", 0)
        async with server:
            client = socket.create_connection(server.sockets[0].getsockname())
            while isinstance(peer.transport, Wire):
                await asyncio.sleep(0)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            peer.close()
            assert peer.transport.is_closing()


kinds = st.integers(0, 11)
payloads = st.binary(max_size=40) | st.sampled_from(
    [REQUEST, REQUEST[:3], bytes(4), bytes(8), bytes(6)]
)
frames = st.builds(frame, kinds, st.integers(0, 255), st.sampled_from([0, 1, 2, 3, 5, 7]), payloads)


class TestFuzz:
    @given(st.lists(frames | st.binary(max_size=30), max_size=30), st.booleans())
    @settings(max_examples=300, deadline=None)
    @in_loop
    async def test_no_bytes_whatever_break_the_protocol(
        self, sent: list[bytes], greet: bool
    ) -> None:
        peer = Peer(greet=greet)
        for part in sent:
            peer.data_received(part)
        self.check(peer)

    @given(st.data())
    @settings(max_examples=300, deadline=None)
    @in_loop
    async def test_nor_does_a_conversation_with_some_bytes_changed(
        self, data: st.DataObject
    ) -> None:
        peer, sent = Peer(greet=False), bytearray(conversation())
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(len(h2.PREFACE), len(sent) - 1))
            sent[at] = data.draw(st.integers(0, 255))
        peer.data_received(bytes(sent))
        self.check(peer)

    @staticmethod
    def check(peer: Peer) -> None:
        """It is over, with a word why; or it goes on, and answers."""
        reading: Decoder[Any] = Decoder(lambda fields: fields, 10_000)
        told = peer.wire.frames()  # whole frames, all of them
        for kind, _, _, payload in told:
            if kind == h2.HEADERS:
                reading.decode(payload)
        if peer.closing:
            assert told[-1][0] == h2.GOAWAY and peer.wire.ended
            assert not peer.streams
        else:
            assert not peer.wire.ended
        assert peer.unsent == sum(stream.unsent for stream in peer.streams.values())
