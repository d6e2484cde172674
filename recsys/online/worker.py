"""One worker of the server: loads what it is assigned, answers at both doors, drains.

    python -m recsys.online.worker

is started by the server's supervisor (`server.py`), which says in the environment what to serve.
All of a worker happens in one thread, that of its event loop, but for what TensorFlow is asked over
the models' own surface and what waits for the disk.  A core has one worker; every other pool of
threads is set to one (`mlplatform/serving/child.py`).
"""

import asyncio
import gc
import itertools
import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mlplatform.serving.balance import Door
from mlplatform.serving.worker_process import Worker, run

if TYPE_CHECKING:
    from fastapi import FastAPI

    from mlplatform.serving.doors import Doors
    from mlplatform.serving.grpc_methods import Methods
    from mlplatform.serving.http_exchange import Routes
    from mlplatform.serving.metrics import Metrics
    from mlplatform.serving.servables import Servables
    from recsys.online.answering import Answering
    from recsys.online.calls import Calls
    from recsys.online.feature_store import FeatureStore
    from recsys.online.logs import Logs

VARIABLE = "STORELOOP_WORKER"
KEYS = "STORELOOP_API_KEYS"
_WARM_UP = (1, 2, 4, 8, *[16] * 32)  # batches, of so many requests
_TEND_S = 5.0
MODELS = ("query_tower", "ranker")
_MODEL_BYTES = 4 << 20  # of a message for TensorFlow Serving's surface, whose tensors are large


@dataclass(frozen=True)
class Task:
    """What a worker of this application has to know.

    feature_store: None takes the workspace's latest.
    log: a directory.
    canary_share: of the users, whom the canary answers while there is one.
    exploration: share of the places of lists.
    requests_per_s: of one client; None is no limit.
    models: whether the models themselves can be asked, as by TensorFlow Serving.
    """

    workspace: Path
    registry: Path
    feature_store: Path | None
    log: Path
    canary_share: float
    exploration: float
    requests_per_s: float | None
    models: bool

    def to_environment(self) -> dict[str, str]:
        return {VARIABLE: msgspec.json.encode(self, enc_hook=str).decode()}

    @classmethod
    def from_environment(cls) -> "Task":
        return msgspec.json.decode(
            os.environ[VARIABLE], type=cls, dec_hook=lambda kind, value: kind(value)
        )


@dataclass
class Service:
    """What is loaded; `held` keeps the store open and the versions from being removed.

    app, routes: what HTTP serves.
    services: what gRPC serves.  max_message_bytes: of one of its messages; None is the doors'.
    """

    calls: "Calls"
    metrics: "Metrics"
    doors: "Doors"
    app: "FastAPI"
    routes: "Routes"
    services: "list[Methods]"
    max_message_bytes: int | None
    logs: "Logs"
    held: ExitStack


def load(worker: Worker) -> Service:
    """Everything that takes time, up to the first answers.

    Raises:
        PlatformError: what is assigned cannot be served.
    """
    from mlplatform.registry.registry import Registry
    from mlplatform.serving import grpc_server, http  # noqa: F401  to have them when it is its turn
    from mlplatform.serving.metrics import Metrics
    from recsys.online.answering import Answering, Arm
    from recsys.online.bundle import Bundle
    from recsys.online.calls import Calls
    from recsys.online.feature_store import FeatureStore, latest_feature_store
    from recsys.online.logs import Logs
    from recsys.online.recommender import Recommender
    from recsys.online.service import hot_routes

    task, assignment = Task.from_environment(), worker.assignment
    registry = Registry(task.registry)
    held = ExitStack()
    store = held.enter_context(
        FeatureStore(task.feature_store or latest_feature_store(task.workspace))
    )
    arms, bundles = [], {}
    for label, number in assignment.versions.items():
        with worker.loading(number):
            if number not in bundles:
                version = held.enter_context(registry.hold(registry.version(number)))
                bundles[number] = Recommender(Bundle.of_version(version), store)
            arms.append(Arm(label, number, bundles[number]))
            _warm_up(Answering(arms[-1:], store), store)
    metrics = Metrics(assignment.metrics, _COUNTERS)
    logs = Logs(task.log, store, metrics)
    answering = Answering(
        arms,
        store,
        canary_share=task.canary_share,
        exploration=task.exploration,
        log=logs.shown,
    )
    calls = Calls(answering, logs.told, lambda ran: _observe(metrics, answering, ran))
    servables = _servables(worker, registry) if task.models else None
    app, services = _app(calls, metrics, servables), _grpc_services(calls, servables)
    # What is loaded stays: the collector need not look at it again and again, nor at what a batch
    # makes, which goes with it.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    longest = _MODEL_BYTES if task.models else None
    return Service(
        calls, metrics, _doors(task), app, hot_routes(calls), services, longest, logs, held
    )


def _warm_up(answering: "Answering", store: "FeatureStore") -> None:
    """Compile what later requests reuse, and read what they will read."""
    from recsys.online.answering import Asked

    # Others in each batch, as far as there are so many: they see other apps.
    users = itertools.cycle(list(itertools.islice(store.user_ids(), sum(_WARM_UP))))
    for n in _WARM_UP:
        asked = [Asked(user, None, 20, "wifi", 10, True) for user in itertools.islice(users, n)]
        answering.run(asked)


_COUNTERS = {
    "fallbacks": ("Answers that were not ordered by the ranker, by what they were.", "by"),
    "log_records_lost": ("Records that could not be written to the log.", "kind"),
}


def _observe(metrics: "Metrics", answering: "Answering", ran: Any) -> None:
    metrics.ran(ran)
    if not ran.waits:  # nothing was computed
        return
    metrics.stages({stage: spent / 1e9 for stage, spent in answering.spent_ns.items()})
    for level, answers in answering.fallbacks.items():
        if answers:
            metrics.count("fallbacks", level, answers)


def _servables(worker: Worker, registry: Any) -> "Servables":
    from mlplatform.serving.servables import Servables
    from mlplatform.serving.status import read_status
    from mlplatform.training.runtime import tensorflow

    tensorflow(threads=1)
    versions = worker.assignment.versions
    paths = {
        name: {number: registry.version(number).path / name for number in versions.values()}
        for name in MODELS
    }
    status = worker.assignment.status
    servables = Servables(paths, versions, lambda: read_status(status).versions)
    servables.load()
    return servables


def _doors(task: Task) -> "Doors":
    from mlplatform.serving.doors import Doors, Keys, RateLimit
    from recsys.online.service import PROBES

    keys = [key for key in os.environ.get(KEYS, "").split(",") if key]
    rate = task.requests_per_s
    return Doors(
        keys=Keys(keys) if keys else None,
        rate=None if rate is None else RateLimit(rate, max(1, round(2 * rate))),
        open_paths=PROBES,
        any_type_under=("/v1/models/",),  # TensorFlow Serving's clients state no type
    )


def _app(calls: "Calls", metrics: "Metrics", servables: "Servables | None") -> "FastAPI":
    from fastapi import FastAPI, Response

    from recsys.online.service import create_app

    def extend(app: FastAPI) -> None:
        @app.get("/metrics", summary="Prometheus' metrics, of all workers together")
        async def render() -> Response:
            text, kind = metrics.render()
            return Response(text, media_type=kind)

        if servables is not None:
            from mlplatform.serving.rest import rest_router

            app.include_router(rest_router(servables))

    return create_app(lambda: calls, extend)


def _grpc_services(calls: "Calls", servables: "Servables | None") -> "list[Methods]":
    from recsys.online.grpc_service import recommendations

    services = [recommendations(calls)]
    if servables is not None:
        from mlplatform.serving.model_service import model_service
        from mlplatform.serving.prediction_service import prediction_service

        services += [prediction_service(servables), model_service(servables)]
    return services


async def serve(service: Service, worker: Worker) -> None:
    """Answer until told to stop, and drain."""
    from mlplatform.serving import grpc_server, http

    calls, metrics = service.calls, service.metrics
    assignment, stopping = worker.assignment, worker.stopping
    opened = asyncio.Event()
    doors = [
        http.serve(
            [worker.http_socket()], service.app, service.routes, service.doors, stopping,
            assignment.drain_s, metrics.answered, opened.set, lambda: calls.full,
            worker.balance(Door.HTTP),
        )
    ]  # fmt: skip
    if (grpc_socket := worker.grpc_socket()) is not None:
        doors.append(
            grpc_server.serve(
                grpc_socket, service.services, service.doors, stopping, assignment.drain_s,
                metrics.answered, max_message_bytes=service.max_message_bytes,
                full=lambda: calls.full, balance=worker.balance(Door.GRPC),
            )
        )  # fmt: skip
    serving = [asyncio.ensure_future(door) for door in doors]
    tending = asyncio.ensure_future(_tend(service))
    await opened.wait()
    worker.serving()
    await asyncio.gather(*serving)
    tending.cancel()
    calls.close()
    service.logs.close()
    metrics.close()


async def _tend(service: Service) -> None:
    """What is due now and then, however few requests there are."""
    while True:
        await asyncio.sleep(_TEND_S)
        service.logs.rotate_if_due()
        for arm in service.calls.answering.arms:
            arm.check_sampled()


if __name__ == "__main__":
    run(load, serve)
