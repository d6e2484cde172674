"""The state of training: names of variables, and what is kept of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mlplatform.artifacts import hash_files
from mlplatform.errors import DataCorrupt, InvalidArgument, NotFound
from mlplatform.training.state import TrainingState, named_variables, save_state, slots_of
from tests.platform.training.models import Clicks, LinearRegression, legacy, tf

ROWS = {"table": ["a", "b", "c"]}


def saved(directory: Path, model: Any = None) -> TrainingState:
    model = model or Clicks()
    save_state(directory, named_variables(model), model.optimizers(), ROWS)
    return TrainingState.load(directory)


class TestNames:
    def test_a_name_is_the_path_of_attributes_keys_and_numbers(self) -> None:
        model = tf.Module()
        model.deep = tf.Module()
        model.deep.layers = [tf.Module(), tf.Module()]
        for layer in model.deep.layers:
            layer.kernel = tf.Variable(1.0)
        model.by_name = {"b": tf.Variable(2.0), "a": tf.Variable(3.0)}
        model.codes = tf.Variable([1, 2], trainable=False)
        found = named_variables(model)
        assert list(found) == [
            "by_name.a", "by_name.b", "deep.layers.0.kernel", "deep.layers.1.kernel",
        ]  # fmt: skip
        assert found["by_name.a"] is model.by_name["a"]
        assert found["deep.layers.1.kernel"] is model.deep.layers[1].kernel

    def test_a_shared_variable_has_the_shortest_of_its_names(self) -> None:
        model = tf.Module()
        model.a = tf.Module()
        model.a.inner = tf.Module()
        model.a.inner.table = tf.Variable([1.0])
        model.b = tf.Module()
        model.b.shared = model.a.inner.table
        assert list(named_variables(model)) == ["b.shared"]
        model._private = model.a.inner.table
        assert list(named_variables(model)) == ["b.shared"]

    def test_every_trainable_variable_of_keras_layers_has_a_name(self) -> None:
        layers = tf.keras.layers
        network = tf.keras.Sequential([layers.Dense(3), layers.BatchNormalization()])
        network(tf.zeros([2, 4]))
        model = tf.Module()
        model.network, model.first = network, network.layers[0]
        found = named_variables(model)
        assert {id(v) for v in found.values()} == {id(v) for v in model.trainable_variables}
        assert {"first.bias", "first.kernel"} < set(found) and len(found) == 4

    def test_two_variables_of_one_name_are_refused(self) -> None:
        model = tf.Module()
        model.d = {"a.b": tf.Variable(1.0), "a": {"b": tf.Variable(2.0)}}
        with pytest.raises(InvalidArgument, match=r"'d\.a\.b'.*rename"):
            named_variables(model)


class TestSlots:
    def test_every_variable_that_is_moved_has_its_optimizers_slots(self) -> None:
        model = Clicks()
        slots = slots_of(named_variables(model), model.optimizers())
        assert {name: sorted(kept) for name, kept in slots.items()} == {
            "table": ["accumulator", "linear"], "head.out": ["m", "v"], "head.bias": ["m", "v"],
        }  # fmt: skip
        assert slots["head.out"]["m"].shape == (4,)

    def test_a_variable_that_the_model_does_not_hold_is_refused(self) -> None:
        model = LinearRegression(2, 0.1)
        foreign = [(legacy.SGD(0.1), [tf.Variable(1.0, name="foreign")])]
        with pytest.raises(InvalidArgument, match=r"'foreign:0'.*does not hold"):
            slots_of(named_variables(model), foreign)

    def test_a_variable_that_two_optimizers_move_is_refused(self) -> None:
        model = LinearRegression(2, 0.1)
        twice = [(legacy.SGD(0.1), [model.bias]), (legacy.Adam(0.1), [model.bias])]
        with pytest.raises(InvalidArgument, match=r"'bias'.*another moves"):
            slots_of(named_variables(model), twice)


class TestKept:
    def test_values_and_slots_come_back_as_they_were(self, tmp_path: Path) -> None:
        model = tf.Module()
        model.w = tf.Variable([1.0, -2.0])
        adagrad = legacy.Adagrad(0.5, initial_accumulator_value=0.25)
        adagrad.apply_gradients([(tf.constant([3.0, 0.0]), model.w)])
        save_state(tmp_path / "s", named_variables(model), [(adagrad, [model.w])], ROWS)
        state = TrainingState.load(tmp_path / "s")
        assert state.names == ["w"]
        assert state.rows == ROWS
        # AdaGrad: the accumulator gains the gradient's square, the step is divided by its root.
        np.testing.assert_array_equal(state.slots("w")["accumulator"], np.float32([9.25, 0.25]))
        expected = [1.0 - 0.5 * 3.0 / 9.25**0.5, -2.0]
        np.testing.assert_allclose(state.value("w"), expected, rtol=1e-6)

    def test_a_variable_without_slots_has_none(self, tmp_path: Path) -> None:
        state = saved(tmp_path / "s", LinearRegression(3, 0.1))
        assert state.names == ["bias", "weights"]
        assert state.slots("weights") == {}

    def test_what_is_not_trained_is_not_kept(self, tmp_path: Path) -> None:
        state = saved(tmp_path / "s")
        assert state.names == ["head.bias", "head.out", "table"]
        keys = [name for name, _ in tf.train.list_variables(str(tmp_path / "s" / "state"))]
        assert not [key for key in keys if "shift" in key]

    def test_the_same_values_are_the_same_bytes_after_any_other_work(self, tmp_path: Path) -> None:
        saved(tmp_path / "first")
        for _ in range(200):  # so that the names TensorFlow counts come to have more digits
            legacy.Adam(0.1).apply_gradients([(tf.constant(1.0), tf.Variable(1.0))])
        saved(tmp_path / "second")
        assert hash_files(tmp_path / "first") == hash_files(tmp_path / "second")

    def test_other_values_are_other_bytes(self, tmp_path: Path) -> None:
        saved(tmp_path / "first")
        other = Clicks()
        other.head["bias"].assign(1e-30)
        saved(tmp_path / "other", other)
        assert hash_files(tmp_path / "first") != hash_files(tmp_path / "other")

    @settings(max_examples=25, deadline=None)
    @given(
        st.dictionaries(
            st.text("ab./_S", min_size=1, max_size=5),
            arrays.arrays(
                st.sampled_from([np.float32, np.float64]),
                arrays.array_shapes(min_dims=0, max_dims=3, max_side=3),
            ),
            min_size=1,
            max_size=4,
        )
    )
    def test_any_values_of_any_names_come_back_bit_for_bit(
        self, tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any]
    ) -> None:
        directory = tmp_path_factory.mktemp("state")
        variables = {name: tf.Variable(value) for name, value in values.items()}
        sgd = legacy.SGD(0.1, momentum=0.9)
        save_state(directory, variables, [(sgd, list(variables.values()))], {})
        state = TrainingState.load(directory)
        assert state.names == sorted(values)
        for name, value in values.items():
            assert state.value(name).dtype == value.dtype
            assert state.value(name).shape == value.shape
            assert state.value(name).tobytes() == value.tobytes()
            assert state.slots(name)["momentum"].shape == value.shape


class TestDamage:
    def refusal(self, directory: Path, error: type[Exception]) -> str:
        with pytest.raises(error) as raised:
            TrainingState.load(directory)
        assert "\n" not in str(raised.value)
        assert str(directory) in str(raised.value)
        return str(raised.value)

    def test_no_state_is_not_found(self, tmp_path: Path) -> None:
        assert "state.index" in self.refusal(tmp_path / "none", NotFound)

    def test_an_unknown_variable_is_not_found(self, tmp_path: Path) -> None:
        state = saved(tmp_path / "s")
        for ask in (state.value, state.slots):
            with pytest.raises(NotFound, match=r"'nothing'.*head\.bias, head\.out, table"):
                ask("nothing")

    @pytest.mark.parametrize("name", ["state.index", "state.data-00000-of-00001"])
    @pytest.mark.parametrize("place", [0.05, 0.5, 0.99])
    def test_a_bit_that_fell_over_is_told(self, tmp_path: Path, name: str, place: float) -> None:
        saved(tmp_path / "s")
        path = tmp_path / "s" / name
        content = bytearray(path.read_bytes())
        content[int(place * len(content))] ^= 4
        path.write_bytes(content)
        assert "not what was written" in self.refusal(tmp_path / "s", DataCorrupt)

    @pytest.mark.parametrize("name", ["state.index", "state.data-00000-of-00001"])
    def test_a_file_that_was_cut_off_is_told(self, tmp_path: Path, name: str) -> None:
        saved(tmp_path / "s")
        path = tmp_path / "s" / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        assert "not what was written" in self.refusal(tmp_path / "s", DataCorrupt)

    @pytest.mark.parametrize("name", ["rows.json", "state.data-00000-of-00001"])
    def test_a_missing_file_is_told(self, tmp_path: Path, name: str) -> None:
        saved(tmp_path / "s")
        (tmp_path / "s" / name).unlink()
        assert name.split(".")[0] in self.refusal(tmp_path / "s", DataCorrupt)

    @pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff"])
    def test_rows_that_are_no_json_object_are_told(self, tmp_path: Path, content: bytes) -> None:
        saved(tmp_path / "s")
        (tmp_path / "s" / "rows.json").write_bytes(content)
        assert "rows.json" in self.refusal(tmp_path / "s", DataCorrupt)
