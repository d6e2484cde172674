"""The sockets that outlive workers: opened once, by the supervisor.

Enters: a host and a port; 0 takes a free one.  Leaves: a listening socket, which all workers take
connections from.  One that arrives while a worker dies, or hands over to the next one, waits in the
socket's queue, which lasts as long as any process has the socket.
"""

import socket

from mlplatform.errors import FailedPrecondition

Address = tuple[str, int]
_QUEUE = 4096  # connections; the kernel takes fewer where net.core.somaxconn is less


def listen(address: Address) -> socket.socket:
    """A listening TCP socket that does not block.

    Raises:
        FailedPrecondition: the address is taken, or is not this machine's.
    """
    host, port = address
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, where = found[0]
        made = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _refused(address, error) from error
    try:
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(where)
        made.listen(_QUEUE)
    except OSError as error:
        made.close()
        raise _refused(address, error) from error
    return made


def port_of(bound: socket.socket) -> int:
    return int(bound.getsockname()[1])


def _refused(address: Address, error: OSError) -> FailedPrecondition:
    host, port = address
    return FailedPrecondition(
        f"{host}:{port}: cannot listen there ({error.strerror}); choose another address, "
        "or end the process that has this one"
    )
