from collections.abc import Callable

import pytest

from data_gen.config import Behaviour, WorldConfig
from data_gen.world import World, build_world


@pytest.fixture(scope="session")
def small_world() -> Callable[..., World]:
    """500 apps and 400 users up to the end of day 9; behaviour by name, e.g. `intercept=0`."""

    def build(seed: int = 7, requests_per_user_day: float = 3.0, **behaviour: float) -> World:
        config = WorldConfig(
            seed=seed,
            initial_apps=500,
            new_apps_per_day=5,
            initial_users=400,
            new_users_per_day=10,
            requests_per_user_day=requests_per_user_day,
            behaviour=Behaviour(**behaviour),
        )
        return build_world(config, 10)[0]

    return build
