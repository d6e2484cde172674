"""What arms differ by: outcomes made by hand, and what follows from them."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from mlplatform.artifacts import to_json
from mlplatform.data.files.spans import write_parquet
from recsys.experiment import FIXED, SKEWED, Arms
from recsys.experiment_figures import AA, figures_of, installs_before, over_seeds, summary_of
from recsys.stages.arms import OUTCOMES, SKEW
from recsys.stages.day_files import events_of

USERS = 4000
DAY = 1


def interval(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1}


SKEW_JSON = {
    "marginal": {"recent_installs": "differs"},
    "report": {
        "counts": {"matched": 200},
        "features": [
            {"name": "recent_installs", "mismatch": 30, "training_only": 20, "serving_only": 0},
            {"name": "country", "mismatch": 0, "training_only": 0, "serving_only": 0},
        ],
    },
    "by_chance": {
        "counts": {"matched": 20},
        "features": [
            {"name": "recent_installs", "mismatch": 9, "training_only": 0, "serving_only": 1},
        ],
    },
    "cost": {
        "log_loss": interval(0.2),
        "together": {"log_loss": interval(0.03)},
        "features": [{"features": ["recent_installs"], "log_loss": interval(0.02)}],
    },
}


@pytest.fixture(scope="module")
def arms(tmp_path_factory: pytest.TempPathFactory) -> Arms:
    """Users with two requests each, but for a fifth who do not come; 1 install in 10 at random.

    The fixed arm has one install more for each of the first 100 users.
    """
    root = tmp_path_factory.mktemp("arms")
    rng = np.random.default_rng(3)
    requests = np.where(np.arange(USERS) % 5 == 0, 0, 2)
    base = rng.binomial(requests, 0.1)
    more = base + ((np.arange(USERS) < 100) & (requests > 0))
    installs = {SKEWED: base, FIXED: more, "popular": base // 2, "oracle": base * 2 + 1}
    installs["oracle"] *= requests > 0
    answered = {}
    for name, one in installs.items():
        answered[name] = root / name
        answered[name].mkdir()
        np.savez(
            answered[name] / OUTCOMES,
            requests=requests, impressions=10 * requests, installs=one, expected=one,
        )  # fmt: skip
    (answered[SKEWED] / SKEW).write_bytes(to_json(SKEW_JSON))
    before = events_of(answered[SKEWED], 0)
    before.mkdir(parents=True)
    # Two installs of user 7, one of them not reported before the test.
    table = pa.table({"user_id": [7, 7, 8], "arrival_hour": [5.0, 30.0, 20.0]})
    write_parquet(table, before / "installs.parquet")
    return Arms(DAY, answered[SKEWED], answered, {SKEWED: answered[SKEWED]})


def test_rates_and_effects_are_as_counted(arms: Arms) -> None:
    found = figures_of(arms, seed=1)
    came = 3200
    skewed = found.rates[SKEWED]
    assert skewed["requests"] == 2 * came
    assert found.rates[FIXED]["installs per request"] == pytest.approx(
        skewed["installs per request"] + 80 / (2 * came)  # of 100 users a fifth does not come
    )
    effect = found.compared[FIXED]
    lift = 80 / (skewed["installs per request"] * 2 * came)
    assert effect.paired.relative.value == pytest.approx(lift)
    assert effect.paired.relative.low > 0 and effect.paired_bootstrap.relative.low > 0
    assert sum(effect.users) == came and effect.ratio_p > 0.001
    wide = effect.unpaired.relative
    assert wide.high - wide.low > 3 * (effect.paired.relative.high - effect.paired.relative.low)
    assert found.removed[SKEWED].paired.relative.value == pytest.approx(lift)
    assert found.removed[SKEWED].users != effect.users  # another test, another split


def test_an_arm_against_itself_differs_by_nothing_that_is_not_chance(arms: Arms) -> None:
    same = figures_of(arms, seed=1).compared[AA]
    assert same.paired.relative.value == same.paired.relative.high == 0
    assert same.unpaired.relative.low < 0 < same.unpaired.relative.high


def test_so_many_users_as_the_papers_lift_needs_would_detect_it(arms: Arms) -> None:
    found = figures_of(arms, seed=1)
    effect = found.compared[FIXED]
    # What can be detected falls with the square root of the users in each arm.
    least = effect.detectable * np.sqrt(2 / sum(1 / users for users in effect.users))
    assert found.users_needed == pytest.approx((least / 0.02) ** 2, rel=1e-3)


def test_the_share_of_the_gap_is_of_expected_installs(arms: Arms) -> None:
    found = figures_of(arms, seed=1)
    sums = {name: rate["expected installs per request"] for name, rate in found.rates.items()}
    gap = sums["oracle"] - sums["popular"]
    assert found.share_of_gap[f"share {FIXED}"].value == pytest.approx(
        (sums[FIXED] - sums["popular"]) / gap
    )
    assert found.share_of_gap["share that the skew costs"].value == pytest.approx(
        (sums[FIXED] - sums[SKEWED]) / gap
    )


def test_a_skew_in_short(arms: Arms) -> None:
    found: Any = summary_of(SKEW_JSON)
    assert found["features"] == [
        {"name": "recent_installs", "share": 0.25, "by chance": 0.5, "cost": interval(0.02)}
    ]
    assert found["apps lost"] == {"shown": 0.25, "by chance": 0.5}
    assert found["together"] == interval(0.03) and found["rows"] == 200
    assert figures_of(arms, seed=1).skews[SKEWED] == found


def test_the_mean_over_seeds_has_student_s_interval() -> None:
    values = [0.01, 0.03, 0.02, 0.05]
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    found = over_seeds(values)
    assert (found.value, found.low, found.high) == pytest.approx((np.mean(values), low, high))


def test_what_is_not_reported_before_the_test_is_not_known_before_it(arms: Arms) -> None:
    before = installs_before(arms.eve, DAY, USERS)
    assert before[[7, 8]].tolist() == [1, 1] and before.sum() == 2
