"""The table of contents: every stage of the main job, in order, each edge a named artifact.

    generate_world ─► simulate_days ─► join_examples ─► build_feature_store
      ─► compute_statistics ─► infer_schema ─► validate ─► analyze ─► train_retrieval
      ─► build_index ─► train_ranker ─► evaluate ─► gate ─► push ─► measure_in_world ─► serve

What a stage does is in `stages/`; here stands what it reads, and what it is run with.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from mlplatform.pipeline import Stage, Workspace
from recsys.config import RunConfig
from recsys.online.bundle import RANKER
from recsys.stages import data, models, proof, release
from recsys.stages.data import BACKLOG_DAY
from recsys.stages.models import LINEAR

PLATFORM = ("mlplatform",)
WORLD = ("data_gen", "recsys.stages.data")
EXAMPLES = (*PLATFORM, "recsys.stages.data", "recsys.examples", "recsys.history", "recsys.features")
MODELS = (
    *PLATFORM,
    "recsys.stages.models",
    "recsys.stages.versions",
    "recsys.models",
    "recsys.training_data",
    "recsys.apps",
    "recsys.columns",
    "recsys.features",
)
SERVING = (
    *MODELS,
    "recsys.online",
    "recsys.serving_log",
    "recsys.evaluation",
    "recsys.baselines",
)


def stages(config: RunConfig, workspace: Workspace) -> list[Stage]:
    """The stages of the main job under a configuration."""
    world = config.world.model_dump()
    days = config.days.model_dump()
    train = list(config.days.train)
    seed = config.seed
    registry = workspace.root / "registry"

    def stage(
        run: Any, inputs: tuple[str, ...], parameters: Mapping[str, Any], code: tuple[str, ...]
    ) -> Stage:
        return Stage(run.func.__name__, run, inputs, parameters, code)

    return [
        stage(partial(data.generate_world, config), (), world | days, WORLD),
        stage(partial(data.simulate_days, config), ("generate_world",), world | days, WORLD),
        stage(
            partial(data.join_examples, config),
            ("generate_world", "simulate_days"),
            days,
            EXAMPLES,
        ),
        stage(
            partial(data.build_feature_store, config),
            ("generate_world", "simulate_days"),
            days,
            (*EXAMPLES, "recsys.online.feature_store"),
        ),
        stage(partial(data.compute_statistics, config), ("join_examples",), days, EXAMPLES),
        stage(partial(data.infer_schema, config), ("compute_statistics",), days, EXAMPLES),
        stage(
            partial(data.validate, config),
            ("join_examples", "compute_statistics", "infer_schema"),
            days,
            EXAMPLES,
        ),
        stage(partial(data.analyze, config, train), ("join_examples", "validate"), days, EXAMPLES),
        stage(
            partial(
                models.train_retrieval,
                config,
                [BACKLOG_DAY, *train],
                config.retrieval.epochs,
                registry,
            ),
            ("join_examples", "analyze"),
            days | config.retrieval.model_dump() | {"seed": seed},
            MODELS,
        ),
        stage(
            partial(models.build_index, config),
            ("train_retrieval",),
            config.index.model_dump(),
            MODELS,
        ),
        stage(
            partial(
                models.train_ranker,
                config,
                train,
                config.ranking.epochs,
                {RANKER: config.ranking.kind, LINEAR: "linear"},
                registry,
            ),
            ("join_examples", "analyze"),
            days | config.ranking.model_dump() | {"seed": seed},
            MODELS,
        ),
        stage(
            partial(release.evaluate, config),
            (
                "generate_world",
                "simulate_days",
                "join_examples",
                "build_feature_store",
                "infer_schema",
                "analyze",
                "train_retrieval",
                "build_index",
                "train_ranker",
            ),
            days | config.evaluation.model_dump() | {"seed": seed},
            (*SERVING, "recsys.stages.release", "data_gen"),
        ),
        stage(
            partial(release.try_serving, config),
            ("build_feature_store", "evaluate"),
            {},
            (*SERVING, "recsys.stages.release"),
        ),
        stage(
            partial(release.gate, config, registry),
            ("evaluate", "try_serving"),
            config.gate.model_dump(mode="json"),
            ("mlplatform", "recsys.stages.release"),
        ),
        stage(
            partial(release.push, config, train, registry),
            ("evaluate", "gate"),
            {"registry": "registry"},
            ("mlplatform", "recsys.stages.release", "recsys.stages.versions"),
        ),
        stage(
            partial(proof.measure_in_world, config),
            ("generate_world", "simulate_days", "build_feature_store", "join_examples", "evaluate"),
            config.evaluation.model_dump() | {"seed": seed},
            (*SERVING, "recsys.stages.proof", "data_gen"),
        ),
        stage(
            partial(proof.compare_serving, config),
            ("build_feature_store", "join_examples", "evaluate"),
            days | config.evaluation.model_dump() | {"seed": seed},
            (*SERVING, "recsys.stages.proof", "recsys.serving_skew"),
        ),
        stage(
            partial(proof.serve, config, registry),
            ("build_feature_store", "push"),
            {"seed": seed},
            (*SERVING, "recsys.stages.proof"),
        ),
    ]
