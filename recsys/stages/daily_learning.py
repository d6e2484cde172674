"""Stages of the loop that learn, on the morning of a day, which is `config.days.evaluate`.

    join_day ─► validate_day ─► (analyze, train_retrieval, build_index, train_ranker) ─► judge_day

Yesterday's rows are joined and checked; between, the main job's own stages train on them; the new
model is judged on the hours since midnight, beside the one that serves.  An artifact here holds
what the main job's artifact of the same kind holds, so that every day can follow.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import statistics_pb2

from data_gen import faults
from mlplatform.artifacts import link_tree, to_json
from mlplatform.data.files.spans import (
    read_parquet,
    read_span,
    span_files,
    span_path,
    write_span,
)
from mlplatform.data.schemas.schema import load_schema
from mlplatform.data.validation.broken_rows import find_broken_rows
from mlplatform.data.validation.validate import require_no_anomalies
from mlplatform.data.validation.validate import validate as validate_statistics
from mlplatform.errors import AnomaliesFound
from mlplatform.pipeline import Context
from recsys import evaluation, examples, features
from recsys.config import RunConfig
from recsys.evaluation import BASELINE, INDEX, LISTS, RANKING, RETRIEVAL, SYSTEM, sample
from recsys.online.bundle import Bundle
from recsys.online.feature_store import FeatureStore
from recsys.serving_skew import (
    compare,
    compare_shown_by_chance,
    join_requests,
    logged_rows,
    served_otherwise,
)
from recsys.stages.daily_serving import SWITCH_HOUR
from recsys.stages.data import (
    EVENTS,
    LOGGED,
    OBSERVABLE,
    SCHEMA,
    SPANS,
    STATISTICS,
    read_statistics,
)
from recsys.stages.day_files import LOG, events_of
from recsys.stages.release import (
    ALL_APPS,
    BUNDLE,
    FIGURES,
    assemble,
    judged,
    main_figures,
    serve_some,
    write_evaluations,
)
from recsys.stages.versions import current_version

VERDICT = "verdict.json"
# Of both models, on the same rows; a day's record keeps them.
SHOWN = tuple(
    f"{metric}: {who}"
    for metric in ("AUC", f"recall@{evaluation.K} of {ALL_APPS}")
    for who in (SYSTEM, BASELINE)
)
# Joined anew every day; the catalogue is a snapshot of the morning.
JOINED = ("requests", "impressions", "positives")


def join_day(
    config: RunConfig, fault: str | None, in_judged: bool, context: Context
) -> dict[str, Any]:
    """-> spans/: yesterday in full, today's first hours, and the days before in the window.

    fault: planted in yesterday's rows, for a drill.
    in_judged: in today's first hours as well, by which a model is judged.
    """
    day = config.days.evaluate
    log = examples.EventLog.read(
        context.inputs["generate_world"] / OBSERVABLE, context.inputs["simulate_days"] / EVENTS
    )
    morning = {
        name: read_parquet(events_of(context.inputs["open_day"], day) / f"{name}.parquet")
        for name in examples.EVENT_TABLES
    }
    log = replace(log, days=(*log.days, morning))
    history = log.history()
    root = context.output / SPANS
    for dataset in JOINED:
        for before in range(day - config.loop.window, day - 1):
            source = span_path(context.inputs["join_examples"] / SPANS, dataset, before)
            link_tree(source, span_path(root, dataset, before))
    known_by = 24.0 * day + SWITCH_HOUR
    rows = 0
    for one, since in ((day - 1, known_by - 24.0), (day, 24.0 * day)):
        counters = examples.AppCounters.of(log, one)
        tables = {
            "requests": examples.requests_of(log, history, one),
            "impressions": examples.impressions_of(log, counters, one, known_by),
            "positives": examples.positives_reported(log, history, since, known_by),
        }
        for dataset, table in tables.items():
            if fault and (one < day or in_judged):
                table = faults.plant(fault, table)
            write_span(root, dataset, one, table)
            rows += len(table)
    write_span(root, "apps", day, log.apps_by(day))
    return {"rows": rows}


def validate_day(config: RunConfig, context: Context) -> dict[str, Any]:
    """-> verdict.json: whether yesterday may be learned from, and if not why; statistics.pb.

    Against the schema; against the day before, for drift; against the serving log, for skew.
    """
    from mlplatform.data.statistics.compute import compute_statistics

    yesterday = config.days.evaluate - 1
    root, log = context.inputs["join_examples"] / SPANS, context.inputs["simulate_days"] / LOG
    files = {dataset: span_files(root, dataset, [yesterday]) for dataset in JOINED}
    served = {f"served {name}": [log / f"{name}.parquet"] for name in LOGGED}
    computed = compute_statistics(
        {f"{dataset}/{yesterday}": paths for dataset, paths in files.items()} | served
    )
    found = {one.name: one for one in computed.datasets}
    before = read_statistics(context.inputs["compute_statistics"])
    why: list[str] = []
    texts: list[str] = []
    n_anomalies = 0
    for dataset in JOINED:
        schema = load_schema(context.inputs["infer_schema"] / dataset / SCHEMA)
        anomalies = validate_statistics(
            found[f"{dataset}/{yesterday}"],
            schema,
            environment=features.TRAINING,
            previous=_latest(before, dataset, yesterday),
            serving=found.get(f"served {dataset}"),
        )
        broken = find_broken_rows(
            files[dataset], schema, anomalies, environment=features.TRAINING, samples=1
        )
        try:
            require_no_anomalies(anomalies, f"span {dataset}/{yesterday}", broken)
        except AnomaliesFound as error:
            why.append(str(error))
        n_anomalies += len(anomalies.anomaly_info)
        anomalies.ClearField("baseline")
        texts.append(f"# {dataset}/{yesterday}\n{text_format.MessageToString(anomalies)}")
    skewed = _joined_skew(config, root, log, yesterday)
    why += skewed
    (context.output / "anomalies.pbtxt").write_text("".join(texts), encoding="utf-8")
    (context.output / VERDICT).write_bytes(to_json({"day": yesterday, "why": why}))
    kept = context.inputs["compute_statistics"] / STATISTICS
    if why:  # tomorrow is compared with the last day that could be trusted
        link_tree(kept.parent, context.output, only=STATISTICS)
    else:
        trusted = statistics_pb2.DatasetFeatureStatisticsList(
            datasets=[one for one in computed.datasets if one.name not in served]
        )
        (context.output / STATISTICS).write_bytes(trusted.SerializeToString(deterministic=True))
    rows = sum(one.num_examples for one in found.values())
    return {"rows": rows, "anomalies": n_anomalies, "skewed": len(skewed), "accepted": not why}


def judge_day(config: RunConfig, registry: Path, context: Context) -> dict[str, Any]:
    """-> what the main job's `evaluate` leaves: the new model beside the one that serves.

    On the same rows, of the hours since midnight.
    """
    path = context.output / BUNDLE
    assemble(config, context, path)
    current = current_version(registry, context)
    bundles = {SYSTEM: Bundle.load(path), BASELINE: Bundle.of_version(current)}
    day, root = config.days.evaluate, context.inputs["join_examples"] / SPANS
    wanted = judged(config, config.loop.requests)
    with FeatureStore(context.inputs["build_feature_store"]) as store:
        popularity = evaluation.recent_installs(store, bundles[SYSTEM])
    installs = evaluation.installs_known(bundles.values(), root, day)
    installs = installs.take(pa.array(sample(len(installs), wanted.installs, wanted.seed)))
    asked = (day, wanted, context.output)
    evaluations = {
        RANKING: evaluation.judge_ranking(bundles, popularity, root, *asked),
        RETRIEVAL: evaluation.judge_retrieval(bundles, popularity, installs, *asked),
        INDEX: evaluation.judge_index(bundles[SYSTEM], installs, wanted),
        LISTS: serve_some(context, bundles[SYSTEM], installs, wanted),
    }
    write_evaluations(context.output, evaluations, baseline=f"version {current.number}")
    figures = main_figures(evaluations)
    (context.output / FIGURES).write_bytes(to_json(figures))
    rows = sum(one.overall.rows for one in evaluations.values())
    return {"rows": rows} | {name: figures[name]["value"] for name in SHOWN}


def _joined_skew(config: RunConfig, root: Path, log: Path, day: int) -> list[str]:
    """What is wrong with the log, joined with the rows that are trained on; a line each."""
    impressions = read_span(root, "impressions", [day])
    trained = join_requests(read_span(root, "requests", [day]), impressions)
    report = compare(trained, logged_rows(log))
    alone = report.counts.only_in_training + report.counts.only_in_serving
    if alone:
        share = alone / report.counts.matched
        return [f"impressions: only one side has {share:.1%} of the rows"]
    by_chance = compare_shown_by_chance(impressions, log)
    return served_otherwise(report, by_chance, config.loop.joined_skew, config.loop.moving_skew)


def _latest(
    statistics: dict[str, statistics_pb2.DatasetFeatureStatistics], dataset: str, before: int
) -> statistics_pb2.DatasetFeatureStatistics | None:
    """Those of the last day before one that there are statistics of."""
    named = [name.split("/") for name in statistics]
    days = [int(day) for one, day in named if one == dataset and int(day) < before]
    return statistics[f"{dataset}/{max(days)}"] if days else None
