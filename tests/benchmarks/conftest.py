"""A store of five hundred apps and two training days, for every benchmark that needs one."""

import pytest

from benchmarks.store import Store
from recsys.config import RunConfig

CONFIG = RunConfig.model_validate(
    {
        "world": {
            "initial_apps": 500,
            "new_apps_per_day": 10,
            "initial_users": 400,
            "new_users_per_day": 5,
        },
        "days": {"warm_up": 1, "training": 2},
        "retrieval": {"batch_size": 64, "negatives": 32},
        "ranking": {"batch_requests": 32, "wide_buckets": 4096},
    }
)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store.make(CONFIG, tmp_path_factory.mktemp("benchmarks") / "store")
