"""The HTTP service on a finished tiny workspace: its answers, and its refusals."""

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from mlplatform.pipeline import Workspace
from mlplatform.registry.registry import Registry, Version
from mlplatform.training.runtime import tensorflow
from mlplatform.transform.feature import MISSING
from recsys import features
from recsys.online.answering import CHECKED_ONE_IN
from recsys.online.bundle import Bundle
from recsys.online.feature_store import FeatureStore
from recsys.online.recommender import Recommender
from tests.recsys.services import service

with warnings.catch_warnings():
    # Starlette's preference among HTTP clients.
    warnings.filterwarnings("ignore", "Using `httpx` with `starlette.testclient`")
    from starlette.testclient import TestClient

PATH = "/v1/recommendations"
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def version(finished: Path) -> Version:
    return Registry(finished / "registry").labelled("stable")


@pytest.fixture(scope="module")
def recommender(finished: Path, version: Version) -> Iterator[Recommender]:
    directory = Workspace(finished).latest("build_feature_store")
    assert directory is not None
    with FeatureStore(directory) as store:
        yield Recommender(Bundle.load(version.path), store)


@pytest.fixture(scope="module")
def client(recommender: Recommender, version: Version) -> Iterator[TestClient]:
    app = service(recommender, version.number)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def users(recommender: Recommender) -> list[int]:
    """Thirty users who have at least three apps."""
    store = recommender.store
    found = [user for user in store.user_ids() if len(store.profiles([user])[0]["owned"]) >= 3]
    return found[:: len(found) // 30][:30]


def ask(client: TestClient, **query: Any) -> list[dict[str, Any]]:
    answer = client.post(PATH, json=query)
    assert answer.status_code == 200, answer.text
    return answer.json()["apps"]


def refusal(client: TestClient, content: Any, status: set[int], **headers: str) -> str:
    """The `error` that a body is refused with."""
    answer = client.post(PATH, content=content, headers=JSON | headers)
    assert answer.status_code in status, answer.text
    assert set(answer.json()) == {"error"}, answer.text
    error = answer.json()["error"]
    assert isinstance(error, str) and error and "Traceback" not in error
    return error


def ids(apps: list[dict[str, Any]]) -> list[int]:
    return [app["app_id"] for app in apps]


class TestAnswers:
    def test_a_known_user_gets_ten_apps_of_the_catalogue(
        self, client: TestClient, recommender: Recommender, users: list[int], version: Version
    ) -> None:
        answer = client.post(PATH, json={"user_id": users[0]}).json()
        assert answer["bundle_version"] == version.number
        assert len(answer["apps"]) == 10
        listed = {row["app_id"]: row for row in recommender.bundle.catalogue.to_pylist()}
        for app in answer["apps"]:
            assert set(app) == {"app_id", "title", "category", "score"}
            assert app["title"] == listed[app["app_id"]]["title"]
            assert app["category"] == listed[app["app_id"]]["category"]

    @pytest.mark.parametrize("k", [1, 2, 37, 100])
    def test_as_many_apps_as_asked_for_no_app_twice_scores_falling(
        self, client: TestClient, users: list[int], k: int
    ) -> None:
        for user in users[:5]:
            apps = ask(client, user_id=user, k=k)
            assert len(set(ids(apps))) == len(apps) == k
            scores = [app["score"] for app in apps]
            assert scores == sorted(scores, reverse=True)
            assert all(0 <= score <= 1 for score in scores)

    def test_apps_that_a_user_owns_are_never_recommended(
        self, client: TestClient, recommender: Recommender, users: list[int]
    ) -> None:
        for user in users:
            owned = recommender.store.profiles([user])[0]["owned"]
            assert not set(ids(ask(client, user_id=user, k=100))) & set(owned)

    def test_apps_that_a_profile_owns_are_never_recommended(self, client: TestClient) -> None:
        without = ids(ask(client, profile={"country": "BR"}, k=100))
        for own in ({"owned": without[:64]}, {"history": without[:20]}):
            excluded = set(next(iter(own.values())))
            apps = ids(ask(client, profile={"country": "BR"} | own, k=100))
            assert apps and not set(apps) & excluded

    def test_apps_too_new_for_the_device_are_never_recommended(
        self, client: TestClient, recommender: Recommender
    ) -> None:
        catalogue = recommender.bundle.catalogue
        needs = dict(
            zip(catalogue["app_id"].to_pylist(), catalogue["min_os"].to_pylist(), strict=True)
        )
        oldest = min(needs.values())
        apps = ids(ask(client, profile={"os_version": oldest}, k=100))
        assert apps and all(needs[app] <= oldest for app in apps)
        # Someone who does not say gets some of those that it leaves out.
        assert any(needs[app] > oldest for app in ids(ask(client, profile={}, k=100)))

    def test_a_device_that_nothing_runs_on_gets_an_empty_list(self, client: TestClient) -> None:
        assert ask(client, profile={"os_version": 1}, k=100) == []
        assert ask(client, profile={"os_version": -(2**62)}, k=1, explain=True) == []

    def test_an_inline_profile_says_what_the_stored_one_does(
        self, client: TestClient, recommender: Recommender, users: list[int]
    ) -> None:
        context = {"hour_of_day": 8, "network": "metered"}
        for user in users[:5]:
            profile = recommender.store.profiles([user])[0]
            assert ask(client, profile=profile, context=context) == ask(
                client, user_id=user, context=context
            )

    def test_the_answer_is_the_recommenders_own(
        self, client: TestClient, recommender: Recommender, users: list[int]
    ) -> None:
        rows = [
            profile | {"hour_of_day": 9, "network": "wifi"}
            for profile in recommender.store.profiles(users)
        ]
        found = recommender.recommend(recommender.table(rows), 20)
        for at, user in enumerate(users):
            context = {"hour_of_day": 9, "network": "wifi"}
            apps = ask(client, user_id=user, k=20, context=context)
            assert ids(apps) == found.app_ids[at].tolist()
            scores = [app["score"] for app in apps]
            assert scores == pytest.approx(found.scores[at].tolist(), abs=1e-5)

    def test_what_is_known_of_the_caller_changes_the_answer(
        self, client: TestClient, users: list[int]
    ) -> None:
        answers = {tuple(ids(ask(client, user_id=user, k=20))) for user in users}
        assert len(answers) > 20

    def test_the_same_question_gets_the_same_answer(
        self, client: TestClient, users: list[int]
    ) -> None:
        asked = {"user_id": users[2], "k": 50, "explain": True}
        one, other = (client.post(PATH, json=asked).json() for _ in range(2))
        for app in one["apps"]:  # the index adds up in another order each time
            why = app["explanation"]
            why["retrieval_score"] = pytest.approx(why["retrieval_score"], rel=1e-6)
        assert one == other

    def test_explain_says_where_each_app_comes_from_and_what_is_known_of_it(
        self, client: TestClient, recommender: Recommender, users: list[int]
    ) -> None:
        store = recommender.store
        sources = set()
        for user in users[:10]:
            plain = ask(client, user_id=user, k=50)
            explained = ask(client, user_id=user, k=50, explain=True)
            assert [{k: v for k, v in app.items() if k != "explanation"} for app in explained] == (
                plain
            )
            for app in explained:
                why = app["explanation"]
                columns = store.app_columns(np.array([app["app_id"]]))
                for name in ("app_age_days", "recent_impressions", "recent_installs"):
                    assert why[name] == int(columns[name][0])
                assert (why["source"] == "fresh") == (0 <= why["app_age_days"] <= 7)
                assert np.isfinite(why["retrieval_score"])
                sources.add(why["source"])
        assert sources == {"fresh", "index"}

    def test_the_models_own_raw_signature_gives_the_served_scores(
        self, client: TestClient, recommender: Recommender, users: list[int], version: Version
    ) -> None:
        tf = tensorflow()
        raw = tf.saved_model.load(str(version.path / "ranker")).signatures["raw"]
        for user in users[:5]:
            context = {"hour_of_day": 21, "network": "wifi"}
            apps = ask(client, user_id=user, k=10, context=context)
            row = recommender.store.profiles([user])[0] | context
            inputs: dict[str, Any] = {}
            for feature in (*features.REQUEST, features.HISTORY):
                value, missing = row[feature.name], MISSING[feature.dtype]
                if feature.width > 1:
                    value = [*value, *[missing] * (feature.width - len(value))]
                value = missing if value is None else value
                inputs[feature.name] = tf.constant([value] * 10, getattr(tf, feature.dtype))
            app_id = np.array(ids(apps))
            columns = recommender.store.app_columns(app_id) | {"position": np.ones(10, dtype=int)}
            for feature in features.IMPRESSION:
                inputs[feature.name] = tf.constant(
                    columns[feature.name].tolist(), getattr(tf, feature.dtype)
                )
            found = raw(**inputs, app_id=tf.constant(app_id))["probability"].numpy()
            np.testing.assert_allclose(found, [app["score"] for app in apps], rtol=0, atol=1e-5)


class TestRefusals:
    @pytest.mark.parametrize(
        ("body", "named"),
        [
            ('{"user_id": 1, "profile": {}}', "exactly one of user_id and profile"),
            ("{}", "exactly one of user_id and profile"),
            ('{"k": 5}', "exactly one of user_id and profile"),
            ('{"profile": null}', "exactly one of user_id and profile"),
            ('{"user_id": 1, "k": 0}', "k: "),
            ('{"user_id": 1, "k": -1}', "k: "),
            ('{"user_id": 1, "k": 101}', "k: "),
            ('{"user_id": 1, "k": "5"}', "k: "),
            ('{"user_id": 1, "k": 1.5}', "k: "),
            ('{"user_id": 1, "k": true}', "k: "),
            ('{"user_id": 1, "k": null}', "k: "),
            ('{"user_id": 1, "k": NaN}', "k: "),
            ('{"user_id": NaN}', "user_id: "),
            ('{"user_id": -1}', "user_id: "),
            ('{"user_id": 4611686018427387904}', "user_id: "),
            ('{"user_id": 1' + "0" * 40 + "}", "user_id: "),
            ('{"user_id": true}', "user_id: "),
            ('{"user_id": "1"}', "user_id: "),
            ('{"user_id": 1.0}', "user_id: "),
            ('{"user_id": "\\ud800"}', "user_id: "),
            ('{"profile": {"ram_gb": NaN}}', "profile.ram_gb: "),
            ('{"profile": {"ram_gb": Infinity}}', "profile.ram_gb: "),
            ('{"profile": {"ram_gb": -Infinity}}', "profile.ram_gb: "),
            ('{"profile": {"ram_gb": 1e39}}', "profile.ram_gb: "),
            ('{"profile": {"ram_gb": 1' + "0" * 400 + "}}", "profile.ram_gb: "),
            ('{"profile": {"ram_gb": -0.5}}', "profile.ram_gb: "),
            ('{"profile": {"os_version": 9223372036854775808}}', "profile.os_version: "),
            ('{"profile": {"os_version": 8.5}}', "profile.os_version: "),
            ('{"profile": {"country": "\\ud800"}}', "profile.country: "),
            ('{"profile": {"country": ""}}', "profile.country: "),
            ('{"profile": {"country": "' + "B" * 65 + '"}}', "profile.country: "),
            ('{"profile": {"country": ["BR"]}}', "profile.country: "),
            ('{"profile": {"shoe_size": 43}}', "profile.shoe_size: "),
            ('{"profile": {"hour_of_day": 4}}', "profile.hour_of_day: "),
            ('{"profile": {"\\ud800": 1}}', "profile"),
            ('{"profile": {"history": [' + "1," * 20 + "1]}}", "profile.history: "),
            ('{"profile": {"owned": [' + "1," * 64 + "1]}}", "profile.owned: "),
            ('{"profile": {"recent_categories": ["A","B","C","D","E","F"]}}',
             "profile.recent_categories: "),
            ('{"profile": {"recent_categories": ["A", "\\udfff"]}}',
             "profile.recent_categories.1: "),
            ('{"profile": {"history": [1, null]}}', "profile.history.1: "),
            ('{"profile": {"history": 1}}', "profile.history: "),
            ('{"profile": []}', "profile: "),
            ('{"user_id": 1, "context": {"hour_of_day": 24}}', "context.hour_of_day: "),
            ('{"user_id": 1, "context": {"hour_of_day": -1}}', "context.hour_of_day: "),
            ('{"user_id": 1, "context": {"network": "5g"}}', "context.network: "),
            ('{"user_id": 1, "context": {"network": "\\ud800"}}', "context.network: "),
            ('{"user_id": 1, "context": {"weather": 1}}', "context.weather: "),
            ('{"user_id": 1, "context": null}', "context: "),
            ('{"user_id": 1, "explain": "perhaps"}', "explain: "),
            ('{"user_id": 1, "limit": 5}', "limit: "),
            ('{"user_id": 1, "limit": NaN}', "limit: "),
            ('{"user_id": 1, "\\ud800": 5}', "body"),
            ("[]", "body: "),
            ('[{"user_id": 1}]', "body: "),
            ("null", "body: "),
            ("NaN", "body: "),
            ('"user_id"', "body: "),
            ("", "body: "),
        ],
    )  # fmt: skip
    def test_a_body_with_a_fault_is_refused_and_the_fault_is_named(
        self, client: TestClient, body: str, named: str
    ) -> None:
        assert named in refusal(client, body, {400, 422})

    def test_the_error_does_not_repeat_what_was_sent(self, client: TestClient) -> None:
        error = refusal(client, '{"user_id": "hunter2", "k": "<script>"}', {400, 422})
        assert "hunter2" not in error and "<script>" not in error
        assert "user_id: " in error and "k: " in error  # both faults, at once

    @pytest.mark.parametrize(
        "body",
        [
            '{"user_id": 1', "{'user_id': 1}", '{"user_id": 1,}', "user_id=1", "\x00",
            '{"user_id": 1} {}', b"\xff\xfe\xfd", b'{"user_id": "\xff"}',
        ],
    )  # fmt: skip
    def test_a_body_that_is_no_json_is_refused(self, client: TestClient, body: str | bytes) -> None:
        assert "json" in refusal(client, body, {400, 422}).lower()

    @pytest.mark.parametrize(
        "body",
        [
            "[" * 10_000,
            "[" * 10_000 + "]" * 10_000,
            '{"profile":' * 5_000 + "1" + "}" * 5_000,
            '{"user_id": 1' + "0" * 5_000 + "}",  # more digits than Python turns into a number
        ],
    )
    def test_a_body_made_to_break_a_parser_is_refused(self, client: TestClient, body: str) -> None:
        assert refusal(client, body, {400, 422})

    @pytest.mark.parametrize(
        "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
    )
    def test_a_body_of_another_content_type_is_refused_and_told_which_is_read(
        self, client: TestClient, kind: str
    ) -> None:
        error = refusal(client, '{"user_id": 1}', {400, 415, 422}, **{"content-type": kind})
        assert "application/json" in error

    def test_an_unknown_user_is_not_found_and_told_what_else_to_ask(
        self, client: TestClient
    ) -> None:
        for user in (10**9, 2**62 - 1):
            error = refusal(client, json.dumps({"user_id": user}), {404})
            assert str(user) in error and "profile" in error

    def test_a_large_body_is_refused_before_it_is_parsed(self, client: TestClient) -> None:
        assert "65536" in refusal(client, " " * 1_000_000, {413})
        at_the_limit = '{"user_id": 1000000000}'.ljust(64 * 1024)
        assert refusal(client, at_the_limit, {404})
        assert refusal(client, at_the_limit + " ", {413})

    def test_a_body_of_undeclared_length_is_refused(self, client: TestClient) -> None:
        pieces = iter([b'{"user_id"', b": 1}"])
        assert "content-length" in refusal(client, pieces, {411}).lower()

    @pytest.mark.parametrize("length", ["-1", "five", "1,1", "9" * 5_000, b"\xb2"])
    def test_a_length_that_is_none_is_refused(self, client: TestClient, length: Any) -> None:
        refusal(client, '{"user_id": 1}', {400, 411, 413}, **{"content-length": length})

    @pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
    def test_another_method_is_refused(self, client: TestClient, method: str) -> None:
        answer = client.request(method, PATH)
        assert answer.status_code == 405
        assert answer.headers["allow"] == "POST"
        assert answer.json().keys() == {"error"}

    @pytest.mark.parametrize("path", ["/", "/v1", "/v2/recommendations", "/v1/recommendations/1"])
    def test_an_unknown_path_is_not_found(self, client: TestClient, path: str) -> None:
        for answer in (client.get(path), client.post(path, json={})):
            assert answer.status_code == 404
            assert answer.json().keys() == {"error"}

    def test_the_service_answers_after_all_that(self, client: TestClient) -> None:
        assert ask(client, profile={}, k=3)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["user_id", "profile", "k", "context", "history", "owned", "ram_gb"])
            | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


def test_no_json_whatever_makes_the_service_fail(client: TestClient) -> None:
    @seed(1)
    @settings(max_examples=150, deadline=None, database=None)
    @given(JSON_VALUES)
    def post(body: Any) -> None:
        answer = client.post(PATH, content=json.dumps(body), headers=JSON)
        assert answer.status_code < 500
        assert answer.status_code == 200 or answer.json().keys() == {"error"}

    post()


class TestHealth:
    def test_it_is_alive_and_ready_once_a_bundle_is_loaded(
        self, client: TestClient, version: Version
    ) -> None:
        assert client.get("/healthz").json() == {"status": "alive"}
        ready = client.get("/readyz")
        assert ready.status_code == 200
        assert ready.json() == {"status": "ready", "bundle_versions": {"stable": version.number}}

    def test_it_is_alive_but_not_ready_before_a_bundle_is_loaded(
        self, recommender: Recommender
    ) -> None:
        # Outside `with`, the client does not start the application.
        idle = TestClient(service(recommender, 1), raise_server_exceptions=False)
        assert idle.get("/healthz").status_code == 200
        answer = idle.get("/readyz")
        assert answer.status_code == 503
        assert answer.json().keys() == {"error"}

    def test_a_question_before_a_bundle_is_loaded_is_told_to_come_again(
        self, recommender: Recommender
    ) -> None:
        idle = TestClient(service(recommender, 1), raise_server_exceptions=False)
        answer = idle.post(PATH, json={"profile": {}})
        assert answer.status_code == 503
        assert answer.json().keys() == {"error"}


class TestMissingFeatures:
    EVERY = (*(f.name for f in features.REQUEST), "history")

    @pytest.mark.parametrize(
        ("query", "said"),
        [
            ({"profile": {}}, set()),
            ({"profile": {"country": "BR", "history": []}}, {"country", "history"}),
            (
                {"profile": {"ram_gb": 2.0}, "context": {"hour_of_day": 3}},
                {"ram_gb", "hour_of_day"},
            ),
        ],
    )
    def test_an_answer_names_what_it_took_the_default_of(
        self, client: TestClient, query: dict[str, Any], said: set[str]
    ) -> None:
        answer = client.post(PATH, json=query).json()
        assert set(answer["defaulted_features"]) == set(self.EVERY) - said

    def test_a_feature_with_a_default_answers_as_if_the_default_had_been_said(
        self, client: TestClient, users: list[int]
    ) -> None:
        default = next(f.default for f in features.REQUEST if f.name == "hour_of_day")
        silent = client.post(PATH, json={"user_id": users[0]}).json()
        spoken = client.post(
            PATH, json={"user_id": users[0], "context": {"hour_of_day": default}}
        ).json()
        assert silent["apps"] == spoken["apps"]
        assert set(silent["defaulted_features"]) - set(spoken["defaulted_features"]) == {
            "hour_of_day"
        }

    def test_sampled_requests_that_break_the_schema_are_counted_by_feature(
        self, recommender: Recommender, users: list[int]
    ) -> None:
        whole = recommender.store.profiles([users[0]])[0]
        whole = {name: value for name, value in whole.items() if value is not None}
        context = {"hour_of_day": 9, "network": "wifi"}
        with TestClient(service(recommender, 1)) as client:
            for number in range(2 * CHECKED_ONE_IN + 1):  # the first, the 21st and the 41st
                country = "ZZ" if number == CHECKED_ONE_IN else whole["country"]
                asked = {"profile": whole | {"country": country}, "context": context}
                assert client.post(PATH, json=asked).status_code == 200
            assert client.get("/v1/violations").json() == {
                "checked_requests": 3,
                "checked_one_in": CHECKED_ONE_IN,
                "violations": [
                    {
                        "feature": "country",
                        "anomaly": "ENUM_TYPE_UNEXPECTED_STRING_VALUES",
                        "requests": 1,
                    }
                ],
            }

    def test_before_a_bundle_is_loaded_there_are_none_to_tell(
        self, recommender: Recommender
    ) -> None:
        idle = TestClient(service(recommender, 1), raise_server_exceptions=False)
        assert idle.get("/v1/violations").status_code == 503


class TestOpenApi:
    def test_the_document_shows_requests_that_work(self, client: TestClient) -> None:
        document = client.get("/openapi.json").json()
        operation = document["paths"][PATH]["post"]
        name = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        examples = document["components"]["schemas"][name.rsplit("/", 1)[1]]["examples"]
        assert len(examples) >= 2
        assert {"user_id", "profile"} <= {key for example in examples for key in example}
        for example in examples:
            assert ask(client, **example)

    def test_the_profile_describes_every_feature_that_is_read_from_it(
        self, client: TestClient
    ) -> None:
        schemas = client.get("/openapi.json").json()["components"]["schemas"]
        fields = schemas["Profile"]["properties"]
        visit = {"hour_of_day", "network"}
        assert fields.keys() == {f.name for f in features.REQUEST} - visit | {"history", "owned"}
        assert all(field["description"] for field in fields.values())
        assert schemas["Visit"]["properties"].keys() == visit

    def test_nothing_that_the_document_allows_or_forbids_makes_the_service_fail(
        self, recommender: Recommender, version: Version
    ) -> None:
        schema = schemathesis.openapi.from_asgi(
            "/openapi.json", service(recommender, version.number)
        )
        modes = [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE]
        tried: dict[str, set[int]] = {}
        for found in schema.get_all_operations():
            operation = found.ok()
            statuses = tried.setdefault(operation.path, set())
            # An operation without an input has no wrong one.
            for mode in modes if operation.body else modes[:1]:
                self.send(operation.as_strategy(generation_mode=mode), statuses)
        assert tried.keys() == {
            "/healthz", "/readyz", "/v1/violations", "/v1/events", PATH, f"{PATH}/batch"
        }  # fmt: skip
        assert all(status < 500 for statuses in tried.values() for status in statuses)
        assert {200, 422} <= tried[PATH]

    def send(self, cases: Any, statuses: set[int]) -> None:
        @seed(3)
        @settings(
            max_examples=40,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=cases)
        def call(case: Any) -> None:
            answer = case.call()
            statuses.add(answer.status_code)
            assert answer.status_code < 500, (case.body, answer.text)

        call()
