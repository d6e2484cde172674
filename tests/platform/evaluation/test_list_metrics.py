"""Metrics of lists, row by row: ties by all their orders, users by themselves."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.evaluation.list_metrics import NDCG, UserAUC
from mlplatform.evaluation.rows import Rows
from tests.platform.evaluation import naive


def one_list(labels: list[int], scores: list[float]) -> Rows:
    score = np.array(scores, float)
    rank = np.unique(score, return_inverse=True)[1]
    start = np.zeros(1, np.int64)
    return Rows(np.array(labels), score, rank, np.zeros(len(labels), np.int64), start, start)


QUERY = st.lists(st.tuples(st.integers(0, 1), st.sampled_from([1.0, 2.0, 3.0])), max_size=6)


@settings(deadline=None, max_examples=80)
@given(query=QUERY.filter(lambda rows: any(label for label, _ in rows)), k=st.integers(1, 7))
def test_ndcg_is_the_mean_over_all_orders_that_the_scores_allow(query: Any, k: int) -> None:
    at, found = NDCG(k).each(one_list(*map(list, zip(*query, strict=True))))
    rows = [{"clicked": label, "score": score, "query": 0} for label, score in query]
    expected = naive.ndcg_over_orders(rows, "score", k)
    assert at.tolist() == [0] and found[0] == pytest.approx(expected, abs=1e-12)
    assert naive.ndcg(rows, "score", k) == pytest.approx(expected, abs=1e-12)


def test_a_query_without_a_positive_and_a_user_of_one_label_count_for_nothing() -> None:
    assert len(NDCG(3).each(one_list([0, 0], [1, 2]))[1]) == 0
    assert len(UserAUC().each(one_list([1, 1], [1, 2]))[1]) == 0
    assert UserAUC().each(one_list([1, 0, 0], [2, 2, 1]))[1].tolist() == [0.75]


def test_users_count_alike_however_many_rows_they_have() -> None:
    few, many = [1, 0], [0, 1] * 50
    rank = np.array([1, 0] + [1, 0] * 50)
    rows = Rows(
        np.array(few + many), rank.astype(float), rank, np.zeros(102, np.int64),
        np.array([0, 2]), np.array([0, 2]),
    )  # fmt: skip
    at, found = UserAUC().each(rows)
    assert at.tolist() == [0, 2] and found.tolist() == [1.0, 0.0]
