"""Connections are taken, and as many by each worker."""

import asyncio
import os
import socket
from collections.abc import Iterator

import pytest

from mlplatform.serving.accepting import Acceptor
from mlplatform.serving.balance import Balance, Door, shared_counts
from mlplatform.serving.listening import listen

LIMIT_S = 20.0


@pytest.fixture
def counts() -> Iterator[int]:
    descriptor = shared_counts(workers=3)
    yield descriptor
    os.close(descriptor)


def test_who_has_more_than_another_at_the_same_door_is_told_so(counts: int) -> None:
    workers = [Balance(counts, Door.GRPC, worker) for worker in range(3)]
    elsewhere = Balance(counts, Door.HTTP, 0)
    assert [worker.has_more(2) for worker in workers] == [True, True, False]
    assert not workers[0].has_more(2)
    assert workers[0].has_more(3)
    assert not workers[1].has_more(1)
    assert elsewhere.has_more(1) and not elsewhere.has_more(0)


class Kept(asyncio.Protocol):
    """A connection, in the set of its worker's."""

    def __init__(self, connections: set["Kept"]) -> None:
        self._connections = connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._connections.add(self)


def taken_by(counts: int, clients: int, workers: list[int]) -> list[int]:
    """How many of so many clients each worker takes, of one socket and in one loop."""

    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        with listen(("127.0.0.1", 0)) as listener:
            taken: list[set[Kept]] = [set() for _ in workers]
            acceptors = [
                Acceptor(
                    listener.dup(),
                    lambda mine=mine: Kept(mine),  # type: ignore[misc]
                    mine,
                    Balance(counts, Door.HTTP, worker),
                )
                for worker, mine in zip(workers, taken, strict=True)
            ]
            opened = []
            async with asyncio.timeout(LIMIT_S):
                for _ in range(clients):
                    client = socket.socket()
                    client.setblocking(False)
                    opened.append(client)
                    await loop.sock_connect(client, listener.getsockname())
                while sum(map(len, taken)) < clients:
                    await asyncio.sleep(0.001)
            for acceptor in acceptors:
                await acceptor.close()
            for client in opened:
                client.close()
            for each in taken:
                for kept in each:
                    kept.transport.close()
            return [len(each) for each in taken]

    return asyncio.run(main())


def test_workers_take_as_many_each(counts: int) -> None:
    taken = taken_by(counts, 60, [0, 1, 2])
    assert sum(taken) == 60
    assert max(taken) - min(taken) <= 2


def test_what_nobody_else_takes_is_taken_after_a_moment(counts: int) -> None:
    assert taken_by(counts, 60, [1]) == [60]
