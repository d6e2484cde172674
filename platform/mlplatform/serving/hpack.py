"""HPACK (RFC 7541): the header blocks of a connection, decoded.

Enters: blocks, in the order they came, every one of them: each may change the table that the next
ones refer to.  Leaves: what the fields mean to the reader of this connection.  A client's blocks
are mostly equal once the table has what it sends, so a block is looked up before it is read; what
is remembered lasts until the table changes.

Nothing is encoded here: answers name every field in full, which needs no table (`literal`).
"""

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from mlplatform.serving.huffman import decoded

TABLE_BYTES = 4096  # the protocol's default, and all that is offered
_ENTRY_BYTES = 32  # that an entry counts beyond its texts
_FAR_TOO_MANY = 3  # times what is kept: not worth being read to the end
_REMEMBERED = 64  # blocks,
_REMEMBERED_BYTES = 512  # none longer than that
_STATIC = (
    ":authority", ":method GET", ":method POST", ":path /", ":path /index.html", ":scheme http",
    ":scheme https", ":status 200", ":status 204", ":status 206", ":status 304", ":status 400",
    ":status 404", ":status 500", "accept-charset", "accept-encoding gzip, deflate",
    "accept-language", "accept-ranges", "accept", "access-control-allow-origin", "age", "allow",
    "authorization", "cache-control", "content-disposition", "content-encoding", "content-language",
    "content-length", "content-location", "content-range", "content-type", "cookie", "date", "etag",
    "expect", "expires", "from", "host", "if-match", "if-modified-since", "if-none-match",
    "if-range", "if-unmodified-since", "last-modified", "link", "location", "max-forwards",
    "proxy-authenticate", "proxy-authorization", "range", "referer", "refresh", "retry-after",
    "server", "set-cookie", "strict-transport-security", "transfer-encoding", "user-agent", "vary",
    "via", "www-authenticate",
)  # fmt: skip
_TABLE = [(b"", b"")] + [
    (name.encode(), value.encode())
    for name, _, value in (entry.partition(" ") for entry in _STATIC)
]

Field = tuple[bytes, bytes]
T = TypeVar("T")


class Garbled(ValueError):
    """A block that is not HPACK; the table is lost, and the connection with it."""


class Decoder(Generic[T]):
    """Of one connection."""

    def __init__(self, read: Callable[[list[Field] | None], T], most_bytes: int) -> None:
        """
        Args:
            read: what the fields of a request mean, the same for the same fields; None for more
                than are kept.  What it raises is passed on.
            most_bytes: of a block's names and values, with 32 for each field.
        """
        self._read = read
        self._most_bytes = most_bytes
        self._table: deque[Field] = deque()
        self._bytes = 0
        self._capacity = TABLE_BYTES
        self._known: dict[bytes, T] = {}

    def decode(self, block: bytes) -> T:
        """A request's fields, read.

        Raises:
            Garbled: it is no block.
        """
        known = self._known.get(block)
        if known is not None:
            return known
        fields, changed = self._decode(block)
        meant = self._read(fields)
        if not changed and len(block) <= _REMEMBERED_BYTES and len(self._known) < _REMEMBERED:
            self._known[block] = meant
        return meant

    def skip(self, block: bytes) -> None:
        """Heed what a block does to the table.

        Raises:
            Garbled: it is no block.
        """
        self._decode(block)

    def _decode(self, block: bytes) -> tuple[list[Field] | None, bool]:
        """-> (its fields, whether the table changed)."""
        try:
            fields, changed = self._fields(block)
        except IndexError:
            raise Garbled("a header block ends too early, or names what is not there") from None
        if changed:
            self._known.clear()
        return fields, changed

    def _fields(self, block: bytes) -> tuple[list[Field] | None, bool]:
        at, left, changed, begun = 0, self._most_bytes, False, False
        fields: list[Field] = []
        while at < len(block):
            first = block[at]
            if first & 0xE0 == 0x20:
                if begun:
                    raise Garbled("the table's size changes behind a field")
                self._capacity, at = _integer(block, at, 5)
                if self._capacity > TABLE_BYTES:
                    raise Garbled("the table is larger than was offered")
                self._evict()
                changed = True
                continue
            begun = True
            if first & 0x80:
                index, at = _integer(block, at, 7)
                field = self._entry(index)
            else:
                index, at = _integer(block, at, 6 if first & 0x40 else 4)
                if index:
                    name = self._entry(index)[0]
                else:
                    name, at = _text(block, at)
                value, at = _text(block, at)
                field = name, value
                if first & 0x40:
                    self._table.appendleft(field)
                    self._bytes += _size(field)
                    self._evict()
                    changed = True
            left -= _size(field)
            if left >= 0:
                fields.append(field)
            elif left < -_FAR_TOO_MANY * self._most_bytes:
                raise Garbled("far more fields than are read")
        return (fields if left >= 0 else None), changed

    def _entry(self, index: int) -> Field:
        if not index:
            raise Garbled("there is no entry 0")
        return _TABLE[index] if index < len(_TABLE) else self._table[index - len(_TABLE)]

    def _evict(self) -> None:
        while self._bytes > self._capacity:
            self._bytes -= _size(self._table.pop())


def literal(name: bytes, value: bytes) -> bytes:
    """A field in full, for a table to leave alone."""
    return b"\x00" + _length(name) + name + _length(value) + value


def _length(text: bytes) -> bytes:
    length, prefix = len(text), 0x7F
    if length < prefix:
        return bytes([length])
    coded, length = bytearray([prefix]), length - prefix
    while length >= 0x80:
        coded.append(length & 0x7F | 0x80)
        length >>= 7
    coded.append(length)
    return bytes(coded)


def _size(field: Field) -> int:
    return len(field[0]) + len(field[1]) + _ENTRY_BYTES


def _integer(block: bytes, at: int, bits: int) -> tuple[int, int]:
    """-> (the integer, where it ends); section 5.1."""
    largest = (1 << bits) - 1
    value = block[at] & largest
    at += 1
    if value == largest:
        for shift in range(0, 28, 7):
            byte = block[at]
            at += 1
            value += (byte & 0x7F) << shift
            if not byte & 0x80:
                return value, at
        raise Garbled("an integer without end")
    return value, at


def _text(block: bytes, at: int) -> tuple[bytes, int]:
    coded = block[at] & 0x80
    length, at = _integer(block, at, 7)
    end = at + length
    if end > len(block):
        raise Garbled("a text that is longer than its block")
    text = block[at:end]
    if not coded:
        return text, end
    try:
        return decoded(text), end
    except ValueError as error:
        raise Garbled(str(error)) from None
