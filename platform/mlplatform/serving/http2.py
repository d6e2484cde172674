"""HTTP/2 (RFC 9113) for a server, in the event loop: one connection, and its streams.

Enters: bytes of a client that knows that HTTP/2 is spoken, in clear text; a proxy in front may
speak TLS.  Leaves: frames.  What requests mean is for whoever subclasses `Connection` and `Stream`.

Nothing a client does grows without end.  Room for what it sends on a stream is given as that is
consumed; a client that reads no answers is not read any more; one that leaves answers waiting for
flow control gets no new streams; resets and other frames that carry nothing are counted, and too
many of them end the connection (`http2_reader.py`).

A connection ends by GOAWAY in two steps: first the client is asked to begin nothing more, and
everything that was on its way is still served; then it is told which stream was the last.  That
happens at an age, too, so that clients spread over workers.  A connection closes its own direction
first and waits a moment for the client's: closing both at once may cost the client what it has not
read yet.
"""

import asyncio
import random
from collections.abc import Callable
from typing import Any, cast

from mlplatform.serving import http2_frames as h2
from mlplatform.serving.hpack import Decoder, Field, Garbled
from mlplatform.serving.http2_frames import ConnectionFault, Limits, StreamFault, frame, number
from mlplatform.serving.http2_reader import Reader
from mlplatform.serving.http2_stream import Stream

PREFACE_S = 10.0
AGE_S = 30.0  # and up to a tenth more or less
_LAST_CALL_S = 1.0  # at most, from the first GOAWAY to the second
_GRACE_S = 60.0  # for streams that are under way at the second
_LINGER_S = 1.0
_BLOCKS = 4  # a header block may be so many times what is kept of it, to be refused politely
_UNSENT_BYTES = 16 << 20  # of answers, with which a connection gets no new stream
_LEAVING = b"leaving!"  # what the PING between the two steps says


class Connection(Reader):
    """One client's; `limits` is what it may do."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(_BLOCKS * limits.header_bytes)
        self.limits = limits
        self.streams: dict[int, Stream] = {}
        self.window = h2.FIRST_WINDOW_BYTES  # that may be sent, on all streams together,
        self.first_window = h2.FIRST_WINDOW_BYTES  # on one that begins,
        self.frame_bytes = h2.FRAME_BYTES  # and in one frame
        self.waiting: dict[int, Stream] = {}  # for room to send
        self.unsent = 0  # bytes
        self._decoder: Decoder[Any] = Decoder(self.read, limits.header_bytes)
        self._last = 0
        self._received = 0  # for which no room was given yet
        self._steps = 0  # of leaving
        self._timer: asyncio.TimerHandle | None = None
        self._until = 0.0  # that a client may read slowly

    def read(self, fields: list[Field] | None) -> Any:
        """What a request's fields mean; None if they were too many.  Called once for equal ones."""
        raise NotImplementedError

    def open(self, stream_id: int, head: Any) -> Stream:
        """The stream of a request whose head was read."""
        raise NotImplementedError

    @property
    def quiet(self) -> bool:
        """Whether the client knows that it has to leave, and nothing of it will end by itself."""
        return self._steps == 2 and all(stream.lasting for stream in self.streams.values())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are not that class's
        self._later(PREFACE_S, self.close)
        self.transport.write(self.limits.settings())

    def greeted(self) -> None:
        if not self._steps:
            self._later(AGE_S * random.uniform(0.9, 1.1), self.go_away)

    def failed(self, fault: ConnectionFault) -> None:
        payload = number(self._last) + number(fault.code) + str(fault).encode()
        self.control(h2.GOAWAY, 0, payload)
        self.close()

    def stream_failed(self, stream_id: int, fault: StreamFault) -> None:
        stream = self.streams.get(stream_id)
        if stream is None:
            self.control(h2.RST_STREAM, stream_id, number(fault.code))
        else:
            stream.reset(fault.code)
            stream.lost()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closing = True
        if self._timer is not None:
            self._timer.cancel()
        self._lose_streams()

    def pause_writing(self) -> None:
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()

    # What comes, frame by frame.

    def _data(self, flags: int, stream_id: int, payload: bytes) -> None:
        self._received += len(payload)
        if self._received >= self.limits.window_bytes // 2:
            self.control(h2.WINDOW_UPDATE, 0, number(self._received))
            self._received = 0
        stream = self.streams.get(stream_id)
        if stream is not None:
            stream.take(payload, flags)
        else:
            self._ended(stream_id)

    def _head(self, flags: int, stream_id: int, block: bytes) -> None:
        if not stream_id & 1:
            raise ConnectionFault(h2.PROTOCOL_ERROR, f"HEADERS of stream {stream_id}")
        stream = self.streams.get(stream_id)
        new = stream_id > self._last and self._steps < 2
        try:
            if not new or len(self.streams) >= self.limits.streams or self.unsent > _UNSENT_BYTES:
                self._decoder.skip(block)
            else:
                self._last = stream_id
                stream = self.open(stream_id, self._decoder.decode(block))
                self.streams[stream_id] = stream
                stream.received_all = bool(flags & h2.END_STREAM)
                stream.begin()
                if stream.received_all and not stream.over:
                    stream.received(b"")
                return
        except Garbled as error:
            raise ConnectionFault(h2.COMPRESSION_ERROR, str(error)) from None
        if new:
            self._last = stream_id
            raise StreamFault(h2.REFUSED_STREAM)
        if stream is None:
            self.nuisance()
        elif not flags & h2.END_STREAM:
            raise StreamFault(h2.PROTOCOL_ERROR)
        else:  # trailers, which say nothing that is asked for
            stream.take(b"", h2.END_STREAM)

    def _rst_stream(self, flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(h2.FRAME_SIZE_ERROR, "RST_STREAM of another size")
        stream = self.streams.get(stream_id)
        if stream is None:
            self._ended(stream_id)
        else:
            self.nuisance()
            stream.over = True
            self.forget(stream)
            stream.lost()

    def _settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise ConnectionFault(h2.PROTOCOL_ERROR, "SETTINGS of a stream")
        self.nuisance()
        if flags & h2.ACK:
            if payload:
                raise ConnectionFault(h2.FRAME_SIZE_ERROR, "SETTINGS with the acknowledgement")
            return
        settings = h2.read_settings(payload)
        self.frame_bytes = settings.get(h2.MAX_FRAME_SIZE, self.frame_bytes)
        window = settings.get(h2.INITIAL_WINDOW_SIZE, self.first_window)
        more, self.first_window = window - self.first_window, window
        try:
            for stream in self.streams.values():
                stream.widen(more)
        except StreamFault:
            raise ConnectionFault(h2.FLOW_CONTROL_ERROR, "a window that is too large") from None
        self.control(h2.SETTINGS, 0, b"", h2.ACK)
        self._pump()

    def _ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise ConnectionFault(h2.PROTOCOL_ERROR, "PING of a stream")
        if len(payload) != len(_LEAVING):
            raise ConnectionFault(h2.FRAME_SIZE_ERROR, "PING of another size")
        if not flags & h2.ACK:
            self.nuisance()
            self.control(h2.PING, 0, payload, h2.ACK)
        elif payload == _LEAVING and self._steps == 1:
            self._last_call()

    def _goaway(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise ConnectionFault(h2.PROTOCOL_ERROR, "GOAWAY of a stream")
        self.nuisance()  # it is for the client to begin nothing more

    def _window_update(self, flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(h2.FRAME_SIZE_ERROR, "WINDOW_UPDATE of another size")
        more = int.from_bytes(payload, "big") & h2.LARGEST
        if self.waiting:
            self.nuisance()  # each has to be looked at
        if stream_id:
            stream = self.streams.get(stream_id)
            if stream is None:
                self._ended(stream_id)
            elif not more:
                raise StreamFault(h2.PROTOCOL_ERROR)
            else:
                stream.widen(more)
                stream.pump()
            return
        if not more:
            raise ConnectionFault(h2.PROTOCOL_ERROR, "WINDOW_UPDATE by nothing")
        self.window += more
        if self.window > h2.LARGEST:
            raise ConnectionFault(h2.FLOW_CONTROL_ERROR, "a window that is too large")
        if self.window <= more:  # else the streams' own windows are what they wait for
            self._pump()

    def _priority(self, flags: int, stream_id: int, payload: bytes) -> None:
        self.nuisance()

    def _push_promise(self, flags: int, stream_id: int, payload: bytes) -> None:
        raise ConnectionFault(h2.PROTOCOL_ERROR, "PUSH_PROMISE of a client")

    def _ended(self, stream_id: int) -> None:
        """A frame of a stream that is not open: fine if it was, for it may have crossed its end."""
        if (stream_id > self._last or not stream_id & 1) and self._steps < 2:
            raise ConnectionFault(h2.PROTOCOL_ERROR, f"stream {stream_id} did not begin")
        self.nuisance()

    # What streams ask for.

    def control(self, kind: int, stream_id: int, payload: bytes, flags: int = 0) -> None:
        self.transport.write(frame(kind, flags, stream_id, payload))

    def hold(self, stream: Stream, length: int) -> None:
        """A stream has so many bytes more that wait for room."""
        self.waiting[stream.id] = stream
        self.unsent += length

    def forget(self, stream: Stream) -> None:
        """A stream is over."""
        self.streams.pop(stream.id, None)
        if self.waiting.pop(stream.id, None) is not None:
            self.unsent -= stream.unsent
        if self._steps == 2 and not self.streams:
            self.close()

    def _pump(self) -> None:
        for stream in list(self.waiting.values()):
            stream.pump()

    def _lose_streams(self) -> None:
        for stream in list(self.streams.values()):
            stream.over = True
            self.forget(stream)
            stream.lost()

    # The end.

    def go_away(self) -> None:
        """Ask the client to begin nothing more, here; what is on its way is still served."""
        if not (self._steps or self.closing):
            self._steps = 1
            self.control(h2.GOAWAY, 0, number(h2.LARGEST) + number(h2.NO_ERROR))
            self.control(h2.PING, 0, _LEAVING)
            self._later(_LAST_CALL_S, self._last_call)

    def _last_call(self) -> None:
        self._steps = 2
        self.control(h2.GOAWAY, 0, number(self._last) + number(h2.NO_ERROR))
        if self.streams:
            self._later(_GRACE_S, self.cut)
        else:
            self.close()

    def cut(self) -> None:
        """End what is under way, and the connection."""
        self._steps = 2
        for stream in list(self.streams.values()):
            stream.cut()
        self.close()

    def close(self) -> None:
        """Say no more; the client's end follows, or is not waited for."""
        if self.closing:
            return
        self.closing = True
        self._lose_streams()
        if self.transport.is_closing():
            return
        try:
            self.transport.write_eof()
        except OSError:  # the client reset the connection, and asyncio has not seen it yet
            self.transport.abort()
            return
        self._until = self.loop.time() + _GRACE_S
        self._later(_LINGER_S, self._linger)

    def _linger(self) -> None:
        if self.transport.get_write_buffer_size() and self.loop.time() < self._until:
            self._later(_LINGER_S, self._linger)  # a client that reads slowly
        else:
            self.transport.abort()

    def _later(self, seconds: float, then: Callable[[], None]) -> None:
        """Have one thing done in so many seconds, and not what was to be done before."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(seconds, then)


Connection.on = (
    Connection._data,
    Connection._head,
    Connection._priority,
    Connection._rst_stream,
    Connection._settings,
    Connection._push_promise,
    Connection._ping,
    Connection._goaway,
    Connection._window_update,
)
