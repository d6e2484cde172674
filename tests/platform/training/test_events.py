"""Event files, read as TensorBoard reads them."""

from pathlib import Path

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mlplatform.training.held_out import HeldOut
from mlplatform.training.runtime import tensorflow
from mlplatform.training.trainer import train
from tests.platform.training.models import Clicks, click_batches


def scalars(directory: Path) -> dict[str, dict[int, float]]:
    accumulator = EventAccumulator(str(directory), size_guidance={"tensors": 0})
    accumulator.Reload()
    return {
        tag: {
            event.step: float(tensorflow().make_ndarray(event.tensor_proto))
            for event in accumulator.Tensors(tag)
        }
        for tag in accumulator.Tags()["tensors"]
    }


def test_every_point_of_the_curve_is_told_to_tensorboard(tmp_path: Path) -> None:
    judge = HeldOut(click_batches(32, 8, 1, seed=1), every=40, patience=9)
    curve = train(
        Clicks, click_batches(320, 4, epochs=1), held_out=judge, events=tmp_path / "events"
    ).curve
    found = scalars(tmp_path / "events")
    # float32 is what event files hold.
    assert found.pop("loss") == {p.step: float(np.float32(p.loss)) for p in curve}
    assert found.pop("held_out/loss") == {
        p.step: float(np.float32(p.held_out)) for p in curve if p.held_out is not None
    }
    assert found.pop("held_out/accuracy") == {
        p.step: float(np.float32(p.metrics["accuracy"])) for p in curve if p.metrics
    }
    speeds = found.pop("examples_per_second")
    assert list(speeds) == [40, 50, 80]
    assert min(speeds.values()) > 0
    assert not found
