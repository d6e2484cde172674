"""The app table: ids to rows, rows to codes."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from mlplatform.transform.hashing import hash_numpy
from mlplatform.transform.transform import Transform
from recsys import features
from recsys.apps import AppTable
from recsys.columns import Columns


@pytest.fixture
def apps(catalogue: pa.Table, transform: Transform) -> AppTable:
    return AppTable.of(catalogue, transform)


def test_the_row_of_an_id_is_its_position_plus_one(apps: AppTable) -> None:
    assert len(apps) == 6
    assert apps.rows_of(np.array([10, 60, 30])).tolist() == [1, 6, 3]


def test_the_row_of_an_unknown_id_is_0(apps: AppTable) -> None:
    unknown = np.array([0, -1, 9, 11, 59, 61, 2**62, -(2**63)])
    assert apps.rows_of(unknown).tolist() == [0] * 8


def test_rows_keep_the_shape_of_the_ids(apps: AppTable) -> None:
    rows = apps.rows_of(np.array([[10, 11], [20, 30]]))
    assert rows.dtype == np.int32
    assert rows.tolist() == [[1, 0], [2, 3]]
    assert apps.rows_of(np.zeros(0, dtype=np.int64)).shape == (0,)


def test_lists_of_ids_become_rows_cut_and_padded_to_the_features_width(apps: AppTable) -> None:
    lists = [[60, 99, 10], [], None, [20] * 30]
    table = pa.table({"history": pa.array(lists, pa.list_(pa.int64()))})
    rows = apps.rows_of_lists(table, features.HISTORY)
    assert rows.shape == (4, features.HISTORY_LENGTH)
    assert rows[0].tolist() == [6, 0, 1] + [0] * 17
    assert rows[1].tolist() == rows[2].tolist() == [0] * 20
    assert rows[3].tolist() == [2] * 20


def test_a_part_of_a_table_gives_the_rows_of_its_own_lists(apps: AppTable) -> None:
    lists = pa.array([[10], [20, 30], [40]], pa.list_(pa.int64()))
    rows = apps.rows_of_lists(pa.table({"history": lists}).slice(1, 1), features.HISTORY)
    assert rows.tolist() == [[2, 3] + [0] * 18]


def test_row_0_stands_for_no_app_and_has_no_codes(apps: AppTable) -> None:
    assert apps.codes.shape == (7, sum(feature.width for feature in features.APP))
    assert not apps.codes[0].any()


def test_the_codes_of_an_app_are_those_of_its_listing(apps: AppTable, transform: Transform) -> None:
    layout = Columns.of(transform, features.APP)
    of_30 = {name: apps.codes[3][place].tolist() for name, place in layout.slices.items()}
    one = np.array([30])
    assert of_30 == {
        "app_hash_a": [1 + int(hash_numpy(1 << 18, 1, one)[0])],
        "app_hash_b": [1 + int(hash_numpy(1 << 18, 2, one)[0])],
        "developer": [1 + int(hash_numpy(1 << 16, 0, np.array([2]))[0])],
        "category": [2],
        "tags": [2, 1, 4],
        "size_mb": [3],
        "price_usd": [3],
        "rating": [2],
        "reviews": [3],
        "installs": [1],
        "content_rating": [1],
        "min_os": [3],
    }


def test_the_order_of_the_catalogue_does_not_matter(
    apps: AppTable, catalogue: pa.Table, transform: Transform
) -> None:
    shuffled = AppTable.of(catalogue.take([4, 0, 5, 2, 1, 3]), transform)
    np.testing.assert_array_equal(shuffled.ids, apps.ids)
    np.testing.assert_array_equal(shuffled.codes, apps.codes)


def test_what_is_saved_is_what_is_loaded(apps: AppTable, tmp_path: Path) -> None:
    apps.save(tmp_path)
    loaded = AppTable.load(tmp_path)
    np.testing.assert_array_equal(loaded.ids, apps.ids)
    np.testing.assert_array_equal(loaded.codes, apps.codes)
    assert loaded.rows_of(np.array([50, 51])).tolist() == [5, 0]
