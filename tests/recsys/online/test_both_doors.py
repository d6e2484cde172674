"""The calls over HTTP and gRPC, on real sockets: the same answers, and the same refusals."""

import asyncio
import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import grpc
import httpx
import pytest
import uvloop
from google.protobuf import json_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlplatform.errors import Unavailable
from mlplatform.serving import grpc_server, http
from mlplatform.serving.admission import Admission
from mlplatform.serving.doors import Doors
from mlplatform.serving.listening import listen, port_of
from mlplatform.transform.transform import Transform
from recsys.online import recommendations_pb2 as messages
from recsys.online.answering import Answering, Arm
from recsys.online.calls import Calls
from recsys.online.contract import Event
from recsys.online.grpc_service import SERVICE, recommendations
from recsys.online.service import PROBES, RECOMMEND, create_app, hot_routes
from tests.recsys.online.made_up import APPS, recommender_of

LIMIT_S = 30.0
FUZZ = settings(
    max_examples=60,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
BODIES: list[dict[str, Any]] = [
    {"user_id": 3},
    {"user_id": 4, "k": 5, "explain": True},
    {"profile": {"country": "BR", "history": [10, 20]}, "context": {"hour_of_day": 3}},
    {"profile": {}, "k": 3, "context": {"network": "wifi"}},
]
FAULTS: list[tuple[dict[str, Any], int, str]] = [
    ({}, 422, "exactly one of user_id and profile"),
    ({"user_id": 1, "profile": {}}, 422, "exactly one of user_id and profile"),
    ({"user_id": 1, "k": 101}, 422, "k: "),
    ({"user_id": 1, "k": 0}, 422, "k: "),
    ({"user_id": -1}, 422, "user_id: "),
    ({"user_id": 1, "context": {"hour_of_day": 24}}, 422, "context.hour_of_day: "),
    ({"user_id": 1, "context": {"network": "5g"}}, 422, "context.network: "),
    ({"profile": {"country": ""}}, 422, "profile.country: "),
    ({"profile": {"ram_gb": -1.0}}, 422, "profile.ram_gb: "),
    ({"profile": {"history": [1] * 21}}, 422, "profile.history: "),
    ({"user_id": 5000}, 404, "user 5000 is unknown"),
]


@dataclass
class Served:
    url: str
    channel: grpc.Channel
    kept: list[Event] = field(default_factory=list)
    disk_is_full: bool = False

    def post(self, body: Any, path: str = RECOMMEND, **headers: str) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body)
        said = {"content-type": "application/json"} | headers
        return httpx.post(f"{self.url}{path}", content=content, headers=said, timeout=LIMIT_S)

    def call(self, name: str, message: Any, **options: Any) -> Any:
        kinds = {
            "Recommend": messages.RecommendResponse,
            "RecommendBatch": messages.RecommendBatchResponse,
            "RecordEvents": messages.RecordEventsResponse,
        }
        content = message if isinstance(message, bytes) else message.SerializeToString()
        method = self.channel.unary_unary(f"/{SERVICE}/{name}", bytes, kinds[name].FromString)
        return method(content, **{"timeout": LIMIT_S} | options)

    def refused(self, name: str, message: Any, **options: Any) -> grpc.RpcError:
        with pytest.raises(grpc.RpcError) as caught:
            self.call(name, message, **options)
        return caught.value


@contextmanager
def serving(transform: Transform, admission: Admission | None = None) -> Iterator[Served]:
    """Both doors in one loop, as a worker opens them."""
    recommender = recommender_of(transform, APPS)
    answering = Answering(
        [Arm("stable", 7, recommender)], recommender.store, request_ids=itertools.count(1)
    )
    listener, port = listen(("127.0.0.1", 0)), listen(("127.0.0.1", 0))
    served = Served(
        f"http://127.0.0.1:{port_of(listener)}", grpc.insecure_channel(f"127.0.0.1:{port_of(port)}")
    )

    def keep(events: Sequence[Event]) -> None:
        if served.disk_is_full:
            raise Unavailable("the events could not be written")
        served.kept.extend(events)

    loop, stop = uvloop.new_event_loop(), asyncio.Event()
    opened = threading.Semaphore(0)

    async def main() -> None:
        calls = Calls(answering, keep, admission=admission)
        doors = Doors(open_paths=PROBES)
        await asyncio.gather(
            http.serve(
                [listener], create_app(lambda: calls), hot_routes(calls), doors, stop, 1.0,
                ready=opened.release,
            ),
            grpc_server.serve(
                port, [recommendations(calls)], doors, stop, 1.0,
                ready=opened.release,
            ),
        )  # fmt: skip

    thread = threading.Thread(target=lambda: loop.run_until_complete(main()))
    thread.start()
    try:
        for _ in range(2):
            assert opened.acquire(timeout=LIMIT_S)
        yield served
    finally:
        served.channel.close()
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        port.close()


@pytest.fixture(scope="module")
def served(transform: Transform) -> Iterator[Served]:
    with serving(transform) as served:
        yield served


def request_of(body: dict[str, Any]) -> messages.RecommendRequest:
    return json_format.ParseDict(body, messages.RecommendRequest())


def as_json(answer: Any) -> dict[str, Any]:
    """What a gRPC answer says, in the words of the HTTP one."""
    said = json_format.MessageToDict(
        answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    numbers = ("app_id", "app_age_days", "recent_impressions", "recent_installs")
    for app in said["apps"]:
        for part in (app, app.get("explanation", {})):
            part |= {name: int(part[name]) for name in numbers if name in part}
    return said


def without_id(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name != "request_id"}


class TestAnswers:
    @pytest.mark.parametrize("body", BODIES)
    def test_the_hot_route_the_app_and_grpc_say_the_same(
        self, served: Served, body: dict[str, Any]
    ) -> None:
        hot = served.post(body)
        # A path that is no hot route's by its letters, and is one of the app.
        app = served.post(body, "/v1/recommendation%73")
        assert hot.status_code == app.status_code == 200, app.text
        assert without_id(hot.json()) == without_id(app.json())
        expected = without_id(hot.json())
        for listed in expected["apps"]:  # float32 in a message
            listed["score"] = pytest.approx(listed["score"], rel=1e-6)
            if "explanation" in listed:
                why = listed["explanation"]
                why["retrieval_score"] = pytest.approx(why["retrieval_score"], rel=1e-6)
        assert without_id(as_json(served.call("Recommend", request_of(body)))) == expected

    def test_every_answer_has_an_id_of_its_own(self, served: Served) -> None:
        ids = {served.post({"user_id": 1}).json()["request_id"] for _ in range(5)}
        assert len(ids) == 5

    def test_several_at_once_have_an_answer_or_an_error_each(self, served: Served) -> None:
        queries = [{"user_id": 3, "k": 2}, {"user_id": 5000}, {"profile": {}, "k": 1}]
        alone = [served.post(query).json() for query in queries]
        outcomes = served.post({"requests": queries}, f"{RECOMMEND}/batch").json()["outcomes"]
        assert [without_id(one) for one in outcomes] == [without_id(one) for one in alone]
        batch = messages.RecommendBatchRequest(requests=[request_of(query) for query in queries])
        told = served.call("RecommendBatch", batch).outcomes
        assert [one.WhichOneof("outcome") for one in told] == ["response", "error", "response"]
        assert told[1].error == alone[1]["error"]
        assert [app.app_id for app in told[0].response.apps] == [
            app["app_id"] for app in alone[0]["apps"]
        ]


class TestRefusals:
    @pytest.mark.parametrize(("body", "status", "said"), FAULTS)
    def test_the_same_mistake_is_told_the_same_at_every_door(
        self, served: Served, body: dict[str, Any], status: int, said: str
    ) -> None:
        hot, app = served.post(body), served.post(body, "/v1/recommendation%73")
        assert hot.status_code == app.status_code == status
        assert hot.json() == app.json()
        assert said in hot.json()["error"]
        error = served.refused("Recommend", request_of(body))
        expected = {422: "INVALID_ARGUMENT", 404: "NOT_FOUND"}[status]
        assert error.code().name == expected
        assert error.details() == hot.json()["error"]

    @pytest.mark.parametrize(
        "body", [b"", b"{", b"[1", b'{"user_id": 1}x', b"\xff\xfe", b"[" * 20_000]
    )
    def test_what_is_no_json_is_refused_alike(self, served: Served, body: bytes) -> None:
        hot, app = served.post(body), served.post(body, "/v1/recommendation%73")
        assert hot.status_code == 422
        assert app.status_code in (400, 422)
        assert "json" in hot.json()["error"].lower()

    @pytest.mark.parametrize("deadline", ["", "0", "-5", "1.5", "soon", "1" * 7, "\xb2"])
    def test_a_deadline_that_is_none_is_refused(self, served: Served, deadline: str) -> None:
        for path in (RECOMMEND, "/v1/recommendation%73"):
            answer = httpx.post(
                f"{served.url}{path}",
                json={"user_id": 1},
                headers={"x-deadline-ms": deadline.encode("latin-1")},
                timeout=LIMIT_S,
            )
            assert answer.status_code == 400
            assert "x-deadline-ms: expected a whole number" in answer.json()["error"]

    def test_more_than_can_be_served_is_refused_at_once(self, transform: Transform) -> None:
        with serving(transform, Admission(floor=1, cap=1)) as served:
            body = {"requests": [{"user_id": user} for user in range(40)]}
            outcomes = served.post(body, f"{RECOMMEND}/batch").json()["outcomes"]
            refused = [one for one in outcomes if "error" in one]
            assert len(refused) == 39  # the batch is submitted before the queue has its turn
            assert "overloaded" in refused[0]["error"]


class TestEvents:
    EVENT: ClassVar[dict[str, Any]] = {
        "event_id": "e-1",
        "request_id": "17",
        "app_id": 10,
        "kind": "install",
        "time": 1e9,
    }

    def test_they_are_acknowledged_once_they_are_kept(self, served: Served) -> None:
        served.kept.clear()
        answer = served.post({"events": [self.EVENT]}, "/v1/events")
        assert (answer.status_code, answer.json()) == (202, {"accepted": 1})
        told = messages.RecordEventsRequest(events=[messages.Event(**self.EVENT)] * 2)
        assert served.call("RecordEvents", told).accepted == 2
        assert served.kept == [Event(**self.EVENT)] * 3

    def test_what_could_not_be_kept_is_not_acknowledged(self, served: Served) -> None:
        served.disk_is_full = True
        try:
            answer = served.post({"events": [self.EVENT]}, "/v1/events")
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) >= 1
            told = messages.RecordEventsRequest(events=[messages.Event(**self.EVENT)])
            assert served.refused("RecordEvents", told).code().name == "UNAVAILABLE"
        finally:
            served.disk_is_full = False

    @pytest.mark.parametrize(
        ("change", "named"),
        [
            ({"kind": "purchase"}, "kind"),
            ({"request_id": "abc"}, "request_id"),
            ({"request_id": "1" * 19}, "request_id"),
            ({"event_id": ""}, "event_id"),
            ({"time": -1.0}, "time"),
            ({"app_id": -1}, "app_id"),
        ],
    )
    def test_an_event_with_a_fault_is_refused_and_the_fault_named(
        self, served: Served, change: dict[str, Any], named: str
    ) -> None:
        event = self.EVENT | change
        answer = served.post({"events": [self.EVENT, event]}, "/v1/events")
        assert answer.status_code == 422
        assert f"events.1.{named}: " in answer.json()["error"]
        message = messages.RecordEventsRequest(
            events=[messages.Event(**self.EVENT), messages.Event(**event)]
        )
        error = served.refused("RecordEvents", message)
        assert error.code().name == "INVALID_ARGUMENT"
        assert f"events.1.{named}: " in error.details()


def messages_of(kind: Any) -> st.SearchStrategy[Any]:
    """Any message of a kind, with values that no client in its right mind would send."""
    numbers = st.sampled_from([0, -1, 1, 7, 100, 101, 2**31 - 1, -(2**31)])
    values: dict[int, Callable[[Any], st.SearchStrategy[Any]]] = {
        1: lambda f: st.sampled_from([0.0, -1.0, float("nan"), float("inf"), 1e300]),
        2: lambda f: st.sampled_from([0.0, 4.0, -1.0, float("nan"), float("-inf")]),
        3: lambda f: numbers | st.sampled_from([2**62, 2**63 - 1, -(2**63), 50]),
        5: lambda f: numbers,
        8: lambda f: st.booleans(),
        9: lambda f: st.sampled_from(["", "BR", "\x00", "wifi", "🦜" * 70, "../../etc/passwd"]),
        11: lambda f: messages_of(f.message_type._concrete_class),
    }

    def filled(chosen: dict[str, Any]) -> Any:
        return kind(**chosen)

    fields = {}
    for f in kind.DESCRIPTOR.fields:
        one = values[f.type](f)
        fields[f.name] = st.lists(one, max_size=3) if f.is_repeated else one
    return st.fixed_dictionaries({}, optional=fields).map(filled)


class TestFuzz:
    FINE = frozenset({"OK", "INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED"})

    def status(self, served: Served, name: str, message: Any) -> str:
        try:
            served.call(name, message)
        except grpc.RpcError as error:
            return str(error.code().name)
        return "OK"

    @pytest.mark.parametrize(
        ("name", "kind"),
        [
            ("Recommend", messages.RecommendRequest),
            ("RecommendBatch", messages.RecommendBatchRequest),
            ("RecordEvents", messages.RecordEventsRequest),
        ],
    )
    def test_no_message_whatever_makes_the_service_fail(
        self, served: Served, name: str, kind: Any
    ) -> None:
        seen = set()

        @FUZZ
        @given(messages_of(kind) | st.binary(max_size=60))
        def send(message: Any) -> None:
            seen.add(self.status(served, name, message))

        send()
        assert seen <= self.FINE
        assert "INVALID_ARGUMENT" in seen
        assert self.status(served, "Recommend", request_of({"user_id": 1})) == "OK"

    def test_a_message_beyond_the_cap_is_refused(self, served: Served) -> None:
        message = messages.RecommendRequest(profile=messages.Profile(country="B" * 70_000))
        assert self.status(served, "Recommend", message) == "RESOURCE_EXHAUSTED"


def test_the_messages_are_those_of_the_proto_file(tmp_path: Path) -> None:
    online = Path(messages.__file__).parent
    # In a process of its own: the compiler does not live beside TensorFlow.
    subprocess.run(
        [
            sys.executable, "-m", "grpc_tools.protoc", f"-I{online}", f"--python_out={tmp_path}",
            f"--pyi_out={tmp_path}", "recommendations.proto",
        ],
        check=True,
    )  # fmt: skip
    for made in ("recommendations_pb2.py", "recommendations_pb2.pyi"):
        assert (tmp_path / made).read_bytes() == (online / made).read_bytes()
