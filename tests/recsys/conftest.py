"""A transform and a catalogue made by hand, small enough to know every code by heart."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mlplatform.transform.transform import Transform
from recsys import features

VOCABULARIES: dict[str, tuple[Any, ...]] = {
    "country": ("BR", "US"),
    "language": ("pt", "en"),
    "device_tier": ("low", "mid", "high"),
    "age_band": ("18-24", "25-34"),
    "os_version": (8, 9, 10),
    "hour_of_day": tuple(range(24)),
    "network": ("wifi", "metered"),
    "category": ("GAME", "TOOLS", "FAMILY"),
    "tags": ("chess", "cards", "yoga", "notes"),
    "installs": (100, 1000),
    "content_rating": ("Everyone", "Teen"),
    "min_os": (4, 5, 8),
    "position": tuple(range(1, 11)),
}
BOUNDARIES = {
    "ram_gb": [2, 4, 6],
    "free_storage_mb": [500, 2000, 8000],
    "account_age_days": [10, 100],
    "history_count": [1, 5, 20],
    "size_mb": [10, 50],
    "price_usd": [0.5, 3],
    "rating": [3, 4, 4.5],
    "reviews": [10, 1000],
    "app_age_days": [0, 30],
    "recent_impressions": [1, 100],
    "recent_installs": [1, 10],
    "recent_install_rate": [0.01, 0.05],
}


@pytest.fixture(scope="session")
def transform() -> Transform:
    return Transform(
        features.ALL,
        VOCABULARIES,
        {name: np.array(limits, dtype=np.float32) for name, limits in BOUNDARIES.items()},
    )


@pytest.fixture(scope="session")
def catalogue() -> pa.Table:
    """Six apps; ids rise in steps of ten, so that no id is its own row."""
    return pa.table(
        {
            "app_id": [10, 20, 30, 40, 50, 60],
            "title": ["A", "B", "C", "D", "E", "F"],
            "developer_id": [1, 1, 2, 3, 4, 5],
            "category": pa.array(
                ["GAME", "TOOLS", "GAME", "FAMILY", "FAMILY", "FAMILY"]
            ).dictionary_encode(),
            "tags": [
                ["chess", "cards"],
                ["notes"],
                ["chess", "unheard of", "yoga"],
                ["yoga"],
                ["yoga"],
                ["yoga"],
            ],
            "size_mb": pa.array([5.0, None, 50.0, 80.0, 80.0, 80.0], pa.float32()),
            "price_usd": pa.array([0.0, 1.0, 5.0, 0.0, 0.0, 0.0], pa.float32()),
            "rating": pa.array([4.7, None, 3.2, 4.0, 4.0, 4.0], pa.float32()),
            "reviews": [100, 0, 5000, 7, 7, 7],
            "installs": [1000, 100, 7, 100, 100, 100],
            "content_rating": ["Everyone", "Teen", "Adult", "Everyone", "Everyone", "Everyone"],
            "min_os": [4, 8, 5, 4, 4, 4],
        }
    )


def _pick(rng: np.random.Generator, n: int, values: list[Any]) -> list[Any]:
    return [values[i] for i in rng.integers(0, len(values), n)]


def _lists(rng: np.random.Generator, n: int, values: list[Any], width: int) -> list[Any]:
    """Lists of 0 to `width` values without repetition, and now and then none at all."""
    lists: list[Any] = []
    for _ in range(n):
        size = int(rng.integers(0, min(width, len(values)) + 1))
        lists.append([values[i] for i in rng.permutation(len(values))[:size]])
    lists[0] = None
    return lists


@pytest.fixture(scope="session")
def random_requests() -> Any:
    """Raw rows of requests: known values, unknown ones and missing ones."""

    def make(n: int, seed: int) -> pa.Table:
        rng = np.random.default_rng(seed)
        numbers = [None, 0, 1, 2, 3.5, 4, 6, 10, 100, 499.5, 9000, 1e9]
        columns: dict[str, Any] = {
            "country": pa.array(_pick(rng, n, ["BR", "US", "??", None]), pa.string()),
            "language": pa.array(_pick(rng, n, ["pt", "en", "xx", None]), pa.string()),
            "device_tier": pa.array(
                _pick(rng, n, ["low", "mid", "high", "toaster", None]), pa.string()
            ),
            "age_band": pa.array(_pick(rng, n, ["18-24", "25-34", "100+", None]), pa.string()),
            "ram_gb": pa.array(_pick(rng, n, numbers), pa.float32()),
            "free_storage_mb": pa.array(_pick(rng, n, numbers), pa.float32()),
            "os_version": pa.array(_pick(rng, n, [8, 9, 10, 99, None]), pa.int64()),
            "account_age_days": pa.array(_pick(rng, n, [-1, 0, 10, 99, 100, None]), pa.int64()),
            "hour_of_day": pa.array(_pick(rng, n, [0, 7, 23, 24, None]), pa.int64()),
            "network": pa.array(_pick(rng, n, ["wifi", "metered", "5g", None]), pa.string()),
            "history_count": pa.array(_pick(rng, n, [0, 1, 5, 20, 1 << 40, None]), pa.int64()),
            "recent_categories": pa.array(
                _lists(rng, n, ["GAME", "TOOLS", "FAMILY", "NEW"], 4), pa.list_(pa.string())
            ),
            "history": pa.array(
                _lists(rng, n, [10, 20, 30, 40, 50, 60, 77, -5], 8), pa.list_(pa.int64())
            ),
        }
        return pa.table(columns)

    return make


@pytest.fixture(scope="session")
def random_impressions() -> Any:
    """Raw rows of impressions, missing values among them; apps 15 and 99 are unknown."""

    def make(n: int, seed: int) -> pa.Table:
        rng = np.random.default_rng(seed)
        whole = [0, 1, 5, 30, 100, 10**9, None]
        rates = [0.0, 0.01, 0.02, 0.9, None]
        return pa.table(
            {
                "app_id": _pick(rng, n, [10, 20, 30, 40, 50, 60, 15, 99]),
                "app_age_days": pa.array(_pick(rng, n, [-1, *whole]), pa.int64()),
                "recent_impressions": pa.array(_pick(rng, n, whole), pa.int64()),
                "recent_installs": pa.array(_pick(rng, n, whole), pa.int64()),
                "recent_install_rate": pa.array(_pick(rng, n, rates), pa.float32()),
                "position": pa.array(_pick(rng, n, [1, 2, 10, 50, None]), pa.int64()),
            }
        )

    return make
