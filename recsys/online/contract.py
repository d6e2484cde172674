"""What clients say and are told, over HTTP and gRPC alike.

Enters: a JSON body.  Leaves: a `Query`, a `Feedback`, or one line that says what to mend.  The
models are the documentation too: /docs shows them.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, model_validator

from mlplatform.errors import InvalidArgument
from recsys import features
from recsys.online.feature_store import PROFILE_FEATURES

MAX_K = 100
MAX_BATCH = 64
MAX_EVENTS = 256
MAX_TEXT = 64
_FAULTS_TOLD = 5

_ID = Annotated[int, Field(strict=True, ge=0, lt=2**62)]
_INTEGER = Annotated[int, Field(strict=True, ge=-(2**62), le=2**62)]
_TYPES: dict[str, Any] = {
    "int64": _INTEGER,
    "float32": Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0, le=3e38)],
    "string": Annotated[str, Field(min_length=1, max_length=MAX_TEXT)],
}
_STRICT = ConfigDict(extra="forbid", frozen=True)
Model = TypeVar("Model", bound=BaseModel)


class Unreadable(InvalidArgument):
    """A body that is not JSON, or not of the documented form."""

    http_status = 422


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

    user_id: _ID | None = None
    profile: Profile | None = None
    context: Visit = Visit()
    k: Annotated[int, Field(strict=True, ge=1, le=MAX_K)] = 10
    explain: bool = Field(False, strict=True, description="add why each app is there")

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.user_id is None) == (self.profile is None):
            raise ValueError("expected exactly one of user_id and profile")
        return self

    def stated(self) -> dict[str, Any] | None:
        """The inline profile as raw feature values; without a list of apps owned, the history."""
        if self.profile is None:
            return None
        profile: dict[str, Any] = dict(self.profile)
        return profile | {features.OWNED.name: profile["owned"] or profile["history"]}


class Queries(BaseModel):
    """Several at once: each has an answer, or an error, of its own."""

    model_config = _STRICT

    requests: Annotated[list[Query], Field(min_length=1, max_length=MAX_BATCH)]


class Explanation(BaseModel):
    source: str = Field(
        description="'index': near the query; 'fresh': among the newest apps; 'popular': there "
        "were too few of either"
    )
    retrieval_score: float | None
    app_age_days: int
    recent_impressions: int
    recent_installs: int
    explored: bool = Field(description="shown to learn about it, not because it seems the best")


class App(BaseModel):
    app_id: int
    title: str
    category: str
    score: float | None = Field(
        None, description="P(install) if it is examined first, 0 to 1; absent if no ranker spoke"
    )
    explanation: Explanation | None = None


class Answer(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "request_id": "4611686018427387",
                    "apps": [
                        {"app_id": 7, "title": "Zen Yoga Hub", "category": "LIFESTYLE",
                         "score": 0.08}
                    ],
                    "bundle_version": 3,
                    "arm": "stable",
                    "defaulted_features": ["age_band"],
                }
            ]
        }
    )  # fmt: skip

    request_id: str = Field(description="to be named by the events that follow")
    apps: list[App]
    bundle_version: int
    arm: str = Field(description="the label whose version answered")
    defaulted_features: list[str] = Field(
        description="what the request and the profile did not say: its declared default was taken"
    )
    fallback: Literal["retrieval", "popular"] | None = Field(
        None, description="what the order is by, where the ranker could not answer in time"
    )


class Problem(BaseModel):
    error: str = Field(examples=["k: input should be less than or equal to 100"])


class Answers(BaseModel):
    outcomes: list[Answer | Problem]


class Event(BaseModel):
    """What a user did with an app of an answer."""

    model_config = _STRICT

    event_id: Annotated[str, Field(min_length=1, max_length=MAX_TEXT)] = Field(
        description="chosen by the caller: the same event sent twice counts once"
    )
    request_id: Annotated[str, Field(pattern="^[0-9]{1,18}$")]
    app_id: _ID
    kind: Literal["impression", "click", "install"]
    time: Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0, le=1e11)] = Field(
        description="Unix time, seconds"
    )


class Feedback(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "events": [
                        {"event_id": "e-1", "request_id": "4611686018427387", "app_id": 7,
                         "kind": "install", "time": 1750000000.5}
                    ]
                }
            ]
        },
    )  # fmt: skip

    events: Annotated[list[Event], Field(min_length=1, max_length=MAX_EVENTS)]


class Accepted(BaseModel):
    accepted: int


class Violation(BaseModel):
    feature: str
    anomaly: str = Field(examples=["ENUM_TYPE_UNEXPECTED_STRING_VALUES"])
    requests: int = Field(description="checked requests with it, since the process began")


class Violations(BaseModel):
    checked_requests: int
    checked_one_in: int
    violations: list[Violation]


def read(model: type[Model], body: bytes) -> Model:
    """A body as the model says.

    Raises:
        Unreadable: it is not JSON, or not of this form; what was sent is not repeated.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise _unreadable(error) from None


def read_plain(model: type[Model], content: dict[str, Any]) -> Model:
    """The same of a body that is no JSON any more.

    Raises:
        Unreadable: it is not of this form.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise _unreadable(error) from None


def _unreadable(error: ValidationError) -> Unreadable:
    # Without the input: it may hold what should not be repeated.
    found = error.errors(include_url=False, include_input=False, include_context=False)
    return Unreadable("; ".join(faults_of(found)))


def faults_of(found: Sequence[Any], skip: int = 0) -> list[str]:
    """A line for each of the first of pydantic's faults: where, and what was expected.

    Args:
        skip: how many first steps of each place lead to the body.
    """
    return [
        f"{'.'.join(map(str, _place(fault)[skip:])) or 'body'}: {_said(fault)}"
        for fault in found[:_FAULTS_TOLD]
    ]


def _place(fault: Any) -> Sequence[Any]:
    place: Sequence[Any] = fault["loc"]
    return place if fault["type"] != "json_invalid" else ()


def _said(fault: Any) -> str:
    if fault["type"] == "json_invalid":
        return "expected JSON, got what cannot be read as such"
    message: str = fault["msg"].removeprefix("Value error, ")
    return message[:1].lower() + message[1:]
