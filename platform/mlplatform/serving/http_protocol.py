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
import os
import socket
import time
from contextlib import suppress
from typing import Any, ClassVar

from httptools import HttpParserError, HttpParserUpgrade
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from mlplatform.errors import InvalidArgument, PlatformError
from mlplatform.serving.doors import refusal
from mlplatform.serving.http_exchange import TURNED_AWAY, Exchange, Site, TurnedAway


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
        if not (self.site.full() and self._between_requests()):
            self._parse(data)
        elif not self._turn_away(data):
            self._parse(data)
            if isinstance(self.cycle, TurnedAway) and self._between_requests():
                self.site.remember_refused(data, self.headers, self.cycle)

    def _between_requests(self) -> bool:
        """Whether the next byte is a request's first, and every one before it is answered."""
        cycle = self.cycle
        over = cycle is None or (cycle.response_complete and not cycle.more_body)
        return over and not (self._in_head or self._unparsed)

    def _turn_away(self, data: bytes) -> bool:
        """Refuse a request by its head's bytes alone, if they are known and it can be done."""
        site, transport = self.site, self.transport
        path = site.refused_path(data)
        if path is None or site.draining or transport.is_closing():
            return False
        self.since = time.monotonic()
        site.answered(path, TURNED_AWAY, 0.0)
        transport.write(site.turned_away(self.server_state.default_headers, keep_alive=True))
        return True

    def _parse(self, data: bytes) -> None:
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
        method = self.parser.get_method()
        route = self.site.routes.get((method, path))
        if route is None:
            self._by_app()
            return
        before = self.cycle
        exchange: Any
        if (
            self.site.full()
            and method != b"HEAD"
            and not any(name == b"expect" for name, _ in self.headers)
        ):
            exchange = TurnedAway(self, route[0])
        else:
            exchange = Exchange(self, *route)
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
        if isinstance(self.cycle, Exchange):
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
        if isinstance(self.cycle, Exchange):
            self.cycle.complete()
        else:
            super().on_message_complete()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        if isinstance(cycle, Exchange):
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
        if asked or self.since >= since or self.transport.get_write_buffer_size():
            return
        # The loop knows of what had come when its turn began, and the transport closes the socket a
        # turn later: a request that came in between would be lost.
        with socket.socket(fileno=os.dup(self.transport.get_extra_info("socket").fileno())) as now:
            if not _has_unread(now):
                with suppress(OSError):  # the client was faster
                    now.shutdown(socket.SHUT_RDWR)
                self.transport.close()


def _has_unread(connection: socket.socket) -> bool:
    try:
        return bool(connection.recv(1, socket.MSG_PEEK))
    except OSError:  # nothing there, or it is lost
        return False
