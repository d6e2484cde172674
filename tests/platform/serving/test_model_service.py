"""ModelService over gRPC, asked by TensorFlow Serving's own stubs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from tensorflow.core.protobuf import error_codes_pb2
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
)

from mlplatform.serving.model_service import model_service
from mlplatform.serving.servables import Servables
from mlplatform.serving.status import State, VersionStatus
from tests.platform.serving.grpc_listening import LIMIT_S, channel_to

STATES = get_model_status_pb2.ModelVersionStatus


@pytest.fixture(scope="module")
def stub() -> Iterator[Any]:
    states = {
        1: VersionStatus(State.UNLOADING),
        3: VersionStatus(State.END, "out of memory"),
        4: VersionStatus(State.LOADING),
        5: VersionStatus(State.START),
    }
    paths = {"line": {1: Path("one"), 2: Path("two")}}  # nothing here loads them
    served = Servables(paths, {"stable": 2}, lambda: states)
    with channel_to([model_service(served)]) as channel:
        yield model_service_pb2_grpc.ModelServiceStub(channel)
    served.close()


def asking(name: str, **choice: Any) -> Any:
    asked = get_model_status_pb2.GetModelStatusRequest()
    asked.model_spec.name = name
    if "version" in choice:
        asked.model_spec.version.value = choice["version"]
    if "label" in choice:
        asked.model_spec.version_label = choice["label"]
    return asked


def test_the_status_has_every_versions_state(stub: Any) -> None:
    found = stub.GetModelStatus(asking("line"), LIMIT_S).model_version_status
    assert [(each.version, each.state) for each in found] == [
        (5, STATES.START),
        (4, STATES.LOADING),
        (3, STATES.END),
        (2, STATES.AVAILABLE),
        (1, STATES.UNLOADING),
    ]
    assert [each.status.error_message for each in found] == ["", "", "out of memory", "", ""]
    codes = {each.version: each.status.error_code for each in found}
    assert codes[3] == error_codes_pb2.UNKNOWN
    assert codes[2] == error_codes_pb2.OK


@pytest.mark.parametrize("choice", [{"version": 2}, {"label": "stable"}])
def test_the_status_of_one_version_is_asked_by_number_or_label(
    stub: Any, choice: dict[str, Any]
) -> None:
    (found,) = stub.GetModelStatus(asking("line", **choice), LIMIT_S).model_version_status
    assert (found.version, found.state) == (2, STATES.AVAILABLE)


@pytest.mark.parametrize(
    ("asked", "code", "told"),
    [
        (asking("other"), "NOT_FOUND", "Could not find any versions of model other"),
        (asking("line", version=9), "NOT_FOUND", "Could not find version 9 of model line"),
        (asking("line", label="x"), "INVALID_ARGUMENT", "Unrecognized servable version label: x"),
        (asking(""), "INVALID_ARGUMENT", "ModelSpec has no name specified."),
    ],
)
def test_the_status_of_what_is_not_served_is_an_error(
    stub: Any, asked: Any, code: str, told: str
) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        stub.GetModelStatus(asked, LIMIT_S)
    error: Any = refused.value
    assert (error.code(), error.details()) == (grpc.StatusCode[code], told)


def test_a_new_configuration_is_refused(stub: Any) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        stub.HandleReloadConfigRequest(model_management_pb2.ReloadConfigRequest(), LIMIT_S)
    error: Any = refused.value
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert "move a label" in error.details()
