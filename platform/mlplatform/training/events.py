"""Event files for TensorBoard: `tensorboard --logdir DIRECTORY` draws them while a run goes on.

Enters: points of the curve, at their steps.  Leaves: files of scalars: loss, held_out/loss,
held_out/METRIC, examples_per_second.  A run that goes on after a kill writes another file, in which
steps after its checkpoint are told again; their losses are the same.
"""

import time
from pathlib import Path

from mlplatform.training.curve import Point
from mlplatform.training.runtime import tensorflow


class Events:
    """Where points are told; every point is on the disk before the next step is taken."""

    def __init__(self, directory: Path, examples: float) -> None:
        """examples: those learned from before this process began."""
        self._writer = tensorflow().summary.create_file_writer(str(directory))
        self._examples = examples
        self._since = time.perf_counter()

    def add(self, point: Point) -> None:
        tf = tensorflow()
        seconds = time.perf_counter() - self._since
        with self._writer.as_default(step=point.step):
            tf.summary.scalar("loss", point.loss)
            tf.summary.scalar("examples_per_second", (point.examples - self._examples) / seconds)
            if point.held_out is not None:
                tf.summary.scalar("held_out/loss", point.held_out)
            for name, value in point.metrics.items():
                tf.summary.scalar(f"held_out/{name}", value)
        self._writer.flush()
        self._examples, self._since = point.examples, time.perf_counter()

    def close(self) -> None:
        self._writer.close()
