"""HTTP/2 of a server whose streams say back what they got, and the client's hand on it."""

from typing import Any

from mlplatform.serving import http2_frames as h2
from mlplatform.serving.hpack import Field, literal
from mlplatform.serving.http2 import Connection
from mlplatform.serving.http2_frames import Limits, frame
from mlplatform.serving.http2_stream import Stream
from tests.platform.serving.http2_wire import Wire

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
