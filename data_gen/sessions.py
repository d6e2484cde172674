"""A day of the store: visits, what the logged policy shows, and what users install.

Enters: a world, its memory and a day; what was shown, by the logged policy or by any other.
Leaves: the day's observable events as Arrow tables (requests, impressions, installs) and the memory
moved on by the truth of the day.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.special import pdtr

from data_gen import keyed, marginals
from data_gen.memory import Memory, pair_key
from data_gen.world import Requests, World

Int = NDArray[np.int64]
EXPLORE_ANY = 0.10  # share of the logged policy's places drawn from all apps alike
EXPLORE_NEW = 0.03  # and from the apps of the last week
NEW_APP_DAYS = 7
HYPE_EXPOSURE = 5.0
MOST_A_DAY = 6  # requests, and searches, of one user
PROPOSALS = 6  # apps a searcher compares
POOL_EXPONENT = 5.0  # rank = pool x u^5 is the power law of rank^-0.8
LOST_SHARE = 0.02


@dataclass(frozen=True)
class Day:
    """One day's observable events, and the installs that truly happened."""

    requests: pa.Table  # request_id, user_id, hour, network, surface
    impressions: pa.Table  # request_id, position (from 1), app_id, propensity
    installs: pa.Table  # user_id, app_id, request_id (null by search), hour, arrival_hour


def first_memory(world: World) -> tuple[Memory, pa.Table]:
    """The apps that users own on day 0, as memory and as a table of installs before it."""
    seed, users = world.config.seed, world.users
    memory = Memory.empty(
        len(users.activity), len(marginals.categories()), world.apps.group, world.apps.category
    )
    ids = np.arange(world.config.initial_users)
    spread = keyed.normal(seed, "owned", ids)
    wanted = np.exp(np.log(12) + 0.6 * spread + 0.3 * np.log(users.activity[ids]))
    user = np.repeat(ids, np.clip(np.round(wanted), 2, 60).astype(np.int64))
    nth = np.arange(len(user))
    app = search(world, user, nth, day=0)
    keep = first_of_pair(user, app)
    user, app = user[keep], app[keep]
    age = keyed.uniform(seed, "owned since", user, app) ** 1.5
    earliest = np.maximum(users.signup_day[user], world.apps.release_day[app])
    hour = 24.0 * np.maximum(earliest, -365) * age
    order = np.argsort(hour, kind="stable")
    user, app, hour = user[order], app[order], hour[order]
    memory.install(user, app)
    return memory, _installs_table(user, app, np.full(len(user), -1), hour, hour)


def simulate_day(world: World, memory: Memory, day: int) -> Day:
    """A day under the logged policy; `memory` moves on to the next morning."""
    requests = visits(world, day)
    return play_day(world, memory, day, requests, *logged_slates(world, requests))


def play_day(
    world: World,
    memory: Memory,
    day: int,
    requests: Requests,
    slates: Int,
    propensities: NDArray[np.float64],
) -> Day:
    """What users do on a day on which they are shown these slates, and search besides.

    Requests that come before an hour have the same installs by then whatever follows, so a part of
    the day may be played first, on a copy of `memory`; it moves on to the next morning.

    Args:
        slates: app ids `[requests, k]`, -1 where a place was left empty.
        propensities: `[requests, k]`, the probability that the policy shows the app there.
    """
    installed = world.answer(requests, slates, memory)
    searcher, found, search_hour = _searches(world, memory, day)
    row, place = np.nonzero(installed)
    user = np.concatenate([requests.user[row], searcher])
    app = np.concatenate([slates[row, place], found])
    hour = np.concatenate([requests.hour[row] + 0.02, search_hour])
    request_id = np.concatenate([requests.request_id[row], np.full(len(searcher), -1)])
    order = np.argsort(hour, kind="stable")
    order = order[first_of_pair(user[order], app[order])]
    user, app, hour, request_id = user[order], app[order], hour[order], request_id[order]
    shown = np.nonzero(slates >= 0)
    memory.install(user, app)
    memory.show(requests.user[shown[0]], slates[shown])
    return Day(
        requests=_requests_table(requests),
        impressions=pa.table(
            {
                "request_id": requests.request_id[shown[0]],
                "position": (shown[1] + 1).astype(np.int64),
                "app_id": slates[shown],
                "propensity": propensities[shown],
            }
        ),
        installs=_delayed(world, user, app, request_id, hour),
    )


def visits(world: World, day: int) -> Requests:
    """The day's requests, in order of time: a Poisson number for each user."""
    seed, users = world.config.seed, world.users
    ids = np.arange(world.config.users_by(day + 1))
    count = _poisson(
        world.config.requests_per_user_day * users.activity[ids],
        keyed.uniform(seed, "visits", ids, day),
    )
    # Whoever signs up today opens the store today.
    count = np.maximum(count, users.signup_day[ids] == day)
    user = np.repeat(ids, count)
    nth = np.arange(len(user)) - np.repeat(np.cumsum(count) - count, count)
    request_id = (np.int64(day) << 40) | (user << 8) | nth
    u = keyed.uniform(seed, "hour", request_id)
    # Half of the visits spread over the day, half around the evening.
    evening = 20.0 + 2.0 * keyed.normal(seed, "evening", request_id)
    # What falls past half past eleven is folded back, so that installs stay within the day.
    hour = np.where(u < 0.5, 47 * u, np.clip(np.minimum(evening, 47 - evening), 0, 23.5))
    metered = keyed.uniform(seed, "network", request_id) < np.where(hour > 18, 0.3, 0.5)
    order = np.argsort(hour, kind="stable")
    return Requests(request_id, user, 24.0 * day + hour, metered).take(order)


def logged_slates(world: World, requests: Requests) -> tuple[Int, NDArray[np.float64]]:
    """What the first policy shows, `[n, k]` app ids (-1: place left empty), and propensities.

    Every place is an independent draw from one mixture: popularity, all apps alike, new apps.
    An app drawn before in the slate leaves its place empty, so the probability that it shows at
    place s (from 0) is exactly p (1 - p)^s.
    """
    config, apps, seed = world.config, world.apps, world.config.seed
    day = int(requests.day[0])
    live = config.apps_by(day)
    weight = apps.popularity[:live].astype(np.float64)
    weight *= 1 + (HYPE_EXPOSURE - 1) * world.hyped(np.arange(live), day)
    weight *= apps.release_day[:live] < 0
    cumulative = np.cumsum(weight / weight.sum())
    newest = max(0, day - NEW_APP_DAYS)
    first_new = config.apps_by(newest) if live > config.apps_by(newest) else 0

    place = np.arange(config.slate_size)
    u = keyed.uniform(seed, "policy", requests.request_id[:, None], place)
    draw = keyed.uniform(seed, "policy app", requests.request_id[:, None], place)
    slates = np.searchsorted(cumulative, draw.ravel()).reshape(draw.shape)
    slates = np.minimum(slates, live - 1)
    explore = u < EXPLORE_ANY
    explore_new = (u >= EXPLORE_ANY) & (u < EXPLORE_ANY + EXPLORE_NEW)
    slates[explore] = (draw[explore] * live).astype(np.int64)
    slates[explore_new] = first_new + (draw[explore_new] * (live - first_new)).astype(np.int64)

    p = (1 - EXPLORE_ANY - EXPLORE_NEW) * np.diff(cumulative, prepend=0.0)[slates]
    p += EXPLORE_ANY / live
    p += np.where(slates >= first_new, EXPLORE_NEW / (live - first_new), 0.0)
    repeated = (slates[:, :, None] == slates[:, None, :]) & (place[:, None] > place[None, :])
    slates[repeated.any(axis=2)] = -1
    return slates, p * (1 - p) ** place


def search(world: World, user: Int, nth: Int, day: int) -> Int:
    """What each searcher installs: the best, to them, of a few apps they come across.

    They look mostly among the apps of their interests and otherwise anywhere, popular ones first.
    """
    seed, apps, users = world.config.seed, world.apps, world.users
    app = np.empty(len(user), dtype=np.int64)
    pools, start, size = _pools(world, world.config.apps_by(day))
    everywhere = len(size) - 1
    b = world.config.behaviour
    for at in range(0, len(user), 262_144):
        rows = slice(at, at + 262_144)
        who, key = user[rows, None], nth[rows, None]
        proposal = np.arange(PROPOSALS)
        which = np.minimum(
            keyed.uniform(seed, f"interest {day}", who, key, proposal) ** 1.6 * 5, 4
        ).astype(np.int64)
        tag = np.where(which < 4, users.interests[who, np.minimum(which, 3)], everywhere)
        u = keyed.uniform(seed, f"search {day}", who, key, proposal)
        seen = pools[start[tag] + (size[tag] * u**POOL_EXPONENT).astype(np.int64)]
        utility = b.taste * np.einsum(
            "nd,npd->np", users.taste_on(day, user[rows]), apps.topic[seen]
        )
        utility += b.quality * apps.quality[seen] + b.appeal * apps.appeal[seen]
        utility += b.price * users.price_sensitivity[who] * np.log1p(apps.price_usd[seen])
        utility += b.incompatible * (apps.min_os[seen] > users.os_version[who])
        utility -= np.log(-np.log(keyed.uniform(seed, f"choice {day}", who, key, proposal)))
        best = np.argmax(utility, axis=1)
        app[rows] = seen[np.arange(len(seen)), best]
    return app


def first_of_pair(user: Int, app: Int) -> Int:
    """Positions, in order, of the first row of every (user, app) pair."""
    _, first = np.unique(pair_key(user, app), return_index=True)
    return np.sort(first)


def _searches(world: World, memory: Memory, day: int) -> tuple[Int, Int, NDArray[np.float64]]:
    seed, users = world.config.seed, world.users
    ids = np.arange(world.config.users_by(day + 1))
    rate = world.config.organic_per_user_day * users.activity[ids]
    count = _poisson(rate, keyed.uniform(seed, "searches", ids, day))
    user = np.repeat(ids, count)
    nth = np.arange(len(user)) - np.repeat(np.cumsum(count) - count, count)
    app = search(world, user, nth, day)
    hour = 24.0 * (day + keyed.uniform(seed, f"search hour {day}", user, nth))
    fresh = ~memory.owns(user, app)
    return user[fresh], app[fresh], hour[fresh]


def _pools(world: World, live: int) -> tuple[Int, Int, Int]:
    """Live apps by tag, then all of them once more, each pool sorted by popularity."""
    tag, popularity = world.apps.tag[:live], world.apps.popularity[:live]
    n_tags = len(world.space.tags)
    by_tag = np.lexsort((-popularity, tag))
    size = np.append(np.bincount(tag, minlength=n_tags), live)
    start = np.cumsum(size) - size
    size[size == 0] = 1  # an empty pool lends its neighbour's first app
    return np.concatenate([by_tag, np.argsort(-popularity, kind="stable")]), start, size


def _poisson(rate: NDArray[np.floating], u: NDArray[np.float64]) -> Int:
    """Poisson numbers by inversion, cut at `MOST_A_DAY`."""
    n = np.arange(MOST_A_DAY)
    count: Int = (u[:, None] > pdtr(n, np.asarray(rate, dtype=np.float64)[:, None])).sum(axis=1)
    return count


def _delayed(
    world: World, user: Int, app: Int, request_id: Int, hour: NDArray[np.float64]
) -> pa.Table:
    """Most installs are reported within hours, some after days, a few never."""
    seed = world.config.seed
    delay = -np.log(keyed.uniform(seed, "delay", user, app))
    delay *= np.where(keyed.uniform(seed, "slow", user, app) < 0.1, 30.0, 3.0)
    kept = keyed.uniform(seed, "lost", user, app) >= LOST_SHARE
    return _installs_table(
        user[kept], app[kept], request_id[kept], hour[kept], (hour + delay)[kept]
    )


def _installs_table(
    user: Int, app: Int, request_id: Int, hour: NDArray[np.float64], arrival: NDArray[np.float64]
) -> pa.Table:
    return pa.table(
        {
            "user_id": user,
            "app_id": app,
            "request_id": pa.array(request_id, mask=request_id < 0),
            "hour": hour,
            "arrival_hour": arrival,
        }
    )


def _requests_table(requests: Requests) -> pa.Table:
    return pa.table(
        {
            "request_id": requests.request_id,
            "user_id": requests.user,
            "hour": requests.hour,
            "network": pa.array(np.where(requests.metered, "metered", "wifi")),
            "surface": pa.array(np.full(len(requests), "home")),
        }
    )
