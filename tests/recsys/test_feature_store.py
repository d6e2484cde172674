"""The feature store of a finished tiny workspace, opened and closed."""

import shutil
from pathlib import Path

import pytest

from mlplatform.errors import DataCorrupt, NotFound
from mlplatform.pipeline import Workspace
from recsys.online.feature_store import FeatureStore


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
