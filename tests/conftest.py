"""One run of the main job at tiny scale, shared by every test that needs a finished workspace."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-m", "recsys.cli"]


def storeloop(*arguments: str, timeout: int = 600) -> "subprocess.CompletedProcess[str]":
    """Run the command line as a user does, in a process of its own."""
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'platform'}"},
        check=False,
    )


@pytest.fixture(scope="session")
def command() -> object:
    return storeloop


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace of a finished tiny run; tests read it and do not write into it.

    Of pytest's workers the first to ask makes it, the others wait for it.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    workspace, stdout = folder / "workspace", folder / "stdout.txt"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stdout.exists():
            done = storeloop("run", "--config", "tiny", "--workspace", str(workspace))
            assert done.returncode == 0, done.stderr[-3000:]
            stdout.write_text(done.stdout)
    return workspace
