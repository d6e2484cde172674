"""The administrator's door: labels are moved, and the server is asked how it is.

    POST /v1/labels/{label}  {"version": N}          point a label at a version
    POST /v1/rollback        {"label": L, "to": N?}  where it stood before, or as far back as N
    POST /v1/reload          {}                      a new generation, though no label moved
    GET  /v1/status                                  `Status`

Enters: JSON with `Authorization: Bearer TOKEN`.  Leaves: JSON; for a mistake a 4xx whose `error`
says what to mend.  A move is answered when the registry has it; the status tells when it is served.
The door is on a port of its own, and there is none unless the environment has a token.
"""

import asyncio
import hmac
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Annotated

import msgspec
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from mlplatform.errors import InvalidArgument, PlatformError, Unauthenticated
from mlplatform.serving.listening import Address, listen, port_of
from mlplatform.serving.supervisor import Supervisor

VARIABLE = "MLPLATFORM_ADMIN_TOKEN"
_SHORTEST = 16
_Version = Annotated[int, Field(strict=True, ge=1, lt=2**63)]


class Target(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    version: _Version


class Rollback(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    label: str
    to: _Version | None = None


def admin_token() -> str | None:
    """The environment's token; None where there is none.

    Raises:
        InvalidArgument: it is shorter than 16 characters.
    """
    token = os.environ.get(VARIABLE)
    if token is not None and len(token) < _SHORTEST:
        raise InvalidArgument(
            f"{VARIABLE}: expected at least {_SHORTEST} characters, got {len(token)}; set a longer "
            "token, or unset it to have no administrator's door"
        )
    return token


def create_app(supervisor: Supervisor, token: str) -> FastAPI:
    """The door of one supervisor, whose event loop it runs in."""
    app = FastAPI(title="Administration", openapi_url=None)
    expected = f"Bearer {token}".encode()
    registry = supervisor.registry

    @app.middleware("http")
    async def authenticate(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        given = request.headers.get("authorization", "").encode("latin-1")
        if not hmac.compare_digest(given, expected):
            error = Unauthenticated(f"expected Authorization: Bearer and the token of {VARIABLE}")
            return _problem(error.http_status, str(error), {"WWW-Authenticate": "Bearer"})
        return await call_next(request)

    @app.exception_handler(PlatformError)
    async def refused(request: Request, error: PlatformError) -> Response:
        return _problem(error.http_status, str(error))

    @app.exception_handler(HTTPException)
    async def failed(request: Request, error: HTTPException) -> Response:
        return _problem(error.status_code, str(error.detail), error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        faults = [(".".join(map(str, fault["loc"][1:])), fault["msg"]) for fault in error.errors()]
        said = "; ".join(f"{where or 'body'}: {what.lower()}" for where, what in faults)
        return _problem(400, said)

    # The registry is written on a thread: another writer may keep this one waiting.
    @app.post("/v1/labels/{label}")
    async def set_label(label: str, target: Target) -> dict[str, dict[str, int]]:
        await asyncio.to_thread(registry.set_label, label, target.version, "administrator")
        return await labels()

    @app.post("/v1/rollback")
    async def rollback(wanted: Rollback) -> dict[str, dict[str, int]]:
        await asyncio.to_thread(registry.rollback, wanted.label, wanted.to)
        return await labels()

    @app.post("/v1/reload")
    async def reload() -> dict[str, dict[str, int]]:
        supervisor.reload()
        return await labels()

    @app.get("/v1/status")
    async def status() -> Response:
        content = msgspec.json.encode(supervisor.status())
        return Response(content, media_type="application/json")

    async def labels() -> dict[str, dict[str, int]]:
        supervisor.look()
        return {"labels": await asyncio.to_thread(registry.labels)}

    return app


@asynccontextmanager
async def admin_door(supervisor: Supervisor, address: Address, token: str) -> AsyncIterator[int]:
    """Keep the door open for as long as the block runs; yield its port.

    Raises:
        FailedPrecondition: the address is taken.
    """
    with listen(address) as bound:
        config = uvicorn.Config(
            create_app(supervisor, token),
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
        server = _Server(config)
        serving = asyncio.create_task(server.serve(sockets=[bound]))
        try:
            yield port_of(bound)
        finally:
            server.should_exit = True
            await serving


class _Server(uvicorn.Server):
    """Without handlers for signals: they are the supervisor's."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _problem(status: int, error: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": error}, status, headers=headers)
