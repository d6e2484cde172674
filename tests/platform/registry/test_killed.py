"""Runs `deaths.py` in a new interpreter: it forks thousands of times, and to fork one that holds
TensorFlow and a gigabyte of arrays takes ten times as long.
"""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("name", ["push_killed", "labels_and_removal", "rebuild", "cut_off"])
def test_a_writer_that_is_killed_loses_nothing_and_leaves_nothing_behind(name: str) -> None:
    deaths = Path(__file__).with_name("deaths.py")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(deaths), "-k", name],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:]
