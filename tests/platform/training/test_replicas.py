"""Training on several replicas: in one process, and on two workers of this machine."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest

from mlplatform.artifacts import hash_files
from mlplatform.errors import FailedPrecondition
from mlplatform.training.state import TrainingState
from mlplatform.training.trainer import train
from tests.platform.training.models import Clicks, click_batches
from tests.platform.training.processes import end, start, start_workers

# Replicas sum their shares first: the same numbers, added in another order in float32.  Shuffling
# the rows inside every batch moves the variables by 4e-7 in these 90 steps; learning from half of
# every batch moves them by 0.07 and more.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state that one process ends with."""
    root = tmp_path_factory.mktemp("alone")
    done = end(start(output=str(root / "state"), checkpoints=str(root / "checkpoints")))
    assert done == (0, "")
    return root / "state"


def assert_close(one: Path, other: Path) -> None:
    left, right = TrainingState.load(one), TrainingState.load(other)
    assert left.names == right.names
    for name in left.names:
        np.testing.assert_allclose(left.value(name), right.value(name), rtol=0, atol=TOLERANCE)
        for slot, value in left.slots(name).items():
            np.testing.assert_allclose(value, right.slots(name)[slot], rtol=1e-5, atol=TOLERANCE)
    for a, b in zip(left.rows["curve"], right.rows["curve"], strict=True):
        assert (a["step"], a["examples"]) == (b["step"], b["examples"])
        assert a["loss"] == pytest.approx(b["loss"], abs=TOLERANCE)
        assert a["held_out"] == pytest.approx(b["held_out"], abs=TOLERANCE)


def test_two_replicas_of_one_process_learn_what_one_does(alone: Path, tmp_path: Path) -> None:
    done = end(
        start(output=str(tmp_path / "s"), checkpoints=str(tmp_path / "c"), strategy="two_cpus")
    )
    assert done[0] == 0, done[1]
    assert_close(tmp_path / "s", alone)


def test_two_workers_killed_and_started_again_learn_what_one_process_does(
    alone: Path, tmp_path: Path
) -> None:
    checkpoints = str(tmp_path / "checkpoints")
    given = [
        {"output": str(tmp_path / name), "checkpoints": checkpoints} for name in ("zero", "one")
    ]
    killed = [end(one) for one in start_workers(*({**one, "kill_at": 41} for one in given))]
    codes = {code for code, _ in killed}
    # One may still hear that the other is gone, and end by itself, before its own kill.
    assert -signal.SIGKILL in codes and 0 not in codes, killed
    done = [end(one) for one in start_workers(*given)]
    assert [code for code, _ in done] == [0, 0], done
    facts = [json.loads((tmp_path / name / "rows.json").read_text()) for name in ("zero", "one")]
    assert [one.pop("chief") for one in facts] == [True, False]
    assert facts[0] == facts[1]  # the curves, held-out losses and metrics too
    files = [hash_files(tmp_path / name) for name in ("zero", "one")]
    for name in ("state.index", "state.data-00000-of-00001"):
        assert files[0][name] == files[1][name]
    assert_close(tmp_path / "zero", alone)
    # One writer: an event file for each of the two runs, and nothing in a worker's own name.
    names = sorted(path.name for path in Path(checkpoints).iterdir())
    assert names == ["events", "step-00000088", "step-00000090"]
    assert len(list((Path(checkpoints) / "events").iterdir())) == 2


def test_workers_that_do_not_see_one_directory_are_told_so(tmp_path: Path) -> None:
    given = [
        {"output": str(tmp_path / f"o{n}"), "checkpoints": str(tmp_path / f"c{n}")} for n in "01"
    ]
    # The chief alone finds a checkpoint.
    code, said = end(start(**given[0], kill_at=20))
    assert code == -signal.SIGKILL, said
    done = [end(one) for one in start_workers(*given)]
    assert [code for code, _ in done] == [1, 1]
    for (_, said), name, step in zip(done, ("c0", "c1"), (16, 0), strict=True):
        words = f"the workers begin at different steps, this one at {step}: expected {tmp_path}"
        assert f"FailedPrecondition: {words}/{name} to be one directory" in said


def test_a_batch_that_replicas_cannot_share_evenly_is_refused() -> None:
    class Three:
        """Stands in for a strategy of three replicas, all in this process."""

        num_replicas_in_sync = 3

        def experimental_distribute_values_from_function(self, ask: object) -> None:
            """No replica is asked before the batch is looked at."""

    with pytest.raises(FailedPrecondition, match="8 rows cannot be cut into 3 equal shares"):
        train(Clicks, click_batches(32, 8, epochs=1), strategy=Three())
