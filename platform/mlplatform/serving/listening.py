"""The sockets that outlive workers: opened once, by the supervisor.

Enters: a host and a port; 0 takes a free one.  Leaves: a bound socket.  A connection that arrives
while a worker dies, or hands over to the next one, waits in the HTTP socket's queue, which lasts as
long as any process has the socket.  For gRPC each worker opens a socket of its own, and the port is
only kept: bound with SO_REUSEPORT, as the workers' are, and never listened on.
"""

import socket

from mlplatform.errors import FailedPrecondition, InvalidArgument

Address = tuple[str, int]
QUEUE = 4096  # connections; the kernel takes fewer where net.core.somaxconn is less


def listen(address: Address) -> socket.socket:
    """A listening TCP socket that does not block.

    Raises:
        FailedPrecondition: the address is taken, or is not this machine's.
    """
    bound = _bound(address, socket.SO_REUSEADDR)
    bound.listen(QUEUE)
    return bound


def listen_beside(address: str) -> socket.socket:
    """A listening TCP socket that does not block, for gRPC, at a port that others listen on too.

    Args:
        address: as `address_of` gives it.

    Raises:
        FailedPrecondition: as `listen`.
        InvalidArgument: it is no address.
    """
    host, _, port = address.rpartition(":")
    if not (host and port.isdigit()):
        raise InvalidArgument(f"{address}: expected an address to listen on, as host:port")
    where = (host.strip("[]"), int(port))
    bound = _bound(where, socket.SO_REUSEADDR, socket.SO_REUSEPORT, purpose=" for gRPC")
    bound.listen(QUEUE)
    return bound


def keep_port(address: Address) -> socket.socket:
    """A socket that keeps a port for those who listen on it with SO_REUSEPORT.

    Raises:
        FailedPrecondition: as `listen`; also where another server shares the port in just this way.
    """
    # Only without SO_REUSEPORT is a port refused that another server's workers listen on.
    _bound(address, socket.SO_REUSEADDR).close()
    return _bound(address, socket.SO_REUSEPORT)


def address_of(bound: socket.socket) -> str:
    """`host:port`, an IPv6 host in brackets."""
    host, port = bound.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def port_of(bound: socket.socket) -> int:
    return int(bound.getsockname()[1])


def _bound(address: Address, *options: int, purpose: str = "") -> socket.socket:
    host, port = address
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, where = found[0]
        made = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _refused(address, error, purpose) from error
    try:
        made.setblocking(False)
        for option in options:
            made.setsockopt(socket.SOL_SOCKET, option, 1)
        made.bind(where)
    except OSError as error:
        made.close()
        raise _refused(address, error, purpose) from error
    return made


def _refused(address: Address, error: OSError, purpose: str) -> FailedPrecondition:
    host, port = address
    return FailedPrecondition(
        f"{host}:{port}: cannot listen there{purpose} ({error.strerror}); choose another address, "
        "or end the process that has this one"
    )
