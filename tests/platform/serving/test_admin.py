"""Labels moved through the administrator's door, by those who have its token."""

from collections.abc import Iterator

import httpx
import pytest

from mlplatform.errors import InvalidArgument
from mlplatform.serving.admin import VARIABLE, admin_token
from mlplatform.serving.status import State
from tests.platform.serving.small_server import TOKEN, Server, server, wait_until


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server(tmp_path_factory.mktemp("server"), "one", "two") as started:
        started.wait_for(stable=2)
        yield started


@pytest.fixture
def door(running: Server) -> Iterator[httpx.Client]:
    address = f"http://127.0.0.1:{running.admin_port}"
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=address, headers=headers, timeout=30) as client:
        running.registry.set_label("stable", 2)
        running.wait_for(stable=2)
        yield client


@pytest.mark.parametrize("given", [None, "", TOKEN, f"Bearer {TOKEN}x", "Bearer", "Bearer \xff"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/labels/stable"),
        ("POST", "/v1/rollback"),
        ("POST", "/v1/reload"),
        ("GET", "/v1/status"),
        ("GET", "/nowhere"),
        ("GET", "/openapi.json"),
    ],
)
def test_without_the_token_nothing_is_done_or_told(
    method: str, path: str, given: str | None, running: Server
) -> None:
    headers = {} if given is None else {"Authorization": given.encode("latin-1")}
    address = f"http://127.0.0.1:{running.admin_port}{path}"
    body = {"version": 1, "label": "stable"}
    answer = httpx.request(
        method, address, headers=headers, json=body if method == "POST" else None
    )
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.json().keys() == {"error"} and VARIABLE in answer.json()["error"]
    assert TOKEN not in answer.text
    assert running.registry.labels() == {"stable": 2}


def test_a_rollback_takes_effect(door: httpx.Client, running: Server) -> None:
    answer = door.post("/v1/rollback", json={"label": "stable"})
    assert (answer.status_code, answer.json()) == (200, {"labels": {"stable": 1}})
    running.wait_for(stable=1)
    assert running.get()["word"] == "one"
    found = door.get("/v1/status").json()
    assert found["labels"] == {"stable": 1}
    assert found["versions"]["1"] == {"state": State.AVAILABLE, "error": ""}
    assert [worker["pid"] for worker in found["workers"]] == running.pids()


def test_a_label_is_moved(door: httpx.Client, running: Server) -> None:
    answer = door.post("/v1/labels/stable", json={"version": 1})
    assert (answer.status_code, answer.json()) == (200, {"labels": {"stable": 1}})
    running.wait_for(stable=1)
    assert running.registry.history("stable")[-1].why == "administrator"


def test_a_reload_brings_new_workers_of_the_same_version(
    door: httpx.Client, running: Server
) -> None:
    old = running.status().workers
    assert door.post("/v1/reload").json() == {"labels": {"stable": 2}}
    wait_until(
        lambda: running.serves(stable=2) and not set(running.pids()) & {w.pid for w in old},
        "all workers are new",
    )
    assert {worker.generation for worker in running.status().workers} == {old[0].generation + 1}


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/v1/labels/stable", {"version": 9}, 404, "there is no version 9"),
        ("/v1/labels/Stable", {"version": 1}, 400, "label 'Stable'"),
        ("/v1/labels/stable", {"version": "1"}, 400, "version: input should be a valid integer"),
        ("/v1/labels/stable", {"version": 0}, 400, "version: input should be greater than"),
        ("/v1/labels/stable", {"version": 2**63}, 400, "version: input should be less than"),
        ("/v1/labels/stable", {"version": 1, "more": 1}, 400, "more: extra inputs"),
        ("/v1/labels/stable", "{", 400, "json"),
        ("/v1/rollback", {}, 400, "label: field required"),
        ("/v1/rollback", {"label": "nobody"}, 404, "no version is labelled 'nobody'"),
        ("/v1/rollback", {"label": "stable", "to": 7}, 409, "cannot go back to version 7"),
        ("/v1/nowhere", {}, 404, "not found"),
    ],
)
def test_a_mistake_is_told_and_changes_nothing(
    path: str, body: object, status: int, said: str, door: httpx.Client, running: Server
) -> None:
    content = {"content": body} if isinstance(body, str) else {"json": body}
    answer = door.post(path, headers={"Content-Type": "application/json"}, **content)
    assert answer.status_code == status
    assert said in answer.json()["error"].lower() or said in answer.json()["error"]
    assert running.registry.labels() == {"stable": 2}


def test_a_token_is_long_or_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert admin_token() is None
    monkeypatch.setenv(VARIABLE, "x" * 16)
    assert admin_token() == "x" * 16
    for short in ("", "x" * 15):
        monkeypatch.setenv(VARIABLE, short)
        with pytest.raises(InvalidArgument, match=f"expected at least 16 .* got {len(short)}"):
            admin_token()
