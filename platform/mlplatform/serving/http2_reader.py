"""The bytes of an HTTP/2 connection, read into frames (RFC 9113, 3.4, 4 and 6.10).

Enters: bytes, in any pieces.  Leaves: frames, for a subclass to heed, those of a head put together;
and faults, for it to tell the client.

Frames that carry nothing cost a client next to nothing and a server its time: resets (rapid reset,
CVE-2023-44487), pings, settings, empty frames.  They are counted, whatever the kind, and more of
them in a second than any client needs are a fault of the connection.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from mlplatform.serving import http2_frames as h2
from mlplatform.serving.http2_frames import ConnectionFault, StreamFault

_NUISANCES_PER_S = 4000  # a busy client's calls may all be given up, in the worst of times


class Reader(asyncio.Protocol):
    """on: what heeds a frame, by its type: (self, flags, stream, payload).  HEADERS come whole,
    without padding and priority."""

    transport: asyncio.Transport
    on: ClassVar[Sequence[Callable[[Any, int, int, bytes], None]]]

    def __init__(self, most_head_bytes: int) -> None:
        """
        Args:
            most_head_bytes: of one head, as sent.
        """
        self.loop = asyncio.get_running_loop()
        self.closing = False  # nothing more is read
        self._most_head_bytes = most_head_bytes
        self._rest = b""
        self._greeted = False
        self._only: tuple[int, int] | None = (h2.SETTINGS, 0)  # the frame that has to come next
        self._block = bytearray()  # of a head that is not complete
        self._block_flags = 0
        self._nuisances, self._second = 0, 0.0

    def greeted(self) -> None:
        """The client said that it speaks HTTP/2."""
        raise NotImplementedError

    def failed(self, fault: ConnectionFault) -> None:
        """Nothing of the connection can be read any more."""
        raise NotImplementedError

    def stream_failed(self, stream_id: int, fault: StreamFault) -> None:
        """A stream is to be ended."""
        raise NotImplementedError

    def data_received(self, data: bytes) -> None:
        if self.closing:
            return
        try:
            self._rest = self._frames(self._rest + data if self._rest else data)
        except ConnectionFault as fault:
            self.failed(fault)

    def _frames(self, data: bytes) -> bytes:
        """-> what follows the last complete frame."""
        at, size = 0, len(data)
        if not self._greeted:
            at = len(h2.PREFACE)
            if not h2.PREFACE.startswith(data[:at]):
                raise ConnectionFault(h2.PROTOCOL_ERROR, "expected HTTP/2 by prior knowledge")
            if size < at:
                return data
            self._greeted = True
            self.greeted()
        while size - at >= h2.HEAD_BYTES:
            word, flags, stream_id = h2.HEAD.unpack_from(data, at)
            length, kind, stream_id = word >> 8, word & 0xFF, stream_id & h2.LARGEST
            if length > h2.FRAME_BYTES:
                raise ConnectionFault(h2.FRAME_SIZE_ERROR, f"a frame of {length} bytes")
            at += h2.HEAD_BYTES
            end = at + length
            if end > size:
                return data[at - h2.HEAD_BYTES :]
            try:
                if self._only is None and kind < h2.CONTINUATION:
                    if kind == h2.HEADERS and flags & _NOT_PLAIN != h2.END_HEADERS:
                        self._begin_head(flags, stream_id, data[at:end])
                    else:
                        self.on[kind](self, flags, stream_id, data[at:end])
                else:
                    self._unusual(kind, flags, stream_id, data[at:end])
            except StreamFault as fault:
                self.nuisance()
                self.stream_failed(stream_id, fault)
            if self.closing:
                return b""
            at = end
        return data[at:]

    def _unusual(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if self._only not in (None, (kind, stream_id)):
            raise ConnectionFault(h2.PROTOCOL_ERROR, f"a frame of type {kind} here")
        if kind == h2.SETTINGS:
            self._only = None
            self.on[kind](self, flags, stream_id, payload)
        elif kind != h2.CONTINUATION:  # a type that is not known
            self.nuisance()
        elif self._only is None:
            raise ConnectionFault(h2.PROTOCOL_ERROR, "CONTINUATION of nothing")
        else:
            self.nuisance()
            self._go_on(flags, stream_id, payload)

    def _begin_head(self, flags: int, stream_id: int, payload: bytes) -> None:
        if flags & h2.PADDED:
            payload = h2.unpadded(payload)
        if flags & h2.HAS_PRIORITY:
            payload = h2.without_priority(payload)
        self._only = h2.CONTINUATION, stream_id
        self._block_flags = flags
        self._go_on(flags, stream_id, payload)

    def _go_on(self, flags: int, stream_id: int, payload: bytes) -> None:
        self._block += payload
        if len(self._block) > self._most_head_bytes:
            raise ConnectionFault(h2.ENHANCE_YOUR_CALM, "a head without end")
        if flags & h2.END_HEADERS:
            block = bytes(self._block)
            self._block.clear()
            self._only = None
            self.on[h2.HEADERS](self, self._block_flags, stream_id, block)

    def nuisance(self) -> None:
        """Count what costs a client nothing.

        Raises:
            ConnectionFault: it is too much.
        """
        now = self.loop.time()
        if now - self._second > 1:
            self._second, self._nuisances = now, 0
        self._nuisances += 1
        if self._nuisances > _NUISANCES_PER_S:
            raise ConnectionFault(h2.ENHANCE_YOUR_CALM, "too many frames that carry nothing")


_NOT_PLAIN = h2.END_HEADERS | h2.PADDED | h2.HAS_PRIORITY
