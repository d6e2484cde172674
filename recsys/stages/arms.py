"""Stages of an experiment: a day under one arm, what came of each user, what was served otherwise.

Every arm answers all visits of the day, from the same morning and with the same luck (common random
numbers).  So each user has an outcome in every arm, of which a real test would see one.
"""

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_gen import faults, sessions
from data_gen.memory import Memory
from data_gen.world import Requests, World
from mlplatform.artifacts import link_tree, read_json, to_json
from mlplatform.data.files.spans import read_parquet, read_span, span_files, span_path, write_span
from mlplatform.data.schemas.schema import load_schema
from mlplatform.data.validation.validate import validate
from mlplatform.pipeline import Context
from mlplatform.training.state import ROWS
from recsys import evaluation, examples, features
from recsys.config import RunConfig
from recsys.online.bundle import QUERY_TOWER, RANKER, STATES, TRANSFORM, Bundle
from recsys.online.feature_store import FeatureStore
from recsys.online.recommender import Recommender
from recsys.serving_log import Served, serve
from recsys.serving_skew import (
    compare_shown_by_chance,
    logged_rows,
    measure_skew,
    served_otherwise,
    trained_rows,
)
from recsys.stages import policies
from recsys.stages.data import (
    BACKLOG_DAY,
    EVENTS,
    LOGGED,
    OBSERVABLE,
    SCHEMA,
    SPANS,
    load_truth_of_the_morning,
    visits_of,
)
from recsys.stages.day_files import LOG, write_end, write_log
from recsys.stages.release import BUNDLE, assemble

SYSTEM, POPULAR, RANDOM, ORACLE = "system", "popular", "random", "oracle"
OUTCOMES, SKEW = "outcomes.npz", "skew.json"
NEVER_PUSHED = 0  # as the version of a bundle in a log
# What the log has beside features.
KEPT_BESIDE = {*features.LOGGED, "bundle_version", "position", "score"}
_LABELS_WAIT_HOURS = 6.0  # after the day, as the loop's mornings do


def answer_day(config: RunConfig, policy: str, context: Context) -> dict[str, Any]:
    """-> events/ and log/ of the day as `close_day`; outcomes.npz; the world as it is afterwards.

    outcomes.npz: arrays by user id, of the day: requests, impressions, installs as reported and
    expected by the truth of it.
    """
    world, memory = load_truth_of_the_morning(config, context)
    day = config.days.evaluate
    visits = sessions.visits(world, day)
    context.progress.expect(len(visits))
    slates, propensities, served = _answers(config, policy, world, memory, visits, context)
    expected = world.install_probability(visits, slates, memory).sum(axis=1)
    played = sessions.play_day(world, memory, day, visits, slates, propensities)
    write_end(context, day, played, memory)
    if served is not None:
        write_log(context.output, served)
    from_shown = played.installs.filter(played.installs["request_id"].is_valid())
    n_users = config.world.users_by(day + 1)
    outcomes = {
        "requests": np.bincount(visits.user, minlength=n_users),
        "impressions": np.bincount(visits.user, (slates >= 0).sum(axis=1), n_users),
        "installs": np.bincount(from_shown["user_id"].to_numpy(), minlength=n_users),
        "expected": np.bincount(visits.user, expected, n_users),
    }
    np.savez(context.output / OUTCOMES, allow_pickle=False, **outcomes)
    return {
        "rows": len(played.impressions),
        "requests": len(visits),
        "installs per request": len(from_shown) / len(visits),
        "installs per impression": len(from_shown) / len(played.impressions),
    }


def find_skew(config: RunConfig, context: Context) -> dict[str, Any]:
    """-> skew.json: what a day was served otherwise than it is trained on, and what that costs.

    why: what is wrong, a line each: the log contradicts the schema, or is not what training has.
    marginal: anomalies of the distributions, by feature, as the day's validation raises them.
    report, cost: of the rows of both sides, joined by their keys, and what that does to the ranker.
    by_chance: the same report of the apps' features, of all rows that chance alone showed.
    """
    from mlplatform.data.statistics.compute import compute_statistics

    day, log = config.days.evaluate, context.inputs["simulate_days"] / LOG
    root = context.scratch / SPANS
    _join(config, root, context)
    files = {name: span_files(root, name, [day]) for name in LOGGED}
    computed = compute_statistics(
        files | {f"served {name}": [log / f"{name}.parquet"] for name in LOGGED}
    )
    found = {one.name: one for one in computed.datasets}
    why: list[str] = []
    marginal: dict[str, str] = {}
    for name in LOGGED:
        schema = load_schema(context.inputs["infer_schema"] / name / SCHEMA)
        served = found[f"served {name}"]
        alone = validate(served, schema, environment=features.SERVING)
        why += [
            f"the log, {one}: {info.description}"
            for one, info in alone.anomaly_info.items()
            if one not in KEPT_BESIDE
        ]
        both = validate(found[name], schema, environment=features.TRAINING, serving=served)
        marginal |= {one: info.description for one, info in both.anomaly_info.items()}
    why += [f"{one}: {description}" for one, description in marginal.items()]
    bundle = Bundle.load(context.inputs["evaluate"] / BUNDLE)
    trained = trained_rows(root, day, config.evaluation.skew_requests, config.seed)
    report, cost = measure_skew(bundle, trained, logged_rows(log), config.seed)
    by_chance = compare_shown_by_chance(read_span(root, "impressions", [day]), log)
    why += served_otherwise(report, by_chance, config.loop.joined_skew, config.loop.moving_skew)
    reports = {"report": asdict(report), "by_chance": asdict(by_chance), "cost": asdict(cost)}
    (context.output / SKEW).write_bytes(to_json({"why": why, "marginal": marginal} | reports))
    return {"rows": report.counts.matched, "said": len(why)}


def join_as_logged(
    config: RunConfig, days: Sequence[int], fault: str, severity: float, context: Context
) -> dict[str, Any]:
    """-> spans/: of some days, as if joined with what the server, with its fault, had logged."""
    source, root = context.inputs["join_examples"] / SPANS, context.output / SPANS
    rows = 0
    for dataset in ("requests", "impressions", "positives"):
        for day in [BACKLOG_DAY, *days] if dataset == "positives" else days:
            for file in span_files(source, dataset, [day]):
                table = faults.plant(fault, read_parquet(file), severity)
                write_span(root, dataset, day, table)
                rows += len(table)
    day = config.days.evaluate
    link_tree(span_path(source, "apps", day), span_path(root, "apps", day))
    return {"rows": rows}


def assemble_bundle(config: RunConfig, context: Context) -> dict[str, Any]:
    """-> bundle/, to be compared with the one that was pushed."""
    assemble(config, context, context.output / BUNDLE)
    return {"rows": 1}


def mix_parts(config: RunConfig, context: Context) -> dict[str, Any]:
    """-> bundle/: what a push that was cut off leaves: a query tower of the version before."""
    path = context.output / BUNDLE
    link_tree(context.inputs["evaluate"] / BUNDLE, path)
    for part in (Path(QUERY_TOWER), Path(STATES) / QUERY_TOWER):
        shutil.rmtree(path / part)
        link_tree(context.inputs["in_service"] / BUNDLE / part, path / part)
    return {"rows": 1}


def forge_origin(config: RunConfig, context: Context) -> dict[str, Any]:
    """-> bundle/: the same, with every part saying that it belongs to the others."""
    path = context.output / BUNDLE
    link_tree(context.inputs["evaluate"] / BUNDLE, path)
    for name in (QUERY_TOWER, RANKER):
        rows = path / STATES / name / ROWS
        said = read_json(rows) | {"transform": read_json(path / TRANSFORM)["fingerprint"]}
        rows.unlink()  # a link: the version before keeps its own
        rows.write_bytes(to_json(said))
    return {"rows": 1}


def read_outcomes(artifact: Path) -> dict[str, NDArray[np.float64]]:
    with np.load(artifact / OUTCOMES, allow_pickle=False) as file:
        return {name: np.asarray(file[name], np.float64) for name in file.files}


def _answers(
    config: RunConfig,
    policy: str,
    world: World,
    memory: Memory,
    visits: Requests,
    context: Context,
) -> tuple[NDArray[np.int64], NDArray[np.float64], Served | None]:
    if policy == RANDOM:
        slates = policies.at_random(visits, world.config.apps_by(visits.day[0]), config.seed)
        return slates, np.ones(slates.shape), None
    if policy == ORACLE:
        slates = policies.oracle(world, visits, memory, context.progress.advance)
        return slates, np.ones(slates.shape), None
    bundle = Bundle.load(context.inputs["evaluate"] / BUNDLE)
    with FeatureStore(context.inputs["build_feature_store"]) as store:
        if policy == SYSTEM:
            served = serve(
                Recommender(bundle, store),
                visits_of(visits),
                NEVER_PUSHED,
                config.loop.exploration,
                config.seed,
                context.progress.advance,
            )
            return served.slates, served.propensities, served
        installs = evaluation.recent_installs(store, bundle)
    order = np.argsort(-installs, kind="stable")
    slates = policies.popular(bundle.apps.ids[order], memory, visits)
    return slates, np.ones(slates.shape), None


def _join(config: RunConfig, root: Path, context: Context) -> None:
    """The day's rows as models would be trained on them."""
    day = config.days.evaluate
    log = examples.EventLog.read(
        context.inputs["generate_world"] / OBSERVABLE, context.inputs["simulate_days"] / EVENTS
    )
    known_by = 24.0 * (day + 1) + _LABELS_WAIT_HOURS
    counters = examples.AppCounters.of(log, day)
    write_span(root, "requests", day, examples.requests_of(log, log.history(), day))
    write_span(root, "impressions", day, examples.impressions_of(log, counters, day, known_by))
