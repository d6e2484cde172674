"""The state of training: the variables that are trained, by name, with their optimizers' slots.

Enters: a model and its optimizers.  Leaves: a directory with a TensorFlow checkpoint (`state.*`)
and `rows.json`, the caller's word on what the rows of the variables stand for; later training
begins from it.  What a model holds beside (tables of codes, counters) is not part of it.
The same values are the same bytes.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlplatform.artifacts import read_json, to_json
from mlplatform.errors import DataCorrupt, InvalidArgument, NotFound
from mlplatform.training.runtime import tensorflow

Variables = dict[str, Any]  # by name: tf.Variable
Optimizers = Sequence[tuple[Any, list[Any]]]  # each optimizer with the variables that it moves

STATE = "state"
ROWS = "rows.json"
_KEY = re.compile(r"(variables|slots)/([^/]+)(?:/([^/]+))?/\.ATTRIBUTES/VARIABLE_VALUE")


def named_variables(model: Any) -> Variables:
    """The trainable variables of a tf.Module by attribute path, as 'deep.out.kernel', sorted.

    A variable that is reached by several paths has one name: of the paths with the fewest private
    parts the shortest, and of those the first.

    Raises:
        InvalidArgument: two variables have one name, as a dot in the key of a dict makes possible.
    """
    tf = tensorflow()

    def is_trainable(leaf: Any) -> bool:
        return isinstance(leaf, tf.Variable) and leaf.trainable

    def rank(path: tuple[str, ...]) -> tuple[int, int, tuple[str, ...]]:
        return sum(part.startswith("_") for part in path), len(path), path

    found: dict[int, tuple[tuple[str, ...], Any]] = {}
    for raw, variable in model._flatten(predicate=is_trainable, with_path=True):
        path = tuple(map(str, raw))
        if id(variable) not in found or rank(path) < rank(found[id(variable)][0]):
            found[id(variable)] = path, variable
    names: Variables = {}
    for path, variable in sorted(found.values(), key=lambda item: item[0]):
        name = ".".join(path)
        if name in names:
            raise InvalidArgument(
                f"two variables of {type(model).__name__} are named {name!r}; expected one, so "
                "rename an attribute or a key of a dict that has a dot in it"
            )
        names[name] = variable
    return dict(sorted(names.items()))


def slots_of(variables: Variables, optimizers: Optimizers) -> dict[str, dict[str, Any]]:
    """What the optimizers keep for each variable: name -> slot -> tf.Variable of its shape.

    Slots are made where there were none, as before the first step.

    Raises:
        InvalidArgument: an optimizer moves a variable that is not among `variables`, or that
            another one moves.
    """
    names = {id(variable): name for name, variable in variables.items()}
    slots: dict[str, dict[str, Any]] = {}
    for optimizer, group in optimizers:
        optimizer._create_all_weights(group)
        for variable in group:
            name = names.get(id(variable))
            if name is None or name in slots:
                fault = "that the model does not hold" if name is None else "that another moves"
                raise InvalidArgument(
                    f"an optimizer ({type(optimizer).__name__}) moves the variable "
                    f"{name or variable.name!r} {fault}; expected each one in one group"
                )
            slots[name] = {
                slot: optimizer.get_slot(variable, slot)
                for slot in sorted(optimizer.get_slot_names())
            }
    return slots


def save_state(
    directory: Path, variables: Variables, optimizers: Optimizers, rows: Mapping[str, Any]
) -> None:
    """Write variables and slots into `directory`, which is made; `rows` is kept as JSON.

    Raises:
        InvalidArgument: an optimizer moves a variable that is not among `variables`.
    """
    tf = tensorflow()
    directory.mkdir(parents=True, exist_ok=True)
    slots = slots_of(variables, optimizers)
    tf.train.Checkpoint(variables=variables, slots=slots).write(str(directory / STATE))
    (directory / ROWS).write_bytes(to_json(dict(rows)))


@dataclass(frozen=True)
class TrainingState:
    """A state that was saved; values are read from the disk when they are asked for."""

    directory: Path
    rows: Mapping[str, Any]
    _reader: Any
    _keys: Mapping[tuple[str, str], str]  # (name, slot or "" for the value) -> key in the file

    @classmethod
    def load(cls, directory: Path) -> "TrainingState":
        """Open what `save_state` wrote.

        Raises:
            NotFound: `directory` holds no state.
            DataCorrupt: one of its files is missing or damaged.
        """
        if not (directory / f"{STATE}.index").exists():
            raise NotFound(
                f"{directory}: no training state here, expected {STATE}.index; name the directory "
                "that a finished training wrote"
            )
        if not (directory / ROWS).exists():
            raise DataCorrupt(f"{directory / ROWS}: the file is missing; train anew")
        rows = read_json(directory / ROWS)
        if not isinstance(rows, dict):
            raise DataCorrupt(
                f"{directory / ROWS}: expected a JSON object, got {type(rows).__name__}; train anew"
            )
        reader = open_checkpoint(directory / STATE)
        matches = (_KEY.fullmatch(key) for key in reader.get_variable_to_shape_map())
        keys = {
            (_unescaped(match[2]), _unescaped(match[3] or "")): match[0]
            for match in matches
            if match is not None
        }
        return cls(directory, rows, reader, keys)

    @property
    def names(self) -> list[str]:
        """The names of the variables, sorted."""
        return sorted(name for name, slot in self._keys if not slot)

    def value(self, name: str) -> NDArray[Any]:
        """The value of a variable, in its shape and dtype.

        Raises:
            NotFound: there is no such variable.
        """
        return self._read(name, "")

    def slots(self, name: str) -> dict[str, NDArray[Any]]:
        """What its optimizer kept for a variable, by slot; empty where there was nothing.

        Raises:
            NotFound: there is no such variable.
        """
        self._key(name, "")
        found = sorted(slot for of, slot in self._keys if of == name and slot)
        return {slot: self._read(name, slot) for slot in found}

    def _key(self, name: str, slot: str) -> str:
        if (name, slot) not in self._keys:
            raise NotFound(
                f"{self.directory}: no variable {name!r}; the state has {', '.join(self.names)}"
            )
        return self._keys[name, slot]

    def _read(self, name: str, slot: str) -> NDArray[Any]:
        return np.asarray(self._reader.get_tensor(self._key(name, slot)))


def open_checkpoint(prefix: Path) -> Any:
    """A reader of TensorFlow's checkpoint; all of it was read against its checksums.

    Raises:
        DataCorrupt: a file is missing or damaged.
    """
    tf = tensorflow()
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        for key in reader.get_variable_to_shape_map():
            reader.get_tensor(key)
    # Its reader raises by the code of a status: IndexError where a file ends too early.
    except (tf.errors.OpError, IndexError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DataCorrupt(f"{prefix}.*: not what was written ({reason}); train anew") from error
    return reader


def _unescaped(name: str) -> str:
    """Undo TensorFlow's writing of names: '..' is a dot, '.S' a slash."""
    return re.sub(r"\.([.S])", lambda match: "." if match[1] == "." else "/", name)
