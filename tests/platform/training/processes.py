"""Starting `process.py`."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
Process = subprocess.Popen[str]


def start(extra: dict[str, str] | None = None, **arguments: object) -> Process:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.platform.training.process", json.dumps(arguments)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'platform'}"} | (extra or {}),
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: Process) -> tuple[int, str]:
    """The return code and what was said on standard error."""
    try:
        _, said = process.communicate(timeout=240)
    finally:
        process.kill()
    return process.returncode, said


def start_workers(*arguments: dict[str, object]) -> list[Process]:
    """One worker for each of the arguments, on free ports of this machine."""
    sockets = [socket.socket() for _ in arguments]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    hosts = ["{}:{}".format(*one.getsockname()) for one in sockets]
    for one in sockets:
        one.close()
    return [
        start(
            {
                "TF_CONFIG": json.dumps(
                    {"cluster": {"worker": hosts}, "task": {"type": "worker", "index": index}}
                )
            },
            strategy="workers",
            **given,
        )
        for index, given in enumerate(arguments)
    ]
