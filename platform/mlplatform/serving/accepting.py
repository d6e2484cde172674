"""Taking connections: a few in each turn of the loop, and no more than the other workers.

Enters: a socket that listens, and what makes a protocol for a connection.  Leaves: connections.
uvloop's own way takes one for each turn, and while a turn computes a batch, a crowd of new clients
would wait for seconds.  A worker that has more than another leaves new ones to that one, until it
has caught up; if it has not within a few moments, which are longer than most batches, it is busy or
dead, and the first takes what is there.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Sized

from mlplatform.serving.balance import Balance

logger = logging.getLogger(__name__)

_AT_ONCE = 64  # the others may be another worker's
_MOMENT_S, _MOMENTS = 0.001, 5


class Acceptor:
    """Takes the connections of a socket until it is closed; made in the loop's thread.

    connections: those that have their protocol.  balance: None where there are no other workers.
    """

    def __init__(
        self,
        listener: socket.socket,
        protocol: Callable[[], asyncio.BaseProtocol],
        connections: Sized,
        balance: Balance | None,
    ) -> None:
        self._listener = listener
        self._protocol = protocol
        self._connections = connections
        self._balance = balance
        self._loop = asyncio.get_running_loop()
        self._taken: set[asyncio.Task[object]] = set()
        self._waiting: asyncio.TimerHandle | None = None
        listener.setblocking(False)
        self._loop.add_reader(listener, self._accept)

    def _accept(self, waited: bool = False) -> None:
        for _ in range(_AT_ONCE):
            if not waited and self._has_more():
                self._loop.remove_reader(self._listener)
                self._wait(_MOMENTS)
                return
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:  # the client is gone, or there are too many files
                logger.warning("a connection was not taken: %s", error)
                return
            connection.setblocking(False)
            taken = self._loop.create_task(
                self._loop.connect_accepted_socket(self._protocol, connection)
            )
            self._taken.add(taken)
            taken.add_done_callback(self._taken.discard)

    def _has_more(self) -> bool:
        if self._balance is None:
            return False
        return self._balance.has_more(len(self._connections) + len(self._taken))

    def _wait(self, moments: int) -> None:
        self._waiting = self._loop.call_later(_MOMENT_S, self._look, moments - 1)

    def _look(self, moments: int) -> None:
        more = self._has_more()
        if more and moments:
            self._wait(moments)
        else:
            self._waiting = None
            self._loop.add_reader(self._listener, self._accept)
            self._accept(waited=more)

    async def close(self) -> None:
        """Close the socket, in this process; return when what was taken has its protocol."""
        if self._waiting is not None:
            self._waiting.cancel()
        self._loop.remove_reader(self._listener)
        self._listener.close()  # at once, before more of them come
        await asyncio.gather(*self._taken, return_exceptions=True)
