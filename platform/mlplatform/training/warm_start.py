"""Warm start: a new model begins with what its parent had learned (TFX, KDD 2017, section 4.2).

Enters: a new model's variables with their optimizers' slots, the state that the parent's training
ended in, and for both what the rows of their tables stand for.  Leaves: the variables set, and an
account of it.

Variables are found by name.  In a table of weights every row follows its key: the vocabularies of
parent and child may have gained, lost and reordered values.  The slots of a row follow with it, so
that a key seen often keeps learning slowly and a new one begins fast.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mlplatform.errors import DataCorrupt, FailedPrecondition
from mlplatform.training.state import TrainingState, Variables
from mlplatform.transform.feature import OUT_OF_VOCABULARY
from mlplatform.transform.row_keys import NO_ROW, RowKeys, match_rows

Array = NDArray[Any]


@dataclass(frozen=True)
class Rows:
    """What the rows of a model's variables stand for.

    tables: of each table of weights, by the variable's name, the features whose codes are its rows,
        one feature's after another's.
    keys: what the codes of these features stand for.
    hashes: of each variable whose rows are buckets of a hash of something else, how that is hashed:
        variables with the same words have the same meaning.
    transform: the fingerprint of the transform that gives the codes.
    """

    tables: Mapping[str, tuple[str, ...]]
    keys: Mapping[str, RowKeys]
    transform: str
    hashes: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "tables": {name: list(features) for name, features in self.tables.items()},
            "keys": {name: keys.to_json() for name, keys in self.keys.items()},
            "transform": self.transform,
            "hashes": dict(self.hashes),
        }

    @classmethod
    def from_json(cls, content: Any) -> Self:
        """Raises DataCorrupt: the content is not what `to_json` gives."""
        try:
            return cls(
                {name: tuple(features) for name, features in content["tables"].items()},
                {name: RowKeys.from_json(keys) for name, keys in content["keys"].items()},
                str(content["transform"]),
                dict(content["hashes"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise DataCorrupt(
                "rows of a training state: expected tables, keys, transform and hashes, got other "
                f"JSON ({type(error).__name__}: {error}); train a new version"
            ) from error

    def blocks(self, table: str) -> Iterator[tuple[str, slice]]:
        """Each feature of a table and its rows there."""
        start = 0
        for feature in self.tables[table]:
            end = start + self.keys[feature].cardinality
            yield feature, slice(start, end)
            start = end


@dataclass(frozen=True)
class Followed:
    """How many rows of a feature went on, are new, and were dropped."""

    kept: int
    new: int
    dropped: int


@dataclass
class WarmStart:
    """What came of a warm start.

    copied: variables taken over as they were.
    rows: by 'variable: feature', of the tables whose rows followed their keys.
    cold: by 'variable' or 'variable: feature', why it begins anew.
    """

    copied: list[str] = field(default_factory=list)
    rows: dict[str, Followed] = field(default_factory=dict)
    cold: dict[str, str] = field(default_factory=dict)


def warm_start(
    variables: Variables,
    slots: Mapping[str, Variables],
    rows: Rows,
    parent: TrainingState,
    *,
    strict: bool = False,
) -> WarmStart:
    """Set the variables and slots of a new model from its parent's state.

    A value that is new to a vocabulary begins as what was out of it did, with fresh slots.  What
    cannot be mapped keeps the value that the model was built with.

    Args:
        variables, slots: by name, and by name and slot, as `training.trainer.train` gives them.
        rows: of the new model.
        strict: refuse to begin anything anew.

    Raises:
        FailedPrecondition: strict, and something has no counterpart that fits; all of it is named.
        DataCorrupt: the parent's state is damaged.
    """
    report = WarmStart()
    old = Rows.from_json(parent.rows)
    known = set(parent.names)
    changes: list[tuple[Any, Array]] = []
    for name, variable in variables.items():
        if name not in known:
            report.cold[name] = "the parent has no variable of this name"
            continue
        value, of_slots = parent.value(name), parent.slots(name)
        targets = {"": variable, **slots.get(name, {})}
        sources = {"": value, **of_slots}
        if name in rows.tables and name in old.tables:
            if value.shape[1:] != tuple(variable.shape[1:]):
                report.cold[name] = _shapes(value, variable)
                continue
            source, fallback = _follow(name, rows, old, report)
            changes += _moved(targets, sources, source, fallback)
        elif (name in rows.tables) != (name in old.tables):
            report.cold[name] = "its rows are keyed in one of the two models alone"
        elif value.shape != tuple(variable.shape):
            report.cold[name] = _shapes(value, variable)
        elif rows.hashes.get(name) != old.hashes.get(name):
            report.cold[name] = (
                f"its rows are another hash's: {old.hashes.get(name)} in the parent, "
                f"{rows.hashes.get(name)} here"
            )
        else:
            report.copied.append(name)
            changes += [(targets[slot], sources[slot]) for slot in targets.keys() & sources.keys()]
    if strict and report.cold:
        reasons = "; ".join(f"{name}: {why}" for name, why in report.cold.items())
        raise FailedPrecondition(
            f"{parent.directory}: not all of the model can begin with what this state has "
            f"({reasons}); allow a cold start of these, or keep the model as it was"
        )
    # Only now, so that a refused warm start has changed nothing.
    for target, values in changes:
        target.assign(values)
    return report


def _follow(name: str, rows: Rows, old: Rows, report: WarmStart) -> tuple[Array, Array]:
    """For each row of a table the parent's row, or NO_ROW; and the parent's row for its value.

    The two differ where a key is new: its value is taken from what was out of the vocabulary, its
    slots from nowhere.
    """
    places = dict(old.blocks(name))
    sources, fallbacks = [], []
    for feature, block in rows.blocks(name):
        source = np.full(block.stop - block.start, NO_ROW)
        fallback = source.copy()
        where = f"{name}: {feature}"
        if feature not in places:
            report.cold[where] = "the parent's table lacks this feature"
        elif (matched := match_rows(old.keys[feature], rows.keys[feature])) is None:
            report.cold[where] = (
                f"its codes mean something else: {_meaning(old.keys[feature])} in the parent, "
                f"{_meaning(rows.keys[feature])} here"
            )
        else:
            first = places[feature].start
            is_new = matched == NO_ROW
            source = np.where(is_new, NO_ROW, matched + first)
            fallback = np.where(is_new, OUT_OF_VOCABULARY + first, source)
            n_kept = len(np.unique(matched[~is_new]))
            report.rows[where] = Followed(
                int((~is_new).sum()), int(is_new.sum()), old.keys[feature].cardinality - n_kept
            )
        sources.append(source)
        fallbacks.append(fallback)
    return np.concatenate(sources), np.concatenate(fallbacks)


def _moved(
    targets: Mapping[str, Any], sources: Mapping[str, Array], source: Array, fallback: Array
) -> Iterator[tuple[Any, Array]]:
    """Each variable of a table, its value first, and what it becomes."""
    for slot in targets.keys() & sources.keys():
        rows = fallback if slot == "" else source
        values = targets[slot].numpy()
        followed = rows != NO_ROW
        values[followed] = sources[slot][rows[followed]]
        yield targets[slot], values


def _shapes(value: Array, variable: Any) -> str:
    return f"its shape is {list(value.shape)} in the parent, {variable.shape.as_list()} here"


def _meaning(keys: RowKeys) -> str:
    match keys.kind:
        case "hashed":
            return f"{keys.buckets} buckets of a hash with salt {keys.salt}"
        case "vocabulary":
            return "the values of a vocabulary"
        case "buckets":
            return "stretches of a quantity"
