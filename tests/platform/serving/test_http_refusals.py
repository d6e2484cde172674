"""Who is refused: where there is no room, by a key, a cap, a rate, or for being too slow."""

import asyncio
import socket

import pytest

from mlplatform.serving import http
from mlplatform.serving.doors import Doors, Keys, RateLimit
from tests.platform.serving.http_served import (
    KEY,
    Served,
    get,
    post,
    served,
    until,
)


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
