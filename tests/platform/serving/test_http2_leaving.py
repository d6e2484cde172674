"""How a connection of HTTP/2 ends: by a flood, by leaving in two steps, with its client."""

import asyncio
import socket
import struct
from collections.abc import Callable

import pytest

from mlplatform.serving import http2
from mlplatform.serving import http2_frames as h2
from mlplatform.serving.http2_frames import frame, number
from tests.platform.serving.http2_peer import END, LAST, PLAIN, REQUEST, Peer
from tests.platform.serving.http2_wire import Wire, in_loop

NOTHING: dict[str, Callable[[int], bytes]] = {
    "resets": lambda n: (
        frame(h2.HEADERS, PLAIN, 3 + 2 * n, REQUEST)
        + frame(h2.RST_STREAM, 0, 3 + 2 * n, number(h2.CANCEL))
    ),
    # The client has the server reset: MadeYouReset, CVE-2025-8671.
    "faults": lambda n: (
        frame(h2.HEADERS, PLAIN, 3 + 2 * n, REQUEST)
        + frame(h2.WINDOW_UPDATE, 0, 3 + 2 * n, number(0))
    ),
    "pings": lambda n: frame(h2.PING, 0, 0, bytes(8)),
    "settings": lambda n: frame(h2.SETTINGS, 0, 0, b""),
    "empty data": lambda n: frame(h2.DATA, 0, 1, b""),
    "priorities": lambda n: frame(h2.PRIORITY, 0, 1, bytes(5)),
    "unknown": lambda n: frame(0xEE, 0, 1, b""),
    "late data": lambda n: frame(h2.RST_STREAM if not n else h2.DATA, 0, 1, number(8)),
}


@pytest.mark.parametrize("name", NOTHING)
@in_loop
async def test_a_flood_of_nothing_ends_the_connection(name: str) -> None:
    peer = Peer(answers=False)
    peer.get(h2.HEADERS, PLAIN, 1, REQUEST)
    for n in range(1000):
        peer.data_received(NOTHING[name](n))
    assert not peer.closing
    # Two seconds' worth, lest the count begins anew in the midst of it.
    peer.data_received(b"".join(map(NOTHING[name], range(1000, 10_000))))
    assert peer.wire.faults()[-1] == (h2.GOAWAY, 0, h2.ENHANCE_YOUR_CALM)
    assert peer.wire.ended and not peer.streams


class TestLeaving:
    @in_loop
    async def test_it_ends_in_two_steps_and_what_comes_in_between_is_served(self) -> None:
        peer = Peer()
        peer.get(h2.HEADERS, PLAIN, 1, REQUEST)
        peer.go_away()
        (goaway, ping) = peer.wire.frames()
        assert goaway == (h2.GOAWAY, 0, 0, number(2**31 - 1) + number(h2.NO_ERROR))
        assert ping[0] == h2.PING
        peer.get(h2.HEADERS, PLAIN | LAST, 3, REQUEST)
        assert peer.wire.frames()[-1] == (h2.HEADERS, PLAIN | LAST, 3, END)
        assert not peer.quiet
        peer.get(h2.PING, h2.ACK, 0, ping[3])
        assert peer.wire.frames() == [(h2.GOAWAY, 0, 0, number(3) + number(h2.NO_ERROR))]
        peer.get(h2.HEADERS, PLAIN | LAST, 5, REQUEST)  # the client knows that it was not heard
        peer.get(h2.DATA, 0, 5, b"x")
        assert peer.wire.frames() == [] and not peer.wire.ended and not peer.quiet
        peer.opened[0].lasting = True  # type: ignore[misc]
        assert peer.quiet
        peer.get(h2.DATA, LAST, 1, b"hello")
        assert peer.wire.frames()[-1] == (h2.HEADERS, PLAIN | LAST, 1, END)
        assert peer.wire.ended and not peer.wire.aborted

    @in_loop
    async def test_it_happens_at_an_age_and_does_not_wait_for_a_deaf_client(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("AGE_S", "_LAST_CALL_S", "_GRACE_S", "_LINGER_S"):
            monkeypatch.setattr(http2, name, 0.01)
        peer = Peer(answers=False)
        peer.get(h2.HEADERS, PLAIN, 1, REQUEST)
        while not peer.wire.aborted:
            await asyncio.sleep(0.005)
        kinds = [(kind, stream) for kind, _, stream, _ in peer.wire.frames()]
        assert kinds == [
            (h2.GOAWAY, 0), (h2.PING, 0), (h2.GOAWAY, 0), (h2.HEADERS, 1), (h2.RST_STREAM, 1),
        ]  # fmt: skip

    @in_loop
    async def test_a_client_that_goes_loses_its_streams(self) -> None:
        peer = Peer(answers=False)
        peer.get(h2.HEADERS, PLAIN, 1, REQUEST)
        peer.connection_lost(None)
        assert peer.opened[0].gone and not peer.streams
        peer.opened[0].answer()
        peer.go_away()
        assert peer.wire.frames() == []

    @in_loop
    async def test_a_client_that_reset_the_connection_unseen_is_let_go(self) -> None:
        peer, loop = Peer(), asyncio.get_running_loop()
        server = await loop.create_server(lambda: peer, "127.0.0.1", 0)
        async with server:
            client = socket.create_connection(server.sockets[0].getsockname())
            while isinstance(peer.transport, Wire):
                await asyncio.sleep(0)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            peer.close()
            assert peer.transport.is_closing()
