"""A server that is to stop, and its clients."""

import asyncio
import json

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
