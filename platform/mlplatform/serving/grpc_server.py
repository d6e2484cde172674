"""gRPC in a worker's loop: an application's methods, behind the doors, and the usual two services.

Enters: a socket that listens, methods, doors.  Leaves: answers, or the status of what was wrong.
Health (grpc.health.v1) is for probes and needs no key; reflection is behind the doors like
everything.

The protocol is this package's own (`hpack.py`, `http2.py`, `grpc_protocol.py`), because a worker
has one thread.  grpcio's asyncio server polls in a second one, which contends with the loop for
the interpreter.  An echo, asked 2,000 times a second, takes 350 microseconds of the processor there
and 60 here; beside the work of a real call it was a millisecond.  What it does not do: TLS, which
is for a proxy in front, and compressing answers.

Draining: health says NOT_SERVING, and no more connections are taken.  Every client is asked to go
elsewhere, and what it sent before it knew is still answered (GOAWAY in two steps, `http2.py`).
What may last for ever, as watching health does, is not waited for.
"""

import asyncio
import socket
import time
from collections.abc import Callable, Sequence
from functools import partial

from mlplatform.serving import grpc_health, grpc_reflection
from mlplatform.serving.accepting import Acceptor
from mlplatform.serving.balance import Balance
from mlplatform.serving.doors import Doors
from mlplatform.serving.grpc_methods import Methods
from mlplatform.serving.grpc_protocol import Answered, GrpcConnection, Site

_POLL_S = 0.02
_LEAVE_S = 0.5  # for clients that were told that everything is over


async def serve(
    listener: socket.socket,
    services: Sequence[Methods],
    doors: Doors,
    stopping: asyncio.Event,
    drain_s: float,
    answered: Answered = lambda method, status, seconds: None,
    ready: Callable[[], None] | None = None,
    max_message_bytes: int | None = None,
    full: Callable[[], bool] = lambda: False,
    balance: Balance | None = None,
) -> None:
    """Serve until `stopping` is set, and then until nothing is under way or `drain_s` is over.

    Args:
        listener: bound; it is closed when it drains, in this process.
        answered: told of every unary call of these services, by "/service/method".
        ready: called when connections are taken.
        max_message_bytes: that are read of one; None is the doors' `max_body_bytes`.
        full: whether a hot method would refuse a call for want of room anyway, so that it need not
            be read.
        balance: with the other workers that take connections of the socket.
    """
    names = {path.split("/")[1] for each in services for path in each}
    own = (
        grpc_health.health(names, stopping),
        grpc_reflection.server_reflection([*names, grpc_reflection.NAME, grpc_health.NAME]),
    )
    methods = {path: method for each in (*services, *own) for path, method in each.items()}
    longest = doors.max_body_bytes if max_message_bytes is None else max_message_bytes
    site = Site(methods, doors, answered, longest, full)
    acceptor = Acceptor(listener, partial(GrpcConnection, site), site.connections, balance)
    try:
        if ready is not None:
            ready()
        await stopping.wait()
    finally:
        site.draining = True
        await acceptor.close()
    await _drain(site, time.monotonic() + drain_s)


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
