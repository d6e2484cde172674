"""HTTP: a few hot routes without an ASGI request's cost, everything else by the ASGI app.

Enters: sockets that listen, an app, hot routes, doors.  Leaves: answers.  A hot route's handler is
called in the loop, with the whole body, and replies when it has the answer: no task, no scope, no
events, one write (`http_protocol.py`, `http_exchange.py`).

Draining: no new connections; on the others the next answer says `Connection: close`.  One that is
quiet for `_QUIET_S` is closed, unless a request has come by then: one that is still on its way
meets a reset, but a client that sends often is told before.
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Generator, MutableMapping, Sequence
from typing import Any, cast

import uvicorn

from mlplatform.serving.accepting import Acceptor
from mlplatform.serving.balance import Balance
from mlplatform.serving.doors import ASGI, Doors
from mlplatform.serving.http_exchange import Answered, Routes, Site
from mlplatform.serving.http_protocol import HotProtocol

KEEP_ALIVE_S = 75  # that an idle connection stays open; longer than clients' pools keep theirs
_POLL_S = 0.02
_QUIET_S = 1.0


class _Server(uvicorn.Server):
    """uvicorn's server, of which signals are none of its business, and which drains patiently."""

    def __init__(
        self,
        config: uvicorn.Config,
        site: Site,
        drain_s: float,
        ready: Callable[[], None],
        balance: Balance | None,
    ) -> None:
        super().__init__(config)
        self._site = site
        self._drain_s = drain_s
        self._ready = ready
        self._balance = balance
        self._acceptors: list[Acceptor] = []

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self.lifespan.startup()
        self.should_exit = self.lifespan.should_exit
        self._acceptors = [
            Acceptor(listener, self._protocol, self.server_state.connections, self._balance)
            for listener in sockets or []
        ]
        self.started = True
        self._ready()

    def _protocol(self) -> HotProtocol:
        return cast(
            HotProtocol,
            self.config.http_protocol_class(  # type: ignore[call-arg]
                config=self.config,
                server_state=self.server_state,
                app_state=self.lifespan.state,
            ),
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        give_up = time.monotonic() + self._drain_s
        self._site.draining = True
        for acceptor in self._acceptors:
            await acceptor.close()
        state = self.server_state
        connections = cast(set[HotProtocol], state.connections)
        for connection in list(connections):
            connection.shutdown()
        while (connections or state.tasks) and (now := time.monotonic()) < give_up:
            for connection in list(connections):
                connection.close_if_quiet(now - _QUIET_S)
            await asyncio.sleep(_POLL_S)
        for connection in list(connections):
            connection.transport.close()
        for task in state.tasks:
            task.cancel()
        await asyncio.gather(*state.tasks, return_exceptions=True)
        await self.lifespan.shutdown()


async def serve(
    sockets: Sequence[socket.socket],
    app: ASGI,
    routes: Routes,
    doors: Doors,
    stopping: asyncio.Event,
    drain_s: float,
    answered: Answered = lambda route, status, seconds: None,
    ready: Callable[[], None] = lambda: None,
    full: Callable[[], bool] = lambda: False,
    balance: Balance | None = None,
) -> None:
    """Serve until `stopping` is set, and then until nothing is asked or `drain_s` is over.

    Args:
        sockets: bound; they are closed when it drains, in this process.
        app: any ASGI app; it is put behind the same doors.
        answered: told of every request but those that were no HTTP; the app's by their route's
            pattern, or "other".
        ready: called when connections are taken.
        full: whether a request of a hot route would be refused with 429 anyway, so that it need
            not be read.
        balance: with the other workers that take connections of the sockets.
    """
    site = Site(routes, doors, answered, full)
    protocol = type("Bound", (HotProtocol,), {"site": site})
    config = uvicorn.Config(
        _observed(doors.around(app), answered),
        http=protocol,
        ws="none",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
    )
    server = _Server(config, site, drain_s, ready, balance)
    serving = asyncio.create_task(server.serve(list(sockets)))
    stopped = asyncio.create_task(stopping.wait())
    await asyncio.wait([serving, stopped], return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    server.should_exit = True
    await serving


def _observed(app: ASGI, answered: Answered) -> ASGI:
    async def observed(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        began, status = time.monotonic(), 500

        async def noted(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await app(scope, receive, noted)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            answered(route, status, time.monotonic() - began)

    return observed
