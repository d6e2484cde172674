"""A store of five hundred apps and two training days, for every benchmark that needs one."""

import pytest

from benchmarks import warm_start
from benchmarks.lab import Lab
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


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """Days enough for a window, a day to learn from and one to judge on."""
    small = warm_start.configuration(seed=1).model_dump()
    small["world"] |= {
        "initial_apps": 500, "new_apps_per_day": 10, "initial_users": 1500, "new_users_per_day": 5,
    }  # fmt: skip
    small["days"]["training"] = warm_start.WINDOW + 2
    small["retrieval"] |= {"batch_size": 64, "negatives": 32}
    small["ranking"] |= {"batch_requests": 32, "wide_buckets": 4096}
    small["evaluation"]["requests"] = 300
    small["index"] |= {"leaves": 10, "leaves_to_search": 10}
    return Lab(RunConfig.model_validate(small), tmp_path_factory.mktemp("lab"))
