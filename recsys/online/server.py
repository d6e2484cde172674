"""The server: a supervisor, and a worker on each core that answers over HTTP and gRPC.

Enters: a workspace and options.  Leaves: when a signal came and all that was asked is answered.
Below the workspace's `serving/` are the log of what was served, the state of the server, and what
its workers count.
"""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlplatform.errors import FailedPrecondition, InvalidArgument
from mlplatform.registry.locks import locked_if_free
from mlplatform.registry.registry import STABLE, Registry
from mlplatform.serving.launch import serve as serve_forever
from mlplatform.serving.listening import Address
from mlplatform.serving.supervisor import Settings, Supervisor
from recsys.online.worker import Task

CANARY = "canary"
LOG, STATUS, METRICS = "log", "status.json", "metrics"


def serve(
    task: Task,
    directory: Path,
    http: Address,
    grpc: Address | None,
    admin: Address | None,
    workers: int,
    label: str = STABLE,
) -> None:
    """Serve until a signal.

    Args:
        directory: for the state of the server; one server uses it at a time.
        label: which version to serve; beside "stable" also the canary, where there is one.

    Raises:
        PlatformError: the server cannot start, or nothing can be served.
    """
    if not 0 <= task.canary_share <= 1:
        raise InvalidArgument(f"--canary-share: expected 0 to 1, got {task.canary_share}")
    with _alone(directory):
        metrics = directory / METRICS
        shutil.rmtree(metrics, ignore_errors=True)  # an earlier server's counts
        metrics.mkdir()
        os.environ |= task.to_environment()
        settings = Settings(
            command=(sys.executable, "-m", "recsys.online.worker"),
            registry=Registry(task.registry),
            workers=workers,
            http=http,
            grpc=grpc,
            status=directory / STATUS,
            metrics=metrics,
            labels=(label, CANARY) if label == STABLE and task.canary_share else (label,),
        )

        def opened(supervisor: Supervisor, admin_port: int | None) -> None:
            doors = [f"http://{http[0]}:{supervisor.http_port} (/docs)"]
            if grpc is not None:
                doors.append(f"gRPC {grpc[0]}:{supervisor.grpc_port}")
            if admin is not None and admin_port is not None:
                doors.append(f"admin http://{admin[0]}:{admin_port}")
            print(f"storeloop: {', '.join(doors)}; Ctrl-C stops it", flush=True)

        serve_forever(settings, admin, opened)


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    directory.mkdir(parents=True, exist_ok=True)
    with locked_if_free(directory / "lock") as free:
        if not free:
            raise FailedPrecondition(
                f"{directory}: another server keeps its state here; stop it, or give this one "
                "another directory with --state"
            )
        yield
