from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RecommendRequest(_message.Message):
    __slots__ = ("user_id", "profile", "k", "context", "explain")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    user_id: int
    profile: Profile
    k: int
    context: Context
    explain: bool
    def __init__(self, user_id: _Optional[int] = ..., profile: _Optional[_Union[Profile, _Mapping]] = ..., k: _Optional[int] = ..., context: _Optional[_Union[Context, _Mapping]] = ..., explain: _Optional[bool] = ...) -> None: ...

class Profile(_message.Message):
    __slots__ = ("country", "language", "device_tier", "age_band", "ram_gb", "free_storage_mb", "os_version", "account_age_days", "history_count", "recent_categories", "history", "owned")
    COUNTRY_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_TIER_FIELD_NUMBER: _ClassVar[int]
    AGE_BAND_FIELD_NUMBER: _ClassVar[int]
    RAM_GB_FIELD_NUMBER: _ClassVar[int]
    FREE_STORAGE_MB_FIELD_NUMBER: _ClassVar[int]
    OS_VERSION_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_AGE_DAYS_FIELD_NUMBER: _ClassVar[int]
    HISTORY_COUNT_FIELD_NUMBER: _ClassVar[int]
    RECENT_CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    OWNED_FIELD_NUMBER: _ClassVar[int]
    country: str
    language: str
    device_tier: str
    age_band: str
    ram_gb: float
    free_storage_mb: float
    os_version: int
    account_age_days: int
    history_count: int
    recent_categories: _containers.RepeatedScalarFieldContainer[str]
    history: _containers.RepeatedScalarFieldContainer[int]
    owned: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, country: _Optional[str] = ..., language: _Optional[str] = ..., device_tier: _Optional[str] = ..., age_band: _Optional[str] = ..., ram_gb: _Optional[float] = ..., free_storage_mb: _Optional[float] = ..., os_version: _Optional[int] = ..., account_age_days: _Optional[int] = ..., history_count: _Optional[int] = ..., recent_categories: _Optional[_Iterable[str]] = ..., history: _Optional[_Iterable[int]] = ..., owned: _Optional[_Iterable[int]] = ...) -> None: ...

class Context(_message.Message):
    __slots__ = ("hour_of_day", "network")
    HOUR_OF_DAY_FIELD_NUMBER: _ClassVar[int]
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    hour_of_day: int
    network: str
    def __init__(self, hour_of_day: _Optional[int] = ..., network: _Optional[str] = ...) -> None: ...

class RecommendResponse(_message.Message):
    __slots__ = ("request_id", "apps", "bundle_version", "arm", "defaulted_features", "fallback")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    APPS_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_VERSION_FIELD_NUMBER: _ClassVar[int]
    ARM_FIELD_NUMBER: _ClassVar[int]
    DEFAULTED_FEATURES_FIELD_NUMBER: _ClassVar[int]
    FALLBACK_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    apps: _containers.RepeatedCompositeFieldContainer[App]
    bundle_version: int
    arm: str
    defaulted_features: _containers.RepeatedScalarFieldContainer[str]
    fallback: str
    def __init__(self, request_id: _Optional[str] = ..., apps: _Optional[_Iterable[_Union[App, _Mapping]]] = ..., bundle_version: _Optional[int] = ..., arm: _Optional[str] = ..., defaulted_features: _Optional[_Iterable[str]] = ..., fallback: _Optional[str] = ...) -> None: ...

class App(_message.Message):
    __slots__ = ("app_id", "title", "category", "score", "explanation")
    APP_ID_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    EXPLANATION_FIELD_NUMBER: _ClassVar[int]
    app_id: int
    title: str
    category: str
    score: float
    explanation: Explanation
    def __init__(self, app_id: _Optional[int] = ..., title: _Optional[str] = ..., category: _Optional[str] = ..., score: _Optional[float] = ..., explanation: _Optional[_Union[Explanation, _Mapping]] = ...) -> None: ...

class Explanation(_message.Message):
    __slots__ = ("source", "retrieval_score", "app_age_days", "recent_impressions", "recent_installs", "explored")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    RETRIEVAL_SCORE_FIELD_NUMBER: _ClassVar[int]
    APP_AGE_DAYS_FIELD_NUMBER: _ClassVar[int]
    RECENT_IMPRESSIONS_FIELD_NUMBER: _ClassVar[int]
    RECENT_INSTALLS_FIELD_NUMBER: _ClassVar[int]
    EXPLORED_FIELD_NUMBER: _ClassVar[int]
    source: str
    retrieval_score: float
    app_age_days: int
    recent_impressions: int
    recent_installs: int
    explored: bool
    def __init__(self, source: _Optional[str] = ..., retrieval_score: _Optional[float] = ..., app_age_days: _Optional[int] = ..., recent_impressions: _Optional[int] = ..., recent_installs: _Optional[int] = ..., explored: _Optional[bool] = ...) -> None: ...

class RecommendBatchRequest(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[RecommendRequest]
    def __init__(self, requests: _Optional[_Iterable[_Union[RecommendRequest, _Mapping]]] = ...) -> None: ...

class RecommendBatchResponse(_message.Message):
    __slots__ = ("outcomes",)
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    outcomes: _containers.RepeatedCompositeFieldContainer[Outcome]
    def __init__(self, outcomes: _Optional[_Iterable[_Union[Outcome, _Mapping]]] = ...) -> None: ...

class Outcome(_message.Message):
    __slots__ = ("response", "error")
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    response: RecommendResponse
    error: str
    def __init__(self, response: _Optional[_Union[RecommendResponse, _Mapping]] = ..., error: _Optional[str] = ...) -> None: ...

class RecordEventsRequest(_message.Message):
    __slots__ = ("events",)
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[Event]
    def __init__(self, events: _Optional[_Iterable[_Union[Event, _Mapping]]] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("event_id", "request_id", "app_id", "kind", "time")
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    APP_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    event_id: str
    request_id: str
    app_id: int
    kind: str
    time: float
    def __init__(self, event_id: _Optional[str] = ..., request_id: _Optional[str] = ..., app_id: _Optional[int] = ..., kind: _Optional[str] = ..., time: _Optional[float] = ...) -> None: ...

class RecordEventsResponse(_message.Message):
    __slots__ = ("accepted",)
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    accepted: int
    def __init__(self, accepted: _Optional[int] = ...) -> None: ...
