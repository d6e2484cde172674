"""Batches of queries to answers: alone or together, with and without a ranker that works."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.errors import NotFound
from mlplatform.transform.transform import Transform
from recsys.online.answering import POPULAR, RETRIEVAL, SPENT, Answering, Arm, Asked, alone
from recsys.online.contract import Answer
from recsys.online.recommender import Recommender
from tests.recsys.online.made_up import APPS, recommender_of, with_ranker_of


@pytest.fixture(scope="module")
def recommender(transform: Transform) -> Recommender:
    return recommender_of(transform, APPS)


def asked(user: int | None = 3, k: int = 10, **said: Any) -> Asked:
    known: dict[str, Any] = {
        "profile": None if user is not None else {"country": "US"},
        "hour_of_day": 20,
        "network": "wifi",
        "explain": False,
    }
    return Asked(user, k=k, **(known | said))


def apps_of(answer: Any) -> list[int]:
    return [app["app_id"] for app in answer["apps"]]


class TestAnswers:
    def test_an_answer_has_the_documented_form(self, recommender: Recommender) -> None:
        (answer,) = alone(recommender, 7).run([asked(explain=True)])
        parsed = Answer.model_validate(answer)
        assert parsed.model_dump(exclude_none=True) == answer
        assert parsed.bundle_version == 7
        assert parsed.fallback is None
        assert [app.score for app in parsed.apps] == sorted(
            (app.score for app in parsed.apps), reverse=True
        )

    def test_it_is_the_recommenders_own(self, recommender: Recommender) -> None:
        (answer,) = alone(recommender, 1).run([asked(user=5, k=7)])
        profile = {"country": "BR", "history": [60, 70], "owned": [60, 70]}
        visit = {"hour_of_day": 20, "network": "wifi"}
        found = recommender.recommend(recommender.table([profile | visit]), 7)
        assert apps_of(answer) == found.app_ids[0].tolist()
        assert [app["score"] for app in answer["apps"]] == found.scores[0].tolist()
        titles = [f"App {app // 10 - 1}" for app in apps_of(answer)]
        assert [app["title"] for app in answer["apps"]] == titles

    def test_what_is_said_to_one_does_not_depend_on_the_others(
        self, recommender: Recommender
    ) -> None:
        answering = alone(recommender, 1)
        queries = st.builds(
            asked,
            user=st.none() | st.integers(0, 120),
            k=st.sampled_from([1, 5, 10]),
            explain=st.booleans(),
        )

        @settings(max_examples=30, deadline=None, database=None)
        @given(st.lists(queries, min_size=1, max_size=9))
        def check(batch: list[Asked]) -> None:
            together = answering.run(batch)
            for one, answer in zip(batch, together, strict=True):
                (by_itself,) = answering.run([one])
                assert str(by_itself) == str(answer)

        check()

    def test_an_unknown_user_is_an_error_of_that_query_alone(
        self, recommender: Recommender
    ) -> None:
        first, unknown, last = alone(recommender, 1).run([asked(1), asked(100), asked(2)])
        assert isinstance(unknown, NotFound)
        assert "100" in str(unknown)
        assert len(apps_of(first)) == len(apps_of(last)) == 10

    def test_every_stage_of_a_batch_is_timed(self, recommender: Recommender) -> None:
        answering = alone(recommender, 1)
        answering.run([asked()])
        assert tuple(answering.spent_ns) == SPENT
        assert all(spent > 0 for spent in answering.spent_ns.values())


class TestFallbacks:
    def broken(self, recommender: Recommender) -> Recommender:
        def raises(rows: Any) -> Any:
            raise RuntimeError("a ranker that fails")

        good = with_ranker_of(recommender, lambda rows: rows.astype(np.float32))
        good._logits_of = lambda codes, history, rows: raises(rows)
        return good

    def retrieval_order(self, recommender: Recommender, query: Asked) -> list[int]:
        profile = recommender.store.decode(recommender.store.profiles_raw([query.user_id])[0])  # type: ignore[list-item, arg-type]
        visit = {"hour_of_day": 20, "network": "wifi"}
        table = recommender.table([profile | visit])
        found = recommender.recommend(table, query.k, ranker=False)
        return [int(app) for app in found.app_ids[0]]

    def test_a_ranker_that_fails_leaves_the_order_of_the_index(
        self, recommender: Recommender, caplog: pytest.LogCaptureFixture
    ) -> None:
        arm = Arm("stable", 1, recommender)
        arm.recommender = self.broken(recommender)
        answering = Answering([arm], recommender.store)
        (answer,) = answering.run([asked()])
        assert answer["fallback"] == RETRIEVAL
        assert apps_of(answer) == self.retrieval_order(recommender, asked())
        assert all("score" not in app for app in answer["apps"])
        assert answering.fallbacks == {RETRIEVAL: 1, POPULAR: 0}
        assert "a ranker that fails" in caplog.text

    def test_a_ranker_that_says_nan_to_one_does_not_cost_the_others_their_order(
        self, recommender: Recommender
    ) -> None:
        def logits(rows: Any) -> Any:
            said = rows.astype(np.float32)
            said[1:2] = np.nan
            return said

        answering = alone(with_ranker_of(recommender, lambda rows: rows.astype(np.float32)), 1)
        answering.arms[0].recommender = with_ranker_of(recommender, logits)
        first, second, third = answering.run([asked(1), asked(2), asked(3)])
        assert "fallback" not in first
        assert "fallback" not in third
        assert second["fallback"] == RETRIEVAL
        assert apps_of(second) == self.retrieval_order(recommender, asked(2))

    def test_an_index_that_fails_too_leaves_what_is_popular(
        self, recommender: Recommender, caplog: pytest.LogCaptureFixture
    ) -> None:
        arm = Arm("stable", 1, recommender_of(recommender.bundle.transform, APPS))

        def raises(*arguments: Any) -> Any:
            raise RuntimeError("an index that fails")

        arm.recommender._retrieve = raises  # type: ignore[method-assign]
        (answer,) = Answering([arm], recommender.store).run([asked(explain=True)])
        assert answer["fallback"] == POPULAR
        installs = [app["explanation"]["recent_installs"] for app in answer["apps"]]
        assert len(installs) == 10
        assert installs == sorted(installs, reverse=True)
        assert all(app["explanation"]["source"] == "popular" for app in answer["apps"])
        assert not {40, 50} & set(apps_of(answer))  # what the user has

    def test_without_the_time_for_the_ranker_it_is_not_asked(
        self, recommender: Recommender
    ) -> None:
        now = [0.0]
        asks: list[bool] = []
        arm = Arm("stable", 1, recommender_of(recommender.bundle.transform, APPS))
        ranked = arm.recommender.recommend

        def takes_20_ms(requests: Any, k: int, **said: Any) -> Any:
            asks.append(said["ranker"])
            now[0] += 0.02 if said["ranker"] else 0.001
            return ranked(requests, k, **said)

        arm.recommender.recommend = takes_20_ms  # type: ignore[method-assign, assignment]
        answering = Answering([arm], recommender.store, clock=lambda: now[0])
        for _ in range(100):
            answering.run([asked(deadline=math.inf)])
        (late,) = answering.run([asked(deadline=now[0] + 0.01)])
        (in_time,) = answering.run([asked(deadline=now[0] + 0.03)])
        assert late["fallback"] == RETRIEVAL
        assert "fallback" not in in_time
        assert asks[-2:] == [False, True]
        (over,) = answering.run([asked(deadline=now[0])])
        assert over["fallback"] == POPULAR


class TestLog:
    def test_what_is_answered_was_logged_before(self, recommender: Recommender) -> None:
        logged: list[Any] = []
        answering = Answering(
            [Arm("stable", 4, recommender)], recommender.store, log=logged.extend,
            request_ids=itertools.count(10),
        )  # fmt: skip
        answers = answering.run([asked(1), asked(100), asked(2, k=5), asked(None)])
        assert {str(shown.request_id) for shown in logged} == {
            answer["request_id"] for answer in answers if isinstance(answer, dict)
        }
        by_id = {str(shown.request_id): shown for shown in logged}
        for answer in (answers[0], answers[2], answers[3]):
            assert by_id[answer["request_id"]].slate == apps_of(answer)

    def test_explored_places_are_told_as_such_and_have_no_score(
        self, recommender: Recommender
    ) -> None:
        logged: list[Any] = []
        answering = Answering(
            [Arm("stable", 4, recommender)], recommender.store, exploration=0.1,
            log=logged.extend, request_ids=itertools.count(),
        )  # fmt: skip
        plain = alone(recommender, 4)
        (best,) = plain.run([asked()])
        for answer in answering.run([asked(explain=True)] * 20):  # each explores one of ten places
            explored = [app for app in answer["apps"] if app["explanation"]["explored"]]
            assert len(explored) == 1
            assert "score" not in explored[0]
            assert explored[0]["app_id"] not in apps_of(best)
            differing = [a for a, b in zip(apps_of(answer), apps_of(best), strict=True) if a != b]
            assert differing == [explored[0]["app_id"]]


class TestArms:
    def shares(self, recommender: Recommender, share: float) -> Sequence[str]:
        arms = [Arm("stable", 1, recommender), Arm("canary", 2, recommender)]
        answering = Answering(arms, recommender.store, canary_share=share)
        answers = answering.run([asked(user, k=1) for user in range(100)])
        assert all(
            answer["bundle_version"] == {"stable": 1, "canary": 2}[answer["arm"]]
            for answer in answers
        )
        return [answer["arm"] for answer in answers]

    def test_a_share_of_the_users_meets_the_canary_and_always_the_same(
        self, recommender: Recommender
    ) -> None:
        arms = self.shares(recommender, 0.3)
        # Of 100 draws of 0.3 each, 15 to 46 but for once in a thousand.
        assert 15 <= arms.count("canary") <= 46
        assert self.shares(recommender, 0.3) == arms
        assert set(self.shares(recommender, 0.0)) == {"stable"}
        assert set(self.shares(recommender, 1.0)) == {"canary"}
