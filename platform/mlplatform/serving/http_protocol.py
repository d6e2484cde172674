"""The protocol of `http.py`: uvicorn's own, httptools', asked for hot routes first.

Enters: bytes of a connection.  Leaves: bytes, or requests for the ASGI app.  What is overridden of
uvicorn's class, and the names that are used of it, are uvicorn's internals: the version is pinned,
and a test notices if they change.  Its order is kept: the requests of a connection are carried out
one after another, hot or not.

Three things are done otherwise than uvicorn does them.  Nothing more is read while requests wait or
answers are unwritten, so a client that pipelines costs no more memory than one read.  A client has
`timeout_keep_alive` for a whole request as well as between two: one timer for a connection, which
looks at the clock when it goes off, where uvicorn sets and unsets one for every request.  And a
request that offers to change to another protocol, as Java's and curl's first ones do, keeps its
body.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Protocol

from httptools import HttpParserError, HttpParserUpgrade
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from mlplatform.errors import InvalidArgument, PlatformError
from mlplatform.serving.admission import TooMany
from mlplatform.serving.doors import Doors, Headers, refusal

logger = logging.getLogger(__name__)


class Reply(Protocol):
    """Answers one request, in JSON; called once, at once or later, in the loop's thread."""

    def __call__(
        self, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]] = ()
    ) -> None: ...


Handler = Callable[[bytes, Headers, Reply], None]  # body, headers, reply
Routes = Mapping[tuple[str, str], Handler]  # by method and path, as sent: no pattern, no escape
Answered = Callable[[str, int, float], None]  # route, status, seconds since its first byte


_NO_ROOM = refusal(TooMany("the server is overloaded; try again later", 1.0))


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
        head = self.head(_NO_ROOM[0], defaults)
        whole = self._heads.get(key)
        if whole is None:
            _, body, headers = _NO_ROOM
            lines = _lines(headers) + (b"" if keep_alive else b"connection: close\r\n")
            whole = self._heads[key] = b"%b%d\r\n%b\r\n%b" % (head, len(body), lines, body)
        return whole


class _Exchange:
    """One request of a hot route and its answer: uvicorn's `RequestResponseCycle`, for its parser.

    The public attributes are those that the protocol knows of.
    """

    message_event = asyncio.Event()  # set when the client leaves; nobody waits for it

    __slots__ = (
        "_began", "_expects", "_handler", "_headers", "_no_body", "_parts", "_path", "_protocol",
        "_refused", "_turn", "disconnected", "keep_alive", "more_body", "response_complete",
    )  # fmt: skip

    def __init__(self, protocol: "HotProtocol", path: str, handler: Handler) -> None:
        parser, site = protocol.parser, protocol.site
        self._protocol = protocol
        self._path = path
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
            logger.exception("%s failed", self._path)
            self._fail(PlatformError("the request failed; the server's log says why"))

    def _fail(self, error: PlatformError) -> None:
        if not self.response_complete:
            self(*refusal(error))

    def __call__(
        self, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]] = ()
    ) -> None:
        if self.response_complete:
            raise RuntimeError(f"{self._path}: a second reply to one request")
        self.response_complete = True
        protocol = self._protocol
        site, transport = protocol.site, protocol.transport
        site.answered(self._path, status, time.monotonic() - self._began)
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


class _TurnedAway(_Exchange):
    """A request for which there is no room: it is answered unread, at a fraction of the cost."""

    __slots__ = ()

    def __init__(self, protocol: "HotProtocol", path: str) -> None:
        parser = protocol.parser
        self._protocol, self._path = protocol, path
        self._refused = None
        self._turn = self.disconnected = self.response_complete = False
        self.more_body = True
        self.keep_alive = parser.should_keep_alive() and parser.get_http_version() != "1.0"

    def take_turn(self) -> None:
        self.response_complete = True
        protocol = self._protocol
        site, transport = protocol.site, protocol.transport
        site.answered(self._path, _NO_ROOM[0], 0.0)
        if transport.is_closing():
            return
        keep_alive = self.keep_alive and not site.draining
        transport.write(site.turned_away(protocol.server_state.default_headers, keep_alive))
        if not keep_alive:
            transport.close()
        protocol.on_response_complete()


class _Flow(FlowControl):
    """uvicorn's, but nothing is read while requests wait or answers are unwritten."""

    def __init__(self, protocol: "HotProtocol") -> None:
        super().__init__(protocol.transport)
        self._pipeline = protocol.pipeline

    def resume_reading(self) -> None:
        unwritten = self.write_paused or self._transport.is_closing()
        if not (self._pipeline or unwritten):
            super().resume_reading()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.pause_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.resume_reading()


class HotProtocol(HttpToolsProtocol):
    """uvicorn's protocol, asked for hot routes first.  A subclass for each server has its site.

    since: when the client last got an answer or began a request, `time.monotonic`.
    """

    site: ClassVar[Site]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.since = 0.0
        self._in_head = False  # a request's head has begun and is not complete
        self._head_bytes = 0  # of it, read after the read it began in
        self._read_bytes = 0  # of the last read
        self._unparsed = 0  # bytes of a body that the parser takes for another protocol
        self._fault: PlatformError | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = _Flow(self)
        self.since = time.monotonic()
        self._look_again_in(self.timeout_keep_alive)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._read_bytes = len(data)
        if self._in_head:
            self._head_bytes += len(data)
        while data:
            if self._unparsed:
                data = self._take_unparsed(data)
                continue
            try:
                self.parser.feed_data(data)
                break
            except HttpParserUpgrade as offer:
                data = data[offer.args[0] :]
            except HttpParserError:
                self.send_400_response("")
                return
        if self._in_head and self._head_bytes > self.site.doors.max_header_bytes:
            self._fault = self.site.doors.head_too_long()
            self.send_400_response("")

    def on_message_begin(self) -> None:
        # The scope is made in `_by_app`, for those who need it.
        self.url = b""
        self.headers = []
        self.since = time.monotonic()
        self._in_head = True
        self._head_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self._in_head = False
        longest = self.site.doors.max_header_bytes
        if self._head_bytes + self._read_bytes > longest:  # it may be, of requests read together
            length = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
            if length > longest:
                self._fault = self.site.doors.head_too_long()
                raise self._fault  # ends the parser, which has `send_400_response` called
        path, _, _ = self.url.partition(b"?")
        route = self.site.routes.get((self.parser.get_method(), path))
        if route is None:
            self._by_app()
            return
        before = self.cycle
        exchange: Any
        if self.site.full() and not any(name == b"expect" for name, _ in self.headers):
            exchange = _TurnedAway(self, route[0])
        else:
            exchange = _Exchange(self, *route)
        self.cycle = exchange
        if before is None or before.response_complete:
            exchange.take_turn()
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((exchange, self.app))

    def _by_app(self) -> None:
        url, headers, began = self.url, self.headers, self.since
        super().on_message_begin()
        self.url, self.since = url, began
        self.headers += headers  # the scope's list
        self.expect_100_continue = any(
            name == b"expect" and value.lower() == b"100-continue" for name, value in headers
        )
        super().on_headers_complete()
        if self.site.draining or self.expect_100_continue:
            # The app may answer without having asked for the body, which then may come or not.
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        if isinstance(self.cycle, _Exchange):
            self.cycle.feed(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            # Offered by some clients with every first request.  It is declined by being answered as
            # it is; but the parser stops at the head, so the body has to be found without it.
            self._unparsed = int(dict(self.headers).get(b"content-length", b"0"))
            if self._unparsed:
                return
        self._complete()

    def _take_unparsed(self, data: bytes) -> bytes:
        part, rest = data[: self._unparsed], data[self._unparsed :]
        self._unparsed -= len(part)
        self.on_body(part)
        if not self._unparsed:
            self._complete()
        return rest

    def _complete(self) -> None:
        if isinstance(self.cycle, _Exchange):
            self.cycle.complete()
        else:
            super().on_message_complete()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        if isinstance(cycle, _Exchange):
            # Soon, not now: a long pipeline of answers at once would be as deep a recursion.
            self.loop.call_soon(cycle.take_turn)
        else:
            super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        if self.transport.is_closing():
            return
        self.since = time.monotonic()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        if self.flow.read_paused:
            self.flow.resume_reading()

    def _look_again_in(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(
            seconds, self.timeout_keep_alive_handler
        )

    def _unset_keepalive_if_required(self) -> None:
        """The timer stays until the connection is lost."""

    def timeout_keep_alive_handler(self) -> None:
        cycle = self.cycle
        ours = cycle is not None and not (cycle.response_complete or cycle.more_body)
        left = self.since + self.timeout_keep_alive - time.monotonic()
        if ours or left > 0:
            self._look_again_in(self.timeout_keep_alive if ours else left)
        else:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Nothing of this connection can be read any more; what was asked before is answered."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False
        elif not self.transport.is_closing():
            error = self._fault or InvalidArgument("the request is not HTTP that can be read")
            status, body, _ = refusal(error)
            head = self.site.head(status, self.server_state.default_headers)
            self.transport.write(b"%b%d\r\nconnection: close\r\n\r\n%b" % (head, len(body), body))
            self.transport.close()

    def shutdown(self) -> None:
        """The server drains: what is under way is the last."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False

    def close_if_quiet(self, since: float) -> None:
        """Close the connection if nothing is asked, and nothing was since that time."""
        asked = self._in_head or (self.cycle is not None and not self.cycle.response_complete)
        if not asked and self.since < since:
            self.transport.close()


def _lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"".join(b"%b: %b\r\n" % header for header in headers)
