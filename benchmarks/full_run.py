"""A workspace in which the main job has run at full scale, for whoever measures on its results.

Leaves: its directory.  It is made at the first call, some ten minutes, and kept; the variable
STORELOOP_WORKSPACE names another one, which is taken as it is.
"""

import os
import subprocess
import sys
from pathlib import Path

from mlplatform.errors import NotFound
from mlplatform.pipeline import Workspace

VARIABLE = "STORELOOP_WORKSPACE"
KEPT = Path("workspace/benchmarks/full")


def full_workspace() -> Path:
    """The directory, absolute; what is unfinished in the one kept here is done first.

    Raises:
        NotFound: the one that the environment names has no finished run.
    """
    given = os.environ.get(VARIABLE)
    if given:
        root = Path(given).absolute()
        if not root.is_dir() or Workspace(root).latest("push") is None:
            raise NotFound(
                f"{VARIABLE}={given}: expected the workspace of a finished main job; "
                f"run storeloop run --config full --workspace {given}, or unset {VARIABLE}"
            )
        return root
    root = KEPT.absolute()
    command = ["run", "--config", "full", "--workspace", str(root)]
    # Its progress is for who waits; standard output is the benchmark's.
    subprocess.run([sys.executable, "-m", "recsys.cli", *command], stdout=sys.stderr, check=True)
    return root
