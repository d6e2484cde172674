"""Policies over lists, judged by a log: every policy against what it truly earns."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mlplatform.data.files.spans import write_span
from mlplatform.errors import InvalidArgument
from mlplatform.evaluation.off_policy import RewardModel
from recsys.apps import AppTable
from recsys.off_policy import (
    Log,
    all_alike,
    as_logged,
    in_order_of,
    install_probability,
    judge,
    showing,
)

# Six apps in three places, each drawn from one distribution; an app that is drawn again leaves its
# place empty.  Users are of two kinds.
APPS = np.array([10, 20, 30, 40, 50, 60])
DRAWN = np.array([0.3, 0.25, 0.2, 0.1, 0.1, 0.05])
WANTED = np.array([[0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [0.6, 0.1, 0.1, 0.3, 0.2, 0.1]])
EXAMINED = np.array([1.0, 0.7, 0.5])
REQUESTS = 10_000


def expected(kind: Any, slates: Any) -> Any:
    """True installs of each list, `[requests]`."""
    wanted = WANTED[kind[:, None], np.searchsorted(APPS, np.maximum(slates, 10))]
    return (np.where(slates >= 0, wanted, 0) * EXAMINED).sum(axis=1)


@pytest.fixture(scope="module")
def day() -> tuple[Any, Log]:
    """The kind of user of each request, and the log."""
    rng = np.random.default_rng(5)
    at = rng.choice(6, (REQUESTS, 3), p=DRAWN)
    place = np.arange(3)
    again = np.stack([(at[:, [s]] == at[:, :s]).any(axis=1) for s in place], axis=1)
    slates = np.where(again, -1, APPS[at])
    kind = rng.integers(0, 2, REQUESTS)
    chance = np.where(slates >= 0, WANTED[kind[:, None], at], 0) * EXAMINED
    propensity = DRAWN[at] * (1 - DRAWN[at]) ** place
    return kind, Log.of(np.arange(REQUESTS), slates, propensity, rng.random(at.shape) < chance)


def require_holds(log: Log, target: Any, kind: Any) -> None:
    """The log is believed, and both estimates lie near to the truth, by their own intervals."""
    truth = expected(kind, target.slates).mean()
    found = judge(log, target, seed=1)
    assert found.believable
    for interval in found.estimates.values():
        assert interval.high - interval.low < 0.4 * truth
        assert abs(interval.value - truth) < interval.high - interval.low


class TestAgainstTheTruth:
    def test_the_logs_own_policy_earns_its_mean(self, day: tuple[Any, Log]) -> None:
        kind, log = day
        found = judge(log, as_logged(log), seed=1)
        mean = log.installed.sum() / len(log)
        assert [one.value for one in found.estimates.values()] == pytest.approx([mean, mean])
        require_holds(log, as_logged(log), kind)

    def test_lists_that_are_always_the_same(self, day: tuple[Any, Log]) -> None:
        kind, log = day
        require_holds(log, showing(log, np.tile([60, 30, 10], (REQUESTS, 1))), kind)

    def test_lists_chosen_for_the_user(self, day: tuple[Any, Log]) -> None:
        kind, log = day
        require_holds(log, showing(log, np.array([[60, 50, 40], [10, 40, 50]])[kind]), kind)

    def test_lists_with_an_empty_place(self, day: tuple[Any, Log]) -> None:
        kind, log = day
        target = showing(log, np.tile([10, -1, 30], (REQUESTS, 1)))
        truth = expected(kind, target.slates).mean()
        ips = judge(log, target, seed=1).estimates["IPS"]
        assert abs(ips.value - truth) < ips.high - ips.low < 0.2

    def test_all_apps_alike(self, day: tuple[Any, Log]) -> None:
        kind, log = day
        target = all_alike(log, APPS, seed=2)
        assert np.bincount(np.searchsorted(APPS, target.slates).ravel()).min() > REQUESTS / 2.2
        require_holds(log, target, kind)

    def test_the_logged_apps_in_another_order(self, day: tuple[Any, Log]) -> None:
        kind, log = day
        full = log.full()
        scores = WANTED[kind[:, None], np.searchsorted(APPS, log.slates)][full]
        part, target = in_order_of(log.take(full), scores)
        assert 0.4 * REQUESTS < len(part) < 0.6 * REQUESTS
        assert (
            expected(kind[full], target.slates).mean()
            > 1.1 * expected(kind[full], part.slates).mean()
        )
        require_holds(part, target, kind[full])

    def test_a_model_of_the_truth_narrows_the_interval(self, day: tuple[Any, Log]) -> None:
        kind, log = day
        target = showing(log, np.tile([60, 30, 10], (REQUESTS, 1)))

        def chance(slates: Any) -> Any:
            at = np.searchsorted(APPS, np.maximum(slates, 10))
            return np.where(slates >= 0, WANTED[kind[:, None], at] * EXAMINED, 0)

        model = RewardModel(chance(log.slates), chance(target.slates))
        found = judge(log, target, 1, model).estimates
        truth = expected(kind, target.slates).mean()
        width = found["DR"].high - found["DR"].low
        assert abs(found["DR"].value - truth) < width < found["IPS"].high - found["IPS"].low


class TestOrders:
    log = Log.of(np.arange(2), np.array([[10, 20, 30], [30, 10, 20]]), np.ones((2, 3)),
                 np.zeros((2, 3), bool))  # fmt: skip

    def test_an_app_is_as_probable_at_every_place(self) -> None:
        part, target = in_order_of(self.log, np.array([[0.1, 0.3, 0.2], [0.3, 0.2, 0.1]]))
        assert target.slates.tolist() == [[20, 30, 10], [30, 10, 20]]
        assert target.probability.tolist() == [[0, 0, 0], [1, 1, 1]]
        np.testing.assert_allclose(part.propensity, 1 / 3)

    def test_of_equal_scores_the_logged_order_decides_nothing(self) -> None:
        _, target = in_order_of(self.log, np.zeros((2, 3)))
        assert target.slates.tolist() == [[10, 20, 30], [10, 20, 30]]

    def test_lists_with_empty_places_are_refused(self) -> None:
        gap = Log.of(np.arange(2), np.array([[10, -1], [10, 20]]), np.ones((2, 2)),
                     np.zeros((2, 2), bool))  # fmt: skip
        assert gap.full().tolist() == [1]
        with pytest.raises(InvalidArgument, match="expected no empty places, got 1 of 2 lists"):
            in_order_of(gap, np.zeros((2, 2)))


def test_an_empty_place_is_certain_whatever_its_app_was() -> None:
    log = Log.of(
        np.array([1]), np.array([[10, -1]]), np.array([[0.5, 0.1]]), np.array([[1, 0]]) > 0
    )
    assert log.propensity.tolist() == [[0.5, 1.0]]
    assert showing(log, np.array([[10, -1]])).probability.tolist() == [[1, 0]]
    assert all_alike(log, APPS, 1).probability.tolist() == [[pytest.approx(1 / 6), 0]]


def test_a_day_is_read_by_request_and_place(tmp_path: Path) -> None:
    write_span(tmp_path, "requests", 3, pa.table({"request_id": [7, 5], "user_id": [70, 50]}))
    write_span(
        tmp_path,
        "impressions",
        3,
        pa.table(
            {
                "request_id": [5, 7, 7],
                "position": [2, 1, 2],
                "app_id": [20, 10, 30],
                "propensity": [0.25, 0.5, 0.125],
                "installed": [1, 0, 1],
            }
        ),
    )
    log = Log.read(tmp_path, 3)
    assert log.user.tolist() == [50, 70]
    assert log.slates.tolist() == [[-1, 20], [10, 30]]
    assert log.propensity.tolist() == [[1, 0.25], [0.5, 0.125]]
    assert log.installed.tolist() == [[0, 1], [0, 1]]


def test_a_ranker_is_asked_of_every_app_at_its_place(
    transform: Any, catalogue: pa.Table, random_requests: Any
) -> None:
    apps = AppTable.of(catalogue, transform)
    columns = {"app_age_days": 0, "recent_impressions": 0, "recent_installs": 0}
    asked: list[Any] = []

    def rank(request: Any, history: Any, app: Any, impression: Any) -> Any:
        asked.append(impression)
        logit = (app + np.arange(len(app))[:, None]).astype(np.float32)
        return {"logit": SimpleNamespace(numpy=lambda: logit)}

    recommender: Any = SimpleNamespace(
        bundle=SimpleNamespace(transform=transform, apps=apps, rank=rank),
        store=SimpleNamespace(
            app_columns=lambda ids: (
                {name: np.full(len(ids), n) for name, n in columns.items()}
                | {"recent_install_rate": np.zeros(len(ids), np.float32)}
            )
        ),
    )
    slates = np.array([[10, 60, -1], [20, -1, 30]])
    found = install_probability(recommender, random_requests(2, 1), slates, np.array([1, 2, 10]))
    logits = np.array([[1.0, 6.0, 0.0], [3.0, 0.0, 4.0]])
    np.testing.assert_allclose(found, np.where(slates >= 0, 1 / (1 + np.exp(-logits)), 0))
    (impression,) = asked
    (position,) = np.flatnonzero(impression[0, 0] != impression[0, 1])
    codes = transform.codes(transform.by_name["position"], pa.array([1, 2, 10]))
    assert impression[:, :, position].tolist() == [codes.tolist()] * 2
