"""HTTP/2's frames (RFC 9113): their names, their bytes, and what may not be in them.

Enters and leaves: parts of frames; nothing here knows a connection.  A mistake of the peer's is a
`ConnectionFault` where what follows could not be understood, else a `StreamFault`.
"""

import struct
from dataclasses import dataclass

from mlplatform.serving.hpack import Field

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD = struct.Struct(">IBI")  # length and type, flags, stream
HEAD_BYTES = 9

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = range(5)
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(5, 10)

END_STREAM = ACK = 0x1
END_HEADERS, PADDED, HAS_PRIORITY = 0x4, 0x8, 0x20

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = range(4)
STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR = range(5, 10)
ENHANCE_YOUR_CALM = 11

ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE = 2, 3, 4
MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 5, 6

FIRST_WINDOW_BYTES = 65_535
FRAME_BYTES = 16_384  # of a payload, where nobody offers more; this server does not
LARGEST_FRAME_BYTES = 2**24 - 1
LARGEST = 2**31 - 1  # of windows and of streams' numbers

_PRIORITY_BYTES = 5
_OF_A_CONNECTION = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
)
_PSEUDO = frozenset({b":method", b":scheme", b":path"})
_UPPER = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_FORBIDDEN = frozenset(b"\0\r\n")


class ConnectionFault(Exception):
    """The connection ends, with an error code and a word why."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code


class StreamFault(Exception):
    """One stream ends, with an error code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return HEAD.pack(len(payload) << 8 | kind, flags, stream) + payload


def number(value: int) -> bytes:
    """Four bytes, as WINDOW_UPDATE and RST_STREAM have them."""
    return value.to_bytes(4, "big")


def unpadded(payload: bytes) -> bytes:
    """
    Raises:
        ConnectionFault: more padding than there is room for.
    """
    if not payload or payload[0] >= len(payload):
        raise ConnectionFault(PROTOCOL_ERROR, "a frame of nothing but padding")
    return payload[1 : len(payload) - payload[0]]


def without_priority(payload: bytes) -> bytes:
    """
    Raises:
        ConnectionFault: there is none.
    """
    if len(payload) < _PRIORITY_BYTES:
        raise ConnectionFault(FRAME_SIZE_ERROR, "HEADERS too short for their priority")
    return payload[_PRIORITY_BYTES:]


def read_settings(payload: bytes) -> dict[int, int]:
    """The settings of one frame; of a repeated one the last.

    Raises:
        ConnectionFault: a value that may not be.
    """
    if len(payload) % 6:
        raise ConnectionFault(FRAME_SIZE_ERROR, "SETTINGS that are cut off")
    settings: dict[int, int] = {}
    for name, value in struct.iter_unpack(">HI", payload):
        if name == ENABLE_PUSH and value > 1:
            raise ConnectionFault(PROTOCOL_ERROR, f"ENABLE_PUSH is {value}")
        if name == INITIAL_WINDOW_SIZE and value > LARGEST:
            raise ConnectionFault(FLOW_CONTROL_ERROR, f"INITIAL_WINDOW_SIZE is {value}")
        if name == MAX_FRAME_SIZE and not FRAME_BYTES <= value <= LARGEST_FRAME_BYTES:
            raise ConnectionFault(PROTOCOL_ERROR, f"MAX_FRAME_SIZE is {value}")
        settings[name] = value
    return settings


def check_request(fields: list[Field]) -> None:
    """Whether these are a request's fields (RFC 9113, 8.2 and 8.3).

    Raises:
        StreamFault: they are malformed.
    """
    pseudo: list[bytes] = []
    regular = False
    for name, value in fields:
        if name.startswith(b":"):
            if regular:
                raise StreamFault(PROTOCOL_ERROR)
            pseudo.append(name)
        else:
            regular = True
        if not name or not _UPPER.isdisjoint(name) or not _FORBIDDEN.isdisjoint(name + value):
            raise StreamFault(PROTOCOL_ERROR)
        if name in _OF_A_CONNECTION or (name == b"te" and value != b"trailers"):
            raise StreamFault(PROTOCOL_ERROR)
    once = set(pseudo)
    if len(once) != len(pseudo) or not _PSEUDO <= once <= _PSEUDO | {b":authority"}:
        raise StreamFault(PROTOCOL_ERROR)


@dataclass(frozen=True)
class Limits:
    """header_bytes: of a request, as HTTP/2 counts.  window_bytes: that a stream may send ahead."""

    header_bytes: int
    window_bytes: int
    streams: int = 1024

    def settings(self) -> bytes:
        """What a client is told at once, and the connection's window, which is a stream's."""
        told = {
            MAX_CONCURRENT_STREAMS: self.streams,
            INITIAL_WINDOW_SIZE: self.window_bytes,
            MAX_HEADER_LIST_SIZE: self.header_bytes,
        }
        payload = b"".join(name.to_bytes(2, "big") + number(told[name]) for name in told)
        settings = frame(SETTINGS, 0, 0, payload)
        more = self.window_bytes - FIRST_WINDOW_BYTES
        return settings + (frame(WINDOW_UPDATE, 0, 0, number(more)) if more else b"")
