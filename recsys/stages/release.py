"""Stages between a trained model and a served one: evaluate, try serving, gate, push."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.special import logit

from data_gen.memory import Memory
from data_gen.world import Requests, World
from mlplatform.artifacts import hash_files, link_tree, read_json, to_json
from mlplatform.data.files.spans import read_span, write_parquet
from mlplatform.evaluation.figures import Evaluation
from mlplatform.evaluation.gate import judge, require_blessed, with_check
from mlplatform.pipeline import Context, code_hash, read_record
from mlplatform.registry.registry import Registry
from mlplatform.registry.signing import sign, signing_key
from mlplatform.training.runtime import tensorflow
from recsys import evaluation
from recsys.config import RunConfig
from recsys.evaluation import INDEX, LISTS, RANKING, RETRIEVAL, SYSTEM, Judged
from recsys.online.bundle import (
    CATALOGUE,
    QUERY_TOWER,
    RANKER,
    STATES,
    TRANSFORM,
    Bundle,
)
from recsys.online.feature_store import FeatureStore
from recsys.online.prepare import prepare
from recsys.online.recommender import Recommender
from recsys.stages.data import BACKLOG_DAY, SPANS, load_truth_of_the_morning
from recsys.stages.models import CURVE, LINEAR
from recsys.stages.versions import write_version
from recsys.training_data import Positives, Slates

ALL_APPS = "all apps"
BUNDLE, FIGURES, BLESSING = "bundle", "figures.json", "blessing.json"
TRIAL, COMPARED_WITH = "trial.json", "compared_with.json"
GATED = (RANKING, RETRIEVAL, INDEX, LISTS)


def evaluate(config: RunConfig, context: Context) -> dict[str, Any]:
    """-> bundle/, its parts put together; what it is worth on the later day, beside others.

    NAME.json and NAME.html of every evaluation; figures.json, the main ones.
    """
    bundle_path = context.output / BUNDLE
    assemble(config, context, bundle_path)
    bundle = Bundle.load(bundle_path)
    bundles = {SYSTEM: bundle}
    root = context.inputs["join_examples"] / SPANS
    day, wanted = config.days.evaluate, judged(config, config.evaluation.requests)
    past = Positives.read(root, [BACKLOG_DAY, *config.days.train], bundle.transform, bundle.apps)
    popularity = np.bincount(past.app, minlength=len(bundle.apps) + 1)[1:]
    world, memory = load_truth_of_the_morning(config, context)
    linear = tensorflow().saved_model.load(str(context.inputs["train_ranker"] / LINEAR))

    def rankers(slates: Slates) -> dict[str, NDArray[np.floating[Any]]]:
        top = slates.at_the_top(bundle.transform)
        score = evaluation.score_slates
        return {
            "linear": score(linear.signatures["codes"], slates, slates.impression),
            "system, as if at the top": score(bundle.rank, slates, top),
            "oracle": _oracle_scores(world, memory, bundle, slates),
        }

    def recommenders(installs: Positives) -> dict[str, NDArray[np.int64]]:
        visits = Requests(installs.user, installs.user, installs.hour, installs.user < 0)
        ideal = world.oracle_slates(visits, evaluation.K, memory, len(bundle.apps))
        places = bundle.apps.rows_of(ideal) - 1
        return neighbours.ranks(installs) | {"oracle": evaluation.ranks_in(places, installs.app)}

    evaluations = {
        RANKING: evaluation.judge_ranking(
            bundles, popularity, root, day, wanted, context.output, rankers
        )
    }
    neighbours = evaluation.Neighbours.of(bundle, popularity, config.seed)
    held_out = _held_out(config, root, bundle)
    for where, installs in held_out.items():
        name = RETRIEVAL if where == ALL_APPS else f"{RETRIEVAL} of {where}"
        evaluations[name] = evaluation.judge_retrieval(
            bundles, popularity, installs, day, wanted, context.output, recommenders, name
        )
    evaluations[INDEX] = evaluation.judge_index(bundle, held_out[ALL_APPS], wanted)
    evaluations[LISTS] = serve_some(context, bundle, held_out[ALL_APPS], wanted)
    write_evaluations(context.output, evaluations, baseline=None)
    (context.output / FIGURES).write_bytes(to_json(main_figures(evaluations)))
    rows = sum(one.overall.rows for one in evaluations.values())
    return {"rows": rows, "index holds": len(bundle.apps)}


def try_serving(config: RunConfig, context: Context) -> dict[str, Any]:
    """-> trial.json: whether a server with the bundle answers as the bundle did, and soon."""
    from recsys.online.canary import examine_bundle

    report = examine_bundle(
        context.inputs["evaluate"] / BUNDLE, context.inputs["build_feature_store"]
    )
    (context.output / TRIAL).write_bytes(to_json(asdict(report)))
    return {"rows": int(report.figures.get("answers", 0)), "passed": report.passed}


def gate(config: RunConfig, registry: Path, context: Context) -> dict[str, Any]:
    """-> blessing.json, signed: whether the bundle may serve, what was checked, why not."""
    stage = context.inputs["evaluate"]
    evaluations = {name: read_evaluation(stage, name) for name in GATED}
    record = judge(
        {name: [one.overall, *one.slices.values()] for name, one in evaluations.items()},
        config.gate.thresholds,
        hash_files(stage / BUNDLE),
        read_json(stage / COMPARED_WITH)["baseline"],
    )
    trial = read_json(context.inputs["try_serving"] / TRIAL)
    record = with_check(record, "a trial of serving it", trial["passed"], trial["reason"])
    (context.output / BLESSING).write_bytes(to_json(sign(record, signing_key(registry))))
    return {"rows": len(record["checks"]), "blessed": record["blessed"]}


def push(
    config: RunConfig, days: Sequence[int], registry: Path, context: Context
) -> dict[str, Any]:
    """-> the registry's next version, trained on some days, labelled stable.

    Raises:
        GateRefused: the gate did not bless it.
    """
    blessing = read_json(context.inputs["gate"] / BLESSING)
    require_blessed(blessing)
    stage = context.inputs["evaluate"]
    made = read_record(stage)
    manifest = {
        "blessing": blessing,
        "figures": read_json(stage / FIGURES),
        "configuration": config.model_dump(mode="json"),
        "spans": list(days),
        "transform": read_json(stage / BUNDLE / TRANSFORM)["fingerprint"],
        "lineage": {**made.inputs, made.stage: made.fingerprint},
        "code": {package: code_hash(package) for package in ("mlplatform", "recsys")},
    }
    version = Registry(registry).push(stage / BUNDLE, manifest)
    write_version(context.output, version)
    return {"rows": len(version.manifest["files"]), "version": version.number}


def judged(config: RunConfig, requests: int) -> Judged:
    wanted = config.evaluation
    return Judged(requests, wanted.installs, wanted.queries, config.seed)


def serve_some(context: Context, bundle: Bundle, installs: pa.Table, wanted: Judged) -> Evaluation:
    """Answer some logged requests: what the lists are like; and the bundle's golden answers.

    installs: what users went for on that day.
    """
    from recsys.online.canary import GOLDEN, golden

    with FeatureStore(context.inputs["build_feature_store"]) as store:
        recommender = Recommender(bundle, store)
        logged = read_span(context.inputs["join_examples"] / SPANS, "requests", [store.day])
        chosen = evaluation.sample(len(logged), wanted.queries, wanted.seed)
        requests = logged.take(pa.array(chosen))
        answers = golden(recommender, requests)
        (context.output / BUNDLE / GOLDEN).write_bytes(to_json(answers))
        return evaluation.judge_lists(recommender, requests, installs, wanted.seed)


def write_evaluations(
    output: Path, evaluations: Mapping[str, Evaluation], baseline: str | None
) -> None:
    """Keep each as NAME.json, as the gate reads it.

    baseline: what the bundle was compared with, in words.
    """
    for name, one in evaluations.items():
        (output / f"{name}.json").write_bytes(to_json(one.to_json()))
    (output / COMPARED_WITH).write_bytes(to_json({"baseline": baseline}))


def read_evaluation(stage: Path, name: str) -> Evaluation:
    return Evaluation.from_json(read_json(stage / f"{name}.json"))


def main_figures(evaluations: Mapping[str, Evaluation]) -> dict[str, Any]:
    """The figures that a run prints, by names that say what of them."""
    found: dict[str, Any] = {}
    for name, one in evaluations.items():
        for figure, interval in one.overall.figures.items():
            metric, _, who = figure.partition(": ")
            if name in (RANKING, LISTS):
                found[figure] = asdict(interval)
            elif name == INDEX:
                found[f"index {figure}"] = asdict(interval)
            elif metric == f"recall@{evaluation.K}":
                where = name.removeprefix(f"{RETRIEVAL} of ") if name != RETRIEVAL else ALL_APPS
                found[f"{metric} of {where}: {who}"] = asdict(interval)
    return found


def assemble(config: RunConfig, context: Context, bundle: Path) -> None:
    """Link every part into one directory; what only training needed stays behind."""
    retrieval, ranker = context.inputs["train_retrieval"], context.inputs["train_ranker"]
    link_tree(retrieval / QUERY_TOWER, bundle / QUERY_TOWER)
    link_tree(ranker / RANKER, bundle / RANKER)
    for stage, name in ((retrieval, QUERY_TOWER), (ranker, RANKER)):
        link_tree(stage / STATES / name, bundle / STATES / name)
    link_tree(context.inputs["build_index"], bundle)
    link_tree(retrieval, bundle, only="app_*.npy")
    link_tree(context.inputs["analyze"], bundle, only=TRANSFORM)
    link_tree(context.inputs["infer_schema"], bundle / "schema")
    for folder in (bundle, bundle / "schema"):
        for name in ("stage.json", CURVE):
            (folder / name).unlink(missing_ok=True)
    root = context.inputs["join_examples"] / SPANS
    catalogue = read_span(root, "apps", [config.days.evaluate]).sort_by("app_id")
    write_parquet(catalogue, bundle / CATALOGUE)
    prepare(bundle)


def _held_out(config: RunConfig, root: Path, bundle: Bundle) -> dict[str, pa.Table]:
    """Installs of the later day by slice, at most so many of each, chosen at random."""
    every = evaluation.installs_known([bundle], root, config.days.evaluate)
    app = bundle.apps.rows_of(every["app_id"].to_numpy()) - 1
    shown = read_span(root, "impressions", config.days.train, ["app_id"])["app_id"].to_numpy()
    counts = np.bincount(bundle.apps.rows_of(shown), minlength=len(bundle.apps) + 1)[1:]
    released = bundle.catalogue["release_day"].to_numpy()
    first_day = config.days.train[0]
    users = every["user_id"].to_numpy()
    masks = {
        ALL_APPS: np.ones(len(every), dtype=bool),
        f"apps outside the {evaluation.MOST_SHOWN} most shown": evaluation.tail_of(counts)[app],
        "apps released after training began": released[app] >= first_day,
        "users signed up after training began": users >= config.world.users_by(first_day),
    }
    slices = {}
    for where, mask in masks.items():
        rows = np.flatnonzero(mask)
        if len(rows):
            few = evaluation.sample(len(rows), config.evaluation.installs, config.seed)
            slices[where] = every.take(pa.array(rows[few]))
    return slices


def _oracle_scores(world: World, memory: Memory, bundle: Bundle, slates: Slates) -> Any:
    """The world's own logit of every shown app, the place included: no model can know more."""
    requests = Requests(slates.request_id, slates.user, slates.hour, slates.metered)
    app_ids = np.where(slates.app > 0, bundle.apps.ids[np.maximum(slates.app - 1, 0)], -1)
    probability = world.install_probability(requests, app_ids, memory)
    return logit(np.clip(probability, 1e-9, 1 - 1e-9))
