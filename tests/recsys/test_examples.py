"""From logged events to rows, each as of its own moment, on a log small enough to read."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from recsys.examples import (
    AppCounters,
    EventLog,
    backlog_positives,
    impressions_of,
    owned_lists,
    positives_of,
    positives_reported,
    requests_of,
)

INSTALLS = pa.schema(
    [
        ("user_id", pa.int64()),
        ("app_id", pa.int64()),
        ("request_id", pa.int64()),
        ("hour", pa.float64()),
        ("arrival_hour", pa.float64()),
    ]
)
REQUESTS = pa.schema(
    [
        ("request_id", pa.int64()),
        ("user_id", pa.int64()),
        ("hour", pa.float64()),
        ("network", pa.string()),
    ]
)
IMPRESSIONS = pa.schema(
    [("request_id", pa.int64()), ("position", pa.int64()), ("app_id", pa.int64())]
)
APPS = pa.table(
    {
        "app_id": [0, 1, 2, 3, 4, 5, 6, 7],
        "category": pa.array(
            ["WEATHER", "GAME", "TOOLS", "GAME", "FAMILY", "TOOLS", "MUSIC", "BOOKS"]
        ).dictionary_encode(),
        "release_day": [99, -30, -1, 0, 1, 2, 5, 9],
    }
)
USERS = pa.table(
    {
        "user_id": [0, 1, 2],
        "country": ["BR", "US", None],
        "os_version": [8, 9, 10],
        "signup_day": [-100, 0, 3],
    }
)
Rows = Sequence[tuple[Any, ...]]


def table(schema: pa.Schema, rows: Rows) -> pa.Table:
    return pa.Table.from_pylist(
        [dict(zip(schema.names, row, strict=True)) for row in rows], schema=schema
    )


def day_of(requests: Rows = (), impressions: Rows = (), installs: Rows = ()) -> dict[str, pa.Table]:
    """requests: (request, user, hour, network); impressions: (request, position, app);
    installs: (user, app, request or None, hour, hour of arrival)."""
    return {
        "requests": table(REQUESTS, requests),
        "impressions": table(IMPRESSIONS, impressions),
        "installs": table(INSTALLS, installs),
    }


def log_of(*days: dict[str, pa.Table], owned: Rows = ()) -> EventLog:
    """owned: (user, app, hour), reported at once."""
    rows = [(user, app, None, hour, hour) for user, app, hour in owned]
    return EventLog(APPS, USERS, table(INSTALLS, rows), days)


def owned_apps(rows: pa.Table) -> list[list[int]]:
    return rows["history"].to_pylist()


class TestLabels:
    LOG = log_of(
        day_of(
            requests=[(100, 0, 1.0, "wifi"), (101, 1, 2.0, "metered")],
            impressions=[(100, 1, 1), (100, 2, 2), (101, 1, 1), (101, 2, 2), (101, 3, 3)],
            installs=[
                (0, 2, 100, 1.1, 2.0),  # from request 100
                (1, 3, 101, 2.1, 30.0),  # from request 101, reported the day after
                (1, 1, None, 3.0, 3.0),  # found by search
                (2, 2, None, 3.0, 3.0),
            ],
        )
    )

    def labels(self, known_by_hour: float) -> list[int]:
        rows = impressions_of(self.LOG, AppCounters.of(self.LOG, 0), 0, known_by_hour)
        return rows["installed"].to_pylist()

    def test_an_install_labels_its_own_request_and_app_and_no_other(self) -> None:
        # Request 101 showed app 2 too, and request 100 showed app 1 too.
        assert self.labels(24.0) == [0, 1, 0, 0, 0]

    def test_an_install_labels_only_once_it_is_reported(self) -> None:
        assert self.labels(1.5) == [0, 0, 0, 0, 0]
        assert self.labels(2.0) == [0, 0, 0, 0, 0]
        assert self.labels(2.001) == [0, 1, 0, 0, 0]
        assert self.labels(30.0) == [0, 1, 0, 0, 0]
        assert self.labels(30.001) == [0, 1, 0, 0, 1]

    def test_a_search_install_labels_no_impression_however_late_we_look(self) -> None:
        assert self.labels(1e6)[2] == 0  # user 1 found app 1 by search, and was shown it

    def test_ids_of_any_size_are_told_apart(self) -> None:
        requests = [2**62 + 1, 2**62 + 2, 5497558356482, 0]
        shown = [(request, 1 + i, app) for request in requests for i, app in enumerate((1, 2))]
        log = log_of(
            day_of(
                impressions=shown,
                installs=[(0, 2, 2**62 + 1, 1.0, 1.0), (1, 1, 0, 1.0, 1.0)],
            )
        )
        rows = impressions_of(log, AppCounters.of(log, 0), 0, 24.0)
        assert rows["installed"].to_pylist() == [0, 1, 0, 0, 0, 0, 1, 0]

    def test_rows_keep_the_logs_order_and_say_what_was_known_of_the_app(self) -> None:
        rows = impressions_of(self.LOG, AppCounters.of(self.LOG, 0), 0, 24.0)
        assert rows["app_id"].to_pylist() == [1, 2, 1, 2, 3]
        assert rows["position"].to_pylist() == [1, 2, 1, 2, 3]
        assert rows["app_age_days"].to_pylist() == [30, 1, 30, 1, 0]


class TestRequests:
    def test_history_holds_what_was_reported_before_the_visit_and_nothing_later(self) -> None:
        log = log_of(
            day_of(
                requests=[(7, 0, 5.0, "wifi"), (8, 0, 6.5, "wifi"), (9, 1, 23.0, "metered")],
                installs=[(0, 2, None, 4.0, 6.0), (0, 3, None, 6.7, 6.8)],
            ),
            day_of(installs=[(0, 4, None, 30.0, 30.0)]),
            owned=[(0, 1, -500.0)],
        )
        rows = requests_of(log, log.history(), 0)
        # At hour 5 app 2 was installed, but nobody had heard of it yet.
        assert owned_apps(rows) == [[1], [2, 1], []]
        assert rows["history_count"].to_pylist() == [1, 2, 0]

    def test_the_columns_of_a_visit(self) -> None:
        log = log_of(
            day_of(),
            day_of(requests=[(7, 2, 24.5, None), (5, 0, 47.99, "wifi")]),
        )
        rows = requests_of(log, log.history(), 1)
        assert rows["request_id"].to_pylist() == [7, 5]
        assert rows["user_id"].to_pylist() == [2, 0]
        assert rows["country"].to_pylist() == [None, "BR"]
        assert rows["os_version"].to_pylist() == [10, 8]
        assert rows["hour_of_day"].to_pylist() == [0, 23]
        assert rows["account_age_days"].to_pylist() == [1 - 3, 1 + 100]
        assert rows["network"].to_pylist() == [None, "wifi"]
        assert "signup_day" not in rows.column_names

    def test_recent_categories_are_those_within_fourteen_days_the_latest_first(self) -> None:
        log = log_of(
            *[day_of()] * 16,
            day_of(requests=[(7, 0, 400.0, "wifi")]),
            owned=[(0, 1, 63.9), (0, 2, 64.0), (0, 4, 300.0), (0, 6, 399.0), (1, 7, 399.0)],
        )
        rows = requests_of(log, log.history(), 16)
        assert 400.0 - 64.0 == 14 * 24
        assert rows["recent_categories"].to_pylist() == [["MUSIC", "FAMILY", "TOOLS"]]
        assert owned_apps(rows) == [[6, 4, 2, 1]]

    def test_at_most_five_recent_categories_and_twenty_apps(self) -> None:
        owned = [(0, [1, 2, 4, 6, 7][i % 5], -float(i + 1)) for i in range(30)]
        log = log_of(day_of(requests=[(7, 0, 1.0, "wifi")]), owned=owned)
        rows = requests_of(log, log.history(), 0)
        assert rows["recent_categories"].to_pylist() == [
            ["GAME", "TOOLS", "FAMILY", "MUSIC", "BOOKS"]
        ]
        assert owned_apps(rows) == [[1, 2, 4, 6, 7] * 4]
        assert rows["history_count"].to_pylist() == [30]

    def test_owned_lists_the_last_sixty_four(self) -> None:
        owned = [(0, APPS["app_id"][i % 8].as_py(), -float(i + 1)) for i in range(100)]
        log = log_of(owned=[*owned, (1, 5, -3.0)])
        lists = owned_lists(log.history(), np.array([1, 0, 2]), np.array([0.0, 0.0, 0.0]))
        assert lists.to_pylist() == [[5], [app for _, app, _ in owned[:64]], []]

    def test_the_history_before_a_day_leaves_out_what_happened_from_it_on(self) -> None:
        log = log_of(
            day_of(installs=[(0, 2, None, 1.0, 1.0)]),
            day_of(installs=[(0, 3, None, 25.0, 25.0)]),
            owned=[(0, 1, -5.0)],
        )
        asked = np.array([0]), np.array([1e4])
        assert log.history(before_day=0).counts(*asked).tolist() == [1]
        assert log.history(before_day=1).counts(*asked).tolist() == [2]
        assert log.history().counts(*asked).tolist() == [3]

    def test_the_catalogue_of_a_day_has_what_was_released_before_it(self) -> None:
        log = log_of()
        assert log.apps_by(1)["app_id"].to_pylist() == [1, 2, 3]
        assert log.apps_by(2)["app_id"].to_pylist() == [1, 2, 3, 4]


class TestCounters:
    def seen_at(self, day: int) -> AppCounters:
        """Every day shows app 1 as often as its number plus one; some installs come late."""
        days = [
            day_of(
                impressions=[(1000 * d + i, 1, 1) for i in range(d + 1)],
                installs=[(0, 1, 1000 * d, 24.0 * d + 1, 24.0 * d + 2)],
            )
            for d in range(8)
        ]
        late = [(0, 2, 8000, 193.0, 216.0), (0, 2, 8001, 193.0, 215.9)]
        found = [(1, 3, None, 195.0, 196.0), (1, 3, None, 195.0, 400.0)]
        days.append(day_of(impressions=[(8000, 1, 2), (8001, 1, 2)], installs=[*late, *found]))
        days.append(day_of(impressions=[(9000, 1, 2)], installs=[(2, 2, 9000, 217.0, 217.0)]))
        return AppCounters.of(log_of(*days), day)

    def test_they_count_the_seven_days_before_and_no_other(self) -> None:
        counters = self.seen_at(9)  # days 2 to 8
        assert counters.ids.tolist() == APPS["app_id"].to_pylist()
        assert counters.impressions.tolist() == [0, 3 + 4 + 5 + 6 + 7 + 8, 2, 0, 0, 0, 0, 0]
        assert counters.installs[1] == 6

    def test_an_install_reported_later_is_not_counted_yet(self) -> None:
        counters = self.seen_at(9)  # until hour 216, at which one of app 2's two comes in
        assert counters.installs[2] == 1
        assert counters.installs[3] == 1
        # A day later both are, with the one of day 9 itself.
        assert self.seen_at(10).installs[2] == 3

    def test_on_the_first_days_they_count_what_there_is(self) -> None:
        assert self.seen_at(0).impressions.tolist() == [0] * 8
        assert self.seen_at(2).impressions.tolist() == [0, 1 + 2, 0, 0, 0, 0, 0, 0]

    def test_the_rate_is_smoothed_towards_the_stores(self) -> None:
        counters = self.seen_at(9)
        # 35 impressions and 7 installs out of them, search left out: 8 / 135 is the store's rate,
        # taken as if each app had 50 impressions of it.
        store = 8 / 135
        expected = [store, (6 + 50 * store) / 83, (1 + 50 * store) / 52, *[store] * 5]
        assert counters.install_rate.tolist() == pytest.approx(expected, rel=1e-6)

    def test_a_search_install_counts_as_an_install_but_not_in_the_rate(self) -> None:
        counters = self.seen_at(9)
        assert counters.installs[3] == 1
        assert counters.install_rate[3] == counters.install_rate[4]

    def test_columns_are_those_of_the_apps_asked_for(self) -> None:
        columns = self.seen_at(9).columns(np.array([2, 1, 7, 2]), 9)
        assert columns["recent_impressions"].tolist() == [2, 33, 0, 2]
        assert columns["recent_installs"].tolist() == [1, 6, 0, 1]
        assert columns["app_age_days"].tolist() == [10, 39, 0, 10]


class TestPositives:
    def test_a_positive_is_not_in_its_own_history(self) -> None:
        log = log_of(
            day_of(
                installs=[
                    (0, 2, None, 5.0, 5.0),  # reported in the second it happened
                    (0, 3, None, 6.0, 9.0),
                    (0, 4, None, 9.5, 9.6),
                ]
            ),
            owned=[(0, 1, -1.0)],
        )
        rows = positives_of(log, log.history(), 0, 24.0)
        assert rows["app_id"].to_pylist() == [2, 3, 4]
        assert owned_apps(rows) == [[1], [2, 1], [3, 2, 1]]
        assert rows["history_count"].to_pylist() == [1, 2, 3]

    def test_only_installs_reported_by_the_hour_are_positives(self) -> None:
        log = log_of(
            day_of(installs=[(0, 2, None, 5.0, 24.0), (0, 3, None, 6.0, 23.9)]),
        )
        assert positives_of(log, log.history(), 0, 24.0)["app_id"].to_pylist() == [3]
        assert positives_of(log, log.history(), 0, 24.1)["app_id"].to_pylist() == [2, 3]

    def test_the_network_is_that_of_the_request_and_missing_for_searches(self) -> None:
        log = log_of(
            day_of(
                requests=[(8, 1, 2.0, "metered"), (7, 0, 1.0, "wifi")],
                installs=[
                    (0, 2, 7, 1.1, 1.2),
                    (1, 2, None, 1.5, 1.5),
                    (1, 3, 8, 2.1, 2.2),
                ],
            )
        )
        rows = positives_of(log, log.history(), 0, 24.0)
        assert rows["network"].to_pylist() == ["wifi", None, "metered"]

    def test_what_is_reported_late_is_a_positive_of_the_day_it_is_reported(self) -> None:
        log = log_of(
            day_of(
                requests=[(7, 0, 1.0, "metered")],
                installs=[(0, 2, 7, 1.1, 2.0), (0, 3, 7, 1.2, 30.0), (1, 2, None, 20.0, 54.0)],
            ),
            day_of(
                requests=[(8, 1, 25.0, "wifi")],
                installs=[(1, 3, 8, 25.1, 29.9), (1, 4, 8, 25.2, 30.1)],
            ),
        )
        rows = positives_reported(log, log.history(), 30.0, 54.0)
        assert rows["app_id"].to_pylist() == [3, 4]
        assert rows["hour"].to_pylist() == [1.2, 25.2]
        assert rows["network"].to_pylist() == ["metered", "wifi"]
        assert owned_apps(rows) == [[], []]  # as of the hour of the install, not of the report
        later = positives_reported(log, log.history(), 54.0, 78.0)
        assert later["app_id"].to_pylist() == [2]

    def test_the_backlog_keeps_each_users_last_four(self) -> None:
        owned = [
            (1, 1, -50.0), (0, 1, -600.0), (0, 2, -100.0), (0, 3, -500.0),
            (0, 4, -200.0), (1, 6, -70.0), (0, 5, -400.0), (0, 6, -300.0),
        ]  # fmt: skip
        log = log_of(owned=owned)
        rows = backlog_positives(log, log.history())
        kept = list(zip(rows["user_id"].to_pylist(), rows["app_id"].to_pylist(), strict=True))
        assert sorted(kept) == [(0, 2), (0, 4), (0, 5), (0, 6), (1, 1), (1, 6)]
        assert dict(zip(kept, owned_apps(rows), strict=True)) == {
            (0, 5): [3, 1],
            (0, 6): [5, 3, 1],
            (0, 4): [6, 5, 3, 1],
            (0, 2): [4, 6, 5, 3, 1],
            (1, 6): [],
            (1, 1): [6],
        }
        assert rows["network"].null_count == 6
