"""Stages that prove the result: installs in the world, skew of serving, answers over HTTP."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import uvicorn
from fastapi import FastAPI
from numpy.typing import NDArray

from data_gen import sessions
from data_gen.world import Requests
from mlplatform.artifacts import to_json
from mlplatform.errors import Unavailable
from mlplatform.evaluation.metrics import Derived, WeightedMetric, difference, intervals, mean_of
from mlplatform.pipeline import Context
from mlplatform.registry.registry import Registry
from recsys import evaluation
from recsys.baselines import Popularity
from recsys.config import RunConfig
from recsys.online.answering import alone
from recsys.online.bundle import Bundle
from recsys.online.calls import Calls, keeps_nothing
from recsys.online.feature_store import FeatureStore
from recsys.online.recommender import Recommender
from recsys.online.service import create_app
from recsys.serving_log import SLATE, requests_of
from recsys.serving_skew import measure_skew, served_rows, trained_rows
from recsys.stages import policies
from recsys.stages.data import BACKLOG_DAY, SPANS, load_truth_of_the_morning, visits_of
from recsys.stages.release import BUNDLE
from recsys.stages.versions import current_version
from recsys.training_data import Positives

USERS_ASKED = 3
FIGURES, SKEW, ANSWERS = "world.json", "skew.json", "answers.json"


def measure_in_world(config: RunConfig, context: Context) -> dict[str, Any]:
    """-> world.json: installs per request of the system and of what it is compared with.

    All answer the same requests of the evaluation day and meet the same luck.
    """
    world, memory = load_truth_of_the_morning(config, context)
    day = config.days.evaluate
    visits = sessions.visits(world, day)
    visits = visits.take(
        evaluation.sample(len(visits), config.evaluation.world_requests, config.seed)
    )
    bundle = Bundle.load(context.inputs["evaluate"] / BUNDLE)
    context.progress.expect(4 * len(visits))
    slates: dict[str, NDArray[np.int64]] = {}
    with FeatureStore(context.inputs["build_feature_store"]) as store:
        candidates = _system(bundle, store, visits, slates)
    context.progress.advance(len(visits))
    root = context.inputs["join_examples"] / SPANS
    past = Positives.read(root, [BACKLOG_DAY, *config.days.train], bundle.transform, bundle.apps)
    popularity = Popularity.of(past.app, len(bundle.apps))
    slates["popular"] = policies.popular(bundle.apps.ids[popularity.order], memory, visits)
    slates["random"] = policies.at_random(visits, config.world.apps_by(day), config.seed)
    slates["oracle"] = policies.oracle(
        world, visits, memory, lambda done: context.progress.advance(3 * done)
    )

    metrics: dict[str, WeightedMetric] = {}
    for name, slate in slates.items():
        expected = world.install_probability(visits, slate, memory).sum(axis=1)
        installed = world.answer(visits, slate, memory).sum(axis=1)
        metrics[f"expected installs per request: {name}"] = mean_of(expected.astype(np.float64))
        metrics[f"installs per request: {name}"] = mean_of(installed.astype(np.float64))
    derived: dict[str, Derived] = {
        f"installs per request: system - {name}": difference(
            "installs per request: system", f"installs per request: {name}"
        )
        for name in ("popular", "random")
    }
    derived["share of the gap from popular to oracle closed"] = _share_of_gap
    new_from = config.world.apps_by(config.days.train[0])
    is_new = (candidates >= new_from).sum(axis=1).astype(np.float64)
    metrics["candidates released after training began, per request"] = mean_of(is_new)
    shown_new = (slates["system"] >= new_from).sum(axis=1).astype(np.float64)
    metrics["apps released after training began shown, per request"] = mean_of(shown_new)
    figures = intervals(metrics, visits.user, config.seed, derived)
    (context.output / FIGURES).write_bytes(
        to_json({name: asdict(figure) for name, figure in figures.items()})
    )
    return {"rows": len(slates) * len(visits)}


def compare_serving(config: RunConfig, context: Context) -> dict[str, Any]:
    """-> skew.json: the later day's impressions as trained on and as served, joined by their keys.

    And what every feature that differs costs the ranker.
    """
    bundle = Bundle.load(context.inputs["evaluate"] / BUNDLE)
    with FeatureStore(context.inputs["build_feature_store"]) as store:
        trained = trained_rows(
            context.inputs["join_examples"] / SPANS,
            config.days.evaluate,
            config.evaluation.skew_requests,
            config.seed,
        )
        report, cost = measure_skew(bundle, trained, served_rows(trained, store), config.seed)
    (context.output / SKEW).write_bytes(to_json({"report": asdict(report), "cost": asdict(cost)}))
    differing = sum(feature.differing > 0 for feature in report.features)
    return {"rows": report.counts.matched, "features that differ": differing}


def serve(config: RunConfig, registry: Path, context: Context) -> dict[str, Any]:
    """-> answers.json: what the pushed bundle's server answered to real HTTP requests."""
    pushed = current_version(registry, context)
    version = pushed.number
    with Registry(registry).serving(pushed):
        bundle = Bundle.of_version(pushed)
    with FeatureStore(context.inputs["build_feature_store"]) as store:
        known = list(islice(store.user_ids(), 10_000))
        step = max(1, len(known) // USERS_ASKED)
        bodies: list[dict[str, Any]] = [
            {"user_id": user, "k": 5, "context": {"hour_of_day": 20, "network": "wifi"}}
            for user in known[step // 2 :: step][:USERS_ASKED]
        ]
        bodies.append({"profile": {"country": "BR", "age_band": "18-24", "os_version": 9}, "k": 5})
        calls = Calls(alone(Recommender(bundle, store), version), keeps_nothing)
        with _listening(create_app(lambda: calls)) as url:
            answers = [
                httpx.post(f"{url}/v1/recommendations", json=body, timeout=30).json()
                for body in bodies
            ]
    content = [{"request": q, "answer": a} for q, a in zip(bodies, answers, strict=True)]
    (context.output / ANSWERS).write_bytes(to_json(content))
    return {"rows": len(answers), "version": version}


def _system(
    bundle: Bundle, store: FeatureStore, visits: Requests, slates: dict[str, NDArray[np.int64]]
) -> NDArray[np.int64]:
    """The system's slates, by the code that serves; returns its candidates."""
    answer = Recommender(bundle, store).recommend(requests_of(store, visits_of(visits)), SLATE)
    slates["system"] = answer.app_ids
    return answer.candidates


def _share_of_gap(values: Mapping[str, float]) -> float:
    system, popular, oracle = (
        values[f"expected installs per request: {name}"] for name in ("system", "popular", "oracle")
    )
    return (system - popular) / (oracle - popular)


@contextmanager
def _listening(app: FastAPI) -> Iterator[str]:
    """Serve `app` from a thread, on a free port of this machine; yields its URL."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, name="http", daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    if not server.started:
        raise Unavailable("the HTTP server did not start; its log above says why")
    try:
        host, port = server.servers[0].sockets[0].getsockname()
        yield f"http://{host}:{port}"
    finally:
        server.should_exit = True
        thread.join()
