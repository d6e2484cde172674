"""Exported models that are the same bytes each time, so that an artifact's hash says what it holds.

Enters: a traced module and its signatures.  Leaves: a SavedModel.
"""

import re
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf import text_format
from tensorflow.core.protobuf import saved_model_pb2

# TensorFlow ends the names of functions, tables, initializers and captured tensors with a number
# that it counts up over a process, whatever the process did before.
COUNTED = re.compile(
    r'("__[\w<>]+?_(?=\d+")'
    r"|\bkey_value_init"
    r'|key: "(?:shared|_user_specified)_name"\s+value \{\s+s: ")(\d+)'
)


def save_model(module: tf.Module, directory: Path, signatures: dict[str, Any]) -> None:
    """Save `module`; what it writes depends on the module alone, not on what was traced before.

    `fingerprint.pb` is left out: it is optional, and bears a random number.
    """
    tf.saved_model.save(module, str(directory), signatures=signatures)
    (directory / "fingerprint.pb").unlink()
    path = directory / "saved_model.pb"
    model = _count_anew(saved_model_pb2.SavedModel.FromString(path.read_bytes()))
    path.write_bytes(model.SerializeToString(deterministic=True))


def _count_anew(model: Any) -> Any:
    """Number what TensorFlow counted 0, 1, 2, … in the same order."""
    text = text_format.MessageToString(model)
    counts = sorted({int(count) for _, count in COUNTED.findall(text)})
    new = {str(count): number for number, count in enumerate(counts)}
    text = COUNTED.sub(lambda match: f"{match[1]}{new[match[2]]}", text)
    model = text_format.Parse(text, saved_model_pb2.SavedModel())
    for graph in model.meta_graphs:
        graph.graph_def.library.function.sort(key=lambda function: function.signature.name)
    return model
