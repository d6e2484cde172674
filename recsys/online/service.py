"""The HTTP service: recommendations for a known user or an inline profile.

Enters: JSON.  Leaves: JSON; for a caller's mistake a 4xx whose `error` says what to mend.
"""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Annotated, Any, Self

import pyarrow as pa
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator
from starlette.exceptions import HTTPException

from mlplatform.data.validation.serving_check import ServingCheck
from mlplatform.errors import PlatformError, Unavailable
from recsys import features
from recsys.online.feature_store import PROFILE_FEATURES
from recsys.online.recommender import Recommendations, Recommender

CHECKED_ONE_IN = 20  # requests
SERVED_FEATURES = [f.name for f in (*features.REQUEST, features.HISTORY)]
MAX_K = 100
MAX_BODY_BYTES = 64 * 1024
MAX_TEXT = 64
_DIGITS = 18  # more, and the number is no length

_INTEGER = Annotated[int, Field(strict=True, ge=-(2**62), le=2**62)]
_TYPES: dict[str, Any] = {
    "int64": _INTEGER,
    "float32": Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0, le=3e38)],
    "string": Annotated[str, Field(min_length=1, max_length=MAX_TEXT)],
}
_STRICT = ConfigDict(extra="forbid", frozen=True)


def _profile_model() -> type[BaseModel]:
    """The inline profile, made from the declaration of the features."""
    declared = {f.name: f for f in (*features.REQUEST, features.HISTORY, features.OWNED)}
    fields: dict[str, Any] = {}
    for name in PROFILE_FEATURES:
        feature = declared[name]
        kind: Any = _TYPES[feature.dtype]
        if feature.width > 1:
            kind = Annotated[list[kind], Field(max_length=feature.width)]
        unit = f" Unit: {feature.unit}." if feature.unit else ""
        fields[name] = (kind | None, Field(None, description=feature.description + unit))
    return create_model("Profile", __config__=_STRICT, **fields)


Profile: Any = _profile_model()


class Visit(BaseModel):
    """The moment of the request."""

    model_config = _STRICT

    hour_of_day: Annotated[int, Field(strict=True, ge=0, le=23)] | None = None
    network: str | None = Field(None, pattern="^(wifi|metered)$")


class Query(BaseModel):
    """Who asks, when, and for how many apps: exactly one of `user_id` and `profile`."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={
            "oneOf": [{"required": ["user_id"]}, {"required": ["profile"]}],
            "examples": [
                {"user_id": 42, "k": 10, "context": {"hour_of_day": 20, "network": "wifi"}},
                {"profile": {"country": "BR", "age_band": "18-24", "history": [17, 4]}, "k": 5},
            ],
        },
    )

    user_id: Annotated[int, Field(strict=True, ge=0, lt=2**62)] | None = None
    profile: Profile | None = None
    context: Visit = Visit()
    k: Annotated[int, Field(strict=True, ge=1, le=MAX_K)] = 10
    explain: bool = Field(False, strict=True, description="add why each app is there")

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.user_id is None) == (self.profile is None):
            raise ValueError("expected exactly one of user_id and profile")
        return self


class Explanation(BaseModel):
    source: str = Field(description="'index': near the query; 'fresh': among the newest apps")
    retrieval_score: float
    app_age_days: int
    recent_impressions: int
    recent_installs: int


class App(BaseModel):
    app_id: int
    title: str
    category: str
    score: float = Field(description="P(install) if it is examined first, 0 to 1")
    explanation: Explanation | None = None


class Answer(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "apps": [
                        {"app_id": 7, "title": "Zen Yoga Hub", "category": "LIFESTYLE",
                         "score": 0.08}
                    ],
                    "bundle_version": 3,
                    "defaulted_features": ["age_band"],
                }
            ]
        }
    )  # fmt: skip

    apps: list[App]
    bundle_version: int
    defaulted_features: list[str] = Field(
        description="what the request and the profile did not say: its declared default was taken"
    )


class Violation(BaseModel):
    feature: str
    anomaly: str = Field(examples=["ENUM_TYPE_UNEXPECTED_STRING_VALUES"])
    requests: int = Field(description="checked requests with it, since the server's start")


class Violations(BaseModel):
    checked_requests: int
    checked_one_in: int
    violations: list[Violation]


class Problem(BaseModel):
    error: str = Field(examples=["k: input should be less than or equal to 100"])


def create_app(load: Callable[[], Recommender], version: int) -> FastAPI:
    """The service; `load` is called once, before the service is ready."""
    state: dict[str, Recommender] = {}
    checks: dict[str, ServingCheck] = {}

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> Any:
        recommender = load()
        # Ready only after a first answer: it compiles what later ones reuse.
        recommender.recommend(recommender.table([{}]), MAX_K)
        checks["requests"] = ServingCheck(
            recommender.bundle.request_schema, features.SERVING, CHECKED_ONE_IN
        )
        state["recommender"] = recommender
        yield
        state.clear()

    app = FastAPI(
        title="Storeloop",
        description="Recommendations of an app store.",
        version=str(version),
        lifespan=lifespan,
    )

    @app.middleware("http")
    async def limit_body(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        length = request.headers.get("content-length", "")
        if request.method == "POST" and not (length.isascii() and length.isdigit()):
            return _problem(411, "a body needs a Content-Length in digits")
        if len(length) > _DIGITS or int(length or "0") > MAX_BODY_BYTES:
            return _problem(413, f"the body is too long, at most {MAX_BODY_BYTES} bytes are read")
        kind = request.headers.get("content-type", "none").partition(";")[0].strip().lower()
        if request.method == "POST" and kind != "application/json":
            return _problem(415, f"expected Content-Type application/json, got {kind[:MAX_TEXT]}")
        return await call_next(request)

    @app.exception_handler(HTTPException)
    async def failed(request: Request, error: HTTPException) -> JSONResponse:
        message = str(error.detail)
        if error.status_code == 400:
            message = "the body is not JSON that can be read"
        return _problem(error.status_code, message, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        # Without the input: it may hold NaN, which JSON cannot, or what should not be repeated.
        faults = [
            f"body: not JSON, at character {fault['loc'][-1]}"
            if fault["type"] == "json_invalid"
            else f"{'.'.join(map(str, fault['loc'][1:])) or 'body'}: {fault['msg'].lower()}"
            for fault in error.errors()
        ]
        return _problem(422, "; ".join(faults[:5]))

    @app.exception_handler(PlatformError)
    async def refused(request: Request, error: PlatformError) -> JSONResponse:
        return _problem(error.http_status, str(error))

    @app.get("/healthz", summary="Is the process alive?")
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/readyz", summary="Is a bundle loaded and warm?", responses={503: {"model": Problem}})
    async def readyz() -> JSONResponse:
        if "recommender" not in state:
            return _problem(503, "no bundle is loaded yet; try again")
        return JSONResponse({"status": "ready", "bundle_version": version})

    @app.post(
        "/v1/recommendations",
        summary="The best apps for a user, now",
        response_model_exclude_none=True,
        responses={status: {"model": Problem} for status in (400, 404, 411, 413, 415, 422, 503)},
    )
    def recommendations(query: Query) -> Answer:
        if "recommender" not in state:
            raise Unavailable("no bundle is loaded yet; try again")
        recommender = state["recommender"]
        row = query.context.model_dump()
        if query.profile is not None:
            profile = query.profile.model_dump()
            row |= profile | {"owned": profile["owned"] or profile["history"]}
        elif query.user_id is not None:
            row |= recommender.store.profiles([query.user_id])[0]
        request = recommender.table([row])
        checks["requests"].observe(request.select(SERVED_FEATURES))
        return answer(recommender, request, query.k, version, explain=query.explain)

    @app.get(
        "/v1/violations",
        summary="What the features of sampled requests broke of the schema",
        responses={503: {"model": Problem}},
    )
    def violations() -> Violations:
        if "requests" not in checks:
            raise Unavailable("no bundle is loaded yet; try again")
        check = checks["requests"]
        return Violations(
            checked_requests=check.checked,
            checked_one_in=CHECKED_ONE_IN,
            violations=[
                Violation(feature=feature, anomaly=anomaly, requests=count)
                for (feature, anomaly), count in sorted(check.counts.items())
            ],
        )

    return app


def answer(
    recommender: Recommender, request: pa.Table, k: int, version: int, *, explain: bool = False
) -> Answer:
    """The answer to one request, given as a table of one row of raw feature values."""
    found = recommender.recommend(request, k)
    return Answer(
        apps=_apps(recommender, found, explain),
        bundle_version=version,
        defaulted_features=[name for name in SERVED_FEATURES if request[name].null_count],
    )


def _apps(recommender: Recommender, answer: Recommendations, explain: bool) -> list[App]:
    ids = answer.app_ids[0]
    ids = ids[ids >= 0]
    catalogue = recommender.bundle.catalogue
    listed = catalogue.select(["title", "category"]).take(recommender.bundle.apps.rows_of(ids) - 1)
    explanations: list[Explanation | None] = [None] * len(ids)
    if explain:
        columns = recommender.store.app_columns(ids)
        explanations = [
            Explanation(
                source=source,
                retrieval_score=float(answer.retrieval_scores[0, i]),
                app_age_days=int(columns["app_age_days"][i]),
                recent_impressions=int(columns["recent_impressions"][i]),
                recent_installs=int(columns["recent_installs"][i]),
            )
            for i, source in enumerate(recommender.sources(ids))
        ]
    return [
        App(app_id=int(app_id), score=float(score), explanation=explanation, **row)
        for app_id, score, explanation, row in zip(
            ids, answer.scores[0], explanations, listed.to_pylist(), strict=False
        )
    ]


def _problem(status: int, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": message}, status_code=status, headers=headers)
