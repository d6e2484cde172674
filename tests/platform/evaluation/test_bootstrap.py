"""Intervals against simulated truth, and against a bootstrap that draws every user."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from mlplatform.evaluation import metrics
from mlplatform.evaluation.bootstrap import GROUPS, RESAMPLES, resampling, spread
from mlplatform.evaluation.evaluate import evaluate
from mlplatform.evaluation.list_metrics import UserAUC
from mlplatform.evaluation.metrics import Interval
from mlplatform.evaluation.row_metrics import AUC, MeanLabel
from mlplatform.evaluation.task import Model, Task
from tests.platform.evaluation import naive
from tests.platform.evaluation.naive import write

TASK = Task("customer", {"new": Model("new", "score")}, (AUC(), MeanLabel(), UserAUC()), "clicked")


def of_customers(rng: np.random.Generator, customers: int) -> dict[str, Any]:
    """Customers of 1 to 30 rows, alike among themselves: half of a score is the customer's."""
    rows = rng.integers(1, 31, customers)
    customer = np.repeat(rng.permutation(customers), rows)
    taste = np.repeat(rng.normal(0, 1, customers), rows)
    clicked = np.repeat(rng.random(customers), rows) * 0.6 + 0.2 > rng.random(rows.sum())
    return {
        "customer": customer,
        "clicked": clicked,
        "new": taste + rng.normal(0, 1, rows.sum()) + clicked,
    }


@pytest.mark.parametrize("customers", [60, 600])
def test_intervals_hold_the_truth_about_95_percent_of_the_time(
    customers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    naive.without_beam(monkeypatch)
    rng = np.random.default_rng(customers)
    # A positive scores 1 more, and the standard deviation of a difference is 2 between customers
    # and sqrt(2) within one.  The few pairs of one customer are left out of the first.
    truth = {
        "mean label": 0.5,
        "AUC: new": float(norm.cdf(0.5)),
        "AUC within users: new": float(norm.cdf(1 / np.sqrt(2))),
    }
    held = dict.fromkeys(truth, 0)
    simulations = 200
    for _ in range(simulations):
        path = write(tmp_path / "rows.parquet", of_customers(rng, customers))
        found = evaluate([path], TASK).overall.figures
        for name, value in truth.items():
            held[name] += found[name].low <= value <= found[name].high
    for name, times in held.items():
        assert 0.9 <= times / simulations <= 0.99, name


def test_an_interval_is_as_wide_as_if_every_user_had_been_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    naive.without_beam(monkeypatch)
    columns = of_customers(np.random.default_rng(1), 3000)
    found = evaluate([write(tmp_path / "rows.parquet", columns)], TASK).overall.figures["AUC: new"]
    auc = metrics.auc_of(columns["new"], columns["clicked"].astype(np.int64))
    drawn = metrics.intervals({"AUC": auc}, columns["customer"], 0)["AUC"]
    assert found.value == pytest.approx(drawn.value, abs=1e-5)
    assert found.high - found.low == pytest.approx(drawn.high - drawn.low, rel=0.25)


def test_weights_are_those_of_the_data_then_of_poisson_draws() -> None:
    weights = resampling(7)
    assert weights.shape == (1 + RESAMPLES, GROUPS) and (weights[0] == 1).all()
    assert weights[1:].mean() == pytest.approx(1, abs=0.02)
    assert weights[1:].var() == pytest.approx(1, abs=0.05)
    assert (resampling(7) == weights).all() and (resampling(8) != weights).any()


MANY = 10**6


def test_an_interval_needs_nineteen_resamples_of_twenty() -> None:
    draws = np.append(0.5, np.arange(1, 200) / 200)  # of 199 the i-th is at i / 200
    whole = Interval.of(draws, MANY)
    bounds = pytest.approx(0.025, abs=1e-5), pytest.approx(0.975, abs=1e-5)
    assert (whole.value, whole.low, whole.high) == (0.5, *bounds)
    draws[1:10] = np.nan
    rest = Interval.of(draws, MANY)
    assert rest.low == pytest.approx(0.045 + 0.955 * 0.025, abs=1e-3)
    draws[10] = np.nan
    assert Interval.of(draws, MANY).value == 0.5
    assert np.isnan([Interval.of(draws, MANY).low, Interval.of(draws, MANY).high]).all()
    assert np.isnan(spread(draws))


def test_the_fewer_units_the_further_out_are_the_bounds() -> None:
    draws = np.append(0.5, np.arange(1, 100_000) / 100_000)
    # Of t with 9 degrees of freedom 2.5 % are below -2.2622; times sqrt(10 / 9) that is -2.3846,
    # below which the normal distribution has 0.855 %.  Of 59: 2.0010, 2.0178, 2.181 %.
    for units, low in ((10, 0.00855), (60, 0.02181), (MANY, 0.025)):
        found = Interval.of(draws, units)
        assert (found.low, found.high) == pytest.approx((low, 1 - low), abs=2e-5)
    assert np.isnan(Interval.of(draws, 1).low)
