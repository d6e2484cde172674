"""What a user had installed at any moment."""

from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from recsys.history import InstallHistory

SECOND = 1 / 3600


def history_of(*rows: tuple[int, int, float]) -> InstallHistory:
    """rows: (user, app, hour of arrival)."""
    user, app, hour = zip(*rows, strict=True) if rows else ((), (), ())
    return InstallHistory.of(
        pa.table(
            {
                "user_id": pa.array(user, pa.int64()),
                "app_id": pa.array(app, pa.int64()),
                "arrival_hour": pa.array(hour, pa.float64()),
            }
        )
    )


def latest(
    history: InstallHistory,
    asked: list[tuple[int, float]],
    most: int = 100,
    since: list[float] | None = None,
) -> list[list[int]]:
    """One list of apps for each (user, hour)."""
    user, hour = zip(*asked, strict=True)
    ids, count = history.latest(
        np.array(user),
        np.array(hour, dtype=float),
        most,
        None if since is None else np.array(since, dtype=float),
    )
    assert len(ids) == count.sum()
    return [part.tolist() for part in np.split(ids, np.cumsum(count)[:-1])]


def counts(history: InstallHistory, asked: list[tuple[int, float]]) -> list[int]:
    user, hour = zip(*asked, strict=True)
    return history.counts(np.array(user), np.array(hour, dtype=float)).tolist()


class TestByHand:
    def test_an_install_is_known_only_after_its_hour_not_at_it(self) -> None:
        history = history_of((1, 70, 5.0))
        asked = [(1, 4.9), (1, 5.0), (1, 5.0 + SECOND), (1, 6.0)]
        assert latest(history, asked) == [[], [], [70], [70]]
        assert counts(history, asked) == [0, 0, 1, 1]

    def test_the_latest_comes_first_whatever_the_order_of_the_table(self) -> None:
        history = history_of((1, 70, 5.0), (1, 71, 1.0), (1, 72, 9.0), (1, 73, 3.0))
        assert latest(history, [(1, 100.0)]) == [[72, 70, 73, 71]]

    def test_at_most_so_many_and_these_are_the_latest(self) -> None:
        history = history_of((1, 70, 1.0), (1, 71, 2.0), (1, 72, 3.0))
        assert latest(history, [(1, 9.0)], most=2) == [[72, 71]]
        assert latest(history, [(1, 2.5)], most=2) == [[71, 70]]
        assert latest(history, [(1, 9.0)], most=0) == [[]]

    def test_the_count_is_of_all_apps_not_only_of_those_listed(self) -> None:
        history = history_of(*[(1, app, float(app)) for app in range(30)])
        assert counts(history, [(1, 29.5)]) == [30]

    def test_since_leaves_out_what_was_reported_before_it(self) -> None:
        history = history_of((1, 70, 1.0), (1, 71, 2.0), (1, 72, 3.0), (1, 73, 4.0))
        assert latest(history, [(1, 4.0)], since=[2.0]) == [[72, 71]]
        assert latest(history, [(1, 4.0)], since=[2.0 + SECOND]) == [[72]]
        assert latest(history, [(1, 4.0)], most=1, since=[2.0]) == [[72]]
        assert latest(history, [(1, 4.0)], since=[4.0]) == [[]]

    def test_since_does_not_reach_into_the_user_before(self) -> None:
        history = history_of((1, 70, 1.0), (1, 71, 2.0), (2, 80, 1.0), (3, 90, 1.0))
        assert latest(history, [(2, 5.0)], since=[-1000.0]) == [[80]]

    def test_every_user_sees_their_own_apps_only(self) -> None:
        history = history_of((2, 80, 2.0), (1, 70, 1.0), (2, 81, 1.0), (1, 71, 9.0))
        assert latest(history, [(2, 5.0), (1, 5.0), (2, 1.5)]) == [[80, 81], [70], [81]]

    def test_users_without_installs_have_none(self) -> None:
        history = history_of((2, 80, 2.0), (4, 90, 2.0))
        asked = [(0, 9.0), (1, 9.0), (3, 9.0), (5, 9.0), (10**6, 9.0)]
        assert latest(history, asked) == [[]] * 5
        assert counts(history, asked) == [0] * 5

    def test_a_log_without_installs_knows_no_apps(self) -> None:
        assert latest(history_of(), [(0, 1.0), (7, -1.0)]) == [[], []]

    def test_hours_before_the_log_began_count_as_the_past(self) -> None:
        history = history_of((1, 70, -9000.5), (1, 71, -0.25), (1, 72, 0.0), (0, 60, 500.0))
        asked = [(1, -9000.5), (1, -9000.0), (1, -0.25), (1, 0.0), (1, 0.5)]
        assert latest(history, asked) == [[], [70], [70], [71, 70], [72, 71, 70]]

    def test_the_same_user_may_be_asked_about_twice_at_different_hours(self) -> None:
        history = history_of((1, 70, 1.0), (1, 71, 2.0))
        assert latest(history, [(1, 9.0), (1, 1.5), (1, 9.0)]) == [[71, 70], [70], [71, 70]]


# Eighths of an hour are whole seconds and exact in floating point.
HOURS = st.integers(-80, 80).map(lambda eighths: eighths / 8)
USERS = st.integers(0, 3)


def naive(
    rows: list[tuple[int, int, float]], user: int, hour: float, most: int, since: float
) -> list[int]:
    own = [(arrival, app) for who, app, arrival in rows if who == user]
    known = [pair for pair in own if since <= pair[0] < hour]
    return [app for _, app in sorted(known, reverse=True)][:most]


@given(
    rows=st.lists(st.tuples(USERS, st.integers(0, 9), HOURS), max_size=25),
    asked=st.lists(st.tuples(USERS, HOURS, st.integers(0, 100)), min_size=1, max_size=8),
    most=st.integers(0, 6),
)
def test_it_says_what_a_loop_over_the_rows_says(
    rows: list[tuple[int, int, float]], asked: list[tuple[int, float, int]], most: int
) -> None:
    history = history_of(*rows)
    pairs: list[Any] = [(user, hour) for user, hour, _ in asked]
    since = [hour - back / 8 for _, hour, back in asked]
    ever = float("-inf")
    assert counts(history, pairs) == [len(naive(rows, u, h, 10**6, ever)) for u, h in pairs]
    assert latest(history, pairs, most) == [naive(rows, u, h, most, ever) for u, h in pairs]
    assert latest(history, pairs, most, since) == [
        naive(rows, user, hour, most, first)
        for (user, hour), first in zip(pairs, since, strict=True)
    ]
