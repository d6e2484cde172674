"""The hot routes and the app behind one listening socket: what is asked and what is answered."""

import asyncio
import hashlib
import inspect
import json
import logging
import textwrap
from contextlib import suppress

import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from mlplatform.serving.http_protocol import HotProtocol
from tests.platform.serving.http_served import (
    Served,
    get,
    post,
    served,
    until,
)


@served()
async def test_a_body_reaches_the_handler_whole_and_its_reply_the_client(server: Served) -> None:
    client = await server.client()
    answer = await client.ask(post("/echo?debug=1", b'{"a": 1}', X_Kind="red"))
    assert (answer.status, answer.body) == (200, b'{"a": 1}')
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-kind"] == "red" and answer.headers["date"].endswith("gmt")
    assert "server" not in answer.headers and "connection" not in answer.headers
    assert (await client.ask(post("/echo", b"[]"))).body == b"[]"
    assert server.answered == [("/echo", 200)] * 2


@served()
async def test_the_app_answers_what_is_no_hot_route(server: Served) -> None:
    client = await server.client()
    assert json.loads((await client.ask(get("/items/a%20b"))).body) == {"name": "a b"}
    assert (await client.ask(get("/echo"))).status == 404  # of another method
    slow = await client.ask(post("/slow", b'{"b": 2}', User_Agent="me"))
    assert json.loads(slow.body) == {"slow": {"b": 2}, "agent": "me"}
    await until(lambda: len(server.answered) == 3)
    assert server.answered == [("/items/{name}", 200), ("other", 404), ("/slow", 200)]


@served()
async def test_what_fails_has_its_status_and_does_not_tell_its_secrets(
    server: Served, caplog: pytest.LogCaptureFixture
) -> None:
    client = await server.client()
    missing = await client.ask(post("/missing"))
    assert (missing.status, missing.problem) == (404, "no such thing")
    broken = await client.ask(post("/broken"))
    assert broken.status == 500 and "secret" not in broken.problem
    assert (await client.ask(post("/echo"))).status == 200
    assert [record.message for record in caplog.records] == ["/broken failed"]


@served()
async def test_a_second_reply_to_one_request_is_an_error_and_is_not_sent(server: Served) -> None:
    client = await server.client()
    client.send(post("/later"))
    await until(lambda: bool(server.owed))
    _, reply = server.owed.pop()
    reply(200, b"1")
    with pytest.raises(RuntimeError, match="second reply"):
        reply(200, b"2")
    assert (await client.answer()).body == b"1"
    assert (await client.ask(post("/echo", b"3"))).body == b"3"


@served()
async def test_a_client_that_left_before_the_reply_harms_nobody(
    server: Served, caplog: pytest.LogCaptureFixture
) -> None:
    gone, other = await server.client(), await server.client()
    gone.send(post("/later"), post("/echo"), get("/items/a"))
    await until(lambda: bool(server.owed))
    gone.writer.transport.abort()
    assert (await other.ask(post("/echo"))).status == 200
    server.owed[0][1](200, b"late")
    assert (await other.ask(post("/echo"))).status == 200
    assert not caplog.records


@served()
async def test_head_gets_the_head_alone(server: Served) -> None:
    client = await server.client()
    request = b"HEAD /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nhi"
    client.send(request, post("/echo", b"next"))
    head = await client.answer(bodyless=True)
    assert (head.status, head.headers["content-length"]) == (200, "2")
    assert (await client.answer()).body == b"next"


@served()
async def test_a_client_that_waits_to_be_told_is_told_to_continue(server: Served) -> None:
    client = await server.client()
    head, body = post("/echo", b"12345", Expect="100-continue").split(b"\r\n\r\n")
    assert (await client.ask(head + b"\r\n\r\n")).status == 100
    assert not server.asked
    assert (await client.ask(body)).body == b"12345"
    # Whether a body follows that was not asked for, nobody knows: so the connection ends.
    for path, length, status in (("/echo", 99_999, 413), ("/slow", 99_999, 413), ("/deaf", 2, 200)):
        client = await server.client()
        expecting = post(path, b"1" * length, Expect="100-continue")
        answer = await client.ask(expecting[: -length or None])
        assert answer.status == status and answer.headers["connection"] == "close"
        assert await client.rest() == b""


@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/1.1"])
@served()
async def test_a_client_that_asks_to_close_is_closed_after_its_answer(
    server: Served, version: str
) -> None:
    client = await server.client()
    close = {"Connection": "close"} if version == "HTTP/1.1" else {}
    answer = await client.ask(post("/echo", **close).replace(b"HTTP/1.1", version.encode()))
    assert answer.status == 200 and answer.headers["connection"] == "close"
    assert await client.rest() == b""


@pytest.mark.parametrize("step", [1, 7, 10_000])
@served()
async def test_a_request_that_offers_another_protocol_is_answered_as_it_is(
    server: Served, step: int
) -> None:
    offer = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAM"}
    client = await server.client()
    cap = post("/echo", b"x" * 65_537, **offer)
    whole = b"".join(
        [post("/echo", b"[1]", **offer), post("/slow", b"[2]", **offer), cap, post("/echo", b"[3]")]
    )
    for at in range(0, 1000, step):  # what is after it comes in one piece
        client.send(whole[at : min(at + step, 1000)])
        await asyncio.sleep(0)
    client.send(whole[1000:])
    assert (await client.answer()).body == b"[1]"
    assert json.loads((await client.answer()).body)["slow"] == [2]
    assert (await client.answer()).status == 413
    assert (await client.answer()).body == b"[3]"


PIECES = st.sampled_from(
    [
        *(b"POST /echo HTTP/1.1\r\n", b"GET /items/1 HTTP/1.1\r\n", b"content-length: 3\r\n"),
        *(b"transfer-encoding: chunked\r\n", b"host: x\r\n", b"expect: 100-continue\r\n"),
        *(b"connection: upgrade\r\nupgrade: h2c\r\n", b"content-type: application/json\r\n"),
        *(b"\r\n", b"abc", b"0\r\n\r\n", b"CONNECT a:1 HTTP/1.1\r\n"),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ]
)


def test_no_bytes_whatever_make_the_server_fail(caplog: pytest.LogCaptureFixture) -> None:
    @settings(max_examples=60, deadline=None)
    @given(drawn=st.lists(PIECES | st.binary(max_size=8), max_size=10))
    @served()
    async def send(server: Served, drawn: list[bytes]) -> None:
        client = await server.client()
        client.send(*drawn)
        with suppress(OSError):
            client.writer.write_eof()
            await client.rest()
        other = await server.client()
        assert (await other.ask(post("/echo", b"fine"))).body == b"fine"

    send()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_what_is_overridden_and_used_of_uvicorn_is_what_was_read() -> None:
    # `HotProtocol` relies on how these work.  If this fails, uvicorn was changed: read them again,
    # compare with what http_protocol.py does instead or besides, and put the new digest here.
    assert uvicorn.__version__ == "0.54.0"
    theirs = {name: of for name, of in vars(HttpToolsProtocol).items() if inspect.isfunction(of)}
    read = "".join(textwrap.dedent(inspect.getsource(theirs[name])) for name in sorted(theirs))
    assert hashlib.sha256(read.encode()).hexdigest()[:16] == "6d924ae63292c0e9"
    ours = {name for name, of in vars(HotProtocol).items() if inspect.isfunction(of)}
    own = {
        "_between_requests", "_by_app", "_complete", "_look_again_in", "_parse", "_take_unparsed",
        "_turn_away", "close_if_quiet",
    }  # fmt: skip
    assert ours - own <= set(theirs)
