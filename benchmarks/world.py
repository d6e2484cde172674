"""How long the world takes: a million apps and the default users, then days of the store."""

import time

from benchmarks.result import Result
from data_gen.sessions import first_memory, simulate_day
from data_gen.world import build_world
from recsys.config import load_config

DAYS = 3


def measure() -> Result:
    config = load_config("full").world
    result = Result(settings={"config": config.model_dump(mode="json"), "days": DAYS})
    started = time.perf_counter()
    world, apps, users = build_world(config, DAYS)
    memory, owned = first_memory(world)
    result.figures["apps"] = len(apps)
    result.figures["users"] = len(users)
    result.figures["apps owned on day 0"] = len(owned)
    result.figures["seconds to make apps, users and what they own"] = time.perf_counter() - started
    seconds_per_million = []
    for day in range(DAYS):
        started = time.perf_counter()
        made = simulate_day(world, memory, day)
        seconds = time.perf_counter() - started
        seconds_per_million.append(1e6 * seconds / len(made.impressions))
        result.figures[f"impressions of day {day}"] = len(made.impressions)
    result.figures["seconds for a million impressions, median"] = sorted(seconds_per_million)[1]
    result.limits = {
        "seconds to make apps, users and what they own": ("most", 60.0),
        "seconds for a million impressions, median": ("most", 30.0),
    }
    return result
