"""A run's configuration: one YAML file, checked whole before anything starts."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from data_gen.config import WorldConfig
from mlplatform.errors import InvalidArgument, NotFound
from mlplatform.evaluation.gate import EverySlice, Threshold
from recsys.models.rankers import families

CONFIGS = Path(__file__).parent / "configs"


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Days(_Section):
    """Which days of the log serve what; days are counted from 0."""

    warm_up: int = Field(3, ge=1, description="days that only fill the apps' counters")
    training: int = Field(4, ge=2, description="days trained on; the next one is evaluated on")

    @property
    def train(self) -> range:
        return range(self.warm_up, self.warm_up + self.training)

    @property
    def evaluate(self) -> int:
        return self.warm_up + self.training


class Retrieval(_Section):
    batch_size: int = Field(1024, ge=8)
    negatives: int = Field(512, ge=1, description="apps of the whole catalogue, a batch")
    epochs: int = Field(2, ge=1)
    learning_rate: float = Field(0.02, gt=0)


class Index(_Section):
    leaves: int = Field(1000, ge=1)
    leaves_to_search: int = Field(25, ge=1)
    reorder: int = Field(300, ge=1, description="candidates that are scored exactly")
    dimensions: int = Field(
        32, ge=1, description="that tree and codes look at, of those along which scores differ most"
    )


class Ranking(_Section):
    kind: str = Field("wide_deep", description="a family of rankers, see models/rankers")
    batch_requests: int = Field(512, ge=8)
    epochs: int = Field(1, ge=1)
    wide_buckets: int = Field(1 << 20, ge=1024)

    @field_validator("kind")
    @classmethod
    def _is_known(cls, kind: str) -> str:
        if kind not in families():
            raise ValueError(f"expected one of {', '.join(families())}")
        return kind


class Evaluation(_Section):
    installs: int = Field(4000, ge=50, description="held-out installs that recall is measured on")
    queries: int = Field(1000, ge=50, description="queries that the index is checked on")
    requests: int = Field(30_000, ge=50, description="requests whose impressions are scored")
    skew_requests: int = Field(
        5000, ge=50, description="requests compared with how they are served"
    )
    world_requests: int = Field(2000, ge=50, description="requests answered in the world itself")


class Loop(_Section):
    """The days after the main job: each is served by the bundle that the days before made."""

    window: int = Field(4, ge=1, description="days that vocabularies and quantiles are made from")
    retrieval_epochs: int = Field(2, ge=1, description="over the positives of the new days")
    ranking_epochs: int = Field(1, ge=1, description="over the requests of the new days")
    exploration: float = Field(
        0.02, ge=0, le=0.1, description="share of places shown to find out what they are worth"
    )
    requests: int = Field(20_000, ge=50, description="requests of the morning, to judge a model by")
    strict: bool = Field(False, description="refuse to start any part of a model cold")
    joined_skew: float = Field(
        0.01, ge=0, le=1, description="share of rows in which a feature may be served otherwise"
    )
    moving_skew: float = Field(
        0.5, ge=0, le=1, description="the same of what users do, which moves since the morning"
    )
    freshness_days: int = Field(
        2, ge=1, description="age of the last day that the version in service may have learned from"
    )


class Gate(_Section):
    """What a bundle has to clear to be served; see `mlplatform.evaluation.gate`."""

    thresholds: tuple[Threshold, ...] = (
        Threshold(
            "AUC: system", "a ranker this weak is no better than popularity",
            evaluation="ranking", above=0.6,
        ),
        Threshold(
            "AUC: system", "nothing honest is this good here: look for a leaked label",
            evaluation="ranking", below=0.9,
        ),
        Threshold(
            "AUC: system - popular", "popularity is free",
            evaluation="ranking", above=0.0,
        ),
        Threshold(
            # The loop judges in the morning, when half of the night's installs are not reported
            # yet: a calibrated model seems to expect twice what there is.
            "calibration: system", "scores are shown and compared as probabilities",
            evaluation="ranking", above=0.5, below=3.0,
        ),
        Threshold(
            "AUC: system - baseline", "the model in service ranks better",
            evaluation="ranking", above=-0.03,
        ),
        Threshold(
            "AUC: system - baseline", "no day's data is worth so much: look for a leaked label",
            evaluation="ranking", below=0.15,
        ),
        Threshold(
            "AUC: system", "one country served at random is hidden by the others",
            evaluation="ranking", above=0.5, where=EverySlice(("country",), 300),
        ),
        Threshold(
            "AUC: system", "one class of devices served at random is hidden by the others",
            evaluation="ranking", above=0.5, where=EverySlice(("device_tier",), 300),
        ),
        Threshold(
            "AUC: system - baseline", "a country must not pay for the others' gain",
            evaluation="ranking", above=-0.1, where=EverySlice(("country",), 300),
        ),
        Threshold(
            "recall@100: system - popular", "popularity is free",
            evaluation="retrieval", above=0.0,
        ),
        Threshold(
            "recall@100: system - baseline", "the towers in service find more",
            evaluation="retrieval", above=-0.05,
        ),
        Threshold(
            "recall@100", "a coarser index, or another version's, loses apps the towers would find",
            evaluation="index", above=0.95,
        ),
        Threshold(
            "candidates per request", "filters must leave the ranker a choice",
            evaluation="lists", above=100.0,
        ),
    )  # fmt: skip


class RunConfig(_Section):
    seed: int = Field(1, ge=0)
    world: WorldConfig
    days: Days = Days()
    retrieval: Retrieval = Retrieval()
    index: Index = Index()
    ranking: Ranking = Ranking()
    evaluation: Evaluation = Evaluation()
    gate: Gate = Gate()
    loop: Loop = Loop()


def load_config(name: str) -> RunConfig:
    """A configuration by its name (`tiny`, `small`, `full`) or by a file's path.

    Raises:
        NotFound: there is no such configuration.
        InvalidArgument: a key is unknown or a value out of range; every fault is named.
    """
    path = CONFIGS / f"{name}.yaml" if name.isidentifier() else Path(name)
    known = ", ".join(sorted(p.stem for p in CONFIGS.glob("*.yaml")))
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError) as error:
        raise NotFound(
            f"no configuration {name!r}: expected one of {known}, or a YAML file's path"
        ) from error
    except (yaml.YAMLError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InvalidArgument(
            f"{path}: expected YAML, got a file that does not parse: {reason}"
        ) from error
    try:
        return RunConfig.model_validate(content)
    except InvalidArgument as error:
        raise InvalidArgument(f"{path}: {error}") from None
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'the file'}: {fault['msg'].lower()}"
            f" (got {str(fault['input'])[:40]!r})"
            for fault in error.errors()
        )
        raise InvalidArgument(f"{path}: {faults}") from None
