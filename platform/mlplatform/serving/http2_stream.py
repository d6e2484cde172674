"""A stream of HTTP/2: one request and its answer, under flow control both ways.

Enters: the payloads of its frames, and what to answer.  Leaves: what was received, for subclasses
to do something with, and frames.
"""

from typing import TYPE_CHECKING

from mlplatform.serving import http2_frames as h2
from mlplatform.serving.http2_frames import HEAD, StreamFault, frame, number

if TYPE_CHECKING:
    from mlplatform.serving.http2 import Connection


class Stream:
    """One request and its answer.  Subclasses say what becomes of what is received.

    received_all: the request is complete.  over: the answer is, or nobody waits for it.
    lasting: whether it may never end by itself, so that nobody waits for that.
    """

    lasting = False

    __slots__ = (
        "_owed", "_room", "_trailers", "_unsent", "_window", "connection", "id", "over",
        "received_all",
    )  # fmt: skip

    def __init__(self, connection: "Connection", stream_id: int) -> None:
        self.connection = connection
        self.id = stream_id
        self.received_all = False
        self.over = False
        self._window = connection.first_window  # that may be sent
        self._room = connection.limits.window_bytes  # that may be received,
        self._owed = 0  # and what was consumed, for which no room was given yet
        self._unsent = bytearray()
        self._trailers = b""

    def begin(self) -> None:
        """The request's head is complete."""

    def received(self, data: bytes) -> None:
        """More of the request; the last of it if `received_all`."""

    def sent(self) -> None:
        """What waited for flow control is sent."""

    def lost(self) -> None:
        """The client gave up, or is gone."""

    def cut(self) -> None:
        """The server stops."""

    def send(self, head: bytes = b"", data: bytes = b"", trailers: bytes = b"") -> None:
        """Send header blocks, before and behind data; trailers are the end of the stream."""
        if self.over:
            return
        connection = self.connection
        parts: list[bytes] = []
        if head:
            parts += HEAD.pack(len(head) << 8 | h2.HEADERS, h2.END_HEADERS, self.id), head
        if data or self._unsent:
            length = len(data)
            if (
                self._unsent
                or length > self._window
                or length > connection.window
                or length > connection.frame_bytes
            ):
                connection.transport.write(b"".join(parts))
                connection.hold(self, len(data))
                self._unsent += data
                self._trailers = trailers
                self.pump()
                return
            self._window -= length
            connection.window -= length
            parts += HEAD.pack(length << 8 | h2.DATA, 0, self.id), data
        if trailers:
            flags = h2.END_HEADERS | h2.END_STREAM
            parts += HEAD.pack(len(trailers) << 8 | h2.HEADERS, flags, self.id), trailers
        connection.transport.write(b"".join(parts))
        if trailers:
            self._end()

    @property
    def unsent(self) -> int:
        """Bytes that wait for room."""
        return len(self._unsent)

    def pump(self) -> None:
        """Send of what waits as much as there is room for."""
        connection, unsent, at = self.connection, self._unsent, 0
        if not unsent:
            return
        while at < len(unsent):
            length = min(len(unsent) - at, self._window, connection.window, connection.frame_bytes)
            if length <= 0:
                break
            self._window -= length
            connection.window -= length
            part = bytes(unsent[at : at + length])
            connection.transport.write(frame(h2.DATA, 0, self.id, part))
            at += length
        connection.unsent -= at
        del unsent[:at]
        if unsent:
            return
        connection.waiting.pop(self.id, None)
        if self._trailers:
            trailers, self._trailers = self._trailers, b""
            self.send(trailers=trailers)
        else:
            self.sent()

    def consumed(self, length: int) -> None:
        """Give the client room for so many bytes."""
        self._owed += length
        if not self.received_all and self._owed >= self.connection.limits.window_bytes // 2:
            self.connection.control(h2.WINDOW_UPDATE, self.id, number(self._owed))
            self._room += self._owed
            self._owed = 0

    def reset(self, code: int) -> None:
        """End both directions at once."""
        if not self.over:
            self.connection.control(h2.RST_STREAM, self.id, number(code))
            self.over = True
            self.connection.forget(self)

    def _end(self) -> None:
        self.over = True
        if not self.received_all:  # nobody needs the rest
            self.connection.control(h2.RST_STREAM, self.id, number(h2.NO_ERROR))
        self.connection.forget(self)

    # What the connection does to it.

    def take(self, payload: bytes, flags: int) -> None:
        length = len(payload)
        if self.received_all:
            raise StreamFault(h2.STREAM_CLOSED)
        if length > self._room:
            raise StreamFault(h2.FLOW_CONTROL_ERROR)
        self._room -= length
        if flags & h2.PADDED:
            payload = h2.unpadded(payload)
            self.consumed(length - len(payload))
        if flags & h2.END_STREAM:
            self.received_all = True
        elif not payload:
            self.connection.nuisance()
        self.received(payload)

    def widen(self, more: int) -> None:
        self._window += more
        if self._window > h2.LARGEST:
            raise StreamFault(h2.FLOW_CONTROL_ERROR)
