"""Requests sent before the answers of those before them."""

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.serving.http_protocol import HotProtocol
from tests.platform.serving.http_served import (
    Client,
    Served,
    get,
    post,
    served,
    until,
)

KINDS: dict[str, Callable[[int], tuple[bytes, bytes]]] = {
    "echo": lambda n: (post("/echo", b"%d" % n), b"%d" % n),
    "later": lambda n: (post("/later", b"%d" % n), b"%d" % n),
    "slow": lambda n: (post("/slow", b"%d" % n), b'{"slow":%d,"agent":null}' % n),
    "item": lambda n: (get(f"/items/{n}"), b'{"name":"%d"}' % n),
    "missing": lambda n: (post("/missing"), b'{"error": "no such thing"}'),
    "cap": lambda n: (
        post("/echo", b"x" * 65_537),
        b'{"error": "the body is too long, at most 65536 bytes are read"}',
    ),
}


@settings(max_examples=25, deadline=None)
@given(
    drawn=st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=12),
    pieces=st.integers(1, 60),
)
@served()
async def test_answers_keep_the_order_of_requests_whatever_answers_them(
    server: Served, drawn: list[str], pieces: int
) -> None:
    client = await server.client()
    asked = [KINDS[kind](n) for n, kind in enumerate(drawn)]
    whole = b"".join(request for request, _ in asked)
    step = len(whole) // pieces + 1
    for at in range(0, len(whole), step):
        client.send(whole[at : at + step])
        await asyncio.sleep(0)
    for kind, (_, expected) in zip(drawn, asked, strict=True):
        if kind == "later":
            await until(lambda: bool(server.owed))
            body, reply = server.owed.pop()
            assert not server.owed  # one at a time
            reply(200, body)
        assert (await client.answer()).body == expected
    await until(lambda: len(server.answered) == len(drawn))


@served()
async def test_a_thousand_requests_behind_a_late_one_are_answered_without_recursion(
    server: Served,
) -> None:
    client = await server.client()
    client.send(post("/later", b"0"), *(post("/echo", b"%d" % n) for n in range(1, 1000)))
    await until(lambda: bool(server.owed))
    server.owed[0][1](200, b"0")
    for n in range(1000):
        assert (await client.answer()).body == b"%d" % n


@served()
async def test_what_came_before_garbage_is_answered_and_then_the_connection_ends(
    server: Served,
) -> None:
    client = await server.client()
    client.send(post("/later"), b"garbage\r\n\r\n")
    await until(lambda: bool(server.owed))
    server.owed[0][1](200, b"good")
    assert (await client.answer()).body == b"good"
    assert await client.rest() == b""
    garbage = await server.client()
    answer = await garbage.ask(b"garbage\r\n\r\n")
    assert answer.status == 400 and "HTTP" in answer.problem
    assert await garbage.rest() == b""


async def stuffed(client: Client, request: bytes, most: int) -> int:
    """Send until nobody reads any more; return how many requests were sent."""
    client.writer.transport.set_write_buffer_limits(1)
    for sent in range(1, most + 1):
        client.send(request)
        try:
            async with asyncio.timeout(1.0):
                await client.writer.drain()
        except TimeoutError:
            return sent
    return most


@served()
async def test_a_client_that_reads_no_answers_gets_to_send_no_more(server: Served) -> None:
    client = await server.client()
    sent = await stuffed(client, post("/echo", b"x" * 60_000), 2_000)  # 120 MB
    # What the two sockets' buffers and one read hold.
    assert sent < 1_000 and len(server.asked) <= sent
    for _ in range(sent):
        assert len((await client.answer()).body) == 60_000


@served(drain_s=0.1)
async def test_a_client_that_sends_while_an_answer_is_owed_is_not_read_without_end(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed = 0
    counted = HotProtocol.on_headers_complete

    def count(protocol: HotProtocol) -> None:
        nonlocal parsed
        parsed += 1
        counted(protocol)

    monkeypatch.setattr(HotProtocol, "on_headers_complete", count)
    client, request = await server.client(), post("/later")
    one_read = 256 * 1024 // len(request)  # what the loop reads at once
    client.send(request * 20 * one_read)
    for n in range(20):
        await until(lambda n=n: len(server.owed) == n + 1)
        server.owed[n][1](200, b"%d" % n)
        assert (await client.answer()).body == b"%d" % n
    assert 20 < parsed <= 2 * one_read
