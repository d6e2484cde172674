"""Batches: which rows they have, from which step on, in which shares, and how they are made."""

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlplatform.errors import FailedPrecondition
from mlplatform.training.batches import PREFETCHED, Batches


def rows_of(batches: Batches) -> list[Any]:
    return [batch["row"].tolist() for (batch,) in batches.read()]


def row_batches(n_rows: int, batch_size: int, epochs: int, seed: int = 0) -> Batches:
    return Batches(lambda rows: {"row": rows}, n_rows, batch_size, epochs, seed)


def test_every_row_is_seen_once_an_epoch() -> None:
    batches = row_batches(60, 5, epochs=3)
    seen = rows_of(batches)
    assert len(seen) == batches.steps == 36
    epochs = [seen[start : start + 12] for start in (0, 12, 24)]
    for epoch in epochs:
        assert sorted(row for batch in epoch for row in batch) == list(range(60))
        assert epoch[0] != [0, 1, 2, 3, 4]
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


def test_a_rest_is_left_out_of_its_epoch() -> None:
    batches = row_batches(11, 4, epochs=50)
    seen = rows_of(batches)
    assert len(seen) == batches.steps == 100
    assert {len(batch) for batch in seen} == {4}
    for first, second in zip(seen[::2], seen[1::2], strict=True):
        assert len({*first, *second}) == 8
    assert {row for batch in seen for row in batch} == set(range(11))


def test_a_seed_fixes_the_order_of_the_rows() -> None:
    assert rows_of(row_batches(40, 4, 2, seed=1)) == rows_of(row_batches(40, 4, 2, seed=1))
    assert rows_of(row_batches(40, 4, 2, seed=1)) != rows_of(row_batches(40, 4, 2, seed=2))


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 4), st.integers(0, 60))
def test_rows_from_a_step_on_are_all_rows_but_those_before(
    n_rows: int, batch_size: int, epochs: int, start: int
) -> None:
    batches = row_batches(n_rows, batch_size, epochs)
    whole = [rows.tolist() for rows in batches.rows()]
    assert len(whole) == batches.steps
    assert [rows.tolist() for rows in batches.rows(start)] == whole[start:]


def test_no_batch_before_the_first_one_asked_for_is_made() -> None:
    made: list[Any] = []

    def take(rows: Any) -> dict[str, Any]:
        made.append(rows.tolist())
        return {"row": rows}

    batches = Batches(take, 20, 4, epochs=3, seed=0)
    expected = [rows.tolist() for rows in batches.rows()][13:]
    assert [batch["row"].tolist() for (batch,) in batches.read(13)] == expected == made


def test_shares_are_even_and_make_up_the_batch() -> None:
    batches = row_batches(24, 12, epochs=2)
    first, second = (list(batches.read(1, shares, 4)) for shares in ((0, 1), (2, 3)))
    for left, right, whole in zip(first, second, batches.rows(1), strict=True):
        assert [len(share["row"]) for share in (*left, *right)] == [3, 3, 3, 3]
        joined = np.concatenate([share["row"] for share in (*left, *right)])
        assert joined.tolist() == whole.tolist()


def test_a_batch_that_cannot_be_cut_evenly_is_refused() -> None:
    with pytest.raises(FailedPrecondition, match=r"batch of 10 rows.*into 4 equal shares"):
        row_batches(20, 10, 1).read(0, (0,), 4)


def test_too_few_rows_for_a_batch_are_refused() -> None:
    with pytest.raises(FailedPrecondition, match=r"batch takes 8 rows.*only 7"):
        row_batches(7, 8, 1).check(1)


def test_a_caller_that_stops_early_stops_the_thread() -> None:
    batches = row_batches(1000, 1, 1).read()
    next(batches)
    assert "prefetch" in {thread.name for thread in threading.enumerate()}
    batches.close()
    assert "prefetch" not in {thread.name for thread in threading.enumerate()}


def test_only_a_few_batches_are_made_ahead() -> None:
    taken = threading.Semaphore(0)
    count = 0

    def take(rows: Any) -> dict[str, Any]:
        nonlocal count
        count += 1
        taken.release()
        return {"row": rows}

    batches = Batches(take, 100, 1, epochs=1, seed=0).read()
    next(batches)
    for _ in range(PREFETCHED + 2):  # those in the queue, the one given out, the one in hand
        assert taken.acquire(timeout=30)
    assert not taken.acquire(timeout=0.3)
    assert count == PREFETCHED + 2
    batches.close()
