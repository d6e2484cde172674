"""A SavedModel called by signature: the answers are its own, what does not fit is refused."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.errors import InvalidArgument, PlatformError
from mlplatform.serving.servable import Servable, Unserved
from mlplatform.serving.signature import MAX_ELEMENTS, TensorSpec
from tests.platform.serving.small_models import half_plus, odd_ones, tf

WORDS = np.array([b"a", b"b\x00"], object)
PAIRS = np.array([[1, 2], [3, 4]], np.float32)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return half_plus(tmp_path_factory.mktemp("line") / "model", 2)


@pytest.fixture(scope="module")
def line(path: Path) -> Servable:
    return Servable("line", 1, path)


@pytest.fixture(scope="module")
def loaded(path: Path) -> Any:
    return tf.saved_model.load(str(path))


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Servable:
    return Servable("odd", 7, odd_ones(tmp_path_factory.mktemp("odd") / "model"))


def refusal(
    servable: Servable, signature: str, *, outputs: list[str] | None = None, **inputs: Any
) -> str:
    with pytest.raises(InvalidArgument) as refused:
        servable.predict(signature, inputs, outputs or [])
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_signature_answers_by_the_names_of_its_outputs(line: Servable) -> None:
    found = line.predict("serving_default", {"x": np.array([1, 2, 5], np.float32)})
    assert {name: array.tolist() for name, array in found.items()} == {"y": [2.5, 3.0, 4.5]}
    assert found["y"].dtype == np.float32


@settings(deadline=None)
@given(st.lists(st.floats(width=32), max_size=5))
def test_answers_are_those_of_the_saved_model_to_the_bit(
    line: Servable, loaded: Any, values: list[float]
) -> None:
    x = np.array(values, np.float32)
    expected = loaded.signatures["serving_default"](x=tf.constant(x))["y"].numpy()
    assert line.predict("serving_default", {"x": x})["y"].tobytes() == expected.tobytes()


def test_strings_go_in_and_come_out_as_bytes(odd: Servable) -> None:
    found = odd.predict("weigh", {"pair": PAIRS, "tag": WORDS})
    assert found["total"].tolist() == [3.0, 7.0]
    assert found["tag"].tolist() == [b"a", b"b\x00"]
    scalar = odd.predict("keep", {"word": np.array(b"b\x00", object)})["word"]
    assert (scalar.shape, scalar.item()) == ((), b"b\x00")


def test_only_the_outputs_asked_for_are_answered_in_their_order(odd: Servable) -> None:
    inputs = {"pair": PAIRS, "tag": WORDS}
    assert list(odd.predict("weigh", inputs, ["total", "tag"])) == ["total", "tag"]
    assert list(odd.predict("weigh", inputs)) == ["tag", "tag_bytes", "total"]
    told = refusal(odd, "weigh", pair=PAIRS, tag=WORDS, outputs=["other"])
    assert told == (
        "output tensor alias not found in signature: other Outputs expected to be in the set "
        "{tag,tag_bytes,total}."
    )
    told = refusal(odd, "weigh", pair=PAIRS, tag=WORDS, outputs=["tag", "tag"])
    assert told == "duplicate output tensor alias in {tag,tag}"


def test_a_signature_that_is_not_there_is_refused_with_those_that_are(line: Servable) -> None:
    assert refusal(line, "other", x=PAIRS) == (
        'Serving signature name: "other" not found in signature def; expected one of '
        "{serving_default}"
    )
    assert "not found in signature def" in refusal(line, "__saved_model_init_op")


def test_inputs_of_other_names_are_refused(odd: Servable) -> None:
    assert refusal(odd, "weigh", pair=PAIRS, other=WORDS) == (
        "inputs do not match signature: expected {pair,tag}. Sent extra: {other}. "
        "Missing but required: {tag}."
    )


@pytest.mark.parametrize(
    ("x", "told"),
    [
        (np.zeros(2), "input 'x': expected float32, got float64"),
        (np.array([b"1"], object), "input 'x': expected float32, got string"),
        (np.float32(1), "input 'x': expected shape [?], got []"),
        (np.zeros((2, 1), np.float32), "input 'x': expected shape [?], got [2,1]"),
    ],
)
def test_an_input_of_another_type_or_shape_is_refused(line: Servable, x: Any, told: str) -> None:
    assert refusal(line, "serving_default", x=np.asarray(x)) == told


def test_a_dimension_of_another_size_is_refused(odd: Servable) -> None:
    told = refusal(odd, "weigh", pair=np.zeros((2, 3), np.float32), tag=WORDS)
    assert told == "input 'pair': expected shape [?,2], got [2,3]"


def test_more_elements_than_a_request_may_have_are_refused(line: Servable) -> None:
    x = np.zeros(MAX_ELEMENTS + 1, np.float32)
    assert line.predict("serving_default", {"x": x[1:]})["y"].shape == (MAX_ELEMENTS,)
    assert f"got {MAX_ELEMENTS + 1}" in refusal(line, "serving_default", x=x)


def test_what_the_model_itself_refuses_is_the_callers_mistake(odd: Servable) -> None:
    told = refusal(odd, "look_up", row=np.array([0, 3], np.int32))
    assert told == "odd: indices[1] = 3 is not in [0, 3)"


def test_signatures_are_told_without_what_may_vary(odd: Servable) -> None:
    found = odd.signature("weigh")
    assert found.inputs == {
        "pair": TensorSpec("float32", (None, 2)),
        "tag": TensorSpec("string", (None,)),
    }
    assert found.method == "tensorflow/serving/predict"


def test_classify_and_regress_are_refused_by_the_signatures_method(odd: Servable) -> None:
    with pytest.raises(InvalidArgument, match="Expected classify signature method_name"):
        odd.refuse("classify", "regress")
    with pytest.raises(Unserved, match="regress is not served; ask predict"):
        odd.refuse("regress", "regress")


@pytest.mark.parametrize("damage", ["nothing there", "saved_model.pb", "variables"])
def test_a_damaged_model_is_an_error_that_tells_no_path(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "model"
    if damage != "nothing there":
        half_plus(path, 2)
    if damage == "saved_model.pb":
        (path / "saved_model.pb").write_bytes(b"no message")
    if damage == "variables":
        for file in (path / "variables").iterdir():
            file.write_bytes(b"no variables")
    with caplog.at_level(logging.ERROR), pytest.raises(PlatformError) as error:
        Servable("line", 3, path).predict("serving_default", {"x": np.zeros(1, np.float32)})
    assert str(error.value) == (
        "version 3 of model line cannot be loaded; the server's log says why"
    )
    assert str(path) in caplog.text
