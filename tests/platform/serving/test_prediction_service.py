"""PredictionService over gRPC, asked by TensorFlow Serving's own stubs as its clients do."""

import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    inference_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from mlplatform.serving.prediction_service import prediction_service
from mlplatform.serving.servables import MAX_WAITING, Servables
from mlplatform.serving.signature import MAX_ELEMENTS
from tests.platform.serving.grpc_listening import LIMIT_S, channel_to
from tests.platform.serving.small_models import half_plus, odd_ones, tf

CODES = grpc.StatusCode


@pytest.fixture(scope="module")
def servables(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servables]:
    folder = tmp_path_factory.mktemp("models")
    served = Servables(
        {
            "line": {1: half_plus(folder / "1", 2), 2: half_plus(folder / "2", 3)},
            "odd": {1: odd_ones(folder / "odd")},
        },
        {"stable": 1},
    )
    yield served
    served.close()


@pytest.fixture(scope="module")
def stub(servables: Servables) -> Iterator[Any]:
    with channel_to([prediction_service(servables)]) as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


def request(model: str, signature: str = "", **inputs: Any) -> Any:
    asked = predict_pb2.PredictRequest()
    asked.model_spec.name = model
    asked.model_spec.signature_name = signature
    for name, value in inputs.items():
        asked.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return asked


def line(*x: float) -> Any:
    return request("line", "serving_default", x=np.array(x, np.float32))


def refusal(call: Any, asked: Any, code: grpc.StatusCode = CODES.INVALID_ARGUMENT) -> str:
    with pytest.raises(grpc.RpcError) as refused:
        call(asked, LIMIT_S)
    error: Any = refused.value
    assert error.code() == code, error
    details: str = error.details()
    assert details and "\n" not in details
    return details


def test_the_documentations_client_gets_its_answer(stub: Any) -> None:
    asked = predict_pb2.PredictRequest()
    asked.model_spec.name = "line"
    asked.model_spec.signature_name = "serving_default"
    asked.inputs["x"].CopyFrom(tf.make_tensor_proto([1.0, 2.0, 5.0], shape=[3]))
    response = stub.Predict(asked, 10.0)
    assert list(response.outputs["y"].float_val) == [3.5, 4.0, 5.5]
    assert tf.make_ndarray(response.outputs["y"]).tolist() == [3.5, 4.0, 5.5]


def test_an_answer_says_which_version_and_signature_it_is_of(stub: Any) -> None:
    asked = line(1.0)
    asked.model_spec.ClearField("signature_name")
    spec = stub.Predict(asked, LIMIT_S).model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("line", 2, "serving_default")


def test_a_version_is_asked_by_number_or_by_label(stub: Any) -> None:
    by_number, by_label = line(1.0), line(1.0)
    by_number.model_spec.version.value = 1
    by_label.model_spec.version_label = "stable"
    for asked in (by_number, by_label):
        response = stub.Predict(asked, LIMIT_S)
        assert response.model_spec.version.value == 1
        assert list(response.outputs["y"].float_val) == [2.5]


def test_a_version_of_zero_is_a_version_and_not_the_latest(stub: Any) -> None:
    asked = line(1.0)
    asked.model_spec.version.value = 0
    told = refusal(stub.Predict, asked, CODES.NOT_FOUND)
    assert told == "Servable not found for request: Specific(line, 0)"


@settings(deadline=None)
@given(st.lists(st.floats(width=32), max_size=5))
def test_answers_are_the_models_own_to_the_bit(stub: Any, x: list[float]) -> None:
    found = tf.make_ndarray(stub.Predict(line(*x), LIMIT_S).outputs["y"])
    with np.errstate(invalid="ignore"):
        expected = np.array(x, np.float32) * np.float32(0.5) + np.float32(3)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("signature", "inputs", "expected"),
    [
        (
            "weigh",
            {"pair": np.ones((2, 2), np.float32), "tag": [b"a", b"\xff\x00"]},
            {
                "total": np.array([2, 2], np.float32),
                "tag": np.array([b"a", b"\xff\x00"], object),
                "tag_bytes": np.array([b"a", b"\xff\x00"], object),
            },
        ),
        ("total", {"x": np.array([2**40, 5])}, {"total": np.array(2**40 + 5)}),
        ("keep", {"word": b"b"}, {"word": np.array(b"b", object)}),
        ("double", {"z": np.array([1j], np.complex64)}, {"z": np.array([2j], np.complex64)}),
        ("divide", {"x": np.zeros(0, np.float32)}, {"y": np.zeros(0, np.float32)}),
    ],
)
def test_tensors_of_any_type_go_both_ways(
    stub: Any, signature: str, inputs: dict[str, Any], expected: dict[str, NDArray[Any]]
) -> None:
    response = stub.Predict(request("odd", signature, **inputs), LIMIT_S)
    found = {name: tf.make_ndarray(tensor) for name, tensor in response.outputs.items()}
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        assert np.asarray(found[name]).shape == array.shape
        assert np.asarray(found[name]).tolist() == array.tolist()


def test_only_the_outputs_asked_for_are_answered(stub: Any) -> None:
    asked = request("odd", "weigh", pair=np.ones((1, 2), np.float32), tag=[b"a"])
    asked.output_filter.append("total")
    assert list(stub.Predict(asked, LIMIT_S).outputs) == ["total"]
    asked.output_filter.append("other")
    assert "alias not found in signature: other" in refusal(stub.Predict, asked)


def test_what_does_not_fit_the_signature_is_refused(stub: Any) -> None:
    told = refusal(stub.Predict, request("line", x=np.array([1.0])))
    assert told == "input 'x': expected float32, got float64"
    told = refusal(stub.Predict, request("line", x=np.float32(1)))
    assert told == "input 'x': expected shape [?], got []"
    told = refusal(stub.Predict, request("line", y=np.float32(1)))
    assert "Sent extra: {y}. Missing but required: {x}." in told
    told = refusal(stub.Predict, request("odd", "look_up", row=np.array([3], np.int32)))
    assert told == "odd: indices[0] = 3 is not in [0, 3)"
    assert "not found in signature def" in refusal(stub.Predict, request("odd"))
    assert refusal(stub.Predict, request("")) == "ModelSpec has no name specified."


def test_what_is_not_served_is_not_found(stub: Any) -> None:
    told = refusal(stub.Predict, request("half"), CODES.NOT_FOUND)
    assert told == "Servable not found for request: Latest(half)"
    asked = line(1.0)
    asked.model_spec.version_label = "nope"
    assert refusal(stub.Predict, asked) == "Unrecognized servable version label: nope"


def tensor(sizes: list[int], values: list[float], content: bytes = b"", dtype: int = 1) -> Any:
    found = tensor_pb2.TensorProto(dtype=dtype, float_val=values, tensor_content=content)
    for size in sizes:
        found.tensor_shape.dim.add().size = size
    return found


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (tensor([MAX_ELEMENTS + 1], [1.0]), "at most 262144 elements"),  # a few bytes for 1 MiB
        (tensor([2**40, 2**40], [1.0]), "at most 262144 elements"),
        (tensor([-1], [1.0]), "expected a known shape, got [-1]"),
        (tensor([-(2**40), -(2**40)], [1.0]), "expected a known shape"),
        (tensor([2], [1.0, 2.0, 3.0]), "input 'x': not a tensor"),
        (tensor([2], [], b"abc"), "input 'x': not a tensor"),
        (tensor([1], [1.0], dtype=20), "input 'x'"),  # DT_RESOURCE
        (tensor([1], [1.0], dtype=0), "input 'x'"),  # none
        (tensor([1], [1.0], dtype=99), "input 'x'"),  # no such
        (tensor([1] * 100, [1.0]), "input 'x'"),  # more dimensions than an array has
    ],
)
def test_what_is_no_tensor_is_refused(stub: Any, sent: Any, told: str) -> None:
    asked = line()
    asked.inputs["x"].CopyFrom(sent)
    assert told in refusal(stub.Predict, asked)


def test_one_value_may_stand_for_all_of_a_small_tensor(stub: Any) -> None:
    asked = line()
    asked.inputs["x"].CopyFrom(tensor([3], [1.0]))
    assert list(stub.Predict(asked, LIMIT_S).outputs["y"].float_val) == [3.5, 3.5, 3.5]


def test_metadata_are_the_signatures_of_the_model(stub: Any) -> None:
    asked = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    asked.model_spec.name = "line"
    response = stub.GetModelMetadata(asked, LIMIT_S)
    assert (response.model_spec.name, response.model_spec.version.value) == ("line", 2)
    found = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(found)
    signature = found.signature_def["serving_default"]
    assert signature.method_name == "tensorflow/serving/predict"
    assert signature.inputs["x"].dtype == tf.float32.as_datatype_enum
    assert [d.size for d in signature.inputs["x"].tensor_shape.dim] == [-1]


@pytest.mark.parametrize("fields", [[], ["other"], ["signature_def", "other"]])
def test_metadata_of_other_fields_are_refused(stub: Any, fields: list[str]) -> None:
    asked = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
    asked.model_spec.name = "line"
    assert "expected the metadata_field 'signature_def'" in refusal(stub.GetModelMetadata, asked)


def test_what_is_not_served_says_so(stub: Any) -> None:
    classify, regress = (
        classification_pb2.ClassificationRequest(),
        regression_pb2.RegressionRequest(),
    )
    classify.model_spec.name = "line"
    assert "Was: tensorflow/serving/predict" in refusal(stub.Classify, classify)
    regress.model_spec.name, regress.model_spec.signature_name = "odd", "regress"
    assert "ask predict" in refusal(stub.Regress, regress, CODES.UNIMPLEMENTED)
    multi = inference_pb2.MultiInferenceRequest()
    refusal(stub.MultiInference, multi, CODES.UNIMPLEMENTED)


def test_who_comes_when_enough_wait_is_refused(stub: Any, servables: Servables) -> None:
    go = threading.Event()
    blocked = servables._thread.submit(go.wait, LIMIT_S)
    with ThreadPoolExecutor(MAX_WAITING + 1) as clients:
        calls = [clients.submit(stub.Predict, line(1.0), LIMIT_S) for _ in range(MAX_WAITING + 1)]
        # All wait for the thread, but for the one for which there is no room.
        (refused,), waiting = wait(calls, LIMIT_S, FIRST_COMPLETED)
        error: Any = refused.exception()
        go.set()
        answers = [call.result(LIMIT_S).outputs["y"].float_val for call in waiting]
    assert blocked.result()
    assert error.code() == CODES.RESOURCE_EXHAUSTED
    assert [list(answer) for answer in answers] == [[3.5]] * MAX_WAITING
