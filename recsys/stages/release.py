"""Stages between a trained model and a served one: evaluate, gate, push."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import logit

from data_gen.memory import Memory
from data_gen.world import Requests, World
from mlplatform.artifacts import hash_files, link_tree, read_json, to_json
from mlplatform.data.files.spans import read_span, write_parquet
from mlplatform.evaluation.gate import Threshold, judge, require_blessed
from mlplatform.evaluation.metrics import Interval
from mlplatform.pipeline import Context
from mlplatform.registry.registry import Registry
from mlplatform.training.runtime import tensorflow
from recsys import evaluation
from recsys.config import Gate, RunConfig
from recsys.online.bundle import CATALOGUE, QUERY_TOWER, RANKER, STATES, TRANSFORM, Bundle
from recsys.stages.data import BACKLOG_DAY, SPANS, load_truth_of_the_morning
from recsys.stages.models import CURVE, LINEAR
from recsys.stages.versions import write_version
from recsys.training_data import Positives, Slates

ALL_APPS = "all apps"
BUNDLE, FIGURES, BLESSING = "bundle", "figures.json", "blessing.json"


def evaluate(config: RunConfig, context: Context) -> dict[str, Any]:
    """-> bundle/, its parts put together; figures.json, what they are worth on the later day."""
    bundle_path = context.output / BUNDLE
    assemble(config, context, bundle_path)
    bundle = Bundle.load(bundle_path)
    root = context.inputs["join_examples"] / SPANS
    day, seed, wanted = config.days.evaluate, config.seed, config.evaluation

    past = Positives.read(root, [BACKLOG_DAY, *config.days.train], bundle.transform, bundle.apps)
    judge = evaluation.RetrievalJudge.of(bundle, past.app, seed)
    world, memory = load_truth_of_the_morning(config, context)
    figures: dict[str, Interval] = {}
    n_installs = 0
    for where, held_out in _held_out(config, root, bundle).items():
        wifi = np.zeros(len(held_out), dtype=bool)
        visits = Requests(held_out.user, held_out.user, held_out.hour, wifi)
        oracle = world.oracle_slates(visits, evaluation.K, memory, len(bundle.apps))
        figures |= judge.judge(where, held_out, oracle)
        n_installs += len(held_out)
        if where == ALL_APPS:
            queries = judge.queries(held_out.take(np.arange(min(wanted.queries, len(held_out)))))
            figures |= evaluation.evaluate_index(bundle, queries, seed)

    every = Slates.read(root, [day], bundle.transform, bundle.apps)
    slates = every.take(evaluation.sample(len(every), wanted.requests, seed))
    linear = tensorflow().saved_model.load(str(context.inputs["train_ranker"] / LINEAR))
    installs = np.bincount(past.app, minlength=len(bundle.apps) + 1)[1:]
    served = slates.at_the_top(bundle.transform)
    figures |= evaluation.evaluate_ranking(
        slates,
        {
            "system": evaluation.score_slates(bundle.rank, slates, slates.impression),
            "linear": evaluation.score_slates(
                linear.signatures["codes"], slates, slates.impression
            ),
            "system, as if at the top": evaluation.score_slates(bundle.rank, slates, served),
            "popular": evaluation.popularity_scores(slates, installs),
            "oracle": _oracle_scores(world, memory, bundle, slates),
        },
        seed,
    )
    content = {name: asdict(figure) for name, figure in figures.items()}
    (context.output / FIGURES).write_bytes(to_json(content))
    return {"rows": n_installs + int((slates.label >= 0).sum()), "index holds": len(bundle.apps)}


def gate(config: RunConfig, context: Context) -> dict[str, Any]:
    """-> blessing.json; stops the run when the model did not earn it."""
    stage = context.inputs["evaluate"]
    wanted = config.gate
    thresholds = [
        *absolute_thresholds(wanted, "system"),
        Threshold("AUC: system - popular", "popularity is free", above=0.0),
        Threshold(f"recall@100 of {ALL_APPS}: system - popular", "popularity is free", above=0.0),
    ]  # fmt: skip
    blessing = judge(read_figures(stage), thresholds, hash_files(stage / BUNDLE))
    require_blessed(blessing)
    (context.output / BLESSING).write_bytes(to_json(blessing))
    return {"rows": len(thresholds), "blessed": True}


def absolute_thresholds(wanted: Gate, ranker: str) -> list[Threshold]:
    """What is asked of any bundle, whatever it follows; `ranker` is its name in the figures."""
    return [
        Threshold("index recall@100", "a coarser index loses apps the towers would find",
                  above=wanted.index_recall),
        Threshold(f"AUC: {ranker}", "a ranker this weak is no better than popularity",
                  above=wanted.auc_low),
        Threshold(f"AUC: {ranker}", "nothing honest is this good here: look for a leaked label",
                  below=wanted.auc_high),
    ]  # fmt: skip


def push(
    config: RunConfig, days: Sequence[int], registry: Path, context: Context
) -> dict[str, Any]:
    """-> the registry's next version, trained on some days, labelled stable."""
    manifest = {
        "blessing": read_json(context.inputs["gate"] / BLESSING),
        "figures": read_json(context.inputs["evaluate"] / FIGURES),
        "configuration": config.model_dump(mode="json"),
        "spans": list(days),
        "transform": read_json(context.inputs["evaluate"] / BUNDLE / TRANSFORM)["fingerprint"],
    }
    version = Registry(registry).push(context.inputs["evaluate"] / BUNDLE, manifest)
    write_version(context.output, version)
    return {"rows": len(version.manifest["files"]), "version": version.number}


def read_figures(stage: Path) -> dict[str, Interval]:
    return {name: Interval(**value) for name, value in read_json(stage / FIGURES).items()}


def assemble(config: RunConfig, context: Context, bundle: Path) -> None:
    """Link every part into one directory; what only training needed stays behind."""
    retrieval, ranker = context.inputs["train_retrieval"], context.inputs["train_ranker"]
    link_tree(retrieval / QUERY_TOWER, bundle / QUERY_TOWER)
    link_tree(ranker / RANKER, bundle / RANKER)
    for stage, name in ((retrieval, QUERY_TOWER), (ranker, RANKER)):
        link_tree(stage / STATES / name, bundle / STATES / name)
    link_tree(context.inputs["build_index"], bundle)
    link_tree(retrieval, bundle, only="*.npy")
    link_tree(context.inputs["analyze"], bundle, only=TRANSFORM)
    link_tree(context.inputs["infer_schema"], bundle / "schema")
    for folder in (bundle, bundle / "schema"):
        for name in ("stage.json", CURVE):
            (folder / name).unlink(missing_ok=True)
    root = context.inputs["join_examples"] / SPANS
    catalogue = read_span(root, "apps", [config.days.evaluate]).sort_by("app_id")
    write_parquet(catalogue, bundle / CATALOGUE)


def _held_out(config: RunConfig, root: Path, bundle: Bundle) -> dict[str, Positives]:
    """Installs of the later day by slice, at most so many of each, chosen at random."""
    every = Positives.read(root, [config.days.evaluate], bundle.transform, bundle.apps)
    shown = read_span(root, "impressions", config.days.train, ["app_id"])["app_id"].to_numpy()
    counts = np.bincount(bundle.apps.rows_of(shown), minlength=len(bundle.apps) + 1)[1:]
    released = bundle.catalogue["release_day"].to_numpy()
    first_day = config.days.train[0]
    masks = {
        ALL_APPS: np.ones(len(every), dtype=bool),
        f"apps outside the {evaluation.MOST_SHOWN} most shown": evaluation.tail_of(counts)[
            every.app - 1
        ],
        "apps released after training began": released[every.app - 1] >= first_day,
        "users signed up after training began": every.user >= config.world.users_by(first_day),
    }
    slices = {}
    for where, mask in masks.items():
        rows = np.flatnonzero(mask)
        if len(rows):
            few = evaluation.sample(len(rows), config.evaluation.installs, config.seed)
            slices[where] = every.take(rows[few])
    return slices


def _oracle_scores(world: World, memory: Memory, bundle: Bundle, slates: Slates) -> Any:
    """The world's own logit of every shown app, the place included: no model can know more."""
    requests = Requests(slates.request_id, slates.user, slates.hour, slates.metered)
    app_ids = np.where(slates.app > 0, bundle.apps.ids[np.maximum(slates.app - 1, 0)], -1)
    probability = world.install_probability(requests, app_ids, memory)
    return logit(np.clip(probability, 1e-9, 1 - 1e-9))
