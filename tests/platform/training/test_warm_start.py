"""A warm start: every row and its slots follow their key, and what cannot follow is named."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.errors import DataCorrupt, FailedPrecondition
from mlplatform.training.runtime import tensorflow
from mlplatform.training.state import TrainingState, named_variables, save_state, slots_of
from mlplatform.training.warm_start import Followed, Rows, warm_start
from mlplatform.transform.row_keys import RowKeys

DIM = 3
HASHED = RowKeys("hashed", buckets=5, salt=1)
BUCKETS = RowKeys("buckets", limits=(0.0, 10.0))


class Net:
    """A model with a table of two features, a dense kernel and hashed weights, and two optimizers.

    Every number in it is different.
    """

    def __init__(self, keys: dict[str, RowKeys], *, start: float, kernel: int = 2) -> None:
        tf = tensorflow()
        import tf_keras

        self.module = tf.Module()
        n_rows = sum(one.cardinality for one in keys.values())
        self.module.table = tf.Variable(_numbers(start, (n_rows, DIM)))
        self.module.kernel = tf.Variable(_numbers(start + 1000, (kernel,)))
        self.module.weights = tf.Variable(_numbers(start + 2000, (6,)))
        legacy = tf_keras.optimizers.legacy
        self.optimizers = [
            (legacy.Adagrad(0.1, initial_accumulator_value=0.5),
             [self.module.table, self.module.kernel]),
            (legacy.Ftrl(0.1, initial_accumulator_value=0.5), [self.module.weights]),
        ]  # fmt: skip
        self.variables = named_variables(self.module)
        self.slots = slots_of(self.variables, self.optimizers)
        self.rows = Rows({"table": tuple(keys)}, keys, "fingerprint", {"weights": "crosses"})

    def fill_slots(self) -> None:
        """Every slot of every row its own number, as if it had been trained."""
        for number, (_, slots) in enumerate(sorted(self.slots.items())):
            for place, (_, variable) in enumerate(sorted(slots.items())):
                variable.assign(_numbers(10_000 * (1 + number) + 5_000 * place, variable.shape))

    def save(self, directory: Path) -> TrainingState:
        save_state(directory, self.variables, self.optimizers, self.rows.to_json())
        return TrainingState.load(directory)

    def everything(self) -> dict[str, Any]:
        found = {name: variable.numpy() for name, variable in self.variables.items()}
        for name, slots in self.slots.items():
            found |= {f"{name}/{slot}": variable.numpy() for slot, variable in slots.items()}
        return found


def _numbers(start: float, shape: Any) -> Any:
    size = int(np.prod(shape))
    return (start + np.arange(size, dtype=np.float32)).reshape(tuple(shape))


def vocabulary(*values: str | int) -> RowKeys:
    return RowKeys("vocabulary", values=values)


def test_rows_and_slots_follow_their_key_through_a_vocabulary_that_changed(tmp_path: Path) -> None:
    parent = Net({"colour": vocabulary("red", "green", "blue"), "id": HASHED}, start=1)
    parent.fill_slots()
    child = Net({"colour": vocabulary("blue", "pink", "red"), "id": HASHED}, start=500)
    fresh = child.slots["table"]["accumulator"].numpy().copy()
    report = warm_start(child.variables, child.slots, child.rows, parent.save(tmp_path / "state"))
    old, new = parent.everything(), child.everything()
    # colours: missing, other, blue (was row 4), pink (new: as other), red (was row 2)
    # ids: six rows, which stood behind five rows of colours in both
    np.testing.assert_array_equal(new["table"], old["table"][[0, 1, 4, 1, 2, 5, 6, 7, 8, 9, 10]])
    expected = old["table/accumulator"][[0, 1, 4, 0, 2, 5, 6, 7, 8, 9, 10]]
    expected[3] = fresh[3]
    np.testing.assert_array_equal(new["table/accumulator"], expected)
    assert (fresh == 0.5).all()
    for name in ("kernel", "kernel/accumulator", "weights", "weights/linear"):
        np.testing.assert_array_equal(new[name], old[name])
    assert report.copied == ["kernel", "weights"]
    assert report.rows == {"table: colour": Followed(4, 1, 1), "table: id": Followed(6, 0, 0)}
    assert report.cold == {}


values = st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=8)


@settings(max_examples=60, deadline=None)
@given(values, values, st.booleans())
def test_every_surviving_row_and_slot_is_bit_equal(
    tmp_path_factory: pytest.TempPathFactory, old: list[str], new: list[str], turned: bool
) -> None:
    parent = Net({"letter": vocabulary(*old), "id": HASHED}, start=1)
    parent.fill_slots()
    keys = {"letter": vocabulary(*new), "id": HASHED}
    child = Net(dict(reversed(keys.items())) if turned else keys, start=500)
    state = parent.save(tmp_path_factory.mktemp("state") / "state")
    report = warm_start(child.variables, child.slots, child.rows, state, strict=True)
    offset = 6 if turned else 0  # where the letters' rows begin
    before, after = parent.everything(), child.everything()
    for name in ("table", "table/accumulator"):
        for letter in set(old) & set(new):
            assert (
                before[name][2 + old.index(letter)] == after[name][offset + 2 + new.index(letter)]
            ).all()
        for code in (0, 1):
            assert (before[name][code] == after[name][offset + code]).all()
    assert report.rows["table: letter"] == Followed(
        2 + len(set(old) & set(new)), len(set(new) - set(old)), len(set(old) - set(new))
    )


def test_buckets_follow_the_stretch_that_they_cover(tmp_path: Path) -> None:
    parent = Net({"size": BUCKETS}, start=1)
    child = Net({"size": RowKeys("buckets", limits=(0.0, 4.0, 10.0))}, start=500)
    warm_start(child.variables, child.slots, child.rows, parent.save(tmp_path / "state"))
    old, new = parent.everything()["table"], child.everything()["table"]
    np.testing.assert_array_equal(new, old[[0, 1, 2, 2, 3]])


COLD: list[tuple[dict[str, RowKeys], dict[str, Any], str, str]] = [
    ({"id": RowKeys("hashed", buckets=5, salt=2)}, {}, "table: id",
     "its codes mean something else: 5 buckets of a hash with salt 1 in the parent, 5 buckets of "
     "a hash with salt 2 here"),
    ({"id": RowKeys("hashed", buckets=6, salt=1)}, {}, "table: id", "6 buckets"),
    ({"id": BUCKETS}, {}, "table: id", "stretches of a quantity"),
    ({"id": HASHED, "new": vocabulary("a")}, {}, "table: new", "the parent's table lacks this"),
    ({"id": HASHED}, {"kernel": 3}, "kernel", "its shape is [2] in the parent, [3] here"),
]  # fmt: skip


@pytest.mark.parametrize(("keys", "options", "where", "why"), COLD)
def test_what_cannot_be_mapped_is_named_and_begins_anew(
    tmp_path: Path, keys: dict[str, RowKeys], options: dict[str, Any], where: str, why: str
) -> None:
    parent = Net({"id": HASHED}, start=1)
    state = parent.save(tmp_path / "state")
    child = Net(keys, start=500, **options)
    before = child.everything()
    report = warm_start(child.variables, child.slots, child.rows, state)
    assert list(report.cold) == [where]
    assert why in report.cold[where]
    after = child.everything()
    if where == "kernel":
        np.testing.assert_array_equal(after["kernel"], before["kernel"])
        np.testing.assert_array_equal(after["table"], parent.everything()["table"])
    else:
        block = dict(child.rows.blocks("table"))[where.removeprefix("table: ")]
        np.testing.assert_array_equal(after["table"][block], before["table"][block])
        np.testing.assert_array_equal(after["kernel"], parent.everything()["kernel"])

    again = Net(keys, start=500, **options)
    with pytest.raises(FailedPrecondition) as raised:
        warm_start(again.variables, again.slots, again.rows, state, strict=True)
    assert where in str(raised.value) and why in str(raised.value)
    unchanged = again.everything()
    assert all((unchanged[name] == before[name]).all() for name in before)


def test_weights_of_another_hash_begin_anew(tmp_path: Path) -> None:
    parent, child = Net({"id": HASHED}, start=1), Net({"id": HASHED}, start=500)
    child.rows = Rows(child.rows.tables, child.rows.keys, "fingerprint", {"weights": "others"})
    report = warm_start(child.variables, child.slots, child.rows, parent.save(tmp_path / "state"))
    assert report.cold == {
        "weights": "its rows are another hash's: crosses in the parent, others here"
    }


def test_what_rows_stand_for_survives_being_stored() -> None:
    rows = Rows({"t": ("a", "b")}, {"a": vocabulary(1, 2), "b": BUCKETS}, "f", {"w": "crosses"})
    assert Rows.from_json(rows.to_json()) == rows


@pytest.mark.parametrize("damage", ["tables", "keys", "transform", "hashes"])
def test_damaged_rows_are_named(tmp_path: Path, damage: str) -> None:
    net = Net({"id": HASHED}, start=1)
    content = net.rows.to_json()
    del content[damage]
    with pytest.raises(DataCorrupt, match="rows of a training state: expected tables, keys"):
        Rows.from_json(content)
