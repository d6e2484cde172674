"""What the arms of an experiment differ by.

Enters: outcomes by user of every arm, and what was found of the skew.  Leaves: effects with two
intervals each.

    paired     the same users in both arms, with the same luck: only a simulation can do that
    unpaired   half of the users in each arm, by a hash of their ids, as in real life; CUPED takes
               out what the days before tell of a user

The metric is installs per request: the install rate of the landing page.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.special import stdtrit

from mlplatform.artifacts import read_json
from mlplatform.evaluation.ab_test import (
    Effect,
    Outcomes,
    assign,
    bootstrapped,
    detectable,
    paired,
    sample_ratio,
    units_needed,
    unpaired,
)
from mlplatform.evaluation.metrics import Interval, intervals
from recsys.experiment import FIXED, SKEWED, Arms
from recsys.stages.arms import ORACLE, POPULAR, SKEW, read_outcomes
from recsys.stages.day_files import events_of

Float = NDArray[np.float64]
HALVES = (0.5, 0.5)
AA = "A/A"
PAPERS_LIFT = 0.02  # of the install rate, by removing the skew (TFX, section 6)


@dataclass(frozen=True)
class Compared:
    """One arm against another.

    paired, paired_bootstrap: over all users.  unpaired, unpaired_bootstrap: over half of them each.
    users: in the two halves.  ratio_p: of the sample ratio test of these.
    detectable: the least relative difference that the halves would find in four of five tests.
    """

    treatment: str
    control: str
    paired: Effect
    paired_bootstrap: Effect
    unpaired: Effect
    unpaired_bootstrap: Effect
    users: tuple[int, int]
    ratio_p: float
    detectable: float


@dataclass(frozen=True)
class Figures:
    """Of one seed, by arm.

    compared: each arm against the skewed.
    removed: the fixed arm against each that has a fault: what it is worth to remove that.
    share_of_gap: of the way from the popular list to the oracle's, in expected installs.
    users_needed: in each arm, to find `PAPERS_LIFT` in four tests of five; told by the eve.
    """

    rates: Mapping[str, Mapping[str, float]]
    compared: Mapping[str, Compared]
    removed: Mapping[str, Compared]
    share_of_gap: Mapping[str, Interval]
    skews: Mapping[str, Mapping[str, Any]]
    users_needed: int


def figures_of(found: Arms, seed: int) -> Figures:
    """All that one run of the story comes to."""
    outcomes = {name: read_outcomes(path) for name, path in found.answered.items()}
    came = np.flatnonzero(outcomes[SKEWED]["requests"])
    before = installs_before(found.eve, found.day, len(outcomes[SKEWED]["requests"]))
    eve = read_outcomes(found.eve)
    on_eve = np.flatnonzero(eve["requests"])
    like = Outcomes(eve["installs"][on_eve], eve["requests"][on_eve])
    arms = {
        name: Outcomes(one["installs"][came], one["requests"][came], before[came])
        for name, one in outcomes.items()
    }

    def compare(treatment: str, control: str, name: str) -> Compared:
        return _compare(arms, treatment, control, name, came, like, seed)

    compared = {name: compare(name, SKEWED, name) for name in arms if name != SKEWED}
    compared[AA] = compare(SKEWED, SKEWED, AA)
    return Figures(
        {name: _rates(one) for name, one in outcomes.items()},
        compared,
        {name: compare(FIXED, name, f"without {name}") for name in found.skews},
        _shares_of_gap({name: one["expected"][came] for name, one in outcomes.items()}, came, seed),
        {name: summary_of(read_json(path / SKEW)) for name, path in found.skews.items()},
        units_needed(like, PAPERS_LIFT * like.ratio),
    )


def summary_of(skew: Mapping[str, Any]) -> dict[str, Any]:
    """Of `find_skew`: features by what their skew is predicted to cost, and marginal anomalies.

    apps lost: the largest share of rows in which one of the apps' features differs, of the rows
    shown and of those shown by chance.
    """
    shares, by_chance = (_shares(skew[name]) for name in ("report", "by_chance"))
    return {
        "rows": skew["report"]["counts"]["matched"],
        "rows by chance": skew["by_chance"]["counts"]["matched"],
        "apps lost": {
            "shown": max(shares[name] for name in by_chance),
            "by chance": max(by_chance.values()),
        },
        "marginal": skew["marginal"],
        "log loss": skew["cost"]["log_loss"],
        "together": skew["cost"]["together"]["log_loss"],
        "features": [
            {
                "name": one["features"][0],
                "share": shares[one["features"][0]],
                "by chance": by_chance.get(one["features"][0]),
                "cost": one["log_loss"],
            }
            for one in skew["cost"]["features"]
        ],
    }


def _shares(report: Mapping[str, Any]) -> dict[str, float]:
    """Of matched rows, those in which a feature differs."""
    matched = max(report["counts"]["matched"], 1)
    differing = ("mismatch", "training_only", "serving_only")
    return {one["name"]: sum(one[k] for k in differing) / matched for one in report["features"]}


def over_seeds(values: list[float]) -> Interval:
    """The mean over runs of the whole pipeline, two or more, with Student's interval over these."""
    mean, n = float(np.mean(values)), len(values)
    half = float(stdtrit(n - 1, 0.975)) * float(np.std(values, ddof=1)) / n**0.5
    return Interval(mean, mean - half, mean + half)


def _compare(
    arms: Mapping[str, Outcomes],
    treatment: str,
    control: str,
    name: str,
    users: NDArray[np.int64],
    like: Outcomes,
    seed: int,
) -> Compared:
    a, b = arms[treatment], arms[control]
    half = assign(users, HALVES, name)
    treated, controlled = (np.flatnonzero(half == one) for one in (0, 1))
    halves = a.take(treated), b.take(controlled)
    counts = (len(treated), len(controlled))
    return Compared(
        treatment,
        control,
        paired(a, b),
        bootstrapped(a, b, seed, same_units=True),
        unpaired(*halves),
        bootstrapped(*halves, seed),
        counts,
        sample_ratio(counts, HALVES),
        detectable(like, counts) / like.ratio,
    )


def _rates(outcomes: Mapping[str, Float]) -> dict[str, float]:
    installs, requests = outcomes["installs"].sum(), outcomes["requests"].sum()
    return {
        "requests": float(requests),
        "installs per request": float(installs / requests),
        "installs per impression": float(installs / outcomes["impressions"].sum()),
        "expected installs per request": float(outcomes["expected"].sum() / requests),
    }


def _shares_of_gap(
    expected: Mapping[str, Float], users: NDArray[np.int64], seed: int
) -> dict[str, Interval]:
    """Of the way from the popular list to the oracle's, in expected installs, by arm."""
    arms = [name for name in expected if name not in (POPULAR, ORACLE)]

    def sum_of(name: str) -> Any:
        return lambda weights: float(weights @ expected[name])

    def share_of(name: str) -> Any:
        return lambda v: (v[name] - v[POPULAR]) / (v[ORACLE] - v[POPULAR])

    derived = {f"share {name}": share_of(name) for name in arms}
    derived["share that the skew costs"] = lambda v: (
        (v[FIXED] - v[SKEWED]) / (v[ORACLE] - v[POPULAR])
    )
    found = intervals({name: sum_of(name) for name in expected}, users, seed, derived)
    return {name: found[name] for name in derived}


def installs_before(eve: Path, day: int, n_users: int) -> Float:
    """Installs of each user before the test, as far as they were reported by then."""
    total = np.zeros(n_users)
    for number in range(day):
        table = pq.read_table(
            events_of(eve, number) / "installs.parquet", columns=["user_id", "arrival_hour"]
        )
        known = table.filter(pc.less(table["arrival_hour"], 24.0 * day))
        total += np.bincount(known["user_id"].to_numpy(), minlength=n_users)
    return total
