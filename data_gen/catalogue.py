"""The apps: what a store knows of each one, and the truth behind it.

Enters: the configuration and a range of app ids.  Leaves: an Arrow table of observable columns
and an `AppTruth` of hidden arrays, row i being app `first + i`.  Every app is a function of
(seed, id), so ranges are made in parallel and later days' apps need no earlier ones.
"""

from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from data_gen import keyed, marginals
from data_gen.config import WorldConfig
from data_gen.topics import DIMENSIONS, TAGS_PER_CATEGORY, TopicSpace, tag_names, unit
from data_gen.words import ADJECTIVES, NOUNS

Float = NDArray[np.float64]
TAGS_PER_APP = 3
GROUPS_PER_TAG = 4
APPS_PER_DEVELOPER = 4
POPULARITY_EXPONENT = 0.8
MIN_OS_SHARE = {4: 0.30, 5: 0.27, 6: 0.14, 7: 0.10, 8: 0.08, 9: 0.05, 10: 0.03, 11: 0.02, 12: 0.01}


@dataclass(frozen=True)
class AppTruth:
    """What no model sees. Arrays of one row an app."""

    topic: NDArray[np.float32]  # [apps, 16], unit length
    quality: NDArray[np.float32]  # standard normal
    appeal: NDArray[np.float32]  # standard normal: intrinsic, whatever the category
    popularity: NDArray[np.float32]  # weight, a power law of the pseudo-rank by past installs
    category: NDArray[np.int16]
    tag: NDArray[np.int16]  # the first of the app's tags
    group: NDArray[np.int32]  # apps of one group do the same job
    size_mb: NDArray[np.float32]  # the download's true size, also where the listing hides it
    price_usd: NDArray[np.float32]
    min_os: NDArray[np.int16]
    release_day: NDArray[np.int32]

    @classmethod
    def concatenate(cls, parts: "list[AppTruth]") -> "AppTruth":
        return cls(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)))


def make_apps(
    config: WorldConfig, space: TopicSpace, first: int, last: int
) -> tuple[pa.Table, AppTruth]:
    """Apps with ids in [first, last)."""
    seed = config.seed
    ids = np.arange(first, last)
    release_day = _release_days(config, ids)
    established = release_day < 0

    category = np.searchsorted(
        np.cumsum(marginals.per_category("share")), keyed.uniform(seed, "category", ids)
    ).astype(np.int16)
    category = np.minimum(category, len(marginals.categories()) - 1).astype(np.int16)
    tags = _tags(seed, ids, category, space)
    developer = _developers(config, ids, category)

    quality = 0.5 * keyed.normal(seed, "developer quality", developer)
    quality = quality + np.sqrt(0.75) * keyed.normal(seed, "quality", ids)
    appeal = keyed.normal(seed, "appeal", ids)
    past = 0.75 * appeal + 0.35 * quality + 0.56 * keyed.normal(seed, "past installs", ids)
    past = _shift_to_category(past, category)
    pseudo_rank = 1.0 + config.initial_apps * ndtr(-past)
    popularity = np.where(established, pseudo_rank**-POPULARITY_EXPONENT, 0.0)

    noise = keyed.normal(seed, "topic", ids[:, None], np.arange(DIMENSIONS))
    topic = unit(
        0.35 * space.centres[category] + 0.75 * space.tags[tags].mean(axis=1) + 0.55 * unit(noise)
    )
    job = keyed.bits(seed, "group", ids) % np.uint64(GROUPS_PER_TAG)
    group = tags[:, 0].astype(np.int32) * GROUPS_PER_TAG + job.astype(np.int32)

    size_mb = _sizes(seed, ids, category)
    price_usd = _prices(seed, ids, category)
    bounds, cumulative = marginals.install_buckets()
    installs = np.where(established, bounds[np.searchsorted(cumulative, ndtr(past))], 0)
    min_os = np.array(list(MIN_OS_SHARE), dtype=np.int16)[
        np.searchsorted(np.cumsum(list(MIN_OS_SHARE.values())), keyed.uniform(seed, "os", ids))
    ]
    truth = AppTruth(
        topic=topic,
        quality=quality.astype(np.float32),
        appeal=appeal.astype(np.float32),
        popularity=popularity.astype(np.float32),
        category=category,
        tag=tags[:, 0],
        group=group,
        size_mb=size_mb.astype(np.float32),
        price_usd=price_usd.astype(np.float32),
        min_os=min_os,
        release_day=release_day,
    )
    reviews_z = 0.9 * past + np.sqrt(1 - 0.81) * keyed.normal(seed, "reviews", ids)
    reviews = marginals.quantile_function(
        marginals.figures()["reviews_quantiles"], ndtr(reviews_z), log=True
    )
    varies = (
        keyed.uniform(seed, "size varies", ids)
        < (marginals.figures()["size_mb"]["varies_with_device_share"])
    )
    rating, unrated = _ratings(seed, ids, category, quality, reviews_z)
    table = pa.table(
        {
            "app_id": ids.astype(np.int64),
            "title": _titles(seed, ids, tags),
            "developer_id": developer.astype(np.int64),
            "category": _named(category, list(marginals.categories())),
            "tags": pa.FixedSizeListArray.from_arrays(
                _named(tags.ravel(), tag_names()), TAGS_PER_APP
            ).cast(pa.list_(pa.string())),
            "size_mb": pa.array(np.round(size_mb, 1).astype(np.float32), mask=varies),
            "price_usd": price_usd.astype(np.float32),
            "rating": pa.array(rating.astype(np.float32), mask=unrated | ~established),
            "reviews": np.where(established, reviews, 0).astype(np.int64),
            "installs": installs.astype(np.int64),
            "content_rating": _content_ratings(seed, ids),
            "min_os": min_os.astype(np.int64),
            "release_day": release_day.astype(np.int64),
        }
    )
    return table, truth


def _release_days(config: WorldConfig, ids: NDArray[np.int64]) -> NDArray[np.int32]:
    """Apps of the first day came out over the six years before, later ones in order of id."""
    earlier = -1 - 2190 * keyed.uniform(config.seed, "release", ids) ** 1.5
    later = (ids - config.initial_apps) // config.new_apps_per_day
    return np.where(ids < config.initial_apps, earlier, later).astype(np.int32)


def _tags(
    seed: int, ids: NDArray[np.int64], category: NDArray[np.int16], space: TopicSpace
) -> NDArray[np.int16]:
    """`[apps, 3]`, the first always of the app's category, the others nearly always."""
    within = np.cumsum(space.tag_share[:TAGS_PER_CATEGORY])
    u = keyed.uniform(seed, "tags", ids[:, None], np.arange(TAGS_PER_APP))
    own = category[:, None] * TAGS_PER_CATEGORY + np.searchsorted(within / within[-1], u)
    u = keyed.uniform(seed, "foreign tags", ids[:, None], np.arange(TAGS_PER_APP))
    foreign = np.searchsorted(np.cumsum(space.tag_share)[:-1], u / 0.15)
    is_foreign = (u < 0.15) & (np.arange(TAGS_PER_APP) > 0)
    return np.where(is_foreign, foreign, own).astype(np.int16)


def _developers(
    config: WorldConfig, ids: NDArray[np.int64], category: NDArray[np.int16]
) -> NDArray[np.int64]:
    """A developer stays within a category; a few have very many apps."""
    share = marginals.per_category("share")[category]
    developers = np.maximum(1.0, config.initial_apps * share / APPS_PER_DEVELOPER)
    rank = np.floor(developers * keyed.uniform(config.seed, "developer", ids) ** 2.5)
    return category.astype(np.int64) * 1_000_000 + rank.astype(np.int64)


def _shift_to_category(z: Float, category: NDArray[np.int16]) -> Float:
    """Move standard normal `z` so that each category's median falls into its published bucket."""
    bounds, cumulative = marginals.install_buckets()
    index = np.searchsorted(bounds, marginals.per_category("installs_median"))
    lower = np.where(index > 0, cumulative[np.maximum(index - 1, 0)], 0.0)
    return _around(ndtri((lower + cumulative[index]) / 2), z, category)


def _around(centre: Float, z: Float, category: NDArray[np.int16]) -> Float:
    """Normal scores around each category's centre, of unit variance over all categories."""
    share = marginals.per_category("share") / marginals.per_category("share").sum()
    variance = share @ centre**2 - (share @ centre) ** 2
    return np.sqrt(1 - variance) * z + centre[category]


def _sizes(seed: int, ids: NDArray[np.int64], category: NDArray[np.int16]) -> Float:
    """Each category around its own median, the mixture of all with the store's spread."""
    quantiles = marginals.figures()["size_mb"]["quantiles"]
    # On the store's own scale of normal scores, where is each category's median?
    probabilities = [float(p) for p in quantiles]
    values = np.log1p(list(quantiles.values()))
    at = np.interp(np.log1p(marginals.per_category("size_mb_median")), values, probabilities)
    return marginals.quantile_function(
        quantiles, ndtr(_around(ndtri(at), keyed.normal(seed, "size", ids), category)), log=True
    )


def _prices(seed: int, ids: NDArray[np.int64], category: NDArray[np.int16]) -> Float:
    paid = keyed.uniform(seed, "paid", ids) < marginals.per_category("paid_share")[category]
    price = marginals.quantile_function(
        marginals.figures()["price_usd_quantiles_when_paid"],
        keyed.uniform(seed, "price", ids),
        log=True,
    )
    return np.where(paid, np.maximum(np.ceil(price) - 0.01, 0.99), 0.0)


def _ratings(
    seed: int,
    ids: NDArray[np.int64],
    category: NDArray[np.int16],
    quality: Float,
    reviews_z: Float,
) -> tuple[Float, NDArray[np.bool_]]:
    """Ratings, and which are missing: mostly those of apps with few reviews."""
    quantiles = marginals.figures()["rating"]["quantiles"]
    grid = marginals.quantile_function(quantiles, (np.arange(4096) + 0.5) / 4096)
    z = 0.6 * quality + 0.8 * keyed.normal(seed, "rating", ids)
    shape = (marginals.quantile_function(quantiles, ndtr(z)) - grid.mean()) / grid.std()
    rating = (
        marginals.per_category("rating_mean")[category]
        + marginals.per_category("rating_sd")[category] * shape
    )
    unrated_z = 0.8 * reviews_z + 0.6 * keyed.normal(seed, "unrated", ids)
    unrated = unrated_z < ndtri(marginals.figures()["rating"]["missing_share"])
    return np.round(np.clip(rating, 1.0, 5.0), 1), unrated


def _content_ratings(seed: int, ids: NDArray[np.int64]) -> pa.Array:
    shares = marginals.figures()["content_rating_share"]
    cumulative = np.cumsum(list(shares.values()))
    code = np.searchsorted(cumulative / cumulative[-1], keyed.uniform(seed, "content", ids))
    return _named(code, list(shares))


def _titles(seed: int, ids: NDArray[np.int64], tags: NDArray[np.int16]) -> pa.Array:
    adjective = keyed.bits(seed, "adjective", ids) % np.uint64(len(ADJECTIVES))
    noun = keyed.bits(seed, "noun", ids) % np.uint64(len(NOUNS))
    words = [
        _named(adjective.astype(np.int32), list(ADJECTIVES)),
        _named(tags[:, 0], [tag.capitalize() for tag in tag_names()]),
        _named(noun.astype(np.int32), list(NOUNS)),
    ]
    return pc.binary_join_element_wise(*(word.cast(pa.string()) for word in words), " ")


def _named(codes: NDArray[np.integer], names: list[str]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(codes.astype(np.int32), names)
