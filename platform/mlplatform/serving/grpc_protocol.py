"""gRPC over HTTP/2 (PROTOCOL-HTTP2.md), in one thread: what a server's connections share.

Enters: connections, methods by their paths, doors.  Leaves: calls (`grpc_calls.py`), each with what
its request's head says, and the end of those whose deadline is over.
"""

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from typing import cast

from mlplatform.serving.doors import Doors
from mlplatform.serving.grpc_calls import PREFIX_BYTES, Call, StreamingCall, UnaryCall
from mlplatform.serving.grpc_head import Head, read_head
from mlplatform.serving.grpc_methods import Method
from mlplatform.serving.hpack import Field
from mlplatform.serving.http2 import Connection
from mlplatform.serving.http2_frames import Limits

Answered = Callable[[str, str, float], None]  # method, status by its name, seconds
_LOOK_AGAIN_S = 0.005  # at the earliest, after deadlines of which there may be many
_HELD_BYTES = 16 << 20  # of requests that are not complete, on one connection, or four messages


class Site:
    """What the connections of one server share.

    methods: by path.  answered: told of every call of a guarded method that has one message.
    full: whether hot methods would refuse.
    """

    def __init__(
        self,
        methods: Mapping[str, Method],
        doors: Doors,
        answered: Answered,
        longest_bytes: int,
        full: Callable[[], bool] = lambda: False,
    ) -> None:
        self.methods = {path.encode(): (path, method) for path, method in methods.items()}
        self.doors = doors
        self.asks = doors.keys is not None or doors.rate is not None
        self.answered = answered
        self.full = full
        self.longest_bytes = longest_bytes
        self.held_bytes = max(_HELD_BYTES, 4 * longest_bytes)
        # Twice a message: one that is complete may wait while the next one comes.
        window = max(65_535, 2 * (longest_bytes + PREFIX_BYTES))
        self.limits = Limits(doors.max_header_bytes, window)
        self.connections: set[GrpcConnection] = set()
        self.draining = False


class GrpcConnection(Connection):
    """A client's, whose streams are calls."""

    def __init__(self, site: Site) -> None:
        super().__init__(site.limits)
        self.site = site
        self.held = 0  # bytes of requests that are not complete
        self.remote = ""
        self._look_at = math.inf  # the next deadline, or one before it
        self._looking: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.site.connections.add(self)
        peer = transport.get_extra_info("peername")
        # A client is its host, whichever of its ports it comes from.
        self.remote = str(peer[0]) if isinstance(peer, tuple) else ""
        if self.site.draining:
            self.go_away()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.site.connections.discard(self)
        if self._looking is not None:
            self._looking.cancel()

    def expire_at(self, deadline: float) -> None:
        """Look then which calls are too late.  One timer serves them all: most calls are answered
        long before it goes off, and a timer for each would cost more than reading it does."""
        if deadline < self._look_at:
            if self._looking is not None:
                self._looking.cancel()
            self._look_at = deadline
            left = max(_LOOK_AGAIN_S, deadline - time.monotonic())
            self._looking = asyncio.get_running_loop().call_later(left, self._look)

    def _look(self) -> None:
        self._look_at, self._looking = math.inf, None
        now = time.monotonic()
        calls = cast(list[Call], list(self.streams.values()))
        for call in calls:
            if call.deadline <= now:
                call.expire()
        self.expire_at(
            min((call.deadline for call in calls if call.deadline > now), default=math.inf)
        )

    def read(self, fields: list[Field] | None) -> Head:
        if fields is None:
            self.nuisance()
        return read_head(fields, self.site.methods)

    def open(self, stream_id: int, head: Head) -> Call:
        streams = head.method.form == "streaming"
        return (StreamingCall if streams else UnaryCall)(self, stream_id, head)
