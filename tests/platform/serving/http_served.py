"""A server of the test's behind one listening socket, and clients that speak to it by bytes."""

import asyncio
import inspect
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvloop
from fastapi import FastAPI, Request

from mlplatform.errors import NotFound
from mlplatform.serving import http
from mlplatform.serving.doors import Doors, Headers
from mlplatform.serving.http_exchange import Reply

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
