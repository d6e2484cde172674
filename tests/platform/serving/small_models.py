"""SavedModels small enough to know their answers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tensorflow.core.protobuf import saved_model_pb2

from mlplatform.training.export import save_model
from mlplatform.training.runtime import tensorflow

tf = tensorflow()
Spec = tf.TensorSpec


def save(path: Path, signatures: dict[str, tuple[Callable[..., Any], list[Any]]]) -> Path:
    """Functions by signature, each with the specs of its inputs."""
    save_model(
        tf.Module(),
        path,
        {n: tf.function(f, input_signature=specs) for n, (f, specs) in signatures.items()},
    )
    return path


def half_plus(path: Path, constant: float) -> Path:
    """y = 0.5 * x + constant: the model of TensorFlow Serving's documentation."""

    def line(x: Any) -> Any:
        return {"y": 0.5 * x + constant}

    return save(path, {"serving_default": (line, [Spec([None], tf.float32, "x")])})


def odd_ones(path: Path) -> Path:
    """Signatures of several inputs, several outputs, no rows, text, a lookup, a method."""

    def weigh(pair: Any, tag: Any) -> Any:
        return {"total": tf.reduce_sum(pair, axis=1), "tag": tag, "tag_bytes": tag}

    def total(x: Any) -> Any:
        return {"total": tf.reduce_sum(x)}

    def divide(x: Any) -> Any:
        return {"y": 1.0 / x}

    def look_up(row: Any) -> Any:
        return {"value": tf.gather(tf.constant([10, 20, 30]), row)}

    def keep(word: Any) -> Any:
        return {"word": word}

    def double(z: Any) -> Any:
        return {"z": 2 * z}

    save(
        path,
        {
            "weigh": (
                weigh,
                [Spec([None, 2], tf.float32, "pair"), Spec([None], tf.string, "tag")],
            ),
            "total": (total, [Spec([None], tf.int64, "x")]),
            "divide": (divide, [Spec([None], tf.float32, "x")]),
            "look_up": (look_up, [Spec([None], tf.int32, "row")]),
            "keep": (keep, [Spec([], tf.string, "word")]),
            "double": (double, [Spec([None], tf.complex64, "z")]),
            "regress": (total, [Spec([None], tf.int64, "x")]),
        },
    )
    file = path / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    model.meta_graphs[0].signature_def["regress"].method_name = "tensorflow/serving/regress"
    file.write_bytes(model.SerializeToString())
    return path
