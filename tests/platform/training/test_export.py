"""Exported models: the same bytes whatever the process traced before."""

from pathlib import Path

import pytest

from mlplatform.artifacts import hash_files
from mlplatform.training.export import save_model
from mlplatform.training.runtime import tensorflow

tf = tensorflow()


class Doubler(tf.Module):  # type: ignore[misc]  # TensorFlow has no types
    """A lookup table and two functions, one of which is called by the other."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = tf.Variable(factor)
        initializer = tf.lookup.KeyValueTensorInitializer(["one", "two"], tf.constant([1.0, 2.0]))
        self.table = tf.lookup.StaticHashTable(initializer, default_value=0.0)
        self.scale = tf.function(lambda x: x * self.factor)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "word")])  # type: ignore[untyped-decorator]
    def serve(self, word: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": self.scale(self.table.lookup(word))}


def save(path: Path, factor: float = 2.0) -> dict[str, str]:
    module = Doubler(factor)
    save_model(module, path, {"serve": module.serve})
    return hash_files(path)


def test_the_same_model_is_the_same_bytes_after_any_other_work(tmp_path: Path) -> None:
    first = save(tmp_path / "first")
    for _ in range(1000):  # so that the names TensorFlow counts come to have more digits
        tf.function(lambda x: x + 1).get_concrete_function(tf.TensorSpec([], tf.float32))
    assert save(tmp_path / "second") == first


def test_another_model_is_other_bytes(tmp_path: Path) -> None:
    assert save(tmp_path / "first") != save(tmp_path / "other", factor=3.0)


@pytest.mark.parametrize(("factor", "expected"), [(2.0, [2.0, 4.0, 0.0]), (3.0, [3.0, 6.0, 0.0])])
def test_the_saved_model_answers_as_the_module_does(
    tmp_path: Path, factor: float, expected: list[float]
) -> None:
    save(tmp_path / "model", factor)
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    answer = loaded.signatures["serve"](word=tf.constant(["one", "two", "three"]))
    assert answer["y"].numpy().tolist() == expected
