"""Off-policy estimates: closed forms, unbiasedness and coverage by simulation, and the verdict."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mlplatform.errors import InvalidArgument
from mlplatform.evaluation.metrics import Interval
from mlplatform.evaluation.off_policy import Logged, RewardModel, Verdict, judge_target

# Two contexts, three actions: what each policy does, and the mean reward.
LOGGING = np.array([[0.5, 0.3, 0.2], [0.2, 0.2, 0.6]])
TARGET = np.array([[0.1, 0.2, 0.7], [0.6, 0.4, 0.0]])
REWARD = np.array([[0.1, 0.5, 0.3], [0.8, 0.4, 0.2]])
TRUTH = float((TARGET * REWARD).sum() / 2)  # 0.32 in the first context, 0.64 in the other
WRONG = -2 * REWARD
ROUNDS, ROWS = 200, 400
Estimates = list[Mapping[str, Interval]]


def logged(propensity: Any, reward: Any, group: Any = None) -> Logged:
    return Logged(
        np.asarray(propensity, dtype=np.float64),
        np.asarray(reward, dtype=np.float64),
        np.arange(len(reward)) if group is None else np.asarray(group),
    )


def simulate(seed: int, model: Any = REWARD, rows: int = ROWS, clip: float = math.inf) -> Verdict:
    """A log of 0/1 rewards, judged; `model` is the believed mean reward, `[contexts, actions]`."""
    rng = np.random.default_rng(seed)
    context = rng.integers(0, 2, rows)
    action = (rng.random(rows)[:, None] > LOGGING[context].cumsum(axis=1)).sum(axis=1)
    reward = rng.random(rows) < REWARD[context, action]
    believed = RewardModel(model[context, action], (TARGET * model).sum(axis=1)[context])
    log = logged(LOGGING[context, action], reward)
    return judge_target(log, TARGET[context, action], seed, model=believed, clip=clip)


@pytest.fixture(scope="module")
def right() -> Estimates:
    """Of many logs, by a model that is right."""
    return [simulate(seed).estimates for seed in range(ROUNDS)]


@pytest.fixture(scope="module")
def wrong() -> Estimates:
    """Of the same logs, by one that is far off."""
    return [simulate(seed, WRONG).estimates for seed in range(ROUNDS)]


def values(estimates: Estimates, estimator: str) -> Any:
    return np.array([one[estimator].value for one in estimates])


class TestByHand:
    # Four rows of two actions taken with 0.8 and 0.2, which the target takes with 0.5 each.
    log = logged([0.8, 0.8, 0.8, 0.2], [1, 0, 1, 3])
    target = np.full(4, 0.5)
    weights = (0.625, 0.625, 0.625, 2.5)

    def test_estimates(self) -> None:
        model = RewardModel(np.array([0.5, 0.5, 0.5, 2.0]), np.full(4, 1.25))
        found = judge_target(self.log, self.target, 1, model=model).estimates
        assert found["IPS"].value == pytest.approx((0.625 + 0.625 + 7.5) / 4)
        assert found["SNIPS"].value == pytest.approx(8.75 / 4.375)
        assert found["DR"].value == pytest.approx(1.25 + (0.625 * 0.5 + 2.5 * 1.0) / 4)

    def test_support(self) -> None:
        support = judge_target(self.log, self.target, 1).support
        squares = 3 * 0.625**2 + 2.5**2
        assert support.rows == 4
        assert support.effective_rows == pytest.approx(4.375**2 / squares)
        assert support.effective_share == pytest.approx(4.375**2 / squares / 4)
        assert support.effective_rewards == pytest.approx(8.75**2 / (2 * 0.625**2 + 7.5**2))
        assert support.mass.value == pytest.approx(4.375 / 4)
        assert support.largest_weight == 2.5
        assert (support.clip, support.clipped_share) == (math.inf, 0)

    def test_a_clip_bounds_the_weights_and_says_how_many(self) -> None:
        found = judge_target(self.log, self.target, 1, clip=1.25)
        assert found.estimates["IPS"].value == pytest.approx((0.625 + 0.625 + 3.75) / 4)
        assert found.estimates["SNIPS"].value == pytest.approx(5.0 / 3.125)
        assert found.support.mass.value == pytest.approx(3.125 / 4)
        assert found.support.largest_weight == 2.5
        assert (found.support.clip, found.support.clipped_share) == (1.25, 0.25)

    def test_without_a_model_nothing_is_doubly_robust(self) -> None:
        assert judge_target(self.log, self.target, 1).estimates.keys() == {"IPS", "SNIPS"}


class TestInSimulation:
    @pytest.mark.parametrize("estimator", ["IPS", "SNIPS", "DR"])
    def test_estimates_are_right_in_the_mean(self, estimator: str, right: Estimates) -> None:
        self.require_right(values(right, estimator))

    def test_a_wrong_model_biases_nothing(self, wrong: Estimates) -> None:
        self.require_right(values(wrong, "DR"))

    @staticmethod
    def require_right(found: Any) -> None:
        """Within four standard errors of the truth, which are small beside it."""
        error = found.std() / math.sqrt(ROUNDS)
        assert error < 0.02 * TRUTH
        assert abs(found.mean() - TRUTH) < 4 * error

    def test_a_good_model_varies_less_than_none_and_a_bad_one_more(
        self, right: Estimates, wrong: Estimates
    ) -> None:
        none = values(right, "IPS").std()
        assert values(right, "DR").std() < 0.85 * none
        assert values(wrong, "DR").std() > 1.2 * none

    def test_intervals_hold_the_truth_about_as_often_as_they_say(self, right: Estimates) -> None:
        for name in ("IPS", "SNIPS", "DR"):
            held = np.mean([one[name].low <= TRUTH <= one[name].high for one in right])
            assert 0.90 <= held <= 0.99, name  # three deviations of 200 draws about 95 %

    def test_what_the_log_never_shows_is_missed_and_the_verdict_says_so(self) -> None:
        # The log is sure of one action, which the target takes in three cases of ten.
        n = 5000
        reward = np.random.default_rng(1).random(n) < 0.4
        found = judge_target(logged(np.ones(n), reward), np.full(n, 0.3), 1)
        assert found.support.mass.value == pytest.approx(0.3)
        assert found.estimates["IPS"].high < 0.2  # and yet sure of itself
        assert not found.believable
        assert "the log shows 30.0% of what the target does" in found.objections[0]

    def test_clipping_moves_estimates_towards_zero_and_counts_as_missing(self) -> None:
        free, clipped = simulate(1, rows=2000), simulate(1, rows=2000, clip=1.0)
        assert clipped.estimates["IPS"].value < free.estimates["IPS"].value
        assert clipped.support.mass.high < 0.95 < free.support.mass.high
        assert free.believable
        assert not clipped.believable


def test_a_true_model_of_certain_rewards_leaves_no_variance_from_weights() -> None:
    rng = np.random.default_rng(3)
    propensity, target = rng.uniform(0.01, 1, 300), rng.uniform(0, 1, 300)
    reward = rng.normal(0, 5, 300)
    model = RewardModel(reward, np.full(300, 0.7))
    found = judge_target(logged(propensity, reward), target, 1, model=model).estimates
    assert (found["DR"].value, found["DR"].low, found["DR"].high) == pytest.approx((0.7,) * 3)
    assert found["IPS"].high - found["IPS"].low > 1


def test_the_intervals_draw_whole_groups() -> None:
    """A hundred groups of a hundred equal rows tell as much as a hundred rows."""
    reward = np.random.default_rng(1).random(100) < 0.5
    alone = judge_target(logged(np.ones(100), reward), np.ones(100), 1)
    group = np.repeat(np.arange(100), 100)
    many = judge_target(logged(np.ones(10_000), reward[group], group), np.ones(10_000), 1)
    for name in ("IPS", "SNIPS"):
        ours, theirs = many.estimates[name], alone.estimates[name]
        assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high))


class TestVerdict:
    @staticmethod
    def of(weights: Any, reward: Any) -> Verdict:
        """Rows of these weights, taken with a propensity small enough for all of them."""
        weights = np.asarray(weights, dtype=np.float64)
        propensity = np.full(len(weights), 1 / 10_000)
        return judge_target(logged(propensity, reward), weights * propensity, 1)

    def test_the_policy_that_made_the_log_is_believed(self) -> None:
        reward = np.arange(1000) % 5 == 0
        found = self.of(np.ones(1000), reward)
        assert found.believable
        assert found.objections == ()
        assert found.estimates["IPS"].value == pytest.approx(0.2)

    def test_one_heavy_row_is_no_sample(self) -> None:
        found = self.of(np.r_[np.zeros(999), 1000.0], np.ones(1000))
        assert found.support.effective_rows == pytest.approx(1)
        assert any("worth 1.0 rows of the target's own" in line for line in found.objections)

    def test_few_rewards_are_no_sample_though_rows_are_many(self) -> None:
        found = self.of(np.ones(1000), np.arange(1000) < 40)
        (objection,) = found.objections
        assert objection == (
            "the log is worth 40.0 rewards of the target's own, expected 100 or more: "
            "take a longer log, or one with more exploration"
        )

    def test_weights_that_are_too_many_accuse_the_propensities(self) -> None:
        found = self.of(np.full(1000, 1.5), np.ones(1000))
        (objection,) = found.objections
        assert objection.startswith("the mean weight is 1.50, expected 1: ")

    def test_a_target_that_the_log_has_nothing_of_has_no_estimate(self) -> None:
        found = self.of(np.zeros(1000), np.ones(1000))
        assert found.estimates["IPS"].high == 0
        assert math.isnan(found.estimates["SNIPS"].value)
        assert found.support.effective_rows == found.support.effective_rewards == 0
        assert len(found.objections) == 3

    def test_a_log_of_one_group_is_not_believed(self) -> None:
        found = judge_target(logged(np.ones(5000), np.ones(5000), np.zeros(5000)), np.ones(5000), 1)
        assert found.estimates["IPS"].value == 1 and math.isnan(found.estimates["IPS"].low)
        (objection,) = found.objections
        assert "of so few groups that no interval can be told" in objection


ROWS_OF_ANY_LOG = st.lists(
    st.tuples(
        st.floats(1e-6, 1),  # propensity
        st.floats(0, 1),  # target
        st.floats(-100, 100),  # reward
        st.integers(0, 5),  # group
    ),
    min_size=1,
    max_size=30,
)


class TestProperties:
    @settings(deadline=None, max_examples=60)
    @given(ROWS_OF_ANY_LOG, st.floats(0.1, 1e5))
    @example(rows=[(1.0, 5e-324, 0.3, 0)], clip=1.0)
    @example(rows=[(1.0, 5e-324, 0.3, 0), (1.0, 1.0, 0.5, 1)], clip=1.0)
    def test_of_any_log(self, rows: Any, clip: float) -> None:
        propensity, target, reward, group = (np.array(one) for one in zip(*rows, strict=True))
        found = judge_target(logged(propensity, reward, group), target, 1, clip=clip)
        support, snips = found.support, found.estimates["SNIPS"]
        assert support.mass.value <= clip * (1 + 1e-12)
        if target.any():
            assert 1 - 1e-9 <= support.effective_rows <= len(rows) * (1 + 1e-9)
            slack = 1e-9 * (1 + np.abs(reward).max())
            assert math.isnan(snips.low) == math.isnan(snips.high)
            for value in (snips.value, snips.low, snips.high):
                inside = reward.min() - slack <= value <= reward.max() + slack
                assert inside or (math.isnan(value) and value is not snips.value)
        else:
            assert support.effective_rows == 0 and math.isnan(snips.value)

    @settings(deadline=None, max_examples=60)
    @given(ROWS_OF_ANY_LOG)
    def test_of_the_policy_that_made_the_log_all_estimates_are_its_mean(self, rows: Any) -> None:
        propensity, _, reward, group = (np.array(one) for one in zip(*rows, strict=True))
        model = RewardModel(reward / 2, reward / 2)
        found = judge_target(logged(propensity, reward, group), propensity, 1, model=model)
        for interval in found.estimates.values():
            assert interval.value == pytest.approx(reward.mean(), abs=1e-9)
        assert found.support.effective_rows == pytest.approx(len(rows))

    @settings(deadline=None, max_examples=60)
    @given(ROWS_OF_ANY_LOG, st.floats(-50, 50))
    def test_rewards_shifted_by_a_constant_shift_snips_by_it(self, rows: Any, by: float) -> None:
        propensity, target, reward, group = (np.array(one) for one in zip(*rows, strict=True))
        target = np.maximum(target, 1e-3)
        plain, shifted = (
            judge_target(logged(propensity, one, group), target, 1).estimates["SNIPS"]
            for one in (reward, reward + by)
        )
        for end in ("value", "low", "high"):
            moved = getattr(plain, end) + by
            assert getattr(shifted, end) == pytest.approx(moved, abs=1e-6, nan_ok=True)


class TestInput:
    good = logged([0.5, 1.0, 0.25], [1, 0, 1])
    target = np.array([0.0, 1.0, 0.5])

    @pytest.mark.parametrize(
        ("field", "value", "message"),
        [
            ("propensity", 0.0, "propensity: expected a probability above 0, up to 1, got 0.0 in"),
            ("propensity", 1.01, "up to 1, got 1.01 in row 1"),
            ("propensity", math.nan, "up to 1, got nan in row 1"),
            ("propensity", -math.inf, "up to 1, got -inf in row 1"),
            ("reward", math.inf, "reward: expected a finite number, got inf in row 1"),
            ("target", -0.1, "target: expected a probability from 0 to 1, got -0.1 in row 1"),
            ("target", math.nan, "target: expected a probability from 0 to 1, got nan in row 1"),
            ("model.logged", math.nan, "model.logged: expected a finite number, got nan in row 1"),
            ("model.target", math.inf, "model.target: expected a finite number, got inf in row 1"),
        ],
    )
    def test_a_value_out_of_range_is_named(self, field: str, value: float, message: str) -> None:
        arrays = {
            "propensity": self.good.propensity.copy(), "reward": self.good.reward.copy(),
            "target": self.target.copy(),
            "model.logged": np.zeros(3), "model.target": np.zeros(3),
        }  # fmt: skip
        arrays[field][1] = value
        with pytest.raises(InvalidArgument) as raised:
            judge_target(
                logged(arrays["propensity"], arrays["reward"]),
                arrays["target"],
                1,
                model=RewardModel(arrays["model.logged"], arrays["model.target"]),
            )
        assert message in str(raised.value)
        assert "(1 such of 3 rows)" in str(raised.value)
        assert "\n" not in str(raised.value)

    def test_arrays_of_other_lengths_are_refused(self) -> None:
        with pytest.raises(InvalidArgument, match=r"target: .* got shape \(2,\) beside \(3,\)"):
            judge_target(self.good, self.target[:2], 1)

    def test_no_rows_are_refused(self) -> None:
        with pytest.raises(InvalidArgument, match=r"at least one row, got shape \(0,\)"):
            judge_target(logged([], []), np.zeros(0), 1)

    @pytest.mark.parametrize("clip", [0.0, -1.0, math.nan])
    def test_a_clip_that_leaves_nothing_is_refused(self, clip: float) -> None:
        with pytest.raises(InvalidArgument, match="clip: expected a weight above 0, got"):
            judge_target(self.good, self.target, 1, clip=clip)
