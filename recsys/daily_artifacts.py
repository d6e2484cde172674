"""Artifacts of one day after another: a stage reads the latest of each kind that it names.

Enters: the main job's records, then stages with the day's number.  Leaves: `STAGE@DAY`, or in a
branch `STAGE@DAY.BRANCH`.  What a stage of a day makes takes the place of what the main job's stage
of that kind made, so that stages of the main job can follow it.
"""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from mlplatform.pipeline import Context, Observer, Record, Stage, Workspace, run
from recsys import pipeline
from recsys.config import RunConfig

CODE = ("mlplatform", "recsys", "data_gen")
# Which of the main job's artifacts a stage of a day takes the place of.
REPLACES: Mapping[str, tuple[str, ...]] = {
    "join_day": ("join_examples",),
    "validate_day": ("compute_statistics",),
    "judge_day": ("evaluate",),
    "close_day": ("simulate_days",),
    "answer_day": ("simulate_days",),
    "join_as_logged": ("join_examples",),
    "assemble_bundle": ("evaluate",),
    "mix_parts": ("evaluate",),
    "forge_origin": ("evaluate",),
}


class DailyArtifacts:
    """Makes one artifact after another, and knows the latest of each kind."""

    def __init__(
        self, workspace: Workspace, observer: Observer, records: Mapping[str, Record]
    ) -> None:
        self._workspace, self._observer = workspace, observer
        self._records = dict(records)
        self._latest = {name: name for name in records}  # the stage, by kind
        self._suffix = ""

    @classmethod
    def after_push(
        cls, config: RunConfig, workspace: Workspace, observer: Observer
    ) -> "DailyArtifacts":
        """Run the main job as far as its push; what follows begins there."""
        main = pipeline.stages(config, workspace)
        pushed = [stage.name for stage in main].index("push")
        return cls(workspace, observer, run(main[: pushed + 1], workspace, observer))

    def branch(self, name: str) -> "DailyArtifacts":
        """What follows from here in another way; what was made so far is shared."""
        branch = copy(self)
        branch._records, branch._latest = dict(self._records), dict(self._latest)
        branch._suffix = f"{self._suffix}.{name}"
        return branch

    def take(self, kind: str, other: "DailyArtifacts", as_kind: str | None = None) -> None:
        """Read from now on what `other` reads of a kind; as another kind, if one is named."""
        stage = other._latest[kind]
        self._latest[as_kind or kind] = stage
        self._records[stage] = other._records[stage]

    def path(self, kind: str) -> Path:
        stage = self._latest[kind]
        return self._workspace.artifact(stage, self._records[stage].fingerprint)

    def make(
        self,
        number: int,
        config: RunConfig,
        stage: "partial[dict[str, Any]]",
        reads: Sequence[str],
        **parameters: Any,
    ) -> Record:
        """Run a stage of day `number`, unless it is finished; it reads the latest of some kinds."""
        kind = stage.func.__name__
        inputs = {one: self._latest[one] for one in reads}

        def with_kinds(context: Context) -> Mapping[str, Any]:
            paths = {one: context.inputs[name] for one, name in inputs.items()}
            result: Mapping[str, Any] = stage(replace(context, inputs=paths))
            return result

        name = f"{kind}@{number}{self._suffix}"
        parameters |= config.model_dump(mode="json")
        one = Stage(name, with_kinds, tuple(dict.fromkeys(inputs.values())), parameters, CODE)
        self._records |= run([one], self._workspace, self._observer, self._records)
        for replaced in (kind, *REPLACES.get(kind, ())):
            self._latest[replaced] = name
        return self._records[name]
