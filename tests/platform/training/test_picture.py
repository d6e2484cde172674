"""Pictures of loss curves."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from mlplatform.errors import InvalidArgument
from mlplatform.training.curve import Point
from mlplatform.training.picture import draw

FALLING = [Point(n, 1000.0 * n, 1 / n, 1 / n + 0.1 * n if n % 2 else None) for n in range(1, 9)]
FLAT = [Point(n, 1000.0 * n, 0.5) for n in range(1, 9)]
BLUE, ORANGE = (np.array(rgb) / 255 for rgb in ((31, 119, 180), (255, 127, 14)))


def pixels_of(path: Path, color: np.ndarray) -> int:
    return int((np.abs(imread(path)[..., :3] - color).max(axis=-1) < 0.02).sum())


def test_every_curve_is_drawn_in_a_color_of_its_own(tmp_path: Path) -> None:
    draw({"one": FALLING}, tmp_path / "one.png", "nats")
    draw({"one": FALLING, "two": FLAT}, tmp_path / "two.png", "nats")
    assert pixels_of(tmp_path / "one.png", BLUE) > 300
    assert pixels_of(tmp_path / "one.png", ORANGE) == 0
    assert pixels_of(tmp_path / "two.png", ORANGE) > 300


def test_held_out_losses_are_drawn_too(tmp_path: Path) -> None:
    draw({"one": FALLING}, tmp_path / "with.png", "nats")
    alone = [Point(point.step, point.examples, point.loss) for point in FALLING]
    draw({"one": alone}, tmp_path / "without.png", "nats")
    assert pixels_of(tmp_path / "with.png", BLUE) > pixels_of(tmp_path / "without.png", BLUE) + 100


def test_the_same_curves_are_the_same_bytes(tmp_path: Path) -> None:
    draw({"one": FALLING, "two": FLAT}, tmp_path / "first.png", "nats")
    draw({"one": FALLING, "two": FLAT}, tmp_path / "second.png", "nats")
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()


def test_nothing_to_draw_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="got none"):
        draw({}, tmp_path / "p.png", "nats")
    with pytest.raises(InvalidArgument, match="two"):
        draw({"one": FALLING, "two": []}, tmp_path / "p.png", "nats")
    assert not list(tmp_path.iterdir())
