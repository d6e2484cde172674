"""A training in a process of its own, for tests that kill it or run it on several workers.

    python -m tests.platform.training.process '{"output": DIR, "checkpoints": DIR, …}'

kill_at: the step after which the process kills itself by SIGKILL.  strategy: none, two_cpus or
workers (by TF_CONFIG).  Leaves in `output`: the state, and the curve in its `rows.json`.
"""

import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlplatform.errors import PlatformError
from mlplatform.training.checkpoints import Checkpoints
from mlplatform.training.held_out import HeldOut
from mlplatform.training.runtime import set_seed, tensorflow
from mlplatform.training.state import named_variables, save_state
from mlplatform.training.trainer import train

ROWS, BATCH, EPOCHS, RATE = 480, 32, 6, 0.1  # 90 steps


def strategy_named(name: str) -> Any:
    tf = tensorflow()
    if name == "two_cpus":
        (cpu,) = tf.config.list_physical_devices("CPU")
        halves = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(cpu, halves)
        return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    return tf.distribute.MultiWorkerMirroredStrategy() if name == "workers" else None


def run(output: str, checkpoints: str = "", kill_at: int = 0, strategy: str = "none") -> None:
    distribution = strategy_named(strategy)
    set_seed(0)
    from tests.platform.training.models import Clicks, click_batches

    rows = 0

    def advance(more: int) -> None:
        nonlocal rows
        rows += more
        if rows == kill_at * BATCH and kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    trained = train(
        lambda: Clicks(RATE),
        click_batches(ROWS, BATCH, EPOCHS),
        advance,
        held_out=HeldOut(click_batches(128, 32, 1, seed=1), every=5, patience=100),
        checkpoints=Checkpoints(Path(checkpoints), "clicks", every=8) if checkpoints else None,
        events=Path(checkpoints) / "events" if checkpoints else None,
        strategy=distribution,
    )
    curve = [asdict(point) for point in trained.curve]
    facts = {"curve": curve, "chief": trained.is_chief, "rows": rows}
    save_state(Path(output), named_variables(trained.model), trained.optimizers, facts)


if __name__ == "__main__":
    try:
        run(**json.loads(sys.argv[1]))
    except PlatformError as error:
        sys.exit(f"{type(error).__name__}: {error}")
