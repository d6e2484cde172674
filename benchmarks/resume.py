"""Every stage killed with SIGKILL in its middle and run again: does it end with the same bytes?

A finished workspace is copied by hard links and loses one stage's artifact, so that a run does
that stage alone; the run is killed there and started again.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.result import Result
from mlplatform.artifacts import STAGING_SUFFIX, hash_files
from mlplatform.pipeline import RECORD, read_record

CONFIG = "tiny"
SCANN = (
    "ah_codebook.pb",
    "datapoint_to_token.npy",
    "hashed_dataset.npy",
    "hashed_dataset_soar.npy",
    "serialized_partitioner.pb",
)
# Written anew by each run: times and memory, and what ScaNN's clustering, which takes
# its seed from the system, came to.
VARYING = (RECORD, "trial.json", *SCANN)
LOGS = "events/"  # TensorBoard's, named by the clock


def measure() -> Result:
    with tempfile.TemporaryDirectory() as folder:
        finished = Path(folder) / "finished"
        _run(finished).wait()
        stages = sorted(path.name for path in (finished / "artifacts").iterdir())
        result = Result(settings={"config": CONFIG, "stages": stages})
        for stage in stages:
            differing = kill_and_resume(finished, stage, Path(folder) / "copy")
            print(f"{stage}: {differing or 'the same'}", file=sys.stderr, flush=True)
            result.figures[f"files that differ after a kill in {stage}"] = len(differing)
            result.limits[f"files that differ after a kill in {stage}"] = ("most", 0)
    return result


def kill_and_resume(finished: Path, stage: str, copy: Path) -> list[str]:
    """Names of the stage's files that are not as in the finished workspace.

    Raises:
        RuntimeError: the stage was over before it could be killed, or the second run failed.
    """
    shutil.copytree(finished, copy, copy_function=os.link)
    try:
        (artifact,) = (copy / "artifacts" / stage).iterdir()
        half = read_record(artifact).seconds / 2
        shutil.rmtree(artifact)
        first = _run(copy)
        staging = artifact.with_name(artifact.name + STAGING_SUFFIX)
        while not staging.exists():
            if first.poll() is not None:
                raise RuntimeError(f"{stage}: the run ended before the stage began")
            time.sleep(0.001)
        time.sleep(half)
        first.send_signal(signal.SIGKILL)
        first.wait()
        if (artifact / RECORD).exists():
            raise RuntimeError(f"{stage}: over before it could be killed")
        if _run(copy).wait() != 0:
            raise RuntimeError(f"{stage}: the second run failed")
        expected = hash_files(finished / "artifacts" / stage / artifact.name)
        found = hash_files(artifact)
        names = expected.keys() | found.keys()
        return sorted(
            name
            for name in names
            if expected.get(name) != found.get(name)
            and not name.startswith(LOGS)
            and (Path(name).name not in VARYING or (name in expected) != (name in found))
        )
    finally:
        shutil.rmtree(copy)


def _run(workspace: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [
            sys.executable, "-m", "recsys.cli", "run",
            "--config", CONFIG, "--workspace", str(workspace),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
