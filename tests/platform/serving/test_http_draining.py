"""A server that is to stop, and its clients."""

import asyncio
import json
import socket
import time

import pytest

from tests.platform.serving.http_served import (
    LIMIT_S,
    Served,
    get,
    post,
    served,
    until,
)


@served()
async def test_who_asks_while_the_server_drains_is_answered_and_told_to_close(
    server: Served,
) -> None:
    clients = [await server.client() for _ in range(3)]
    for client in clients:
        assert (await client.ask(post("/echo"))).status == 200
    server.stopping.set()
    await asyncio.sleep(0.2)
    requests = [post("/echo", b"1"), post("/slow", b"1"), get("/items/1")]
    for client, request in zip(clients, requests, strict=True):
        answer = await client.ask(request)
        assert answer.status == 200 and answer.headers["connection"] == "close"
        assert await client.rest() == b""
    await asyncio.wait_for(server.task, LIMIT_S)


@served()
async def test_what_is_under_way_is_finished_and_nobody_new_is_let_in(server: Served) -> None:
    hot, slow = await server.client(), await server.client()
    hot.send(post("/later", b"1"), post("/echo", b"2"))
    slow.send(post("/slow", b"3"))
    await until(lambda: bool(server.owed))
    server.stopping.set()
    assert json.loads((await slow.answer()).body)["slow"] == 3
    await asyncio.sleep(0.2)
    with pytest.raises(ConnectionRefusedError):
        await server.client()
    assert not server.task.done()
    server.owed[0][1](200, b"1")
    first, last = await hot.answer(), await hot.answer()
    assert (first.body, last.body) == (b"1", b"2")
    assert "connection" not in first.headers and last.headers["connection"] == "close"
    assert await hot.rest() == b""
    await asyncio.wait_for(server.task, LIMIT_S)


@served()
async def test_who_asks_in_the_moment_before_being_closed_is_answered(server: Served) -> None:
    loop = asyncio.get_running_loop()
    busy, work = socket.socketpair()
    with socket.socket() as client, busy, work:

        def be_busy() -> None:
            loop.remove_reader(busy)
            client.sendall(post("/echo", b"2"))
            # Longer than a connection may be quiet: then both are due, to read it and to close it,
            # and the loop closes first.
            time.sleep(1.2)

        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", server.port))
        await loop.sock_sendall(client, post("/echo", b"1"))
        assert b" 200 OK" in await loop.sock_recv(client, 1000)
        server.stopping.set()
        await until(lambda: is_refused(server.port))
        loop.add_reader(busy, be_busy)
        work.send(b"1")
        answer = await loop.sock_recv(client, 1000)
        assert b" 200 OK" in answer and b"connection: close" in answer
        assert await loop.sock_recv(client, 1000) == b""
    await asyncio.wait_for(server.task, LIMIT_S)


def is_refused(port: int) -> bool:
    """Whether nobody listens there any more."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) != 0


@served(drain_s=3.0)
async def test_who_stays_quiet_is_closed_and_who_is_owed_an_answer_when_the_time_is_over(
    server: Served,
) -> None:
    quiet, owed = await server.client(), await server.client()
    owed.send(post("/later"))
    await until(lambda: bool(server.owed))
    server.stopping.set()
    assert await quiet.rest() == b""
    assert not server.task.done() and not owed.reader.at_eof()
    assert await owed.rest() == b""
    await asyncio.wait_for(server.task, LIMIT_S)
