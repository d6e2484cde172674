"""HTTP/2 as a server speaks it, frame by frame, over a transport that only writes down."""

import asyncio
import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.serving import http2
from mlplatform.serving import http2_frames as h2
from mlplatform.serving.hpack import literal
from mlplatform.serving.http2_frames import Limits, number
from tests.platform.serving.http2_peer import (
    ANSWER,
    END,
    LAST,
    PLAIN,
    REQUEST,
    WINDOW,
    Peer,
    conversation,
)
from tests.platform.serving.http2_wire import Frame, in_loop


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
