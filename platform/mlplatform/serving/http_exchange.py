"""One request of a hot route and its answer, and what all of a server have in common.

Enters: a request's head, then parts of its body.  Leaves: one write with the answer.  Requests that
there is no room for are answered unread.  One whose head is, byte for byte, that of another that
was refused so is not even parsed: under the worst overload most of the work is refusals, and most
clients send the same head again and again.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from mlplatform.errors import PlatformError
from mlplatform.serving.admission import TooMany
from mlplatform.serving.doors import Doors, Headers, refusal

if TYPE_CHECKING:
    from mlplatform.serving.http_protocol import HotProtocol

logger = logging.getLogger(__name__)


class Reply(Protocol):
    """Answers one request, in JSON; called once, at once or later, in the loop's thread."""

    def __call__(
        self, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]] = ()
    ) -> None: ...


Handler = Callable[[bytes, Headers, Reply], None]  # body, headers, reply
Routes = Mapping[tuple[str, str], Handler]  # by method and path, as sent: no pattern, no escape
Answered = Callable[[str, int, float], None]  # route, status, seconds since its first byte


_MOST_HEADS, _MOST_HEAD_BYTES = 64, 1024  # of refused requests, kept
_END = b"\r\n\r\n"

_NO_ROOM = refusal(TooMany("the server is overloaded; try again later", 1.0))
TURNED_AWAY = _NO_ROOM[0]  # the status


class Site:
    """What the connections of one server share."""

    def __init__(
        self, routes: Routes, doors: Doors, answered: Answered, full: Callable[[], bool]
    ) -> None:
        self.routes = {
            (method.encode(), path.encode()): (path, handler)
            for (method, path), handler in routes.items()
        }
        self.doors = doors
        self.answered = answered
        self.full = full
        self.draining = False
        self._refused: dict[bytes, tuple[str, int]] = {}  # heads: their paths and bodies' bytes
        self._heads: dict[int, bytes] = {}
        self._defaults: list[tuple[bytes, bytes]] = []

    def head(self, status: int, defaults: list[tuple[bytes, bytes]]) -> bytes:
        """All of an answer's head before its length; `defaults` is a new list every second."""
        if defaults is not self._defaults:
            self._defaults = defaults
            self._heads.clear()
        head = self._heads.get(status)
        if head is None:
            lines = _lines([*defaults, (b"content-type", b"application/json")])
            head = self._heads[status] = STATUS_LINE[status] + lines + b"content-length: "
        return head

    def turned_away(self, defaults: list[tuple[bytes, bytes]], keep_alive: bool) -> bytes:
        """The whole answer to a request for which there is no room."""
        key = -1 if keep_alive else -2
        head = self.head(TURNED_AWAY, defaults)
        whole = self._heads.get(key)
        if whole is None:
            _, body, headers = _NO_ROOM
            lines = _lines(headers) + (b"" if keep_alive else b"connection: close\r\n")
            whole = self._heads[key] = b"%b%d\r\n%b\r\n%b" % (head, len(body), lines, body)
        return whole

    def remember_refused(
        self, read: bytes, headers: Iterable[tuple[bytes, bytes]], turned_away: "TurnedAway"
    ) -> None:
        """Keep the head of what was turned away.

        Args:
            read: begins with it; it is kept if this is the whole request and no more.
        """
        head, found, body = read.partition(_END)
        body_bytes = int(dict(headers).get(b"content-length", b"0"))
        end = len(head) + len(found)
        if found and len(body) == body_bytes and turned_away.keep_alive and end <= _MOST_HEAD_BYTES:
            if len(self._refused) >= _MOST_HEADS:
                self._refused.clear()  # clients of which no two heads are alike
            self._refused[read[:end]] = turned_away.path, body_bytes

    def refused_path(self, read: bytes) -> str | None:
        """The path of a whole request with a head that was refused before; None for any other."""
        end = read.find(_END) + len(_END)
        path, body_bytes = self._refused.get(read[:end], ("", -1))
        return path if len(read) == end + body_bytes else None


class Exchange:
    """One request of a hot route and its answer: uvicorn's `RequestResponseCycle`, for its parser.

    The public attributes are those that the protocol knows of.
    """

    message_event = asyncio.Event()  # set when the client leaves; nobody waits for it

    __slots__ = (
        "_began", "_expects", "_handler", "_headers", "_no_body", "_parts", "_protocol",
        "_refused", "_turn", "disconnected", "keep_alive", "more_body", "path", "response_complete",
    )  # fmt: skip

    def __init__(self, protocol: "HotProtocol", path: str, handler: Handler) -> None:
        parser, site = protocol.parser, protocol.site
        self._protocol = protocol
        self.path = path
        self._handler = handler
        self._headers = dict(protocol.headers)
        self._began = protocol.since
        method = parser.get_method()
        self._no_body = method == b"HEAD"
        self._expects = self._headers.get(b"expect", b"").lower() == b"100-continue"
        self._parts: list[bytes] = []
        self._turn = False
        self._refused: PlatformError | None = None
        self.disconnected = False
        self.more_body = True
        self.response_complete = False
        self.keep_alive = parser.should_keep_alive() and parser.get_http_version() != "1.0"
        try:
            remote = protocol.client[0] if protocol.client else ""
            site.doors.admit(method, path, self._headers, remote)
        except PlatformError as error:
            self._refused = error
            # A client that waits to be told to send its body may now send it, or not.
            self.keep_alive = self.keep_alive and not self._expects

    def take_turn(self) -> None:
        """Nothing is before it any more."""
        self._turn = True
        if self._protocol.transport.is_closing():
            return
        if self._refused is not None:
            self._fail(self._refused)
        elif not self.more_body:
            self._handle()
        elif self._expects:
            self._protocol.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def feed(self, part: bytes) -> None:
        if self._refused is None and not self.response_complete:
            self._parts.append(part)

    def complete(self) -> None:
        self.more_body = False
        if self._turn and not self.response_complete:
            self._handle()

    def _handle(self) -> None:
        try:
            self._handler(b"".join(self._parts), self._headers, self)
        except PlatformError as error:
            self._fail(error)
        except Exception:
            logger.exception("%s failed", self.path)
            self._fail(PlatformError("the request failed; the server's log says why"))

    def _fail(self, error: PlatformError) -> None:
        if not self.response_complete:
            self(*refusal(error))

    def __call__(
        self, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]] = ()
    ) -> None:
        if self.response_complete:
            raise RuntimeError(f"{self.path}: a second reply to one request")
        self.response_complete = True
        protocol = self._protocol
        site, transport = protocol.site, protocol.transport
        site.answered(self.path, status, time.monotonic() - self._began)
        if transport.is_closing():  # the client is gone
            return
        # What was pipelined behind this one before the server drained is still answered.
        last: Any = protocol.cycle
        keep_alive = self.keep_alive and not (site.draining and self is last)
        transport.write(
            b"%b%d\r\n%b%b\r\n%b"
            % (
                site.head(status, protocol.server_state.default_headers),
                len(body),
                _lines(headers) if headers else b"",
                b"" if keep_alive else b"connection: close\r\n",
                b"" if self._no_body else body,
            )
        )
        if not keep_alive:
            transport.close()
        protocol.on_response_complete()


class TurnedAway(Exchange):
    """A request for which there is no room: it is answered unread, at a fraction of the cost."""

    __slots__ = ()

    def __init__(self, protocol: "HotProtocol", path: str) -> None:
        parser = protocol.parser
        self._protocol, self.path = protocol, path
        self._refused = None
        self._turn = self.disconnected = self.response_complete = False
        self.more_body = True
        self.keep_alive = parser.should_keep_alive() and parser.get_http_version() != "1.0"

    def feed(self, part: bytes) -> None:
        """Its body is not read, not even while it waits for its turn."""

    def take_turn(self) -> None:
        self.response_complete = True
        protocol = self._protocol
        site, transport = protocol.site, protocol.transport
        site.answered(self.path, TURNED_AWAY, 0.0)
        if transport.is_closing():
            return
        keep_alive = self.keep_alive and not site.draining
        transport.write(site.turned_away(protocol.server_state.default_headers, keep_alive))
        if not keep_alive:
            transport.close()
        protocol.on_response_complete()


def _lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"".join(b"%b: %b\r\n" % header for header in headers)
