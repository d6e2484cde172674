"""Checkpoints: what a run needs to go on after it was killed.

Enters: the variables of a run and its curve.  Leaves: the last two checkpoints, each a directory
`step-00000500` that is whole or absent: a TensorFlow checkpoint and `progress.json`, the curve so
far and whose run it is.  Several processes that train together see one directory; the chief writes.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlplatform.artifacts import read_json, remove_tree, staged_directory, to_json
from mlplatform.errors import DataCorrupt, FailedPrecondition, InvalidArgument
from mlplatform.training.curve import Point
from mlplatform.training.runtime import tensorflow
from mlplatform.training.state import open_checkpoint

PROGRESS = "progress.json"
PREFIX = "checkpoint"


@dataclass(frozen=True)
class Checkpoints:
    """Where checkpoints are kept, whose they are, and after how many steps each.

    fingerprint: says what the run learns from and how, as the hash of its settings and data does;
    checkpoints of another one are refused.
    """

    directory: Path
    fingerprint: str
    every: int = 500

    def __post_init__(self) -> None:
        if self.every < 1:
            raise InvalidArgument(f"checkpoints: expected every of at least 1, got {self.every}")

    def newest(self, identity: Mapping[str, Any]) -> tuple[Path, list[Point]] | None:
        """The newest checkpoint that is readable, and the curve up to it.

        identity: what the trainer itself knows of the run, JSON.

        Raises:
            FailedPrecondition: it is another run's.
        """
        for path in reversed(self._paths()):
            try:
                progress = read_json(path / PROGRESS)
                curve = [Point(**point) for point in progress["curve"]]
                found = progress["run"]
                open_checkpoint(path / PREFIX)
            except (OSError, DataCorrupt, KeyError, TypeError):
                continue  # damaged; the one before it is as good
            self._check_same_run(found, self._run(identity))
            return path, curve
        return None

    def write(
        self,
        variables: Mapping[str, Any],
        curve: Sequence[Point],
        identity: Mapping[str, Any],
        previous: int,
    ) -> None:
        """Write a checkpoint at the curve's end; remove all but it and that of step `previous`.

        variables: nested dicts and lists of tf.Variable.

        Raises:
            ResourceExhausted: the disk is full.
        """
        target = self._path(curve[-1].step)
        progress = {"run": self._run(identity), "curve": [asdict(point) for point in curve]}
        with staged_directory(target) as staging:
            tensorflow().train.Checkpoint(**variables).write(str(staging / PREFIX))
            (staging / PROGRESS).write_bytes(to_json(progress))
        for path in self._paths():
            if path not in (target, self._path(previous)):
                remove_tree(path)

    def _path(self, step: int) -> Path:
        return self.directory / f"step-{step:08}"

    def _paths(self) -> list[Path]:
        if not self.directory.exists():
            return []
        found = (path for path in self.directory.iterdir() if re.fullmatch(r"step-\d+", path.name))
        return sorted(found)

    def _run(self, identity: Mapping[str, Any]) -> dict[str, Any]:
        return {"fingerprint": self.fingerprint, **identity}

    def _check_same_run(self, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
        for name in sorted({*found, *expected}):
            if found.get(name) != expected.get(name):
                raise FailedPrecondition(
                    f"{self.directory}: the checkpoints are another run's: expected {name} "
                    f"{str(expected.get(name))[:80]}, found {str(found.get(name))[:80]}; "
                    "delete the directory or name another"
                )


def restore(path: Path, variables: Mapping[str, Any]) -> None:
    """Set `variables`, as given to `Checkpoints.write`, to what was written."""
    checkpoint = tensorflow().train.Checkpoint(**variables)
    checkpoint.read(str(path / PREFIX)).assert_consumed()
