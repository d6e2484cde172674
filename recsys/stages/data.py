"""Stages from the world to a transform: data is made, joined, described, checked, analyzed."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from data_gen import faults, sessions
from data_gen.memory import Memory
from data_gen.world import Requests, World, build_world, load_truth, save_truth
from mlplatform.data.files.spans import span_files, write_parquet, write_span
from mlplatform.data.schemas import schema as schemas
from mlplatform.data.validation.broken_rows import find_broken_rows
from mlplatform.data.validation.validate import require_no_anomalies
from mlplatform.data.validation.validate import validate as validate_statistics
from mlplatform.pipeline import Context
from recsys import examples, features
from recsys.config import RunConfig
from recsys.serving_log import Visits

OBSERVABLE, TRUTH, EVENTS, SPANS = "observable", "truth", "events", "spans"
BACKLOG_DAY = -1
DATASETS = ("apps", "requests", "impressions", "positives")
LOGGED = ("requests", "impressions")  # of these there is a serving log
STATISTICS, SCHEMA = "statistics.pb", "schema.pbtxt"
# Who comes and whence hardly changes from one day to the next: by 0.004 bits at most, seen in the
# smallest world.  What users do changes with what they are shown, and is left out.
DRIFTING = tuple(
    f.name for f in features.REQUEST if f.dtype == "string" and f.name not in features.MOVING
)
DRIFT_LIMIT = 0.02  # bits
# The same requests and impressions are to be served as they are trained on.
SERVED = tuple(
    f.name
    for f in (*features.REQUEST, *features.IMPRESSION)
    if f.name not in features.MOVING and not f.training_only
)
SKEW_LIMIT = 0.001  # bits; alike they differ by none, and nothing but rounding is allowed for
# What users do since the morning moves these by 0.015 bits at most, seen in the smallest world.
MOVING_SKEW_LIMIT = 0.05


def generate_world(config: RunConfig, context: Context) -> dict[str, Any]:
    """-> observable/{apps,users,owned}.parquet, and the hidden truth apart from them."""
    days = config.days.evaluate + 1
    context.progress.expect(config.world.apps_by(days) + config.world.users_by(days))
    world, apps, users = build_world(config.world, days, context.progress.advance)
    _, owned = sessions.first_memory(world)
    for folder in (OBSERVABLE, TRUTH):
        (context.output / folder).mkdir()
    save_truth(world, context.output / TRUTH)
    for name, table in (("apps", apps), ("users", users), ("owned", owned)):
        write_parquet(table, context.output / OBSERVABLE / f"{name}.parquet")
    return {"rows": len(apps) + len(users), "apps": len(apps), "users": len(users)}


def simulate_days(config: RunConfig, context: Context) -> dict[str, Any]:
    """-> events/day=NNN/{requests,impressions,installs}.parquet under the logged policy.

    And, hidden, what users own and have seen on the morning of the evaluation day.
    """
    world = load_world(config, context)
    memory, _ = sessions.first_memory(world)
    days = config.days.evaluate + 1
    context.progress.expect(days)
    rows = shown = from_shown = 0
    for number in range(days):
        if number == config.days.evaluate:
            (context.output / TRUTH).mkdir()
            memory.save(context.output / TRUTH)
        day = sessions.simulate_day(world, memory, number)
        folder = context.output / EVENTS / f"day={number:03d}"
        folder.mkdir(parents=True)
        for name in examples.EVENT_TABLES:
            write_parquet(getattr(day, name), folder / f"{name}.parquet")
            rows += len(getattr(day, name))
        shown += len(day.impressions)
        from_shown += len(day.installs) - day.installs["request_id"].null_count
        context.progress.advance(1)
    return {"rows": rows, "impressions": shown, "installs per impression": from_shown / shown}


def join_examples(config: RunConfig, context: Context) -> dict[str, Any]:
    """-> spans/DATASET/day=NNN: training examples, and the catalogue of the evaluation day."""
    log = examples.EventLog.read(
        context.inputs["generate_world"] / OBSERVABLE, context.inputs["simulate_days"] / EVENTS
    )
    history = log.history()
    root = context.output / SPANS
    days = config.days
    context.progress.expect(days.training + 1)
    rows = 0

    def write(dataset: str, day: int, table: Any) -> None:
        nonlocal rows
        write_span(root, dataset, day, table)
        rows += len(table)

    write("positives", BACKLOG_DAY, examples.backlog_positives(log, history))
    for day in (*days.train, days.evaluate):
        # Training knows what was reported by its end; the evaluation day is labelled in full.
        known_by = 24.0 * days.evaluate if day < days.evaluate else 24.0 * (day + 3)
        counters = examples.AppCounters.of(log, day)
        write("requests", day, examples.requests_of(log, history, day))
        write("impressions", day, examples.impressions_of(log, counters, day, known_by))
        write("positives", day, examples.positives_of(log, history, day, known_by))
        context.progress.advance(1)
    write("apps", days.evaluate, log.apps_by(days.evaluate))
    return {"rows": rows}


def build_feature_store(
    config: RunConfig,
    context: Context,
    fault: str | None = None,
    severity: float = 1.0,
    unseen_days: int = 0,
) -> dict[str, Any]:
    """-> users (LMDB) and counters of apps, as of the morning of the evaluation day.

    fault: planted in what is written, for a drill; severity: see `faults.plant`.
    unseen_days: before this morning, whose events do not reach the store; another drill.
    """
    from recsys.online.feature_store import write_feature_store

    def edit(table: pa.Table) -> pa.Table:
        return faults.plant(fault, table, severity) if fault and severity else table

    log = examples.EventLog.read(
        context.inputs["generate_world"] / OBSERVABLE, context.inputs["simulate_days"] / EVENTS
    )
    if unseen_days:
        unseen = [{name: one.slice(0, 0) for name, one in day.items()} for day in log.days]
        log = replace(log, days=(*log.days[:-unseen_days], *unseen[-unseen_days:]))
    return {"rows": write_feature_store(log, config.days.evaluate, context.output, edit)}


def compute_statistics(config: RunConfig, context: Context) -> dict[str, Any]:
    """-> statistics.pb: every dataset of every day, one entry 'DATASET/DAY' each."""
    from mlplatform.data.statistics.compute import compute_statistics as compute

    root = context.inputs["join_examples"] / SPANS
    datasets = {
        f"{dataset}/{day}": span_files(root, dataset, [day])
        for dataset in DATASETS
        for day in days_of(config, dataset)
    }
    statistics = compute(datasets)
    (context.output / STATISTICS).write_bytes(statistics.SerializeToString(deterministic=True))
    rows = sum(one.num_examples for one in statistics.datasets)
    cells = sum(one.num_examples * len(one.features) for one in statistics.datasets)
    return {"rows": rows, "cells": cells}


def infer_schema(config: RunConfig, context: Context) -> dict[str, Any]:
    """-> DATASET/schema.pbtxt: what the first training day looks like, and who must have what."""
    statistics = read_statistics(context.inputs["compute_statistics"])
    n_features = 0
    for dataset in DATASETS:
        first = days_of(config, dataset)[0]
        schema = schemas.infer_schema(statistics[f"{dataset}/{first}"])
        schema.default_environment[:] = [features.TRAINING, features.SERVING]
        for feature in schema.feature:
            if feature.name in features.LOGGED:
                feature.ClearField("domain")
            if feature.name in features.NOT_SERVED:
                schemas.set_environments(
                    schema, feature.name, not_in_environments=[features.SERVING]
                )
            if feature.name in DRIFTING:
                feature.drift_comparator.jensen_shannon_divergence.threshold = DRIFT_LIMIT
            if feature.name in (*SERVED, *features.MOVING) and dataset in LOGGED:
                limit = SKEW_LIMIT if feature.name in SERVED else MOVING_SKEW_LIMIT
                feature.skew_comparator.jensen_shannon_divergence.threshold = limit
        _relax(schema)
        (context.output / dataset).mkdir()
        schemas.save_schema(schema, context.output / dataset / SCHEMA)
        n_features += len(schema.feature)
    return {"rows": n_features}


def validate(config: RunConfig, context: Context) -> dict[str, Any]:
    """-> anomalies.pbtxt; stops the run if a day contradicts the schema or drifts from the last.

    The message names the features, the span and some of the rows.
    """
    statistics = read_statistics(context.inputs["compute_statistics"])
    root = context.inputs["join_examples"] / SPANS
    text = []
    for dataset in DATASETS:
        schema = schemas.load_schema(context.inputs["infer_schema"] / dataset / SCHEMA)
        for day in days_of(config, dataset):
            name = f"{dataset}/{day}"
            anomalies = validate_statistics(
                statistics[name],
                schema,
                environment=features.TRAINING,
                previous=statistics.get(f"{dataset}/{day - 1}"),
            )
            broken = find_broken_rows(
                span_files(root, dataset, [day]), schema, anomalies, environment=features.TRAINING
            )
            require_no_anomalies(anomalies, f"span {name}", broken)
            anomalies.ClearField("baseline")
            text.append(f"# {name}\n{text_format.MessageToString(anomalies)}")
    (context.output / "anomalies.pbtxt").write_text("".join(text), encoding="utf-8")
    return {"rows": len(text), "anomalies": 0}


def analyze(config: RunConfig, days: Sequence[int], context: Context) -> dict[str, Any]:
    """-> transform.json: vocabularies and quantiles of some days, and of the catalogue."""
    from mlplatform.transform.analyze import analyze as analyze_features

    root = context.inputs["join_examples"] / SPANS
    transform = analyze_features(
        {
            "requests": features.REQUEST,
            "apps": features.APP,
            "impressions": features.IMPRESSION,
        },
        {
            "requests": span_files(root, "requests", days),
            "apps": span_files(root, "apps", [config.days.evaluate]),
            "impressions": span_files(root, "impressions", days),
        },
    )
    transform.save(context.output / "transform.json")
    return {"rows": sum(len(values) for values in transform.vocabularies.values())}


def load_world(config: RunConfig, context: Context) -> World:
    return load_truth(config.world, context.inputs["generate_world"] / TRUTH)


def load_truth_of_the_morning(config: RunConfig, context: Context) -> tuple[World, Memory]:
    """The world, and what its users own and have seen when the evaluation day begins."""
    world = load_world(config, context)
    memory = Memory.load(
        context.inputs["simulate_days"] / TRUTH, world.apps.group, world.apps.category
    )
    return world, memory.grown(len(world.users.activity))


def visits_of(requests: Requests) -> Visits:
    """The world's visits as the application is asked."""
    networks = np.where(requests.metered, "metered", "wifi").tolist()
    return Visits(requests.request_id, requests.user, requests.hour, networks)


def days_of(config: RunConfig, dataset: str) -> list[int]:
    """The days that a dataset has spans of; of the catalogue there is one snapshot."""
    if dataset == "apps":
        return [config.days.evaluate]
    return [*config.days.train, config.days.evaluate]


def read_statistics(artifact: Path) -> dict[str, statistics_pb2.DatasetFeatureStatistics]:
    """The statistics of each data set, by 'DATASET/DAY'."""
    content = (artifact / STATISTICS).read_bytes()
    parsed = statistics_pb2.DatasetFeatureStatisticsList.FromString(content)
    return {one.name: one for one in parsed.datasets}


def _relax(schema: schema_pb2.Schema) -> None:
    """One day does not show how much of a feature may be missing, or how long lists get."""
    for feature in schema.feature:
        if 0 < feature.presence.min_fraction < 1:
            feature.presence.min_fraction *= 0.9
        if feature.HasField("value_count") and feature.value_count.max != 1:
            feature.value_count.ClearField("max")
            feature.value_count.min = 0
