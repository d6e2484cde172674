"""A store to measure on: the main job's own stages, from the world to the transform.

Enters: a configuration and a directory.  Leaves: a `Store`, which any process can read.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from mlplatform.data.files.spans import read_span
from mlplatform.pipeline import Progress, Record, Workspace, run
from mlplatform.transform.transform import Transform
from recsys import features
from recsys.apps import AppTable
from recsys.config import Days, RunConfig, load_config
from recsys.online.bundle import TRANSFORM
from recsys.pipeline import stages
from recsys.stages.data import SPANS

# What these give is all that is measured here; a world too small for its days to be alike, as tests
# want it, would not pass validation.
STAGES = ("generate_world", "simulate_days", "join_examples", "analyze")


@dataclass(frozen=True)
class Store:
    """The spans, the transform and the app table in a directory."""

    config: RunConfig
    root: Path

    @classmethod
    def make(cls, config: RunConfig, root: Path) -> "Store":
        workspace = Workspace(root)
        wanted = [
            replace(stage, inputs=tuple(name for name in stage.inputs if name in STAGES))
            for stage in stages(config, workspace)
            if stage.name in STAGES
        ]
        run(wanted, workspace, Silent())
        return cls(config, root)

    @property
    def spans(self) -> Path:
        return self.artifact("join_examples") / SPANS

    def transform(self) -> Transform:
        return Transform.load(self.artifact("analyze") / TRANSFORM, features.ALL)

    def apps(self, transform: Transform) -> AppTable:
        return AppTable.of(read_span(self.spans, "apps", [self.config.days.evaluate]), transform)

    def artifact(self, stage: str) -> Path:
        artifact = Workspace(self.root).latest(stage)
        assert artifact is not None, f"{self.root}: stage {stage} has not run"
        return artifact


def million_apps(users: int) -> RunConfig:
    """The full configuration, its million apps and its models, with fewer users and days."""
    full = load_config("full")
    world = full.world.model_copy(update={"initial_users": users})
    return full.model_copy(update={"world": world, "days": Days(warm_up=1, training=2)})


class Silent:
    """Hears of the stages and says nothing."""

    def started(self, stage: str) -> Progress:
        return self

    def finished(self, record: Record) -> None: ...

    def expect(self, rows: int) -> None: ...

    def advance(self, rows: int) -> None: ...
