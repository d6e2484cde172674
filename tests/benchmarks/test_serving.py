"""What the serving benchmarks conclude from given runs; and each of them in short, on a store of
twelve thousand apps, where its figures mean nothing and what it holds must hold all the same."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import isolation, kills, overload, serving, swaps
from benchmarks.load import KINDS, Outcome, Plan
from benchmarks.plain_server import Context, Plain, Query
from benchmarks.result import Result
from benchmarks.served import Visits, answer_of, two_days
from benchmarks.serving import BUDGET_MS, highest_rate
from recsys.online.recommendations_pb2 import App, RecommendRequest, RecommendResponse


def outcome_of(
    intended: Any, latency_ms: Any, status: Any, started: float = 0.0, **bodies: Any
) -> Outcome:
    """A run over HTTP whose requests were due at these seconds."""
    intended, n = np.asarray(intended, float), len(intended)
    return Outcome(
        Plan("http", "127.0.0.1", 1, "/", [b""], rate=1, seconds=1.0), started, intended, intended,
        intended + np.broadcast_to(latency_ms, n) / 1000, np.broadcast_to(status, n).copy(),
        np.zeros(n, np.int64), cpu_seconds=0.0, connections=1, **bodies,
    )  # fmt: skip


def server_of(capacity: float, of_a_minute: float = np.inf) -> tuple[serving.Run, list[float]]:
    """A server that answers in time up to a rate, and in a long run up to another; its log."""
    asked: list[float] = []

    def load(rate: float, seconds: float) -> Outcome:
        asked.append(rate)
        met = rate <= (min(capacity, of_a_minute) if seconds > 10 else capacity)
        return outcome_of(np.arange(100), 10 if met else 2 * BUDGET_MS, 200)

    return load, asked


@given(st.floats(2, 20_000), st.sampled_from([0.05, 0.2]), st.sampled_from([50.0, 2000.0]))
def test_the_highest_rate_is_found_to_within_the_resolution(
    capacity: float, resolution: float, first: float
) -> None:
    load, asked = server_of(capacity)
    rate, outcome = highest_rate(load, first, resolution, 5, 60)
    assert rate <= capacity <= rate * (1 + resolution)
    assert outcome is not None
    assert asked[-1] == rate  # what is given was met in the long run
    assert len(asked) < 80


@given(st.floats(100, 5000), st.floats(0.3, 0.99))
def test_a_rate_that_does_not_last_is_not_given(capacity: float, lasting: float) -> None:
    load, _ = server_of(capacity, lasting * capacity)
    rate, _ = highest_rate(load, 500, 0.05, 5, 60)
    assert lasting * capacity / 1.05 - 1e-6 <= rate <= lasting * capacity


def test_one_moment_of_a_machine_does_not_end_the_search() -> None:
    load, _ = server_of(3000)
    stalls = iter([False, True, False, True])

    def stalling(rate: float, seconds: float) -> Outcome:
        return load(10_000 if next(stalls, False) else rate, seconds)

    assert highest_rate(stalling, 2000, 0.05, 5, 60)[0] > 3000 / 1.05


def test_of_a_server_that_meets_no_rate_the_highest_is_0() -> None:
    assert highest_rate(server_of(0)[0], 100, 0.05, 5, 60) == (0.0, None)


def test_a_rate_is_met_only_without_errors_and_with_99_of_100_in_time() -> None:
    in_time = np.full(200, 10.0)
    assert serving.sustained(outcome_of(np.arange(200), in_time, 200))
    late = np.where(np.arange(200) < 2, 60.0, in_time)
    assert serving.sustained(outcome_of(np.arange(200), late, 200))
    late[2] = 60.0
    assert not serving.sustained(outcome_of(np.arange(200), late, 200))
    failed = np.where(np.arange(200) == 7, 503, 200)
    assert not serving.sustained(outcome_of(np.arange(200), in_time, failed))


def test_answers_of_a_burst_count_where_they_are_good_and_in_time() -> None:
    # The burst begins two seconds after the usual requests and lasts three, by one clock.
    usual = outcome_of(
        [0.5, 1.5, 2.5, 3.5, 5.5, 6.5], [5, 5, 20, 70, 9, 8], [200] * 4 + [503, 200], started=100
    )
    burst = outcome_of([0, 1, 2, 2.9], [30, 40, 60, 1], [200, 200, 200, 429], started=102)
    result = Result(settings={})
    settings = overload.Settings(burst_s=3)
    overload.add_figures(result, usual, burst, peak=2.0, settings=settings)
    assert result.figures["offered during it, a second"] == pytest.approx((2 + 4) / 3)
    assert result.figures["good answers a second during it, of the peak"] == pytest.approx(
        3 / 3 / 2
    )
    assert result.figures["refused or failed during it: status 429"] == 1
    assert result.figures["p99 before, ms"] == pytest.approx(5)
    assert result.figures["p99 in the second after, ms"] == pytest.approx(9)
    assert result.figures["errors in the second after"] == 1
    assert result.figures["the last error after it, ms"] == pytest.approx(500)
    assert result.figures["p99 from then on, ms"] == pytest.approx(8)
    # Accepted: 20 and 70 of the usual, 30, 40 and 60 of the burst.
    assert 60 < result.figures["p99 of what was accepted, ms"] <= 70


def test_what_fails_far_from_a_kill_and_what_the_log_lacks_is_counted() -> None:
    bodies = {n: b'{"request_id": "%d"}' % (10 + n) for n in (0, 2, 4)}
    run = outcome_of(
        [1.0, 2.2, 3.0, 5.0, 6.0], 5, [200, -2, 200, -2, 200], started=50, bodies=bodies
    )
    result = Result(settings={})
    kills.add_figures(result, [run], [52.0], [3.0], logged={10, 14, 99})
    assert result.figures["failed within a second of a kill"] == 1
    assert result.figures["failed at another time"] == 1
    assert result.figures["answers"] == 3
    assert result.figures["answers that the log does not have"] == 1  # 12
    assert not result.all_met


def test_an_answer_with_a_title_of_another_version_is_one_of_two_versions() -> None:
    titles = {0: ["a (A)", "b (A)"], 1: ["a (B)", "b (B)"], 2: ["a (B)", "b (A)"]}
    bodies = {
        n: msgspec.json.encode({"bundle_version": v, "apps": [{"title": t} for t in titles[n]]})
        for n, v in ((0, 1), (1, 2), (2, 2))
    }
    run = outcome_of([0, 1, 2], 5, 200, bodies=bodies)
    result = Result(settings={})
    visits = Visits([{}], {})
    marks = {1: " (A)", 2: " (B)", 3: " (C)"}
    some = swaps.check_answers(result, "http", [run], visits, marks, most=10)
    assert {version: len(pairs) for version, pairs in some.items()} == {1: 1, 2: 2, 3: 0}
    assert result.figures["http: answers of version 1"] == 1
    assert result.figures["http: answers of version 2"] == 2
    assert result.figures["http: answers of two versions"] == 1
    assert not result.met("http: answers of version 3")


def test_an_answer_is_the_same_only_with_the_same_apps_in_order_titles_and_scores() -> None:
    app = {"app_id": 1, "title": "One", "category": "GAME", "score": 0.25}
    other = {"app_id": 2, "title": "Two", "category": "GAME", "score": 0.125}
    answer: dict[str, Any] = {"bundle_version": 3, "apps": [app, other], "request_id": "8"}
    assert swaps.is_same(answer, answer | {"request_id": "0"})
    for change in (
        {"bundle_version": 4},
        {"apps": [other, app]},
        {"apps": [app]},
        {"apps": [app | {"score": 0.26}, other]},
        {"apps": [app | {"title": "Won"}, other]},
        {"apps": [app | {"category": "TOOLS"}, other]},
    ):
        assert not swaps.is_same(answer, answer | change), change


def test_a_kept_message_reads_as_the_answer_over_http_does() -> None:
    message = RecommendResponse(
        request_id="7", bundle_version=2, apps=[App(app_id=5, title="Five", score=0.5)]
    )
    read = answer_of("grpc", message.SerializeToString())
    assert read["request_id"] == "7" and read["bundle_version"] == 2
    assert {**read["apps"][0], "app_id": int(read["apps"][0]["app_id"])} == {
        "app_id": 5, "title": "Five", "score": 0.5,
    }  # fmt: skip


def test_the_days_have_users_of_their_own_and_both_doors_are_asked_the_same(finished: Path) -> None:
    one, two = two_days(finished)
    users = [{query["user_id"] for query in day.queries} for day in (one, two)]
    assert users[0] and users[1] and not users[0] & users[1]
    for day in (one, two):
        call = RecommendRequest.FromString(day.messages["grpc"][3])
        query = day.queries[3]
        assert (call.user_id, call.k) == (query["user_id"], query["k"])
        assert call.context.hour_of_day == query["context"]["hour_of_day"]
        assert call.context.network == query["context"]["network"]
    hours = [np.mean([query["context"]["hour_of_day"] for query in d.queries]) for d in (one, two)]
    assert hours[1] - hours[0] > 2


def test_the_plain_server_scores_as_ours_does(finished: Path) -> None:
    """Its list differs, for it does less; of the apps that are in both, the scores do not."""
    from mlplatform.registry.registry import STABLE, Registry
    from recsys.online.bundle import Bundle
    from recsys.online.recommender import Recommender

    queries = two_days(finished)[0].queries[:20]
    plain = Plain(finished)
    with plain.store:
        bundle = Bundle.of_version(Registry(finished / "registry").labelled(STABLE))
        ours = Recommender(bundle, plain.store)
        both = 0
        for query in queries:
            asked = Query(user_id=query["user_id"], k=50, context=Context(**query["context"]))
            given = {app.app_id: app.score for app in plain.recommend(asked).apps}
            (profile,) = plain.store.profiles([query["user_id"]])
            answer = ours.recommend(ours.table([profile | query["context"]]), 50)
            scores = dict(zip(answer.app_ids[0].tolist(), answer.scores[0].tolist(), strict=True))
            common = given.keys() & scores.keys()
            both += len(common)
            for app in common:
                assert given[app] == pytest.approx(scores[app], rel=1e-4)
    assert both > 100


def test_serving_measures_both_doors_and_the_plain_server(finished: Path) -> None:
    settings = serving.Settings(
        rates=(20,), warm_up_s=0.5, level_s=2, step_s=1, confirm_s=1, rest_s=0.5, first=(30, 10),
        resolution=0.5,
    )  # fmt: skip
    result = serving.measure_on(finished, settings)
    for door in ("HTTP", "gRPC"):
        assert result.figures[f"{door} at 20 a second: errors"] == 0
        assert result.figures[f"{door} at 20 a second: spent in rank, ms a query"] > 0
        assert result.figures[f"{door} at 20 a second: CPU, ms a query"] > 0
    assert result.picture is not None and result.picture.startswith(b"\x89PNG")


# Past its deadline an answer is not computed, and the tests beside this one take what time it has.
TOO_LATE = {"status 504", "status 4"}


def failures(result: Result, what: str) -> set[str]:
    """The kinds of failures among the figures of a door, or of a way of loading."""
    kinds = {name.removeprefix(f"{what}: ") for name in result.figures}
    return {kind for kind in kinds if kind.startswith("status ") or kind in KINDS.values()}


def test_isolation_measures_both_ways_of_loading(finished: Path) -> None:
    settings = isolation.Settings(rate=30, rounds=1, warm_up_s=0.5, idle_s=2, run_s=2)
    result = isolation.measure_on(finished, settings)
    for way in (isolation.OURS, isolation.INSIDE):
        assert result.figures[f"{way}: requests while it loads"] > 0
    assert failures(result, isolation.OURS) <= TOO_LATE


def test_no_answer_is_of_two_versions_while_they_are_swapped(finished: Path) -> None:
    settings = swaps.Settings(
        rate=40, seconds=1, run_s=2, swaps=1, rollback_after=(1,), compared=10
    )
    result = swaps.measure_on(finished, settings)
    assert failures(result, "http") | failures(result, "grpc") <= TOO_LATE
    assert result.figures["answers held to their version's bundle"] > 10
    for name in ("http: answers of two versions", "grpc: answers of two versions",
                 "answers that are not their version's", "swaps and rollbacks"):  # fmt: skip
        assert result.met(name), name


def test_a_killed_worker_comes_back_and_the_log_has_all_that_was_told(finished: Path) -> None:
    settings = kills.Settings(rate=50, kills=1, pause_s=0.5, run_s=3)
    result = kills.measure_on(finished, settings)
    assert result.figures["answers"] > 100
    assert result.all_met


def test_a_burst_is_offered_to_a_server_that_answers_before_and_after_it(finished: Path) -> None:
    settings = overload.Settings(
        times=3, before_s=1, burst_s=2, after_s=2, first=30, resolution=0.5, step_s=1, confirm_s=1
    )
    result = overload.measure_on(finished, settings)
    assert (
        result.figures["offered during it, a second"]
        > 2 * result.figures["peak, requests a second"]
    )
    assert result.figures["memory at the burst's begin, MB"] > 0
