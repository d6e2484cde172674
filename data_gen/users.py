"""The users: what a store knows of each one, and the truth behind it.

Enters: the configuration and a range of user ids.  Leaves: an Arrow table of observable columns
and a `UserTruth` of hidden arrays.  Every user is a function of (seed, id).
"""

from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data_gen import keyed, marginals
from data_gen.config import WorldConfig
from data_gen.topics import DIMENSIONS, TAGS_PER_CATEGORY, TopicSpace, unit
from data_gen.words import AGE_BANDS, AGE_SHARES, COUNTRIES, COUNTRY_SHARES, LANGUAGE_OF

INTERESTS = 4
INTEREST_WEIGHTS = np.array([0.45, 0.30, 0.15, 0.10])
DEVICE_TIERS = ("low", "mid", "high")


@dataclass(frozen=True)
class UserTruth:
    """What no model sees. Arrays of one row a user."""

    taste_now: NDArray[np.float32]  # [users, 16], unit length: the taste of day 0
    taste_next: NDArray[np.float32]  # [users, 16]: where it drifts to
    drift: NDArray[np.float32]  # radians a day
    interests: NDArray[np.int16]  # [users, 4] tags, the strongest first
    price_sensitivity: NDArray[np.float32]
    novelty_seeking: NDArray[np.float32]
    activity: NDArray[np.float32]  # mean 1, heavy tail
    age: NDArray[np.int16]
    country: NDArray[np.int16]
    free_storage_mb: NDArray[np.float32]
    os_version: NDArray[np.int16]
    signup_day: NDArray[np.int32]

    @classmethod
    def concatenate(cls, parts: "list[UserTruth]") -> "UserTruth":
        return cls(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)))

    def taste_on(self, day: int, users: NDArray[np.int64]) -> NDArray[np.float32]:
        """Tastes of `users` on `day`, `[n, 16]` unit length: a slow turn from one to the other."""
        angle = np.minimum(self.drift[users] * day, np.pi / 2)[:, None]
        return unit(np.cos(angle) * self.taste_now[users] + np.sin(angle) * self.taste_next[users])


def make_users(
    config: WorldConfig, space: TopicSpace, first: int, last: int
) -> tuple[pa.Table, UserTruth]:
    """Users with ids in [first, last)."""
    seed = config.seed
    ids = np.arange(first, last)
    age = _choose(AGE_SHARES, keyed.uniform(seed, "age", ids))
    country = _choose(COUNTRY_SHARES, keyed.uniform(seed, "country", ids))
    tier = _choose((0.40, 0.42, 0.18), keyed.uniform(seed, "tier", ids))
    interests = _interests(config, space, ids, age, country, "interests")
    later = _interests(config, space, ids, age, country, "later interests")
    ram_gb = np.array([2, 4, 8])[tier] * np.where(keyed.uniform(seed, "ram", ids) < 0.3, 1.5, 1)
    free_storage_mb = np.array([700.0, 3_000.0, 20_000.0])[tier] * np.exp(
        0.8 * keyed.normal(seed, "storage", ids)
    )
    os_version = np.clip(
        np.round(np.array([7.5, 9.0, 11.0])[tier] + 1.5 * keyed.normal(seed, "user os", ids)), 4, 13
    )
    signup_day = np.where(
        ids < config.initial_users,
        -1 - 1500 * keyed.uniform(seed, "signup", ids),
        (ids - config.initial_users) // config.new_users_per_day,
    ).astype(np.int32)
    spread = 0.9
    activity = np.exp(spread * keyed.normal(seed, "activity", ids) - spread**2 / 2)
    truth = UserTruth(
        taste_now=_taste(seed, space, ids, interests, "taste"),
        taste_next=_taste(seed, space, ids, later, "later taste"),
        drift=(0.04 * keyed.uniform(seed, "drift", ids)).astype(np.float32),
        interests=interests,
        price_sensitivity=np.exp(0.5 * keyed.normal(seed, "price sensitivity", ids)).astype(
            np.float32
        ),
        novelty_seeking=keyed.normal(seed, "novelty", ids).astype(np.float32),
        activity=activity.astype(np.float32),
        age=age.astype(np.int16),
        country=country.astype(np.int16),
        free_storage_mb=free_storage_mb.astype(np.float32),
        os_version=os_version.astype(np.int16),
        signup_day=signup_day,
    )
    languages = [LANGUAGE_OF[name] for name in COUNTRIES]
    table = pa.table(
        {
            "user_id": ids.astype(np.int64),
            "country": pa.array(np.array(COUNTRIES)[country]),
            "language": pa.array(np.array(languages)[country]),
            "device_tier": pa.array(np.array(DEVICE_TIERS)[tier]),
            "ram_gb": ram_gb.astype(np.float32),
            "free_storage_mb": np.round(free_storage_mb).astype(np.float32),
            "os_version": os_version.astype(np.int64),
            "age_band": pa.array(
                np.array(AGE_BANDS)[age], mask=keyed.uniform(seed, "age hidden", ids) < 0.2
            ),
            "signup_day": signup_day.astype(np.int64),
        }
    )
    return table, truth


def _choose(shares: tuple[float, ...], u: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.searchsorted(np.cumsum(shares)[:-1], u)


def _interests(
    config: WorldConfig,
    space: TopicSpace,
    ids: NDArray[np.int64],
    age: NDArray[np.int64],
    country: NDArray[np.int64],
    purpose: str,
) -> NDArray[np.int16]:
    """`[users, 4]` tags, drawn from what people of this age and country like."""
    seed, behaviour = config.seed, config.behaviour
    categories = np.arange(len(marginals.categories()))
    by_age = keyed.normal(seed, "age x category", np.arange(len(AGE_BANDS))[:, None], categories)
    by_country = keyed.normal(
        seed, "country x category", np.arange(len(COUNTRIES))[:, None], categories
    )
    tilt = (
        2 * behaviour.age_category * by_age[:, None, :]
        + 2 * behaviour.country_category * by_country[None, :, :]
    ).reshape(-1, len(categories))
    weights = space.tag_share**0.7 * np.exp(np.repeat(tilt, TAGS_PER_CATEGORY, axis=1))
    cumulative = np.cumsum(weights / weights.sum(axis=1, keepdims=True), axis=1)
    # One search over all (age, country) rows: row r's values lie in (r, r + 1].
    n_rows, n_tags = cumulative.shape
    flat = (cumulative + np.arange(n_rows)[:, None]).ravel()
    row = (age * len(COUNTRIES) + country)[:, None]
    u = keyed.uniform(seed, purpose, ids[:, None], np.arange(INTERESTS))
    found = np.searchsorted(flat, u + row) - row * n_tags
    return np.clip(found, 0, n_tags - 1).astype(np.int16)


def _taste(
    seed: int,
    space: TopicSpace,
    ids: NDArray[np.int64],
    interests: NDArray[np.int16],
    purpose: str,
) -> NDArray[np.float32]:
    noise = keyed.normal(seed, purpose, ids[:, None], np.arange(DIMENSIONS))
    liked = np.einsum("uid,i->ud", space.tags[interests], INTEREST_WEIGHTS)
    return unit(liked + 0.15 * unit(noise))
