"""Runs that are killed, and what is left of them."""

import json
import signal
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.artifacts import hash_files
from mlplatform.errors import FailedPrecondition, InvalidArgument
from mlplatform.training.batches import Batches
from mlplatform.training.checkpoints import Checkpoints
from mlplatform.training.curve import Point, best_of
from mlplatform.training.held_out import HeldOut
from mlplatform.training.runtime import set_seed
from mlplatform.training.state import named_variables
from mlplatform.training.trainer import Trained, train
from tests.platform.training.models import Clicks, LinearRegression, click_batches, data, taking
from tests.platform.training.processes import end, start

HELD_OUT = HeldOut(click_batches(64, 16, 1, seed=1), every=5, patience=3)


class Killed(BaseException):
    """Ends a run at any step; like a kill, it leaves the run no time to write anything."""


def run(
    directory: Path, kill_at: int = 0, told: list[int] | None = None, **changed: Any
) -> Trained[Clicks]:
    set_seed(0)
    told = [] if told is None else told

    def advance(rows: int) -> None:
        told.append(rows)
        if kill_at and sum(told) >= kill_at * 16:
            raise Killed

    given: dict[str, Any] = {
        "batches": click_batches(160, 16, epochs=3),
        "checkpoints": Checkpoints(directory, "a run", every=4),
        "held_out": HELD_OUT,
    } | changed
    return train(lambda: Clicks(rate=0.2), advance=advance, **given)


def outcome(trained: Trained[Clicks]) -> Any:
    values = named_variables(trained.model)
    slots = [
        optimizer.get_slot(variable, slot).numpy().tobytes()
        for optimizer, group in trained.optimizers
        for variable in group
        for slot in optimizer.get_slot_names()
    ]
    curve = [asdict(point) for point in trained.curve]
    return curve, [variable.numpy().tobytes() for variable in values.values()], slots


def steps_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_run_killed_twice_by_sigkill_ends_in_the_same_bytes_as_one_that_was_not(
    tmp_path: Path,
) -> None:
    whole, resumed, kept = (tmp_path / name for name in ("whole", "resumed", "kept"))
    assert end(start(output=str(whole), checkpoints=str(tmp_path / "other"))) == (0, "")
    again = {"output": str(resumed), "checkpoints": str(kept)}
    for kill_at in (41, 71):
        assert end(start(**again, kill_at=kill_at))[0] == -signal.SIGKILL
        assert not resumed.exists()
        assert (kept / f"step-{kill_at // 8 * 8:08}").exists()
    assert end(start(**again)) == (0, "")
    assert hash_files(resumed) == hash_files(whole)  # variables, slots, and the curve
    facts = json.loads((resumed / "rows.json").read_text())
    assert facts["rows"] == 480 * 6
    curve = [Point(**point) for point in facts["curve"]]
    best = best_of(curve)
    # The best came before the second kill: what the run ends with was in no process's memory.
    assert best is not None and best.step < 71 < curve[-1].step == 90


def test_wherever_a_run_is_cut_off_it_ends_in_the_same_curve_variables_and_slots(
    tmp_path: Path,
) -> None:
    whole = run(tmp_path / "whole")
    expected = outcome(whole)

    @settings(max_examples=5, deadline=None)
    @given(st.lists(st.integers(1, whole.curve[-1].step), min_size=1, max_size=2).map(sorted))
    def check(kills: list[int]) -> None:
        with tempfile.TemporaryDirectory() as directory:
            for kill_at in kills:
                with pytest.raises(Killed):
                    run(Path(directory), kill_at)
            assert outcome(run(Path(directory))) == expected

    check()


def test_the_last_two_checkpoints_are_kept(tmp_path: Path) -> None:
    run(tmp_path, held_out=None)
    assert steps_in(tmp_path) == ["step-00000028", "step-00000030"]


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    first = run(tmp_path)

    def take(rows: Any) -> Any:
        raise AssertionError("a batch was made")

    again = run(tmp_path, batches=replace(click_batches(160, 16, epochs=3), take=take))
    assert outcome(again) == outcome(first)


@pytest.mark.parametrize(
    "name", ["progress.json", "checkpoint.index", "checkpoint.data-00000-of-00001"]
)
@pytest.mark.parametrize("damage", ["cut off", "missing"])
def test_of_a_damaged_checkpoint_the_one_before_is_taken(
    tmp_path: Path, name: str, damage: str
) -> None:
    expected = outcome(run(tmp_path / "whole"))
    with pytest.raises(Killed):
        run(tmp_path / "cut", 11)
    assert steps_in(tmp_path / "cut") == ["step-00000004", "step-00000008"]
    path = tmp_path / "cut" / "step-00000008" / name
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    told: list[int] = []
    assert outcome(run(tmp_path / "cut", told=told)) == expected
    assert told[0] == 4 * 16
    assert "step-00000008" not in steps_in(tmp_path / "cut")


def test_where_all_checkpoints_are_damaged_the_run_begins_anew(tmp_path: Path) -> None:
    expected = outcome(run(tmp_path / "whole"))
    with pytest.raises(Killed):
        run(tmp_path / "cut", 11)
    for path in (tmp_path / "cut").glob("*/progress.json"):
        path.write_text("{")
    assert outcome(run(tmp_path / "cut")) == expected


def test_what_a_kill_left_half_written_is_passed_over(tmp_path: Path) -> None:
    expected = outcome(run(tmp_path / "whole"))
    with pytest.raises(Killed):
        run(tmp_path / "cut", 11)
    for name in ("step-00000012.staging", "step-00000008.old"):
        (tmp_path / "cut" / name).mkdir()
        (tmp_path / "cut" / name / "progress.json").write_text("{")
    assert outcome(run(tmp_path / "cut")) == expected


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"fingerprint": "other data"}, "expected fingerprint other data, found a run"),
        ({"batches": click_batches(160, 16, epochs=4)}, r"expected batches .*'epochs': 4"),
        ({"batches": click_batches(160, 16, epochs=3, seed=5)}, r"expected batches .*'seed': 5"),
        ({"held_out": None}, r"expected held-out batches None"),
    ],
)
def test_another_runs_checkpoints_are_refused_in_one_line(
    tmp_path: Path, changed: dict[str, Any], words: str
) -> None:
    with pytest.raises(Killed):
        run(tmp_path, 9)
    before = hash_files(tmp_path)
    changed = dict(changed)
    checkpoints = Checkpoints(tmp_path, changed.pop("fingerprint", "a run"), every=4)
    with pytest.raises(FailedPrecondition, match=words) as raised:
        run(tmp_path, checkpoints=checkpoints, **changed)
    assert "\n" not in str(raised.value) and str(tmp_path) in str(raised.value)
    assert hash_files(tmp_path) == before


def test_a_model_of_another_shape_is_refused(tmp_path: Path) -> None:
    batches = Batches(taking(data(32)), 32, 8, 1, 0)
    checkpoints = Checkpoints(tmp_path, "a", every=2)
    train(lambda: LinearRegression(3, 0.01), batches, checkpoints=checkpoints)
    with pytest.raises(FailedPrecondition, match=r"expected variable weights .*\[4, 1\].*\[3, 1\]"):
        train(lambda: LinearRegression(4, 0.01), batches, checkpoints=checkpoints)


def test_nothing_of_a_step_that_diverged_is_kept(tmp_path: Path) -> None:
    arrays = data(64)
    batches = Batches(taking(arrays), 64, 4, epochs=1, seed=0)
    bad = next(iter(list(batches.rows())[9]))
    arrays["x"][bad, 0] = np.nan
    with pytest.raises(FailedPrecondition, match="nan in step 10:"):
        train(
            lambda: LinearRegression(3, 0.001), batches, checkpoints=Checkpoints(tmp_path, "a", 2)
        )
    assert steps_in(tmp_path) == ["step-00000006", "step-00000008"]


def test_an_update_that_overflows_is_not_kept(tmp_path: Path) -> None:
    batches = Batches(taking(data(8)), 8, 4, epochs=1, seed=0)
    with pytest.raises(FailedPrecondition, match="after step 1"):
        train(lambda: LinearRegression(3, 3e38), batches, checkpoints=Checkpoints(tmp_path, "a", 1))
    assert not list(tmp_path.iterdir())


def test_an_interval_below_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="got 0"):
        Checkpoints(tmp_path, "a", every=0)
