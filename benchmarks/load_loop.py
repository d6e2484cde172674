"""The generator's loop: sends each request when it is due, and notes when it is answered.

Enters: the times at which requests are due.  Leaves: for each, when the loop turned to it, when
its end was known, and its status.

A connection offers *slots*: one over HTTP, where requests take turns, several over gRPC.  A request
goes to the connection that has the fewest under way, and among those to the one that had to wait
the longest.  So over either protocol the load is that of a client with a pool, or of a proxy that
balances by least requests: a worker that is slow for a moment is asked less.
"""

import select
import socket
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Protocol

from benchmarks.load import LOST, REFUSED, TIMED_OUT, Plan

OPENING = 0.001  # seconds between connections: clients do not all come in the same instant
# Seconds between looks for requests that are over their time, and for lost connections.
LOOKING = 0.1
_FAILED = select.EPOLLERR | select.EPOLLHUP
_READ_BYTES = 1 << 18


class Door(Protocol):
    """What is said on one connection."""

    def greet(self) -> None:
        """Say what a client says first; the connection `begin`s when requests may follow."""

    def request(self, number: int) -> bytes | None:
        """The bytes of a request; None: not now, the slot is given back by `give_slots`."""

    def give_up(self, number: int) -> None:
        """Wait no longer for the answer to a request."""

    def receive(self, data: bytes) -> None:
        """Read what came, and tell the connection of it."""


class Connection:
    """A socket, and the requests that are under way on it."""

    def __init__(
        self, loop: "Loop", sock: socket.socket, door: Callable[["Connection"], Door]
    ) -> None:
        self.loop, self.sock = loop, sock
        self.connected = False
        self.open = False  # whether requests may be sent
        self.free = 0  # slots
        self.under_way: set[int] = set()
        self.unsent = b""
        self.door = door(self)

    def begin(self) -> None:
        """Take requests from now on."""
        self.open = True
        self.loop.began(self)
        self.give_slots(self.loop.plan.slots)

    def send(self, data: bytes) -> None:
        """Send now, or what does not fit once it does."""
        if self.unsent:
            self.unsent += data
            return
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.loop.lose(self)
            return
        if sent < len(data):
            self.unsent = data[sent:]
            self.loop.watch(self)

    def give_slots(self, n: int) -> None:
        """Take n requests more from now on, or one fewer: -1."""
        if self.open:
            queues = self.loop.queues
            queues[self.free].pop(self, None)
            self.free += n
            queues[self.free][self] = None

    def answered(self, number: int, status: int, length: int, body: bytes | None) -> None:
        """A request has its answer, and its slot is free again."""
        self.under_way.discard(number)
        self.give_slots(1)
        self.loop.settle(number, status, length, body)

    def unheard(self, number: int) -> None:
        """The server says that it has not looked at a request: it may be sent again elsewhere."""
        self.under_way.discard(number)
        self.loop.waiting.appendleft(number)

    def finish(self) -> None:
        """Send no more requests; close when the last answer has come."""
        self.open = False
        if not self.under_way:
            self.loop.drop(self)


class Loop:
    """`taken`, `ended` (by `time.monotonic`), `status`, `length`: an entry a request."""

    def __init__(self, plan: Plan, door: Callable[[Connection], Door], n: int) -> None:
        self.plan, self.opened = plan, 0
        self.taken, self.ended = [0.0] * n, [0.0] * n
        self.status, self.length = [0] * n, [0] * n
        self.bodies: dict[int, bytes] = {}
        # Connections by their free slots; those that have none are not asked.
        self.queues: Sequence[OrderedDict[Connection, None]] = [
            OrderedDict() for _ in range(plan.slots + 1)
        ]
        self.waiting: deque[int] = deque()
        self._door = door
        self._now = time.monotonic()
        self._left, self._settled = n, bytearray(n)
        self._overdue = 0  # every request before this one is settled
        self._connections: dict[int, Connection] = {}
        self._coming: set[Connection] = set()  # that take no requests yet
        self._epoll = select.epoll()

    def connect(self) -> None:
        """Open the connections that stand ready before the first request.

        Raises:
            ConnectionError: nobody listens there.
        """
        address = self.plan.host, self.plan.port
        for _ in range(self.plan.connections):
            try:
                sock = socket.create_connection(address, timeout=self.plan.timeout)
            except OSError as error:
                raise ConnectionError(f"{address[0]}:{address[1]}: {error}") from error
            self._connected(self._add(sock))
            time.sleep(OPENING)
        give_up = time.monotonic() + self.plan.timeout
        while self._coming and time.monotonic() < give_up:
            self._hear(self._epoll.poll(LOOKING))
        if self._coming:
            raise ConnectionError(
                f"{address[0]}:{address[1]}: expected a greeting on each of "
                f"{self.plan.connections} connections, got none on {len(self._coming)}; see "
                f"whether it speaks {self.plan.door}"
            )

    def run(self, due: Sequence[float]) -> None:
        """Send every request at its time; return when it is known what became of each."""
        taken, waiting = self.taken, self.waiting
        epoll, clock, n = self._epoll, time.monotonic, len(due)
        # Waited on through `select`, which counts microseconds where epoll counts milliseconds.
        watched = [epoll.fileno()]
        at, look = 0, clock() + LOOKING
        while True:
            # First, as clients do: on a connection that was closed meanwhile nothing is sent.
            self._hear(epoll.poll(0))
            if not self._left:
                return
            self._now = now = clock()
            while at < n and due[at] <= now:
                taken[at] = now
                waiting.append(at)
                at += 1
            if waiting:
                self._dispatch()
            if now >= look:
                look = now + LOOKING
                self._give_up(due, at)
                self._open_more()
            until = min(due[at], look) if at < n else look
            if until > now:
                select.select(watched, (), (), until - now)

    def close(self) -> None:
        for connection in list(self._connections.values()):
            self.drop(connection)
        self._epoll.close()

    def began(self, connection: Connection) -> None:
        self._coming.discard(connection)
        self.opened += 1

    def settle(self, number: int, status: int, length: int, body: bytes | None) -> None:
        """Note what became of a request; an answer after it was given up is not heard."""
        if self._settled[number]:
            return
        self._settled[number] = 1
        self._left -= 1
        self.ended[number] = self._now
        self.status[number] = status
        self.length[number] = length
        if body is not None:
            self.bodies[number] = body

    def lose(self, connection: Connection, status: int = LOST) -> None:
        """A connection is over, and with it what was under way on it."""
        for number in connection.under_way:
            self.settle(number, status, 0, None)
        self.drop(connection)

    def drop(self, connection: Connection) -> None:
        connection.open = False
        self.queues[connection.free].pop(connection, None)
        descriptor = connection.sock.fileno()
        if self._connections.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)
        self._coming.discard(connection)
        connection.sock.close()

    def watch(self, connection: Connection) -> None:
        """Be told when there is something to read, and if there is something to send, room."""
        writing = connection.unsent or not connection.connected
        mask = select.EPOLLIN | (select.EPOLLOUT if writing else 0)
        self._epoll.modify(connection.sock.fileno(), mask)

    def _dispatch(self) -> None:
        """Send what waits, the oldest first, as far as there are slots."""
        waiting, settled = self.waiting, self._settled
        freest = self.queues[:0:-1]
        while waiting:
            number = waiting[0]
            if settled[number]:  # given up before it could be sent
                waiting.popleft()
                continue
            connection = next((next(iter(queue)) for queue in freest if queue), None)
            if connection is None:
                self._open_more()
                return
            if not connection.open:  # it finishes what it has
                self.queues[connection.free].pop(connection)
                continue
            connection.give_slots(-1)
            data = connection.door.request(number)
            if data is not None:
                waiting.popleft()
                connection.under_way.add(number)
                connection.send(data)

    def _hear(self, events: Sequence[tuple[int, int]]) -> None:
        self._now = time.monotonic()
        for descriptor, mask in events:
            connection = self._connections.get(descriptor)
            if connection is not None:  # not dropped by an earlier one of these events
                self._ready(connection, mask)

    def _ready(self, connection: Connection, mask: int) -> None:
        if not connection.connected:
            if mask & _FAILED:
                self._refused(connection)
                return
            self._connected(connection)
        if mask & select.EPOLLOUT and connection.unsent:
            data, connection.unsent = connection.unsent, b""
            connection.send(data)
            if not connection.unsent and connection.sock.fileno() >= 0:
                self.watch(connection)
        if mask & ~select.EPOLLOUT and connection.sock.fileno() >= 0:
            try:
                data = connection.sock.recv(_READ_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if data:
                connection.door.receive(data)
            else:
                self.lose(connection)

    def _give_up(self, due: Sequence[float], stop: int) -> None:
        """Wait no longer for requests whose time is over."""
        at, oldest = self._overdue, self._now - self.plan.timeout
        while at < stop and (self._settled[at] or due[at] < oldest):
            self.settle(at, TIMED_OUT, 0, None)
            at += 1
        self._overdue = at
        for connection in list(self._connections.values()):
            for number in [one for one in connection.under_way if one < at]:
                connection.door.give_up(number)

    def _open_more(self) -> None:
        """Replace what was closed; where requests wait, open one for each, up to the limit."""
        plan, waiting = self.plan, len(self.waiting)
        there = len(self._connections)
        for_waiting = -(-waiting // plan.slots) - len(self._coming)
        wanted = max(plan.connections - there, for_waiting)
        for _ in range(min(wanted, plan.most_connections - there)):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex((plan.host, plan.port))  # how it went, epoll says
            self.watch(self._add(sock))

    def _add(self, sock: socket.socket) -> Connection:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(self, sock, self._door)
        self._connections[sock.fileno()] = connection
        self._coming.add(connection)
        self._epoll.register(sock.fileno(), select.EPOLLIN)
        return connection

    def _connected(self, connection: Connection) -> None:
        connection.connected = True
        self.watch(connection)
        connection.door.greet()

    def _refused(self, connection: Connection) -> None:
        """Nobody listens: so every request that waits would be told."""
        self.drop(connection)
        while self.waiting:
            self.settle(self.waiting.popleft(), REFUSED, 0, None)
