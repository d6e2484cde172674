"""The benchmark of off-policy estimates, on one day of a store of five hundred apps."""

import numpy as np
import pytest

from benchmarks import off_policy
from benchmarks.lab import Lab
from benchmarks.off_policy import Judged, Truth
from benchmarks.result import Result
from data_gen import sessions
from mlplatform.evaluation.metrics import Interval
from mlplatform.evaluation.off_policy import Support, Verdict
from recsys.off_policy import Log


@pytest.fixture(scope="module")
def judged(lab: Lab) -> dict[str, Judged]:
    found = off_policy.judge(lab, lucks=1)
    assert len(found) == len(off_policy.TARGETS)
    return {one.name: one for one in found}


def test_all_targets_are_judged_beside_the_truth(judged: dict[str, Judged]) -> None:
    assert judged.keys() == set(off_policy.TARGETS)
    assert all(one.verdict.estimates.keys() == {"IPS", "SNIPS", "DR"} for one in judged.values())
    assert judged[off_policy.REORDERED].truth > judged[off_policy.ITSELF].truth
    lists = {judged[name].truth for name in (off_policy.OUR_LISTS, off_policy.NO_EXPLORATION)}
    others = {judged[name].truth for name in (off_policy.OTHERS_LISTS, off_policy.CLIPPED)}
    assert len(lists) == len(others) == 1
    assert lists != others


def test_what_is_near_to_the_log_is_believed_and_right(judged: dict[str, Judged]) -> None:
    for name in (off_policy.ITSELF, off_policy.NO_EXPLORATION):
        one = judged[name]
        assert one.verdict.believable
        for interval in one.verdict.estimates.values():
            # within a whole width of the interval, which one day is outside of once in ten thousand
            assert abs(interval.value - one.truth) < interval.high - interval.low < one.truth
    assert judged[off_policy.NO_EXPLORATION].verdict.support.effective_share > 0.9


def test_what_is_far_from_the_log_is_not_believed(judged: dict[str, Judged]) -> None:
    for name in (off_policy.OUR_LISTS, off_policy.OTHERS_LISTS, off_policy.CLIPPED):
        assert not judged[name].verdict.believable
    clipped = judged[off_policy.CLIPPED]
    # Sure of itself and wrong: most of what the other ranker shows is not in the log.
    assert clipped.verdict.estimates["IPS"].high < clipped.truth / 2
    assert clipped.verdict.support.mass.high < 0.9


def test_weights_average_one_where_the_log_shows_all_the_target_does(
    judged: dict[str, Judged],
) -> None:
    for name in (off_policy.REORDERED, off_policy.ALIKE, off_policy.NO_EXPLORATION):
        mass = judged[name].verdict.support.mass
        assert mass.high - mass.low < 0.2
        assert abs(mass.value - 1) < mass.high - mass.low


def test_the_first_log_is_the_one_that_the_application_reads(lab: Lab) -> None:
    truth, day = Truth.of(lab), lab.config.days.evaluate
    visits = sessions.visits(truth.world, day)
    made = truth.log(visits, *sessions.logged_slates(truth.world, visits))
    read, order = Log.read(lab.store.spans, day), np.argsort(visits.request_id)
    np.testing.assert_array_equal(read.user, made.user[order])
    np.testing.assert_array_equal(read.slates, made.slates[order])
    np.testing.assert_array_equal(read.propensity, made.propensity[order])
    assert (read.installed <= made.installed[order]).all()
    assert 0.85 < off_policy.share_heard_of(lab) < 1


def test_figures_are_means_over_the_logs() -> None:
    def one(name: str, truth: float, interval: Interval, objections: tuple[str, ...]) -> Judged:
        support = Support(100, 50.0, 20.0, Interval(1.0, 0.9, 1.1), 4.0, np.inf, 0.0)
        estimates = dict.fromkeys(off_policy.ESTIMATORS, interval)
        return Judged(name, truth, Verdict(estimates, support, objections))

    judged = [one(name, 1.0, Interval(3.0, 2.0, 4.0), ("no",)) for name in off_policy.TARGETS]
    judged += [
        one(off_policy.ITSELF, 2.0, Interval(2.5, 2.0, 3.0), ()),
        one(off_policy.ITSELF, 3.0, Interval(2.0, 1.0, 2.9), ()),
    ]
    result = Result(settings={})
    off_policy.summarise(result, judged)
    figures = {
        name.removeprefix(f"{off_policy.ITSELF}: "): figure
        for name, figure in result.figures.items()
    }
    assert figures["truth"] == pytest.approx(2)
    assert figures["believable, share"] == pytest.approx(2 / 3)
    assert figures["SNIPS"] == pytest.approx(2.5)
    assert figures["SNIPS, low"] == pytest.approx(5 / 3)
    assert figures["SNIPS holds the truth, share"] == pytest.approx(1 / 3)
    assert figures["effective rows, share"] == 0.5
    assert result.figures[off_policy.BELIEVED] == 0.5  # of the two believed
    assert not result.met(off_policy.BELIEVED)
    assert result.figures[off_policy.DISBELIEVED] == 0
