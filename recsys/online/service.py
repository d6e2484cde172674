"""The HTTP service.  Its documentation, at /docs, is made of the routes below.

Enters: JSON.  Leaves: JSON; for a caller's mistake a 4xx whose `error` says what to mend.  The one
route with thousands of requests a second, `RECOMMEND`, is answered by `hot_routes` where the server
offers that; both ways read and answer by the same functions.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from mlplatform.errors import InvalidArgument, PlatformError, Unavailable
from mlplatform.serving.doors import Headers, refusal
from mlplatform.serving.http_exchange import Reply, Routes
from recsys.online.calls import DEADLINE_S, Calls
from recsys.online.contract import (
    Accepted,
    Answer,
    Answers,
    Feedback,
    Problem,
    Queries,
    Query,
    Violations,
    faults_of,
    read,
)

RECOMMEND = "/v1/recommendations"
DEADLINE = b"x-deadline-ms"
PROBES = frozenset({"/healthz", "/readyz"})
_DIGITS = 6
_SAYS_DEADLINE = {
    "parameters": [
        {
            "in": "header",
            "name": DEADLINE.decode(),
            "description": "how long the client waits, in milliseconds; what cannot be answered "
            "within that time is not computed",
            "schema": {"type": "integer", "minimum": 1, "default": round(1000 * DEADLINE_S)},
        }
    ]
}
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem} for status in (400, 401, 404, 411, 413, 415, 422, 429, 503, 504)
}

encode = msgspec.json.Encoder().encode


def hot_routes(calls: Calls) -> Routes:
    """The routes that a server answers without an ASGI request's cost."""

    def recommend(body: bytes, headers: Headers, reply: Reply) -> None:
        def done(answer: dict[str, Any] | PlatformError) -> None:
            if isinstance(answer, PlatformError):
                reply(*refusal(answer))
            else:
                reply(200, encode(answer))

        calls.recommend(read(Query, body), done, within_s(headers.get(DEADLINE)))

    return {("POST", RECOMMEND): recommend}


def within_s(header: bytes | None) -> float:
    """How long a client waits, in seconds.

    Raises:
        InvalidArgument: it is no number of milliseconds.
    """
    if header is None:
        return DEADLINE_S
    if not (header.isdigit() and len(header) <= _DIGITS and int(header)):
        raise InvalidArgument(
            f"{DEADLINE.decode()}: expected a whole number of milliseconds, at least 1"
        )
    return min(int(header) / 1000, DEADLINE_S)


def create_app(
    load: Callable[[], Calls], extend: Callable[[FastAPI], None] = lambda app: None
) -> FastAPI:
    """The service as an ASGI app, to be put behind `Doors`; `load` is called once, at its start.

    Args:
        extend: adds routes of others.
    """
    loaded: dict[str, Calls] = {}

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        loaded["calls"] = load()
        yield
        loaded.clear()

    app = FastAPI(
        title="Storeloop",
        description="Recommendations of an app store.",
        version="1",
        lifespan=lifespan,
        responses={status: _PROBLEMS[status] for status in (401, 429)},
    )

    def calls() -> Calls:
        if "calls" not in loaded:
            raise Unavailable("no bundle is loaded yet; try again")
        return loaded["calls"]

    @app.exception_handler(HTTPException)
    async def failed(request: Request, error: HTTPException) -> Response:
        message = str(error.detail)
        if error.status_code == 400:
            message = "the body is not JSON that can be read"
        return _problem(error.status_code, message, error.headers)

    @app.exception_handler(RequestValidationError)
    async def unreadable(request: Request, error: RequestValidationError) -> Response:
        return _problem(422, "; ".join(faults_of(error.errors(), skip=1)))

    @app.exception_handler(PlatformError)
    async def refused(request: Request, error: PlatformError) -> Response:
        status, body, headers = refusal(error)
        names = {name.decode(): value.decode() for name, value in headers}
        return Response(body, status, names, media_type="application/json")

    @app.get("/healthz", summary="Is the process alive?")
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/readyz", summary="Does it answer?", responses={503: {"model": Problem}})
    async def readyz() -> dict[str, Any]:
        versions = {arm.label: arm.version for arm in calls().answering.arms}
        return {"status": "ready", "bundle_versions": versions}

    @app.post(
        RECOMMEND,
        summary="The best apps for a user, now",
        response_model=Answer,
        responses=_PROBLEMS,
        openapi_extra=_SAYS_DEADLINE,
    )
    async def recommend(query: Query, request: Request) -> Response:
        return _json(await calls().answer(query, _within_s(request)))

    @app.post(
        f"{RECOMMEND}/batch",
        summary="Of several users, each with an answer or an error of its own",
        response_model=Answers,
        responses=_PROBLEMS,
        openapi_extra=_SAYS_DEADLINE,
    )
    async def recommend_batch(queries: Queries, request: Request) -> Response:
        outcomes = await calls().answer_each(queries.requests, _within_s(request))
        return _json(
            {
                "outcomes": [
                    {"error": str(outcome)} if isinstance(outcome, PlatformError) else outcome
                    for outcome in outcomes
                ]
            }
        )

    @app.post(
        "/v1/events",
        summary="What users did with the apps that they were shown",
        status_code=202,
        responses=_PROBLEMS,
    )
    async def events(feedback: Feedback) -> Accepted:
        return Accepted(accepted=calls().record(feedback.events))

    @app.get(
        "/v1/violations",
        summary="What the features of sampled requests broke of the schema, in one process",
        responses={503: {"model": Problem}},
    )
    async def violations() -> Violations:
        return Violations.model_validate(calls().violations())

    extend(app)
    return app


def _within_s(request: Request) -> float:
    header = request.headers.get(DEADLINE.decode())
    return within_s(None if header is None else header.encode("latin-1"))


def _json(content: Mapping[str, Any] | Sequence[Any]) -> Response:
    return Response(encode(content), media_type="application/json")


def _problem(status: int, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": message}, status_code=status, headers=headers)
