"""gRPC in a worker's loop: an application's methods, behind the doors, and the usual two services.

Enters: an address, methods, doors.  Leaves: answers, or the status of what was wrong.  Health
(grpc.health.v1) is for probes and needs no key; reflection is behind the doors like everything.

The protocol is this package's own (`hpack.py`, `http2.py`, `grpc_protocol.py`), because a worker
has one thread.  grpcio's asyncio server polls in a second one, which contends with the loop for
the interpreter.  An echo, asked 2,000 times a second, takes 350 microseconds of the processor there
and 60 here; beside the work of a real call it was a millisecond.  What it does not do: TLS, which
is for a proxy in front, and compressing answers.

Draining: health says NOT_SERVING, and no more connections are taken, but for those that wait to be.
Every client is asked to go elsewhere, and what it sent before it knew is still answered (GOAWAY in
two steps, `http2.py`).  What may last for ever, as watching health does, is not waited for.
"""

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Sequence
from functools import partial

from mlplatform.errors import FailedPrecondition, InvalidArgument
from mlplatform.serving import grpc_health, grpc_reflection
from mlplatform.serving.doors import Doors
from mlplatform.serving.grpc_methods import Methods, hot, service, status_of, streaming, unary
from mlplatform.serving.grpc_protocol import Answered, GrpcConnection, Site

logger = logging.getLogger(__name__)

__all__ = ["hot", "serve", "service", "status_of", "streaming", "unary"]

_ACCEPTED_AT_ONCE = 16  # the others may wait for a turn
_QUEUE = 4096  # connections; the kernel takes fewer where net.core.somaxconn is less
_POLL_S = 0.02
_LEAVE_S = 0.5  # for clients that were told that everything is over


async def serve(
    address: str,
    services: Sequence[Methods],
    names: Sequence[str],
    doors: Doors,
    stopping: asyncio.Event,
    drain_s: float,
    answered: Answered = lambda method, status, seconds: None,
    ready: Callable[[], None] | None = None,
    max_message_bytes: int | None = None,
    full: Callable[[], bool] = lambda: False,
) -> None:
    """Serve until `stopping` is set, and then until nothing is under way or `drain_s` is over.

    Args:
        address: "host:port", shared with others by SO_REUSEPORT; an IPv6 host in brackets.
        names: of the services, for health and reflection.
        answered: told of every unary call of these services, by "/service/method".
        ready: called when connections are taken.
        max_message_bytes: that are read of one; None is the doors' `max_body_bytes`.
        full: whether a hot method would refuse a call for want of room anyway, so that it need not
            be read.

    Raises:
        FailedPrecondition: the address is taken.
        InvalidArgument: it is no address.
    """
    own = (
        grpc_health.health(names, stopping),
        grpc_reflection.server_reflection([*names, grpc_reflection.NAME, grpc_health.NAME]),
    )
    methods = {path: method for each in (*services, *own) for path, method in each.items()}
    longest = doors.max_body_bytes if max_message_bytes is None else max_message_bytes
    site = Site(methods, doors, answered, longest, full)
    door = _Door(_bound(address), site)
    try:
        if ready is not None:
            ready()
        await stopping.wait()
    finally:
        await door.close()
    await _drain(site, time.monotonic() + drain_s)


def _bound(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    if not (host and port.isdigit()):
        raise InvalidArgument(f"{address}: expected an address to listen on, as host:port")
    made = None
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            host.strip("[]"), int(port), type=socket.SOCK_STREAM
        )[0]
        made = socket.socket(family, kind, protocol)
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind(where)
    except OSError as error:
        if made is not None:
            made.close()
        raise FailedPrecondition(
            f"{address}: cannot listen there for gRPC ({error.strerror}); choose another address, "
            "or end the process that has this one"
        ) from error
    return made


class _Door:
    """Takes the connections of a socket."""

    def __init__(self, listener: socket.socket, site: Site) -> None:
        self._listener = listener
        self._site = site
        self._loop = asyncio.get_running_loop()
        self._taken: set[asyncio.Task[object]] = set()
        listener.listen(_QUEUE)
        self._loop.add_reader(listener, self._accept)

    def _accept(self, most: int = _ACCEPTED_AT_ONCE) -> None:
        # uvloop's own way takes one for each turn of the loop, of which each may be long.
        for _ in range(most):
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:  # the client is gone, or there are too many files
                logger.warning("a connection was not taken: %s", error)
                return
            connection.setblocking(False)
            taken = self._loop.create_task(
                self._loop.connect_accepted_socket(partial(GrpcConnection, self._site), connection)
            )
            self._taken.add(taken)
            taken.add_done_callback(self._taken.discard)

    async def close(self) -> None:
        """Take no more, but for those that wait, which a socket that is closed resets."""
        self._site.draining = True
        self._loop.remove_reader(self._listener)
        self._accept(_QUEUE)
        self._listener.close()  # at once, before more of them come
        await asyncio.gather(*self._taken, return_exceptions=True)


async def _drain(site: Site, give_up: float) -> None:
    for connection in list(site.connections):
        connection.go_away()
    while time.monotonic() < give_up and not all(each.quiet for each in site.connections):
        await asyncio.sleep(_POLL_S)
    for connection in list(site.connections):
        connection.cut()
    # They have what they asked for, but may not have read it.
    give_up = max(give_up, time.monotonic() + _LEAVE_S)
    while site.connections and time.monotonic() < give_up:
        await asyncio.sleep(_POLL_S)
    for connection in list(site.connections):
        connection.transport.abort()
