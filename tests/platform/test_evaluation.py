"""Metrics against their definitions, and intervals against simulated truth."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.evaluation import metrics
from mlplatform.evaluation.metrics import (
    Interval,
    auc_of,
    difference,
    intervals,
    log_loss_of,
    mean_of,
)

ROWS = st.lists(
    st.tuples(st.sampled_from([-1.0, 0.0, 0.25, 0.5, 2.0]), st.booleans(), st.integers(0, 3)),
    min_size=1,
    max_size=25,
)


def brute_force_auc(scores: Any, labels: Any) -> float:
    """How often a positive row scores above a negative one, a tie counting half."""
    pairs = [
        1.0 if up > down else 0.5 if up == down else 0.0
        for up, positive in zip(scores, labels, strict=True)
        if positive
        for down, other in zip(scores, labels, strict=True)
        if not other
    ]
    return sum(pairs) / len(pairs) if pairs else math.nan


@settings(deadline=None, max_examples=200)
@given(ROWS)
def test_auc_is_the_share_of_ordered_pairs_and_a_weight_repeats_a_row(rows: Any) -> None:
    scores, labels, weights = (np.array(column) for column in zip(*rows, strict=True))
    metric = auc_of(scores, labels.astype(np.int64))
    plain = brute_force_auc(scores, labels)
    assert metric(np.ones(len(rows))) == pytest.approx(plain, abs=1e-12, nan_ok=True)
    repeated = brute_force_auc(np.repeat(scores, weights), np.repeat(labels, weights))
    weighted = metric(weights.astype(np.float64))
    assert weighted == pytest.approx(repeated, abs=1e-12, nan_ok=True)


def test_log_loss_by_hand() -> None:
    metric = log_loss_of(np.array([0.5, 0.9, 0.2]), np.array([1, 1, 0]))
    losses = [math.log(2), -math.log(0.9), -math.log(0.8)]
    assert metric(np.ones(3)) == pytest.approx(sum(losses) / 3)
    assert metric(np.array([2.0, 0.0, 1.0])) == pytest.approx((2 * losses[0] + losses[2]) / 3)


def test_a_certain_mistake_costs_much_but_not_everything() -> None:
    loss = log_loss_of(np.array([0.0, 1.0], np.float32), np.array([1, 0]))(np.ones(2))
    assert loss == pytest.approx(-math.log(1e-12), rel=1e-3)
    assert log_loss_of(np.array([1.0, 0.0]), np.array([1, 0]))(np.ones(2)) < 1e-11


def test_a_mean_of_no_weight_is_not_a_number() -> None:
    assert mean_of(np.array([1.0, 5.0]))(np.array([3.0, 1.0])) == 2.0
    assert math.isnan(mean_of(np.array([1.0, 5.0]))(np.zeros(2)))


def clustered(rng: np.random.Generator, users: int = 80) -> tuple[Any, Any]:
    """Values around 0 that users share, and whose they are; users have 1 to 9 rows."""
    rows = rng.integers(1, 10, users)
    user = np.repeat(rng.permutation(users) * 1000, rows)
    return np.repeat(rng.normal(0, 1, users), rows) + rng.normal(0, 0.5, rows.sum()), user


def test_an_interval_covers_the_truth_about_95_percent_of_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metrics, "RESAMPLES", 120)
    covered = 0
    for simulation in range(200):
        values, user = clustered(np.random.default_rng([17, simulation]))
        found = intervals({"mean": mean_of(values)}, user, seed=simulation)["mean"]
        assert found.low < found.value < found.high
        covered += found.low < 0 < found.high
    assert 0.88 <= covered / 200 <= 0.99


def test_rows_of_one_user_are_drawn_together() -> None:
    values, user = clustered(np.random.default_rng(3))
    by_user = intervals({"mean": mean_of(values)}, user, seed=1)["mean"]
    by_row = intervals({"mean": mean_of(values)}, np.arange(len(user)), seed=1)["mean"]
    assert by_user.value == by_row.value == pytest.approx(values.mean())
    # The design effect, 1 + (mean of squared sizes / mean size - 1) * 0.8, is about 5.3.
    assert 1.5 < (by_user.high - by_user.low) / (by_row.high - by_row.low) < 3.5


def test_the_difference_of_equal_metrics_is_exactly_zero() -> None:
    rng = np.random.default_rng(0)
    labels, scores, user = rng.integers(0, 2, 300), rng.normal(size=300), rng.integers(0, 30, 300)
    a, b = auc_of(scores, labels), auc_of(scores * 2 + 1, labels)
    found = intervals({"a": a, "b": b}, user, 5, {"a-b": difference("a", "b")})
    assert found["a-b"] == Interval(0.0, 0.0, 0.0)
    assert found["a"] == found["b"] and found["a"].low < found["a"].high


def test_a_paired_interval_is_narrower_than_its_parts() -> None:
    rng = np.random.default_rng(1)
    values, user = clustered(rng)
    better = values + 0.1 + rng.normal(0, 0.05, len(values))
    parts = {"a": mean_of(better), "b": mean_of(values)}
    found = intervals(parts, user, seed=2, derived={"a-b": difference("a", "b")})
    assert found["a-b"].value == pytest.approx(found["a"].value - found["b"].value)
    assert found["a-b"].low > 0
    assert found["a-b"].high - found["a-b"].low < (found["a"].high - found["a"].low) / 5


def test_intervals_depend_on_the_seed_alone() -> None:
    values, user = clustered(np.random.default_rng(2))
    one, again, other = (intervals({"m": mean_of(values)}, user, seed) for seed in (1, 1, 2))
    assert one == again
    assert one["m"].value == other["m"].value and one["m"].low != other["m"].low
