"""TensorFlow Serving's REST API, asked as its documentation does."""

import json
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.serving.rest import rest_router
from mlplatform.serving.servables import MAX_WAITING, Servables
from mlplatform.serving.status import State, VersionStatus
from tests.platform.serving.small_models import half_plus, odd_ones

with warnings.catch_warnings():
    # Starlette's preference among HTTP clients.
    warnings.filterwarnings("ignore", "Using `httpx` with `starlette.testclient`")
    from starlette.testclient import TestClient

LINE = "/v1/models/line"
ODD = "/v1/models/odd:predict"


@pytest.fixture(scope="module")
def servables(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servables]:
    folder = tmp_path_factory.mktemp("models")
    served = Servables(
        {
            "line": {1: half_plus(folder / "1", 2), 2: half_plus(folder / "2", 3)},
            "odd": {1: odd_ones(folder / "odd")},
            "gone": {1: folder / "nothing"},
        },
        {"stable": 1, "canary": 2},
        lambda: {3: VersionStatus(State.END, "out of memory")},
    )
    yield served
    served.close()


@pytest.fixture(scope="module")
def client(servables: Servables) -> Iterator[TestClient]:
    app = FastAPI()
    app.include_router(rest_router(servables))
    with TestClient(app) as client:
        yield client


def predict(client: TestClient, path: str, body: Any) -> Any:
    answer = client.post(path, content=json.dumps(body))
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    return answer.json()


def refusal(client: TestClient, path: str, body: bytes | str, status: int = 400) -> str:
    answer = client.post(path, content=body)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.json().keys() == {"error"}
    error: str = answer.json()["error"]
    assert error and "\n" not in error and "Traceback" not in error
    return error


def test_rows_are_answered_with_predictions(client: TestClient) -> None:
    found = predict(client, f"{LINE}/versions/1:predict", {"instances": [1.0, 2.0, 5.0]})
    assert found == {"predictions": [2.5, 3.0, 4.5]}


def test_columns_are_answered_with_outputs(client: TestClient) -> None:
    found = predict(client, f"{LINE}/versions/1:predict", {"inputs": {"x": [1.0, 2.0, 5.0]}})
    assert found == {"outputs": [2.5, 3.0, 4.5]}


@pytest.mark.parametrize(
    ("path", "first"),
    [
        (f"{LINE}:predict", 3.5),  # the latest
        (f"{LINE}/versions/1:predict", 2.5),
        (f"{LINE}/versions/2:predict", 3.5),
        (f"{LINE}/labels/stable:predict", 2.5),
        (f"{LINE}/labels/canary:predict", 3.5),
    ],
)
def test_a_version_is_asked_by_number_by_label_or_as_the_latest(
    client: TestClient, path: str, first: float
) -> None:
    assert predict(client, path, {"instances": [1.0]}) == {"predictions": [first]}


def test_what_a_client_calls_the_bodys_type_does_not_matter(client: TestClient) -> None:
    # That of `curl -d`, as in the documentation.
    form = {"content-type": "application/x-www-form-urlencoded"}
    answer = client.post(f"{LINE}:predict", content=b'{"instances": [1.0]}', headers=form)
    assert answer.json() == {"predictions": [3.5]}


def test_several_inputs_and_outputs_go_by_name(client: TestClient) -> None:
    rows = [{"pair": [1, 2], "tag": "a"}, {"pair": [3, 4], "tag": {"b64": "/w=="}}]
    assert predict(client, ODD, {"signature_name": "weigh", "instances": rows}) == {
        "predictions": [
            {"tag": "a", "tag_bytes": {"b64": "YQ=="}, "total": 3.0},
            {"tag": {"b64": "/w=="}, "tag_bytes": {"b64": "/w=="}, "total": 7.0},
        ]
    }


def test_a_scalar_is_answered_by_columns_and_refused_by_rows(client: TestClient) -> None:
    whole = {"signature_name": "total", "inputs": [2**40, 5]}
    assert predict(client, ODD, whole) == {"outputs": 2**40 + 5}
    by_rows = json.dumps({"signature_name": "total", "instances": [2, 5]})
    assert "ask with 'inputs'" in refusal(client, ODD, by_rows)


def test_what_is_not_finite_is_answered_as_javascript_writes_it(client: TestClient) -> None:
    body = json.dumps({"signature_name": "divide", "instances": [0.0, -0.0, 4]})
    assert client.post(ODD, content=body).text == '{"predictions": [Infinity, -Infinity, 0.25]}'


@settings(deadline=None)
@given(st.lists(st.floats(-(2.0**60), 2.0**60, width=32), min_size=1, max_size=5))
def test_answers_read_back_as_the_models_own_floats(client: TestClient, x: list[float]) -> None:
    found = predict(client, f"{LINE}/labels/stable:predict", {"instances": x})["predictions"]
    expected = np.array(x, np.float32) * np.float32(0.5) + np.float32(2)
    assert np.array(found, np.float32).tobytes() == expected.tobytes()


def test_the_status_is_that_of_tensorflow_serving(client: TestClient) -> None:
    fine = {"error_code": "OK", "error_message": ""}
    failed = {"error_code": "UNKNOWN", "error_message": "out of memory"}
    assert client.get(LINE).json() == {
        "model_version_status": [
            {"version": "3", "state": "END", "status": failed},
            {"version": "2", "state": "AVAILABLE", "status": fine},
            {"version": "1", "state": "AVAILABLE", "status": fine},
        ]
    }
    one = {"model_version_status": [{"version": "1", "state": "AVAILABLE", "status": fine}]}
    assert client.get(f"{LINE}/versions/1").json() == one
    assert client.get(f"{LINE}/labels/stable").json() == one


def test_the_metadata_are_those_of_tensorflow_serving(client: TestClient) -> None:
    shape = {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False}
    found = client.get(f"{LINE}/labels/stable/metadata").json()
    assert found["model_spec"] == {"name": "line", "signature_name": "", "version": "1"}
    signature = found["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature == {
        "inputs": {
            "x": {"dtype": "DT_FLOAT", "tensor_shape": shape, "name": "serving_default_x:0"}
        },
        "outputs": {"y": {"dtype": "DT_FLOAT", "tensor_shape": shape, "name": "PartitionedCall:0"}},
        "method_name": "tensorflow/serving/predict",
        "defaults": {},
    }


@pytest.mark.parametrize(
    ("path", "status", "told"),
    [
        ("/v1/models/half:predict", 404, "Servable not found for request: Latest(half)"),
        (f"{LINE}/versions/3:predict", 404, "Servable not found for request: Specific(line, 3)"),
        ("/v1/models/..%2Fline:predict", 404, None),
        (f"{LINE}/labels/nope:predict", 400, "Unrecognized servable version label: nope"),
        (f"{LINE}/versions/-1:predict", 400, "Failed to convert version: -1 to numeric."),
        (f"{LINE}/versions/{'9' * 40}:predict", 400, None),
        (f"{LINE}/versions/²:predict", 400, None),
    ],
)
def test_only_what_is_served_can_be_asked(
    client: TestClient, path: str, status: int, told: str | None
) -> None:
    answer = client.post(path, content=b'{"instances": [1.0]}')
    assert answer.status_code == status, answer.text
    if told is not None:
        assert answer.json() == {"error": told}


@pytest.mark.parametrize(
    ("path", "status", "told"),
    [
        ("/v1/models/half", 404, "Could not find any versions of model half"),
        (f"{LINE}/versions/9", 404, "Could not find version 9 of model line"),
        (f"{LINE}/labels/nope", 400, "Unrecognized servable version label: nope"),
        (f"{LINE}/versions/x", 400, "Failed to convert version: x to numeric."),
        ("/v1/models/half/metadata", 404, "Servable not found for request: Latest(half)"),
    ],
)
def test_only_what_is_served_has_a_status(
    client: TestClient, path: str, status: int, told: str
) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.json()) == (status, {"error": told})


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "JSON Parse error"),
        (b'{"instances": [NaN]}', "JSON Parse error"),
        (b'{"instances": ["\\ud800"]}', "JSON Parse error"),
        (b'{"instances": ' + b"[" * 20_000, "JSON Parse error"),
        (b'{"instances": [1.0], "signature_name": "other"}', "not found in signature def"),
        (b'{"instances": ["a"]}', "expected float32, got a string"),
        (b'{"instances": [[1.0]]}', "expected shape [?], got [1,1]"),
        (b'{"instances": [{"y": 1.0}]}', "keys must be equal to: x"),
        (b'{"inputs": ' + b"[" * 15 + b"]" * 15 + b"}", "expected shape [?]"),
    ],
)
def test_what_does_not_fit_is_refused(client: TestClient, body: bytes, told: str) -> None:
    assert told in refusal(client, f"{LINE}:predict", body)


@settings(deadline=None)
@given(
    st.binary(max_size=60) | st.text(max_size=60).map(lambda t: json.dumps({"inputs": t}).encode())
)
def test_no_body_is_an_error_of_the_server(client: TestClient, body: bytes) -> None:
    refusal(client, f"{LINE}:predict", body)


def test_classify_and_regress_say_what_to_ask_in_their_place(client: TestClient) -> None:
    examples = '{"examples": [{"x": 1.0}, {"x": 2.0}]}'
    told = refusal(client, f"{LINE}:regress", examples)
    assert told.startswith(
        "Expected regress signature method_name to be tensorflow/serving/regress"
    )
    told = refusal(client, f"{LINE}/versions/1:classify", examples)
    assert "Was: tensorflow/serving/predict" in told
    named = '{"signature_name": "regress", "examples": [{"x": 1.0}]}'
    assert "regress is not served" in refusal(client, "/v1/models/odd:regress", named, 501)


def test_a_model_that_cannot_be_loaded_is_the_servers_fault(client: TestClient) -> None:
    told = refusal(client, "/v1/models/gone:predict", b'{"instances": [1.0]}', 500)
    assert told == "version 1 of model gone cannot be loaded; the server's log says why"


def test_who_comes_when_enough_wait_is_told_when_to_come_again(
    client: TestClient, servables: Servables
) -> None:
    go = threading.Event()
    assert client.portal is not None
    waiting = [client.portal.start_task_soon(servables.run, go.wait) for _ in range(MAX_WAITING)]
    client.portal.call(lambda: None)  # each of them has asked
    answer = client.post(f"{LINE}:predict", content=b'{"instances": [1.0]}')
    go.set()
    assert [task.result() for task in waiting] == [True] * MAX_WAITING
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
    assert answer.json().keys() == {"error"}
    assert predict(client, f"{LINE}:predict", {"instances": [1.0]}) == {"predictions": [3.5]}


def test_the_documentation_of_the_service_has_the_routes(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert f"{LINE}:predict".replace("line", "{name}") in paths
    asked = paths["/v1/models/{name}/versions/{version}:predict"]["post"]
    assert [p["name"] for p in asked["parameters"]] == ["name", "version"]
    assert "application/json" in asked["requestBody"]["content"]
