"""What follows from a loss curve."""

from hypothesis import given
from hypothesis import strategies as st

from mlplatform.training.curve import Point, best_of, is_out_of_patience


def curve_of(*held_out: float | None) -> list[Point]:
    return [Point(step, 2.0 * step, 1.0, loss) for step, loss in enumerate(held_out, start=1)]


def test_the_best_point_is_the_first_with_the_lowest_held_out_loss() -> None:
    curve = curve_of(None, 3.0, 2.0, None, 2.0, 2.5)
    assert best_of(curve) == curve[2]


def test_without_judgements_there_is_no_best_and_patience_lasts() -> None:
    assert best_of(curve_of(None, None)) is None
    assert not is_out_of_patience(curve_of(None, None), 1)
    assert not is_out_of_patience([], 1)


@given(st.lists(st.none() | st.integers(0, 5).map(float), max_size=12), st.integers(1, 4))
def test_patience_is_a_count_of_judgements_since_the_best(
    held_out: list[float | None], patience: int
) -> None:
    # Counted as a loop would that goes through the judgements.
    best, since = float("inf"), 0
    for loss in held_out:
        if loss is None:
            continue
        best, since = (loss, 0) if loss < best else (best, since + 1)
    assert is_out_of_patience(curve_of(*held_out), patience) == (since >= patience)
