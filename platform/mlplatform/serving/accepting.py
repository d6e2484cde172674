"""Taking connections, a few in each turn of the loop.

Enters: a socket that listens, and what makes a protocol for a connection.  Leaves: connections.
uvloop's own way takes one for each turn, and while a turn computes a batch, a crowd of new clients
would wait for seconds.
"""

import asyncio
import logging
import socket
from collections.abc import Callable

logger = logging.getLogger(__name__)

_AT_ONCE = 16  # the others may be another worker's


class Acceptor:
    """Takes the connections of a socket until it is closed; made in the loop's thread."""

    def __init__(
        self, listener: socket.socket, protocol: Callable[[], asyncio.BaseProtocol]
    ) -> None:
        self._listener = listener
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._taken: set[asyncio.Task[object]] = set()
        listener.setblocking(False)
        self._loop.add_reader(listener, self._accept)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
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

    async def close(self) -> None:
        """Close the socket, in this process; return when what was taken has its protocol."""
        self._loop.remove_reader(self._listener)
        self._listener.close()  # at once, before more of them come
        await asyncio.gather(*self._taken, return_exceptions=True)
