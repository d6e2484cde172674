"""The hot routes and the app behind one listening socket, asked over real connections."""

import asyncio
import hashlib
import inspect
import json
import logging
import socket
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
import uvloop
from fastapi import FastAPI, Request
from hypothesis import given, settings
from hypothesis import strategies as st
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from mlplatform.errors import NotFound
from mlplatform.serving import http
from mlplatform.serving.doors import Doors, Headers, Keys, RateLimit
from mlplatform.serving.http_exchange import Reply
from mlplatform.serving.http_protocol import HotProtocol

LIMIT_S = 20.0
KEY = "k" * 32


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def problem(self) -> str:
        found = json.loads(self.body)
        assert set(found) == {"error"}
        return str(found["error"])


@dataclass
class Client:
    """One connection; it writes what it is told and reads answers by their Content-Length."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, *requests: bytes) -> None:
        self.writer.write(b"".join(requests))

    async def answer(self, *, bodyless: bool = False) -> Answer:
        async with asyncio.timeout(LIMIT_S):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in head[1:-2])
            length = 0 if bodyless else int(headers.get("content-length", "0"))
            body = await self.reader.readexactly(length)
        return Answer(int(head[0].split()[1]), headers, body)

    async def ask(self, *requests: bytes, bodyless: bool = False) -> Answer:
        self.send(*requests)
        return await self.answer(bodyless=bodyless)

    async def rest(self) -> bytes:
        """What comes until the server closes."""
        async with asyncio.timeout(LIMIT_S):
            return await self.reader.read()


@dataclass
class Served:
    """A server of the test's: what it was asked, said of it, and the replies it still owes."""

    port: int
    stopping: asyncio.Event
    task: "asyncio.Task[None]"
    owed: list[tuple[bytes, Reply]] = field(default_factory=list)
    asked: list[bytes] = field(default_factory=list)
    answered: list[tuple[str, int]] = field(default_factory=list)
    clients: list[Client] = field(default_factory=list)
    full: bool = False

    async def client(self) -> Client:
        self.clients.append(Client(*await asyncio.open_connection("127.0.0.1", self.port)))
        return self.clients[-1]


def the_app() -> FastAPI:
    app = FastAPI()

    @app.get("/items/{name}")
    async def item(name: str) -> dict[str, str]:
        return {"name": name}

    @app.post("/slow")
    async def slow(request: Request) -> dict[str, Any]:
        await asyncio.sleep(0.02)
        return {"slow": await request.json(), "agent": request.headers.get("user-agent")}

    @app.post("/deaf")
    async def deaf() -> dict[str, str]:
        return {}

    return app


@asynccontextmanager
async def serving(doors: Doors, drain_s: float) -> AsyncIterator[Served]:
    """Routes: /echo at once, /later when the test says so, /missing and /broken fail."""

    def echo(body: bytes, headers: Headers, reply: Reply) -> None:
        served.asked.append(body)
        reply(200, body, [(b"x-kind", headers.get(b"x-kind", b"none"))])

    def later(body: bytes, headers: Headers, reply: Reply) -> None:
        served.owed.append((body, reply))

    def missing(body: bytes, headers: Headers, reply: Reply) -> None:
        raise NotFound("no such thing")

    def broken(body: bytes, headers: Headers, reply: Reply) -> None:
        raise ZeroDivisionError("secret")

    handlers = {"echo": echo, "later": later, "missing": missing, "broken": broken}
    routes = {("POST", f"/{name}"): handler for name, handler in handlers.items()}
    routes["HEAD", "/echo"] = echo
    listener = socket.create_server(("127.0.0.1", 0))
    stopping, up = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(
        http.serve(
            [listener], the_app(), routes, doors, stopping, drain_s,
            lambda route, status, seconds: served.answered.append((route, status)), up.set,
            lambda: served.full,
        )
    )  # fmt: skip
    served = Served(listener.getsockname()[1], stopping, task)
    try:
        async with asyncio.timeout(LIMIT_S):
            await up.wait()
        yield served
    finally:
        stopping.set()
        for client in served.clients:
            client.writer.transport.abort()
        await asyncio.wait_for(served.task, LIMIT_S)


def served(doors: Doors | None = None, drain_s: float = LIMIT_S) -> Callable[..., Any]:
    """A test of a server, which is its first argument."""

    def decorate(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
        async def whole(arguments: dict[str, Any]) -> None:
            async with serving(doors or Doors(), drain_s) as server:
                await test(server, **arguments)

        signature = inspect.signature(test)
        _, *rest = signature.parameters.values()
        signature = signature.replace(parameters=rest)

        def run(*args: Any, **kwargs: Any) -> None:
            uvloop.run(whole(signature.bind(*args, **kwargs).arguments))

        run.__signature__ = signature
        return run

    return decorate


def post(path: str, body: bytes = b"{}", **headers: str) -> bytes:
    lines = {"host": "x", "content-type": "application/json", "content-length": str(len(body))}
    lines |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not condition():
            await asyncio.sleep(0.002)


# Requests and answers.


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
async def test_where_there_is_no_room_hot_routes_are_answered_unread_and_the_app_as_ever(
    server: Served,
) -> None:
    client = await server.client()
    server.full = True
    refused = await client.ask(post("/echo", b'{"a": 1}'))
    assert refused.status == 429 and "overloaded" in refused.problem
    assert int(refused.headers["retry-after"]) >= 1 and "connection" not in refused.headers
    assert (await client.ask(get("/items/7"))).status == 200
    first = post("/echo", b"[" + b" " * 9000)  # in pieces
    client.send(first[:5000])
    assert (await client.answer()).status == 429  # before all of it came
    client.send(first[5000:])
    server.full = False
    assert (await client.ask(post("/echo", b"[]"))).body == b"[]"
    assert server.asked == [b"[]"]
    assert server.answered == [
        ("/echo", 429),
        ("/items/{name}", 200),
        ("/echo", 429),
        ("/echo", 200),
    ]
    server.full = True
    closing = await client.ask(post("/echo", Connection="close"))
    assert (closing.status, closing.headers["connection"]) == (429, "close")
    assert await client.rest() == b""


@served()
async def test_a_head_that_was_refused_before_changes_no_answer(server: Served) -> None:
    client = await server.client()
    server.full = True
    known = post("/echo", b"[1]")
    assert (await client.ask(known)).status == 429
    again = await client.ask(known)  # the head is known now
    assert again.status == 429 and "overloaded" in again.problem
    assert int(again.headers["retry-after"]) >= 1 and "connection" not in again.headers

    async def statuses(n: int) -> list[int]:
        return [(await client.answer()).status for _ in range(n)]

    client.send(known[:-1])
    assert await statuses(1) == [429]  # by its head, the body is still to come
    client.send(known[-1:], known, known)  # and two in one read
    assert await statuses(2) == [429, 429]
    client.send(known, get("/items/7"))
    assert await statuses(2) == [429, 200]
    client.send(known + b"\r\n", known)  # a line that clients may send between two requests
    assert await statuses(2) == [429, 429]
    client.send(get("/items/7"), known)
    assert await statuses(2) == [200, 429]
    assert (await client.ask(post("/echo", b"[1, 2]"))).status == 429
    head = await client.ask(known.replace(b"POST", b"HEAD"), bodyless=True)
    assert head.status == 200  # would be a body that HEAD must not have
    server.full = False
    assert (await client.ask(known)).body == b"[1]"
    assert server.asked == [b"[1]"] * 2
    assert [status for _, status in server.answered].count(429) == 10


@served()
async def test_clients_that_send_no_head_twice_are_refused_as_any(server: Served) -> None:
    client = await server.client()
    server.full = True
    for n in range(200):
        assert (await client.ask(post("/echo", traceparent=str(n)))).status == 429
    assert (await client.ask(post("/echo", x="y" * 2000))).status == 429
    assert (await client.ask(post("/echo", x="y" * 2000))).status == 429


@served()
async def test_a_request_for_which_there_is_no_room_waits_for_its_turn_behind_another(
    server: Served,
) -> None:
    client = await server.client()
    client.send(post("/later", b"1"))
    await until(lambda: len(server.owed) == 1)
    server.full = True
    client.send(post("/echo", b"2"))
    await asyncio.sleep(0.02)
    server.owed[0][1](200, b"1")
    assert [(await client.answer()).status for _ in range(2)] == [200, 429]


@served()
async def test_a_crowd_of_new_clients_is_taken_within_a_few_turns_of_the_loop(
    server: Served,
) -> None:
    # All stand in the listener's queue before the loop has another turn.
    crowd = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(48)]
    for client in crowd:
        client.sendall(post("/echo"))
    turns = 0
    while len(server.answered) < len(crowd):
        await asyncio.sleep(0)
        turns += 1
        assert turns < 30  # all at once, or some; one at once would be 48 and more
    for client in crowd:
        client.close()


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


# Pipelines.

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


# Doors.


@served(Doors(keys=Keys([KEY]), max_body_bytes=100, open_paths=frozenset({"/items/open"})))
async def test_doors_stand_before_hot_routes_and_the_app_alike(server: Served) -> None:
    client = await server.client()
    for path in ("/echo", "/slow"):
        assert (await client.ask(post(path))).status == 401
        assert (await client.ask(post(path, X_Api_Key="wrong" * 9))).status == 401
        assert (await client.ask(post(path, X_Api_Key=KEY))).status == 200
        long = await client.ask(post(path, b"1" * 101, X_Api_Key=KEY))
        assert long.status == 413 and "100" in long.problem
        text = post(path, X_Api_Key=KEY, content_type="text/plain")
        assert (await client.ask(text)).status == 415
        chunked = post(path, b"5\r\n12345\r\n0\r\n\r\n", X_Api_Key=KEY).replace(
            b"content-length: 15", b"transfer-encoding: chunked"
        )
        assert (await client.ask(chunked)).status == 411
    assert (await client.ask(get("/items/open"))).status == 200
    assert (await client.ask(get("/items/shut"))).status == 401
    assert server.asked == [b"{}"]


@served(Doors(rate=RateLimit(0.01, burst=2), any_type_under=("/ec", "/sl")))
async def test_a_client_that_asks_too_often_is_told_when_to_come_again(server: Served) -> None:
    client = await server.client()
    for path in ("/echo", "/slow"):
        assert (await client.ask(post(path, content_type="text/plain"))).status == 200
    for path in ("/echo", "/slow"):
        answer = await client.ask(post(path))
        assert answer.status == 429 and 90 <= int(answer.headers["retry-after"]) <= 100
    assert server.answered[2:] == [("/echo", 429), ("other", 429)]


@pytest.mark.parametrize("path", ["/echo", "/slow"])
@served(Doors(max_header_bytes=1000))
async def test_headers_over_the_cap_are_refused_and_at_the_cap_are_not(
    server: Served, path: str
) -> None:
    def request(total: int) -> bytes:
        head = post(path, **{"x-pad": ""}).split(b"\r\n\r\n")[0].split(b"\r\n")[1:]
        length = len(path) + sum(len(line) - 2 for line in head)
        return post(path, **{"x-pad": "p" * (total - length)})

    client = await server.client()
    assert (await client.ask(request(1000), request(1000))).status == 200
    assert (await client.answer()).status == 200
    answer = await client.ask(request(1001))
    assert answer.status == 431 and "1000" in answer.problem
    assert await client.rest() == b""


@pytest.mark.parametrize("endless", [b"x-pad: ", b"", b"x-a: b\r\n" * 9 + b"x-b: "])
@served(Doors(max_header_bytes=1000))
async def test_a_head_that_never_ends_is_refused_while_it_comes(
    server: Served, endless: bytes
) -> None:
    client = await server.client()
    client.send(b"POST /echo" + (b" HTTP/1.1\r\n" if endless else b"") + endless)
    answer = asyncio.create_task(client.answer())
    while not answer.done():
        client.send(b"p" * 100)
        await asyncio.sleep(0.001)
    assert (await answer).status == 431


def test_who_is_quiet_or_too_slow_is_closed_and_who_is_owed_an_answer_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http, "KEEP_ALIVE_S", 0.3)

    @served()
    async def patient(server: Served) -> None:
        new, quiet, head, body, owed = [await server.client() for _ in range(5)]
        assert (await quiet.ask(post("/echo"))).status == 200
        head.send(post("/echo")[:20])
        body.send(post("/echo")[:-1])
        owed.send(post("/later"))
        for client in (new, quiet, head, body):
            assert await client.rest() == b""
        server.owed[0][1](200, b"in the end")
        assert (await owed.answer()).body == b"in the end"
        assert await owed.rest() == b""

    patient()


# Draining.


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


# What nobody should send, and what nobody should change.

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
