"""Which column of a code matrix holds which feature."""

import numpy as np
import pyarrow as pa

from mlplatform.transform.transform import Transform
from recsys import features
from recsys.columns import Columns


def picked(transform: Transform, *names: str) -> Columns:
    return Columns.of(transform, [transform.by_name[name] for name in names])


def test_a_feature_takes_as_many_columns_as_it_is_wide(transform: Transform) -> None:
    columns = picked(transform, "country", "recent_categories", "ram_gb")
    assert columns.width == 7
    assert columns.slices == {
        "country": slice(0, 1),
        "recent_categories": slice(1, 6),
        "ram_gb": slice(6, 7),
    }


def test_each_column_knows_how_many_codes_it_can_have(transform: Transform) -> None:
    columns = picked(transform, "country", "recent_categories", "ram_gb", "developer")
    # Missing, unknown, two countries; missing, unknown, three categories; missing and four
    # buckets around three limits; missing and 2^16 buckets.
    assert columns.cardinality == (4, *[5] * 5, 5, 1 + (1 << 16))


def test_first_and_indices_name_columns_in_the_order_asked_for(transform: Transform) -> None:
    columns = picked(transform, "country", "recent_categories", "ram_gb")
    assert columns.first("recent_categories") == 1
    assert columns.first("ram_gb") == 6
    assert columns.indices(["ram_gb", "country"]) == [6, 0]
    assert columns.indices(["recent_categories"]) == [1, 2, 3, 4, 5]


def test_the_matrix_lays_codes_out_in_the_order_of_the_declaration(transform: Transform) -> None:
    table = pa.table(
        {
            "ram_gb": pa.array([4.0, None, 1.9], pa.float32()),
            "recent_categories": pa.array([["TOOLS", "??"], None, ["FAMILY"] * 7]),
            "country": ["US", None, "??"],
            "unused": [1, 2, 3],
        }
    )
    matrix = picked(transform, "country", "recent_categories", "ram_gb").matrix(transform, table)
    assert matrix.dtype == np.int32
    assert matrix.tolist() == [
        [3, 3, 1, 0, 0, 0, 3],
        [0, 0, 0, 0, 0, 0, 0],
        [1, 4, 4, 4, 4, 4, 1],
    ]


def test_the_matrix_of_no_features_and_of_no_rows_keeps_its_shape(transform: Transform) -> None:
    assert picked(transform).matrix(transform, pa.table({"a": [1, 2]})).shape == (2, 0)
    table = pa.table({"country": pa.array([], pa.string())})
    assert picked(transform, "country").matrix(transform, table).shape == (0, 1)


def test_every_declared_feature_finds_its_place(transform: Transform) -> None:
    for group in (features.REQUEST, features.APP, features.IMPRESSION):
        columns = Columns.of(transform, group)
        names = [feature.name for feature in group]
        assert columns.indices(names) == list(range(columns.width))
        assert columns.width == sum(feature.width for feature in group)
