"""The world: who would install what, and why.

Enters: a configuration.  Leaves: observable tables of apps and users, and a `World` that answers
what is shown.  The install model, in logits, is the sum in `install_logits`; an app is installed
when it is examined (less often further down) and its keyed draw falls below the probability.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.special import expit

from data_gen import keyed, marginals
from data_gen.catalogue import AppTruth, make_apps
from data_gen.config import WorldConfig
from data_gen.memory import Memory
from data_gen.topics import TopicSpace
from data_gen.users import UserTruth, make_users
from data_gen.words import AGE_BANDS, COUNTRIES

Float = NDArray[np.float32]
Int = NDArray[np.int64]
CHUNK = 65_536
THREADS = 2
DAYPARTS = ("night", "morning", "afternoon", "evening")
EXAMINATION_EXPONENT = 0.4
HYPE_SHARE = 0.005


@dataclass(frozen=True)
class Requests:
    """Visits to the store's landing page: arrays of one row a request."""

    request_id: Int
    user: Int
    hour: NDArray[np.float64]  # since the start of day 0
    metered: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.user)

    def take(self, rows: NDArray[np.integer] | slice) -> "Requests":
        return Requests(*(getattr(self, f.name)[rows] for f in fields(self)))

    @property
    def day(self) -> Int:
        return (self.hour // 24).astype(np.int64)

    @property
    def daypart(self) -> Int:
        return (self.hour % 24 // 6).astype(np.int64)


@dataclass(frozen=True)
class World:
    """All apps and users up to a day, with the truth about them."""

    config: WorldConfig
    apps: AppTruth
    users: UserTruth
    space: TopicSpace = field(repr=False)
    by_age: Float = field(repr=False)  # [age bands, categories]
    by_country: Float = field(repr=False)  # [countries, categories]
    by_daypart: Float = field(repr=False)  # [dayparts, categories]

    @classmethod
    def of(cls, config: WorldConfig, apps: AppTruth, users: UserTruth) -> "World":
        behaviour, seed = config.behaviour, config.seed
        categories = np.arange(len(marginals.categories()))

        def table(purpose: str, rows: int, deviation: float) -> Float:
            normal = keyed.normal(seed, purpose, np.arange(rows)[:, None], categories)
            return (deviation * normal).astype(np.float32)

        return cls(
            config,
            apps,
            users,
            TopicSpace.build(seed),
            table("age x category", len(AGE_BANDS), behaviour.age_category),
            table("country x category", len(COUNTRIES), behaviour.country_category),
            table("daypart x category", len(DAYPARTS), behaviour.daypart_category),
        )

    def install_logits(self, requests: Requests, app: Int, memory: Memory) -> Float:
        """Logit of installing app `app[i]`, once examined, in request i: `[n] float32`."""
        b, apps, users = self.config.behaviour, self.apps, self.users
        user, day = requests.user, requests.day
        category = apps.category[app]
        logit = self._match(requests, app)
        logit += self._static(app, day)
        logit += self.by_age[users.age[user], category]
        logit += self.by_country[users.country[user], category]
        logit += self.by_daypart[requests.daypart, category]
        logit += b.price * users.price_sensitivity[user] * np.log1p(apps.price_usd[app])
        size = apps.size_mb[app]
        logit += b.storage * np.maximum(size / (0.2 * users.free_storage_mb[user]) - 1, 0)
        logit += b.metered * (requests.metered & (size > 40))
        logit += b.incompatible * (apps.min_os[app] > users.os_version[user])
        new = (day - apps.release_day[app]) < 30
        logit += b.novelty * users.novelty_seeking[user] * new
        logit += b.mood * keyed.normal(self.config.seed, "mood", user, day)
        group = apps.group[app]
        logit += b.complement * memory.owns_group(user, _complement(group))
        logit += b.substitute * memory.owns_group(user, group)
        logit += b.saturation * np.maximum(memory.category_counts[user, category] - 5.0, 0)
        logit += b.fatigue * memory.times_shown(user, app)
        return np.where(memory.owns(user, app), -np.inf, logit).astype(np.float32)

    def install_probability(self, requests: Requests, slates: Int, memory: Memory) -> Float:
        """P(install) of every shown app, examination included; `[n, k]`, 0 for an empty place."""
        shown = _by_chunks(
            lambda rows: self._examined_probability(requests.take(rows), slates[rows], memory),
            len(requests),
            rows_per_chunk=max(1, CHUNK // slates.shape[1]),
        )
        return shown * examination(slates.shape[1])

    def answer(self, requests: Requests, slates: Int, memory: Memory) -> NDArray[np.bool_]:
        """Which of the shown apps are installed: `[n, k]`. The same luck for any policy."""
        seed = self.config.seed
        probability = _by_chunks(
            lambda rows: self._examined_probability(requests.take(rows), slates[rows], memory),
            len(requests),
            rows_per_chunk=max(1, CHUNK // slates.shape[1]),
        )
        place = np.arange(slates.shape[1])
        look = keyed.uniform(seed, "examine", requests.request_id[:, None], place)
        luck = keyed.uniform(seed, "install", requests.request_id[:, None], slates)
        return (look < examination(slates.shape[1])) & (luck < probability)

    def oracle_slates(self, requests: Requests, k: int, memory: Memory, live_apps: int) -> Int:
        """The best k apps by the true logits, over the whole catalogue: `[n, k]`.

        The terms of low rank are scored against every app at once; the best 400 by these are
        then ordered by the full logit.
        """
        apps = np.arange(live_apps)
        n_shortlist = min(400, live_apps)
        item_side = self._oracle_items(apps, int(requests.day[0]))
        user_side = self._oracle_users(requests)
        slates = np.empty((len(requests), k), dtype=np.int64)
        # One buffer for all blocks: over a million apps, fresh memory costs more than the products.
        buffer = np.empty((32, live_apps), dtype=np.float32)
        for start in range(0, len(requests), 32):
            rows = slice(start, start + 32)
            side = user_side[rows]
            scores = np.matmul(side, item_side, out=buffer[: len(side)])
            short = _highest(scores, n_shortlist)
            part = requests.take(np.repeat(np.arange(len(requests))[rows], n_shortlist))
            exact = self.install_logits(part, short.ravel(), memory).reshape(short.shape)
            best = np.argsort(-exact, axis=1)[:, :k]
            slates[rows] = np.take_along_axis(short, best, axis=1)
        return slates

    def hyped(self, app: Int, day: Int | int) -> NDArray[np.bool_]:
        """Whether a campaign runs for the app on that day: nobody logs it."""
        return keyed.uniform(self.config.seed, "hype", app, day) < HYPE_SHARE

    def _match(self, requests: Requests, app: Int) -> Float:
        logit = np.empty(len(app), dtype=np.float32)
        for day in np.unique(requests.day):
            at = np.flatnonzero(requests.day == day)
            taste = self.users.taste_on(int(day), requests.user[at])
            logit[at] = np.einsum("nd,nd->n", taste, self.apps.topic[app[at]])
        return self.config.behaviour.taste * logit

    def _static(self, app: Int, day: Int | int) -> Float:
        b = self.config.behaviour
        return (
            b.intercept
            + b.quality * self.apps.quality[app]
            + b.appeal * self.apps.appeal[app]
            + b.hype * self.hyped(app, day)
        ).astype(np.float32)

    def _examined_probability(self, requests: Requests, slates: Int, memory: Memory) -> Float:
        n, k = slates.shape
        part = requests.take(np.repeat(np.arange(n), k))
        logits = self.install_logits(part, np.maximum(slates, 0).ravel(), memory)
        probability: Float = np.where(slates >= 0, expit(logits).reshape(n, k), 0)
        return probability

    def _oracle_items(self, apps: Int, day: int) -> Float:
        """`[16 + 3 + categories, apps]`."""
        one_hot = np.zeros((len(marginals.categories()), len(apps)), dtype=np.float32)
        one_hot[self.apps.category[apps], apps] = 1
        rows: list[Any] = [
            self.config.behaviour.taste * self.apps.topic[apps].T,
            self._static(apps, day)[None],
            self.config.behaviour.price * np.log1p(self.apps.price_usd[apps])[None],
            self.config.behaviour.novelty * (day - self.apps.release_day[apps] < 30)[None],
            one_hot,
        ]
        return np.concatenate(rows).astype(np.float32)

    def _oracle_users(self, requests: Requests) -> Float:
        users, user = self.users, requests.user
        columns: list[Any] = [
            users.taste_on(int(requests.day[0]), user),
            np.ones((len(requests), 1)),
            users.price_sensitivity[user][:, None],
            users.novelty_seeking[user][:, None],
            self.by_age[users.age[user]]
            + self.by_country[users.country[user]]
            + self.by_daypart[requests.daypart],
        ]
        return np.concatenate(columns, axis=1).astype(np.float32)


def build_world(
    config: WorldConfig, days: int, advance: Callable[[int], None] = lambda rows: None
) -> tuple[World, pa.Table, pa.Table]:
    """The world up to the end of `days`: itself, and the observable tables of apps and users.

    `advance` is told the number of rows made, as they are made.
    """
    space = TopicSpace.build(config.seed)

    def make(
        kind: Callable[..., tuple[pa.Table, object]], n: int
    ) -> Iterator[tuple[pa.Table, object]]:
        starts = range(0, n, CHUNK)
        with ThreadPoolExecutor(THREADS) as pool:
            for part in pool.map(
                lambda start: kind(config, space, start, min(start + CHUNK, n)), starts
            ):
                advance(part[0].num_rows)
                yield part

    app_tables, app_truths = zip(*make(make_apps, config.apps_by(days)), strict=True)
    user_tables, user_truths = zip(*make(make_users, config.users_by(days)), strict=True)
    world = World.of(
        config,
        AppTruth.concatenate(list(app_truths)),
        UserTruth.concatenate(list(user_truths)),
    )
    return world, pa.concat_tables(app_tables), pa.concat_tables(user_tables)


def save_truth(world: World, directory: Path) -> None:
    """Write the hidden arrays as plain .npy files, `apps.*` and `users.*`."""
    for name, truth in (("apps", world.apps), ("users", world.users)):
        for f in fields(truth):
            np.save(directory / f"{name}.{f.name}.npy", getattr(truth, f.name), allow_pickle=False)


def load_truth(config: WorldConfig, directory: Path) -> World:
    """The world whose hidden arrays `save_truth` wrote, mapped from disk."""

    def read(name: str) -> Any:
        return np.load(directory / f"{name}.npy", mmap_mode="r", allow_pickle=False)

    apps = AppTruth(**{f.name: read(f"apps.{f.name}") for f in fields(AppTruth)})
    users = UserTruth(**{f.name: read(f"users.{f.name}") for f in fields(UserTruth)})
    return World.of(config, apps, users)


def examination(k: int) -> Float:
    """P(examined) of the k places of a slate, `[k] float32`: one at the top, falling."""
    return (1.0 / np.arange(1, k + 1) ** EXAMINATION_EXPONENT).astype(np.float32)


def _complement(group: NDArray[np.int32]) -> NDArray[np.int32]:
    """The group whose owners want an app of `group`: the next one round within eight tags."""
    block = group // 32 * 32
    return block + (group + 5) % 32


def _highest(scores: Float, n: int) -> Int:
    """Positions of each row's n highest scores, in any order: `[rows, n]`.

    They stand in at most n stretches of 256, those of the highest maxima, or after the last.
    """
    size = 256
    whole = scores.shape[1] // size
    if whole <= n:
        return np.argpartition(-scores, n - 1, axis=1)[:, :n]
    maxima = scores[:, : whole * size].reshape(len(scores), whole, size).max(axis=2)
    chosen = np.argpartition(-maxima, n - 1, axis=1)[:, :n, None]
    at = (chosen * size + np.arange(size)).reshape(len(scores), -1)
    rest = np.arange(whole * size, scores.shape[1])
    at = np.concatenate([at, np.broadcast_to(rest, (len(scores), len(rest)))], axis=1)
    best = np.argpartition(-np.take_along_axis(scores, at, axis=1), n - 1, axis=1)[:, :n]
    return np.take_along_axis(at, best, axis=1)


def _by_chunks(compute: Callable[[NDArray[np.int64]], Float], n: int, rows_per_chunk: int) -> Float:
    chunks = [np.arange(at, min(at + rows_per_chunk, n)) for at in range(0, n, rows_per_chunk)]
    with ThreadPoolExecutor(THREADS) as pool:
        return np.concatenate(list(pool.map(compute, chunks)))
