"""Spans to the arrays that the models train on."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mlplatform.data.files.spans import write_span
from mlplatform.transform.transform import Transform
from recsys import features
from recsys.apps import AppTable
from recsys.columns import Columns
from recsys.training_data import Positives, Slates


@pytest.fixture
def apps(catalogue: pa.Table, transform: Transform) -> AppTable:
    return AppTable.of(catalogue, transform)


def with_columns(table: pa.Table, **columns: Any) -> pa.Table:
    for name, values in columns.items():
        if name in table.column_names:
            kind = table.schema.field(name).type
            table = table.drop_columns([name])
        else:
            kind = None
        table = table.append_column(name, pa.array(values, kind))
    return table


@pytest.fixture
def slates(
    tmp_path: Path,
    transform: Transform,
    apps: AppTable,
    random_requests: Any,
    random_impressions: Any,
) -> Slates:
    """Two days: requests 9 and 3, then 5, which was shown nothing."""
    first = with_columns(
        random_requests(2, 1),
        request_id=[9, 3],
        user_id=[1, 2],
        hour=[1.5, 2.5],
        network=["metered", None],
        country=["BR", "US"],
    )
    second = with_columns(
        random_requests(1, 2),
        request_id=[5],
        user_id=[1],
        hour=[30.0],
        network=["wifi"],
        country=["??"],
    )
    shown = with_columns(
        random_impressions(5, 3),
        request_id=[3, 9, 3, 9, 9],
        app_id=[20, 10, 60, 15, 40],  # nobody knows app 15
        position=[4, 1, 1, 2, 3],
        recent_installs=[0, 1, 9, 10, 11],
        installed=[1, 0, 0, 1, 1],
    )
    write_span(tmp_path, "requests", 0, first)
    write_span(tmp_path, "requests", 1, second)
    write_span(tmp_path, "impressions", 0, shown)
    write_span(tmp_path, "impressions", 1, shown.slice(0, 0))
    return Slates.read(tmp_path, [0, 1], transform, apps)


def test_every_impression_stands_at_its_request_and_position(slates: Slates) -> None:
    assert slates.request_id.tolist() == [9, 3, 5]
    assert slates.user.tolist() == [1, 2, 1]
    assert slates.hour.tolist() == [1.5, 2.5, 30.0]
    assert slates.app.tolist() == [[1, 0, 4, 0], [6, 0, 0, 2], [0, 0, 0, 0]]


def test_an_empty_place_and_an_unknown_app_have_no_label(slates: Slates) -> None:
    assert slates.label.tolist() == [[0, -1, 1, -1], [0, -1, -1, 1], [-1, -1, -1, -1]]


def test_the_codes_of_an_impression_stand_where_it_does(
    slates: Slates, transform: Transform
) -> None:
    layout = Columns.of(transform, features.IMPRESSION)
    position = slates.impression[:, :, layout.first("position")]
    # Position p has code p + 1; code 0 where nothing was shown.
    assert position.tolist() == [[2, 3, 4, 0], [2, 0, 0, 5], [0, 0, 0, 0]]
    installs = slates.impression[:, :, layout.first("recent_installs")]
    # Limits 1 and 10: buckets of 1 for 0, 2 for 1 to 9, 3 from 10 on.
    assert installs.tolist() == [[2, 3, 3, 0], [2, 0, 0, 1], [0, 0, 0, 0]]


def test_requests_keep_their_own_features(slates: Slates) -> None:
    assert slates.request[:, 0].tolist() == [2, 3, 1]  # BR, US, unknown
    assert slates.metered.tolist() == [True, False, False]
    assert slates.history.shape == (3, features.HISTORY_LENGTH)


def test_at_the_top_changes_the_position_and_nothing_else(
    slates: Slates, transform: Transform
) -> None:
    before = slates.impression.copy()
    top = slates.at_the_top(transform)
    column = Columns.of(transform, features.IMPRESSION).first("position")
    assert (top[:, :, column] == 2).all()  # the code of position 1
    others = np.arange(before.shape[2]) != column
    np.testing.assert_array_equal(top[:, :, others], before[:, :, others])
    np.testing.assert_array_equal(slates.impression, before)


def test_taking_rows_takes_them_of_every_array(slates: Slates) -> None:
    taken = slates.take(np.array([1, 0]))
    assert len(taken) == 2
    assert taken.request_id.tolist() == [3, 9]
    assert taken.label.tolist() == [[0, -1, -1, 1], [0, -1, 1, -1]]
    assert taken.metered.tolist() == [False, True]


def test_a_batch_holds_what_the_ranker_asks_for(slates: Slates) -> None:
    batch = slates.batch(np.array([1]))
    assert {name: array.shape[0] for name, array in batch.items()} == {
        "request": 1, "history": 1, "app": 1, "impression": 1, "label": 1,
    }  # fmt: skip
    assert batch["app"].tolist() == [[6, 0, 0, 2]]


def test_positives_of_unknown_apps_are_left_out(
    transform: Transform, apps: AppTable, random_requests: Any
) -> None:
    table = with_columns(
        random_requests(4, 5),
        app_id=[20, 15, 60, -3],
        user_id=[7, 8, 9, 7],
        hour=[1.5, 2.5, 3.5, 4.5],
        country=["US", "BR", "BR", "US"],
        history=[[10], [20], [30, 99, 40], [50]],
    )
    positives = Positives.of(table, transform, apps)
    assert len(positives) == 2
    assert positives.app.tolist() == [2, 6]
    assert positives.user.tolist() == [7, 9]
    assert positives.hour.tolist() == [1.5, 3.5]
    assert positives.request[:, 0].tolist() == [3, 2]
    assert positives.history[:, :4].tolist() == [[1, 0, 0, 0], [3, 0, 4, 0]]


def test_positives_of_several_days_come_day_by_day(
    tmp_path: Path, transform: Transform, apps: AppTable, random_requests: Any
) -> None:
    for day, app in ((-1, 10), (3, 30)):
        table = with_columns(random_requests(1, 5), app_id=[app], user_id=[day + 1], hour=[0.5])
        write_span(tmp_path, "positives", day, table)
    assert Positives.read(tmp_path, [3, -1], transform, apps).app.tolist() == [3, 1]
