"""Sockets that are bound for others to use."""

import socket

import pytest

from mlplatform.errors import FailedPrecondition
from mlplatform.serving.listening import address_of, keep_port, listen, port_of

HERE = ("127.0.0.1", 0)


def test_a_connection_waits_in_the_queue_until_someone_accepts() -> None:
    with listen(HERE) as bound, socket.create_connection(bound.getsockname()) as waiting:
        waiting.sendall(b"x")
        accepted, _ = bound.accept()
        with accepted:
            accepted.settimeout(10)
            assert accepted.recv(1) == b"x"
        assert bound.getblocking() is False


def test_a_kept_port_is_for_those_who_share_it_and_for_nobody_else() -> None:
    with keep_port(HERE) as kept:
        where = kept.getsockname()
        assert address_of(kept) == f"127.0.0.1:{port_of(kept)}" and port_of(kept) == where[1]
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(where)
        with pytest.raises(FailedPrecondition, match=f"127.0.0.1:{where[1]}: cannot listen there"):
            listen(where)
        with socket.socket() as worker, socket.socket() as another:
            for one in (worker, another):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                one.bind(where)
                one.listen()
            socket.create_connection(where).close()
            # Another server's workers: they would take turns with these.
            with pytest.raises(FailedPrecondition, match="cannot listen there"):
                keep_port(where)


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid"])
def test_an_address_of_another_machine_is_refused(host: str) -> None:
    with pytest.raises(FailedPrecondition, match=f"{host}:0: cannot listen there"):
        listen((host, 0))


def test_an_ipv6_address_is_written_in_brackets() -> None:
    try:
        bound = listen(("::1", 0))
    except FailedPrecondition:
        pytest.skip("no IPv6 here")
    with bound:
        assert address_of(bound) == f"[::1]:{port_of(bound)}"
