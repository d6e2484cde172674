"""gRPC as the generator speaks it: HTTP/2 frames by hand, many streams on each connection.

Enters: serialized messages.  Leaves: requests as bytes, made ahead but for the stream's number; of
an answer its grpc-status, its length and, if it is wanted, its message.  A call costs a tenth of
what grpcio's client takes of the processor that it shares with the server.

What is spoken is what a unary call needs of RFC 9113, in clear text and by prior knowledge, and
of RFC 7541 (HPACK) what needs no memory: requests name every header in full, and the server is
told that this client's table holds nothing, so that it does the same.  Flow control, PING, GOAWAY
and refused streams are heeded; padding and continued headers, which servers of such small answers
do not send, end the connection as not understood.
"""

import struct
from collections.abc import Callable
from typing import Any

from benchmarks.load import GARBLED, LOST, Plan
from benchmarks.load_loop import Connection

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM = ACK = 0x1
END_HEADERS, PADDED, PRIORITY = 0x4, 0x8, 0x20
REFUSED_STREAM, CANCEL = 7, 8  # error codes
TABLE_SIZE, PUSH, MOST_STREAMS, STREAM_WINDOW = 1, 2, 3, 4  # settings
LARGEST_WINDOW, FIRST_WINDOW = 2**31 - 1, 65_535
HEAD = struct.Struct(">IBI")  # length and type, flags, stream
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEAD_BYTES, _PREFIX_BYTES = 9, 5
_REOPEN_AT = 2**30  # bytes received until the connection's window is opened again


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return HEAD.pack(len(payload) << 8 | kind, flags, stream) + payload


def door(plan: Plan) -> Callable[[Connection], "GrpcDoor"]:
    block = _request_headers(plan)
    # A request in three parts, with the stream's number between them.
    first = frame(HEADERS, END_HEADERS, 0, block)[:5]
    requests = []
    for message in plan.messages:
        payload = struct.pack(">BI", 0, len(message)) + message
        data = frame(DATA, END_STREAM, 0, payload)
        requests.append((block + data[:5], data[_HEAD_BYTES:]))
    return lambda connection: GrpcDoor(connection, plan, first, requests)


class GrpcDoor:
    def __init__(
        self,
        connection: Connection,
        plan: Plan,
        first: bytes,
        requests: list[tuple[bytes, bytes]],
    ) -> None:
        self._connection, self._requests, self._first = connection, requests, first
        self._offset, self._keep = plan.first, plan.keep_one_in
        # Of each stream: the request's number, and what has come of the answer.
        self._streams: dict[int, tuple[int, list[bytes]]] = {}
        self._next = 1
        self._greeted = False  # requests wait for that, as grpcio's do: until then nobody may read
        self._room, self._most = FIRST_WINDOW, plan.streams
        self._parked = 0  # slots that wait for room
        self._received = 0
        self._came = b""

    def greet(self) -> None:
        settings = struct.pack(
            ">HIHIHI", TABLE_SIZE, 0, PUSH, 0, STREAM_WINDOW, LARGEST_WINDOW
        )  # fmt: skip
        window = struct.pack(">I", LARGEST_WINDOW - FIRST_WINDOW)
        self._connection.send(
            PREFACE + frame(SETTINGS, 0, 0, settings) + frame(WINDOW_UPDATE, 0, 0, window)
        )

    def request(self, number: int) -> bytes | None:
        middle, payload = self._requests[(self._offset + number) % len(self._requests)]
        if len(payload) > self._room or len(self._streams) >= self._most:
            self._parked += 1
            return None
        self._room -= len(payload)
        stream = self._next
        self._next += 2
        self._streams[stream] = number, []
        name = stream.to_bytes(4, "big")
        return b"".join((self._first, name, middle, name, payload))

    def give_up(self, number: int) -> None:
        stream = next(one for one, (other, _) in self._streams.items() if other == number)
        self._connection.send(frame(RST_STREAM, 0, stream, struct.pack(">I", CANCEL)))
        self._answered(stream, LOST)

    def receive(self, data: bytes) -> None:
        data = self._came + data
        at, size = 0, len(data)
        while size - at >= _HEAD_BYTES:
            head, flags, stream = HEAD.unpack_from(data, at)
            start = at + _HEAD_BYTES
            stop = start + (head >> 8)
            if stop > size:
                break
            self._frame(head & 0xFF, flags, stream, data[start:stop])
            at = stop
        self._came = data[at:]

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == DATA and not flags & PADDED:
            self._account(len(payload))
            if stream in self._streams:
                self._streams[stream][1].append(payload)
            if flags & END_STREAM:  # and no status
                self._answered(stream, GARBLED)
        elif kind == HEADERS and flags & (END_HEADERS | PADDED | PRIORITY) == END_HEADERS:
            if flags & END_STREAM:
                self._answered(stream, status_of(payload))
        elif kind == SETTINGS and not flags & ACK:
            for name, value in struct.iter_unpack(">HI", payload):
                if name == MOST_STREAMS:
                    self._most = value
            self._connection.send(frame(SETTINGS, ACK, 0, b""))
            if not self._greeted:
                self._greeted = True
                self._connection.begin()
        elif kind == PING and not flags & ACK:
            self._connection.send(frame(PING, ACK, 0, payload))
        elif kind == WINDOW_UPDATE:
            if stream == 0:
                self._room += struct.unpack(">I", payload)[0]
                self._unpark()
        elif kind == GOAWAY:
            self._go_away(struct.unpack_from(">I", payload)[0] & LARGEST_WINDOW)
        elif kind == RST_STREAM:
            if struct.unpack(">I", payload)[0] == REFUSED_STREAM:
                self._unheard(stream)
            else:
                self._answered(stream, LOST)
        elif kind in (DATA, HEADERS):
            self._connection.loop.lose(self._connection, GARBLED)
        # Others are to be ignored: of the rest none asks for anything.

    def _answered(self, stream: int, status: int) -> None:
        number, parts = self._streams.pop(stream, (None, []))
        if number is None:
            return  # given up before
        body = b"".join(parts)[_PREFIX_BYTES:]
        self._unpark()
        kept = body if self._keep and not number % self._keep else None
        self._connection.answered(number, status, len(body), kept)
        if not self._connection.open:
            self._connection.finish()

    def _unheard(self, stream: int) -> None:
        number, _ = self._streams.pop(stream, (None, []))
        if number is not None:
            self._connection.unheard(number)
            self._connection.give_slots(1)

    def _go_away(self, last: int) -> None:
        connection = self._connection
        connection.open = False
        for stream in [one for one in self._streams if one > last]:
            self._unheard(stream)
        connection.finish()

    def _unpark(self) -> None:
        if self._parked:
            parked, self._parked = self._parked, 0
            self._connection.give_slots(parked)

    def _account(self, received: int) -> None:
        self._received += received
        if self._received >= _REOPEN_AT:
            window = struct.pack(">I", self._received)
            self._received = 0
            self._connection.send(frame(WINDOW_UPDATE, 0, 0, window))


# HPACK.  Codes of Huffman's that the two texts below need, as strings of bits (RFC 7541, B).
_CODES = {
    "g": "100110", "r": "101100", "p": "101011", "c": "00100", "-": "010110", "s": "01000",
    "t": "01001", "a": "00011", "u": "101101",
    "0": "00000", "1": "00001", "2": "00010", "3": "011001", "4": "011010", "5": "011011",
    "6": "011100", "7": "011101", "8": "011110", "9": "011111",
}  # fmt: skip
_HUFFMAN = 0x80  # the bit of a text's length that says so


def huffman(text: str) -> bytes:
    bits = "".join(_CODES[letter] for letter in text)
    bits += "1" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


# In both spellings: the text's, and Huffman's, told apart by the bit before the length.
_NAMES = {(0, b"grpc-status"), (_HUFFMAN, huffman("grpc-status"))}
_VALUES = {(0, str(n).encode()): n for n in range(17)}
_VALUES |= {(_HUFFMAN, huffman(str(n))): n for n in range(17)}
_known: dict[bytes, int] = {}  # trailers of good answers are all alike


def status_of(block: bytes) -> int:
    """The grpc-status in a block of trailers; `GARBLED` if there is none that can be read."""
    found = _known.get(block)
    if found is None:
        try:
            found = _find_status(block)
        except IndexError:
            found = GARBLED
        if len(_known) < 1000:
            _known[block] = found
    return found


def _find_status(block: bytes) -> int:
    at = 0
    while at < len(block):
        first = block[at]
        if first & 0x80:  # a header of the static table
            _, at = _integer(block, at, 7)
        elif first & 0xE0 == 0x20:  # the table's new size
            _, at = _integer(block, at, 5)
        else:
            index, at = _integer(block, at, 6 if first & 0x40 else 4)
            name: Any = None
            if not index:
                name, at = _text(block, at)
            value, at = _text(block, at)
            if name in _NAMES:
                return _VALUES.get(value, GARBLED)
    return GARBLED


def _integer(block: bytes, at: int, bits: int) -> tuple[int, int]:
    """-> (the integer, where it ends); RFC 7541, 5.1."""
    largest = (1 << bits) - 1
    value = block[at] & largest
    at += 1
    if value == largest:
        shift = 0
        while True:
            value += (block[at] & 0x7F) << shift
            shift += 7
            at += 1
            if not block[at - 1] & 0x80:
                break
    return value, at


def _text(block: bytes, at: int) -> tuple[tuple[int, bytes], int]:
    spelling = block[at] & _HUFFMAN
    length, at = _integer(block, at, 7)
    return (spelling, block[at : at + length]), at + length


def _request_headers(plan: Plan) -> bytes:
    """Headers of every request: method and scheme by the static table, the rest in full."""

    def text(value: str) -> bytes:
        content = value.encode()
        if len(content) >= 0x7F:
            raise ValueError(f"expected fewer than 127 bytes in a header, got {value}")
        return bytes([len(content)]) + content

    return b"".join(
        [
            b"\x83\x86",  # POST, http
            b"\x04" + text(plan.path),
            b"\x01" + text(f"{plan.host}:{plan.port}"),
            b"\x0f\x10" + text("application/grpc"),  # content-type
            b"\x00" + text("te") + text("trailers"),
            b"\x00" + text("grpc-timeout") + text(f"{round(1000 * plan.timeout)}m"),
        ]
    )
