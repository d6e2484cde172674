"""Retrieve, filter, rank, re-rank, on a made-up store of some hundred apps."""

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.errors import InvalidArgument
from mlplatform.transform.transform import Transform
from recsys.online.recommender import (
    CANDIDATES,
    FRESH,
    STAGES,
    Recommendations,
    Recommender,
)
from recsys.online.requests import OWNED_LENGTH, Requests
from tests.recsys.online.made_up import APPS, NEWEST, Exact, recommender_of, with_ranker_of

B = 9


@pytest.fixture(scope="module")
def recommender(transform: Transform) -> Recommender:
    return recommender_of(transform, APPS)


@pytest.fixture(scope="module")
def table(random_requests: Any) -> pa.Table:
    rng = np.random.default_rng(4)
    owned = [(10 * (1 + rng.permutation(APPS)[: 7 * i])).tolist() for i in range(B)]
    return random_requests(B, 5).append_column("owned", pa.array(owned, pa.list_(pa.int64())))


@pytest.fixture(scope="module")
def asked(recommender: Recommender, table: pa.Table) -> Requests:
    return recommender.requests(table)


def counts_of(recommender: Recommender, rows: Any, column: str) -> int:
    """How many apps of a list share the most frequent value."""
    values = recommender.bundle.catalogue[column].take(pa.array(rows - 1)).to_pylist()
    return max(values.count(value) for value in values)


class TestForms:
    def test_a_table_and_its_codes_get_the_same_answer(
        self, recommender: Recommender, table: pa.Table, asked: Requests
    ) -> None:
        assert_same(recommender.recommend(table, 10), recommender.recommend(asked, 10))

    def test_requests_are_answered_alike_alone_and_together(
        self, recommender: Recommender, asked: Requests
    ) -> None:
        together = recommender.recommend(asked, 10)
        alone = [recommender.recommend(asked.slice(q, 1), 10) for q in range(B)]
        for name, array in vars(together).items():
            one_by_one = np.concatenate([getattr(answer, name) for answer in alone])
            assert array.tobytes() == one_by_one.tobytes(), name

    def test_more_requests_than_a_block_are_answered_in_order(
        self, recommender: Recommender, asked: Requests, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = recommender.recommend(asked, 5)
        monkeypatch.setattr("recsys.online.recommender.BLOCK", 4)
        told: list[int] = []
        assert_same(recommender.recommend(asked, 5, told.append), whole)
        assert told == [4, 4, 1]

    def test_without_serving_forms_the_exported_models_give_the_same_lists(
        self, recommender: Recommender, asked: Requests
    ) -> None:
        bundle = replace(recommender.bundle, served_query=None, served_rank=None)
        slow = Recommender(bundle, recommender.store).recommend(asked, 10)
        fast = recommender.recommend(asked, 10)
        assert (slow.app_ids == fast.app_ids).all()
        np.testing.assert_allclose(slow.scores, fast.scores, atol=1e-5)
        np.testing.assert_allclose(slow.retrieval_scores, fast.retrieval_scores, atol=1e-5)

    def test_no_request_gets_no_answer(self, recommender: Recommender, asked: Requests) -> None:
        none = recommender.recommend(asked.slice(0, 0), 3)
        assert none.app_ids.shape == (0, 3)
        assert none.candidates.shape == (0, CANDIDATES)


def assert_same(a: Recommendations, b: Recommendations) -> None:
    for name, array in vars(a).items():
        np.testing.assert_array_equal(array, getattr(b, name), name)


class TestCandidates:
    def test_they_are_the_newest_and_the_nearest_that_the_user_may_have(
        self, recommender: Recommender, asked: Requests
    ) -> None:
        found = recommender.recommend(asked, 10)
        bundle = recommender.bundle
        queries = bundle.query(asked.codes, asked.history)["vector"].numpy()
        min_os = bundle.catalogue["min_os"].to_numpy()
        for q in range(B):
            scores = bundle.vectors @ queries[q]
            newest = sorted(NEWEST, key=lambda at: -scores[at])[:FRESH]
            nearest = np.argsort(-scores)[: CANDIDATES - FRESH + 40]
            expected = [
                int(at) + 1
                for at in dict.fromkeys([*newest, *nearest.tolist()])
                if at + 1 not in asked.owned[q] and not min_os[at] > asked.os_version[q]
            ][:CANDIDATES]
            got = found.candidates[q][found.candidates[q] >= 0] // 10
            assert set(got.tolist()) == set(expected)
            assert len(got) == len(expected)

    def test_a_device_that_does_not_say_its_version_is_offered_everything(
        self, recommender: Recommender, asked: Requests
    ) -> None:
        min_os = np.append(recommender.bundle.catalogue["min_os"].to_numpy(), 0)
        for version, offered in ((np.nan, {4, 5, 8}), (5, {4, 5}), (4, {4})):
            some = replace(asked, os_version=np.full(B, version, np.float32))
            ids = recommender.recommend(some, 10).candidates
            assert set(min_os[np.unique(ids[ids >= 0]) // 10 - 1].tolist()) == offered

    def test_a_user_who_owns_all_that_is_near_gets_what_is_popular(
        self, transform: Transform
    ) -> None:
        few = recommender_of(transform, 80)
        no_index = replace(few.bundle, index=Exact(few.bundle.vectors[:0]))
        few = Recommender(no_index, few.store)
        request = few.requests(few.table([{"owned": [10 * (1 + at) for at in NEWEST]}]))
        answer = few.recommend(request, 10)
        installs = few.store.app_columns(few.bundle.apps.ids)["recent_installs"]
        left = [at for at in range(80) if at not in NEWEST]
        most = sorted(left, key=lambda at: -int(installs[at]))[:10]
        assert sorted(answer.rows[0].tolist()) == sorted(at + 1 for at in most)
        assert np.isnan(answer.retrieval_scores).all()
        assert answer.ranked.all()
        assert np.isfinite(answer.scores).all()
        assert few.sources(answer.app_ids[0], answer.retrieval_scores[0]) == ["popular"] * 10

    @pytest.mark.parametrize(("n", "owned", "left"), [(6, 2, 4), (6, 6, 0), (30, 27, 3)])
    def test_where_fewer_than_k_apps_are_left_all_of_them_come_back(
        self, transform: Transform, n: int, owned: int, left: int
    ) -> None:
        few = recommender_of(transform, n)
        request = few.requests(few.table([{"owned": [10 * (1 + i) for i in range(owned)]}]))
        for answer in (
            few.recommend(request, 8),
            few.recommend(request, 8, ranker=False),
            few.popular(8, request.os_version, request.owned),
        ):
            expected = {10 * (1 + i) for i in range(owned, n)}
            assert set(answer.app_ids[0, :left].tolist()) == expected
            assert (answer.app_ids[0, left:] == -1).all()
            assert (answer.rows[0] == np.maximum(answer.app_ids[0], 0) // 10).all()
            assert (answer.scores[0, left:] == 0).all()
            assert (answer.candidates[0] >= 0).sum() == left

    @settings(max_examples=25, deadline=None)
    @given(st.integers(0, 2**32 - 1), st.integers(1, 40))
    def test_k_apps_come_back_whenever_so_many_may_be_shown(
        self, recommender: Recommender, asked: Requests, seed: int, k: int
    ) -> None:
        rng = np.random.default_rng(seed)
        near = recommender.recommend(asked, 100).rows[:, :OWNED_LENGTH]
        some = replace(
            asked,
            owned=np.ascontiguousarray(near),
            os_version=rng.choice([np.nan, 4, 5, 8], B).astype(np.float32),
        )
        answer = recommender.recommend(some, k)
        assert (answer.rows > 0).all()
        for q in range(B):
            assert len(set(answer.rows[q])) == k
            assert not set(answer.rows[q]) & set(some.owned[q])


class TestLists:
    @pytest.mark.parametrize("k", [1, 5, 10, 40])
    def test_no_developer_or_category_has_more_than_its_share(
        self, recommender: Recommender, asked: Requests, k: int
    ) -> None:
        # By row: neighbours in the order are nothing but alike.
        flat = with_ranker_of(recommender, lambda app: -app)
        for answer in (recommender.recommend(asked, k), flat.recommend(asked, k)):
            for rows in answer.rows:
                assert counts_of(recommender, rows, "developer_id") <= -(-2 * k // 10)
                assert counts_of(recommender, rows, "category") <= -(-8 * k // 10)

    def test_scores_never_rise_along_a_list(
        self, recommender: Recommender, asked: Requests
    ) -> None:
        assert (np.diff(recommender.recommend(asked, 30).scores, axis=1) <= 0).all()
        unranked = recommender.recommend(asked, 30, ranker=False)
        assert (np.diff(unranked.retrieval_scores, axis=1) <= 0).all()

    def test_a_score_is_the_rankers_probability(
        self, recommender: Recommender, asked: Requests
    ) -> None:
        answer = with_ranker_of(recommender, lambda app: np.sin(app)).recommend(asked, 10)
        logit = np.sin(answer.rows.astype(np.float32))
        np.testing.assert_allclose(answer.scores, 1 / (1 + np.exp(-logit)), atol=1e-6)
        assert answer.ranked.all()

    def test_ids_are_those_of_the_rows(self, recommender: Recommender, asked: Requests) -> None:
        answer = recommender.recommend(asked, 10)
        assert (answer.app_ids == 10 * answer.rows).all()
        assert (np.isin(answer.app_ids, answer.candidates)).all()

    def test_what_is_popular_comes_without_any_model(
        self, recommender: Recommender, asked: Requests
    ) -> None:
        no_models = replace(
            recommender.bundle, query=None, rank=None, index=None,
            served_query=None, served_rank=None,
        )  # fmt: skip
        plain = Recommender(no_models, recommender.store)
        answer = plain.popular(10, asked.os_version, asked.owned)
        assert not answer.ranked.any()
        assert np.isnan(answer.scores).all() and np.isnan(answer.retrieval_scores).all()
        installs = np.array(plain.store.app_columns(plain.bundle.apps.ids)["recent_installs"])
        shown = installs[answer.rows - 1]
        assert (np.diff(shown, axis=1) <= 0).all()
        assert shown.min() >= np.sort(installs)[-150]
        for q in range(B):
            assert not set(answer.rows[q]) & set(asked.owned[q])


class TestUnranked:
    @pytest.mark.parametrize("said", [np.nan, np.inf, -np.inf])
    def test_a_request_whose_logits_are_no_numbers_keeps_the_retrieval_order(
        self, recommender: Recommender, asked: Requests, said: float
    ) -> None:
        def logits(rows: Any) -> Any:
            some = np.sin(rows)
            some[3, 1] = said  # one app of one request
            return some

        answer = with_ranker_of(recommender, logits).recommend(asked, 10)
        assert answer.ranked.tolist() == [q != 3 for q in range(B)]
        by_retrieval = recommender.recommend(asked, 10, ranker=False)
        assert (answer.app_ids[3] == by_retrieval.app_ids[3]).all()
        assert np.isnan(answer.scores[3]).all()
        assert np.isfinite(np.delete(answer.scores, 3, axis=0)).all()

    def test_nothing_is_ranked_by_weights_that_are_no_numbers(
        self, recommender: Recommender, asked: Requests
    ) -> None:
        served = recommender.bundle.served_rank
        assert served is not None
        broken = replace(recommender.bundle, served_rank=replace(served, bias=float("nan")))
        answer = Recommender(broken, recommender.store).recommend(asked, 10)
        assert not answer.ranked.any()
        assert_same(answer, recommender.recommend(asked, 10, ranker=False))

    def test_a_ranker_that_is_not_asked_does_not_speak(
        self, recommender: Recommender, asked: Requests
    ) -> None:
        def fails(rows: Any) -> Any:
            raise RuntimeError("asked")

        broken = with_ranker_of(recommender, fails)
        assert not broken.recommend(asked, 10, ranker=False).ranked.any()
        with pytest.raises(RuntimeError, match="asked"):
            broken.recommend(asked, 10)

    def test_a_query_that_is_no_number_is_answered_with_what_is_popular(
        self, recommender: Recommender, asked: Requests
    ) -> None:
        served = recommender.bundle.served_query
        assert served is not None
        bias = np.full_like(served.bias, np.nan)
        broken = replace(recommender.bundle, served_query=replace(served, bias=bias))
        answer = Recommender(broken, recommender.store).recommend(asked, 10, ranker=False)
        assert (answer.rows > 0).all()
        assert np.isnan(answer.retrieval_scores).all()


class TestCallersFaults:
    @pytest.mark.parametrize("k", [0, CANDIDATES + 1])
    def test_a_list_of_no_sensible_length_is_refused(
        self, recommender: Recommender, asked: Requests, k: int
    ) -> None:
        with pytest.raises(InvalidArgument, match=f"k must be from 1 to 200, got {k}"):
            recommender.recommend(asked, k)
        with pytest.raises(InvalidArgument, match=f"k must be from 1 to 200, got {k}"):
            recommender.popular(k, asked.os_version, asked.owned)

    @pytest.mark.parametrize("name", ["codes", "history", "owned"])
    @pytest.mark.parametrize("value", [-1, 2**30])
    def test_codes_and_rows_beyond_the_tables_are_refused_and_never_read(
        self, recommender: Recommender, asked: Requests, name: str, value: int
    ) -> None:
        array = getattr(asked, name).copy()
        array[1, 2] = value
        with pytest.raises(InvalidArgument, match="encode them with the bundle that is to answer"):
            recommender.recommend(replace(asked, **{name: array}), 5)


def test_what_each_stage_took_is_told_of_the_last_call(
    recommender: Recommender, asked: Requests
) -> None:
    recommender.recommend(asked, 5)
    first = dict(recommender.spent_ns)
    assert tuple(first) == STAGES
    assert all(spent > 0 for spent in first.values())
    recommender.recommend(asked.slice(0, 0), 5)
    assert not any(recommender.spent_ns.values())


def test_a_user_without_a_past_has_a_list(recommender: Recommender, asked: Requests) -> None:
    nobody = replace(asked, history=np.zeros_like(asked.history), owned=np.zeros_like(asked.owned))
    answer = recommender.recommend(nobody, 10)
    assert (answer.rows > 0).all() and answer.ranked.all()
