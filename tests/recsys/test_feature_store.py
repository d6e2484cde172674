"""The feature store of a finished tiny workspace, opened and closed."""

import shutil
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from mlplatform.errors import DataCorrupt, NotFound
from mlplatform.pipeline import Workspace
from recsys.examples import EventLog
from recsys.online.feature_store import PROFILE_FEATURES, FeatureStore, write_feature_store


@pytest.fixture
def directory(finished: Path, tmp_path: Path) -> Path:
    """A copy: other tests may have the workspace's own store open."""
    found = Workspace(finished).latest("build_feature_store")
    assert found is not None
    return shutil.copytree(found, tmp_path / "store")


def test_a_closed_store_can_be_opened_again_though_users_are_left_to_list(directory: Path) -> None:
    with FeatureStore(directory) as store:
        users = store.user_ids()
        first = next(users)
    with FeatureStore(directory) as store:
        assert next(store.user_ids()) == first
        assert store.profiles([first])[0]["country"]


def test_an_open_store_is_not_opened_twice(directory: Path) -> None:
    with FeatureStore(directory), pytest.raises(DataCorrupt, match="already open"):
        FeatureStore(directory)


def test_a_user_who_never_signed_up_is_named(directory: Path) -> None:
    with (
        FeatureStore(directory) as store,
        pytest.raises(NotFound, match="user 4611686018427387903"),
    ):
        store.profiles([2**62 - 1])


@pytest.fixture
def log() -> EventLog:
    """Three users, of whom the last has not signed up by day 1, and two apps."""
    users = {"user_id": [0, 1, 2], "signup_day": [0, 1, 2], "country": ["BR", "US", "US"]}
    users |= {"language": ["pt", "en", "en"], "device_tier": ["low"] * 3, "age_band": [None] * 3}
    users |= {"ram_gb": [2.0] * 3, "free_storage_mb": [512.5] * 3, "os_version": [8, None, 9]}
    installs = {"user_id": [0, 0], "app_id": [0, 1], "arrival_hour": [-9.0, 4.0]}
    installs |= {"hour": [-9.0, 3.0], "request_id": [None, 7]}
    installed = pa.table(installs)
    impressions = pa.table({"request_id": [7, 7], "app_id": [0, 1]})
    return EventLog(
        pa.table({"app_id": [0, 1], "release_day": [-5, 0],
                  "category": pa.array(["GAME", "TOOLS"]).dictionary_encode()}),
        pa.table(users), installed[:1], ({"installs": installed[1:], "impressions": impressions},),
    )  # fmt: skip


@pytest.fixture
def small(log: EventLog, tmp_path: Path) -> Path:
    """The store of day 1."""
    (tmp_path / "small").mkdir()
    assert write_feature_store(log, 1, tmp_path / "small") == 2
    return tmp_path / "small"


def test_profiles_come_as_they_are_stored_and_one_unknown_user_fails_no_other(small: Path) -> None:
    with FeatureStore(small) as store:
        first, unknown, second = store.profiles_raw([0, 2, 1])
        assert unknown is None and first is not None and second is not None
        assert msgspec.msgpack.decode(first) == store.decode(first) == store.profiles([0])[0]
        assert store.decode(second)["os_version"] is None
        assert store.decode(first) == {
            "country": "BR", "language": "pt", "device_tier": "low", "age_band": None,
            "ram_gb": 2.0, "free_storage_mb": 512.5, "os_version": 8, "account_age_days": 1,
            "history_count": 2, "recent_categories": ["TOOLS", "GAME"], "history": [1, 0],
            "owned": [1, 0],
        }  # fmt: skip
        assert list(store.decode(first)) == PROFILE_FEATURES
        assert store.profiles_raw([]) == store.profiles([]) == []
        with pytest.raises(NotFound, match="user 2 is unknown"):
            store.profiles([0, 2, 1])


def test_apps_are_known_by_what_happened_before_the_day(small: Path) -> None:
    with FeatureStore(small) as store:
        columns = store.app_columns(np.array([[1, 0]]))
    assert columns["app_age_days"].tolist() == [[1, 6]]
    assert columns["recent_impressions"].tolist() == [[1, 1]]
    assert columns["recent_installs"].tolist() == [[1, 0]]
    # 2 / 102 is the store's own rate, of the weight of fifty impressions.
    prior = 50 * 2 / 102
    np.testing.assert_allclose(
        columns["recent_install_rate"], [[(1 + prior) / 51, prior / 51]], rtol=1e-6
    )


def test_what_is_written_can_be_edited_on_the_way(
    log: EventLog, small: Path, tmp_path: Path
) -> None:
    def edit(table: pa.Table) -> pa.Table:
        seen.append(table.column_names)
        name = "history_count" if "user_id" in table.column_names else "recent_installs"
        assert ("user_id" in seen[-1]) != ("app_id" in seen[-1])
        at = table.schema.get_field_index(name)
        return table.set_column(at, name, pa.array([40 + n for n in range(len(table))]))

    seen: list[list[str]] = []
    (tmp_path / "edited").mkdir()
    write_feature_store(log, 1, tmp_path / "edited", edit)
    assert len(seen) == 2
    with FeatureStore(small) as as_it_is, FeatureStore(tmp_path / "edited") as edited:
        users = [0, 1]
        changed = [p | {"history_count": 40 + n} for n, p in enumerate(as_it_is.profiles(users))]
        assert edited.profiles(users) == changed
        apps = np.array([0, 1])
        before, after = as_it_is.app_columns(apps), edited.app_columns(apps)
        assert after["recent_installs"].tolist() == [40, 41]
        for name in before.keys() - {"recent_installs"}:
            assert after[name].tolist() == before[name].tolist()
