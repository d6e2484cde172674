"""Sockets that are bound for others to use."""

import socket

import pytest

from mlplatform.errors import FailedPrecondition
from mlplatform.serving.listening import listen, port_of

HERE = ("127.0.0.1", 0)


def test_a_connection_waits_in_the_queue_until_someone_accepts() -> None:
    with listen(HERE) as bound, socket.create_connection(bound.getsockname()) as waiting:
        waiting.sendall(b"x")
        accepted, _ = bound.accept()
        with accepted:
            accepted.settimeout(10)
            assert accepted.recv(1) == b"x"
        assert bound.getblocking() is False


def test_a_port_that_another_server_has_is_refused() -> None:
    with listen(HERE) as bound:
        where = bound.getsockname()
        assert where == ("127.0.0.1", port_of(bound))
        with pytest.raises(FailedPrecondition, match=f"127.0.0.1:{where[1]}: cannot listen there"):
            listen(where)


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid"])
def test_an_address_of_another_machine_is_refused(host: str) -> None:
    with pytest.raises(FailedPrecondition, match=f"{host}:0: cannot listen there"):
        listen((host, 0))


def test_an_ipv6_address_is_listened_on() -> None:
    try:
        bound = listen(("::1", 0))
    except FailedPrecondition:
        pytest.skip("no IPv6 here")
    with bound:
        assert bound.getsockname()[:2] == ("::1", port_of(bound))
        socket.create_connection(bound.getsockname()[:2]).close()
