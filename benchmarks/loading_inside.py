"""A server whose workers load a new version themselves, beside their answers, for `isolation`.

It is the application's server with the application's workers, but that a worker who gets SIGUSR1
takes the newest version of the registry: verifies, loads and warms it as a new worker would, in a
thread of its own process.  Then it writes the file `loaded-PID` into the server's directory.

    python -m benchmarks.loading_inside --workspace W --registry R --state DIR --workers N
        --port P --grpc-port G

is the server, which prints its addresses as `storeloop serve` does; with `worker` it is a worker.
"""

import argparse
import asyncio
import os
import signal
import sys
import threading
from pathlib import Path

from mlplatform.registry.registry import Registry
from mlplatform.serving.launch import serve as serve_forever
from mlplatform.serving.supervisor import Settings, Supervisor
from mlplatform.serving.worker_process import Worker, run
from recsys.online import worker as application
from recsys.online.server import LOG, METRICS, STATUS

_LOCAL = "127.0.0.1"
WORKER = "worker"


def loaded_file(directory: Path, pid: int) -> Path:
    """What a worker writes when it has loaded."""
    return directory / f"loaded-{pid}"


def main(arguments: argparse.Namespace) -> None:
    metrics = arguments.state / METRICS
    metrics.mkdir(parents=True)
    task = application.Task(
        workspace=arguments.workspace.absolute(),
        registry=arguments.registry.absolute(),
        feature_store=None,
        log=arguments.state / LOG,
        canary_share=0.0,
        exploration=0.01,
        requests_per_s=None,
        models=False,
    )
    os.environ |= task.to_environment()
    settings = Settings(
        command=(sys.executable, "-m", "benchmarks.loading_inside", WORKER),
        registry=Registry(task.registry),
        workers=arguments.workers,
        http=(_LOCAL, arguments.port),
        grpc=(_LOCAL, arguments.grpc_port),
        status=arguments.state / STATUS,
        metrics=metrics,
        labels=("stable",),
    )

    def opened(supervisor: Supervisor, _: int | None) -> None:
        http, grpc = supervisor.http_port, supervisor.grpc_port
        print(f"http://{_LOCAL}:{http}, gRPC {_LOCAL}:{grpc}", flush=True)

    serve_forever(settings, opened=opened)


async def serve(service: application.Service, worker: Worker) -> None:
    """As the application's worker, with an ear for the signal."""

    def begin() -> None:
        threading.Thread(target=load_newest, args=(service, worker), daemon=True).start()

    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, begin)
    await application.serve(service, worker)


def load_newest(service: application.Service, worker: Worker) -> None:
    from recsys.online.answering import Arm
    from recsys.online.bundle import Bundle
    from recsys.online.recommender import Recommender

    registry = Registry(application.Task.from_environment().registry)
    store = service.calls.answering.arms[0].recommender.store  # a process opens a store once
    version = registry.list()[-1]
    with registry.serving(version):
        Arm("new", version.number, Recommender(Bundle.of_version(version), store))
    loaded_file(worker.assignment.status.parent, os.getpid()).touch()


if __name__ == "__main__":
    if sys.argv[1:] == [WORKER]:
        run(application.load, serve)
    else:
        parser = argparse.ArgumentParser()
        for name in ("--workspace", "--registry", "--state"):
            parser.add_argument(name, type=Path, required=True)
        for name in ("--workers", "--port", "--grpc-port"):
            parser.add_argument(name, type=int, required=True)
        main(parser.parse_args())
