from dataclasses import fields, replace

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy.special import expit

from data_gen import marginals
from data_gen import world as world_module
from data_gen.config import Behaviour, WorldConfig
from data_gen.memory import Memory
from data_gen.world import Requests, World, build_world, examination, load_truth, save_truth

B = Behaviour()
N_APPS, N_USERS = 500, 400


def requests_of(users, day=0, hour=12.0, metered=False):
    users = np.asarray(users, dtype=np.int64)
    n = len(users)
    ids = (np.int64(day) << 40) | (np.arange(n) << 20) | users
    return Requests(ids, users, np.full(n, 24.0 * day + hour), np.full(n, metered))


def no_memory(world):
    return Memory.empty(
        len(world.users.activity),
        len(marginals.categories()),
        world.apps.group,
        world.apps.category,
    )


def random_slates(n, k=10, seed=0):
    """Distinct apps in every row."""
    keys = np.random.default_rng(seed).random((n, N_APPS))
    return np.argpartition(keys, k, axis=1)[:, :k]


# --- What is installed, given what is shown ----------------------------------------------------


def test_an_app_meets_the_same_luck_whatever_else_is_shown(small_world):
    world = small_world(intercept=-1.0)
    requests = requests_of(np.tile(np.arange(N_USERS), 10))
    one, other = random_slates(len(requests), seed=1), random_slates(len(requests), seed=2)
    other[:, 3] = one[:, 3]
    answers = [world.answer(requests, slates, no_memory(world)) for slates in (one, other)]
    assert_array_equal(answers[0][:, 3], answers[1][:, 3])
    assert 0.05 < answers[0][:, 3].mean() < 0.95
    assert (answers[0] != answers[1]).any()


def test_a_request_meets_the_same_luck_whoever_else_visits(small_world, monkeypatch):
    world, memory = small_world(intercept=-1.0), no_memory(small_world())
    requests, slates = requests_of(np.arange(N_USERS)), random_slates(N_USERS)
    answer = world.answer(requests, slates, memory)
    some = np.array([300, 7, 8])
    assert_array_equal(world.answer(requests.take(some), slates[some], memory), answer[some])
    monkeypatch.setattr(world_module, "CHUNK", 50)
    assert_array_equal(world.answer(requests, slates, memory), answer)


def test_installs_are_as_frequent_as_their_probability_at_every_place(small_world):
    world, memory = small_world(intercept=-1.5), no_memory(small_world())
    requests = requests_of(np.tile(np.arange(N_USERS), 25))
    slates = random_slates(len(requests))
    p = world.install_probability(requests, slates, memory).astype(np.float64)
    excess = (world.answer(requests, slates, memory) - p).sum(axis=0)
    assert (np.abs(excess) < 4 * np.sqrt((p * (1 - p)).sum(axis=0))).all()


def test_probability_is_the_logit_times_the_examination_of_the_place(small_world):
    world, memory = small_world(), no_memory(small_world())
    requests = requests_of(np.arange(50))
    same_app_everywhere = np.repeat(np.arange(50)[:, None], 10, axis=1)
    p = world.install_probability(requests, same_app_everywhere, memory)
    assert (np.diff(p, axis=1) < 0).all()
    once_examined = expit(world.install_logits(requests, np.arange(50), memory))
    np.testing.assert_allclose(p[:, 0], once_examined, rtol=1e-5)
    np.testing.assert_allclose(p[:, 3] / p[:, 0], 4**-0.4, rtol=1e-5)


def test_the_top_is_always_examined_and_lower_places_less_and_less():
    assert examination(1) == 1
    assert (np.diff(examination(20)) < 0).all()
    assert examination(20)[-1] > 0.2


def test_an_owned_app_is_never_installed_again(small_world):
    world = small_world(intercept=30.0)
    memory, requests = no_memory(world), requests_of(np.arange(100))
    slates = random_slates(100)
    memory.install(np.arange(100), slates[:, 0])
    assert not world.answer(requests, slates, memory)[:, 0].any()
    assert not world.install_probability(requests, slates, memory)[:, 0].any()
    assert world.answer(requests, np.roll(slates, 1, axis=1), memory)[:, 0].all(), "another one is"


def test_an_empty_place_is_never_installed(small_world):
    world = small_world(intercept=30.0)
    requests, slates = requests_of(np.arange(100)), random_slates(100)
    slates[:, [0, 4]] = -1
    p = world.install_probability(requests, slates, no_memory(world))
    assert not p[:, [0, 4]].any()
    answer = world.answer(requests, slates, no_memory(world))
    assert not answer[:, [0, 4]].any()
    assert answer.any(axis=1).all()


# --- Every planted effect ----------------------------------------------------------------------


def overwrite(truth, **values):
    """The same truth with row 0 of the named arrays set."""
    changed = {name: getattr(truth, name).copy() for name in values}
    for name, value in values.items():
        changed[name][0] = value
    return replace(truth, **changed)


E1 = np.eye(16)[0]
PLAIN_APP = {
    "topic": E1, "quality": 0, "appeal": 0, "category": 2, "group": 64, "size_mb": 1,
    "price_usd": 0, "min_os": 4, "release_day": -100,
}  # fmt: skip
PLAIN_USER = {
    "taste_now": np.eye(16)[1], "taste_next": np.eye(16)[2], "drift": 0, "price_sensitivity": 1,
    "novelty_seeking": 0, "age": 0, "country": 0, "free_storage_mb": 1e6, "os_version": 9,
}  # fmt: skip
CALM = {"mood": 0.0, "hype": 0.0, "age_category": 0, "country_category": 0, "daypart_category": 0}


def logit_of(world, app=(), user=(), memory=None, day=0, hour=12.0, metered=False):
    """The logit of user 0 installing app 0, both plain but for what is given."""
    world = replace(
        world,
        apps=overwrite(world.apps, **{**PLAIN_APP, **dict(app)}),
        users=overwrite(world.users, **{**PLAIN_USER, **dict(user)}),
    )
    requests = requests_of([0], day, hour, metered)
    return world.install_logits(requests, np.array([0]), memory or no_memory(world))[0]


def test_a_plain_case_is_the_intercept_alone(small_world):
    assert logit_of(small_world(**CALM)) == pytest.approx(-5.95)


EFFECTS = {
    "the app is to the user's taste": ({"user": {"taste_now": E1}}, 3.2),
    "the app is against it": ({"user": {"taste_now": -E1}}, -3.2),
    "the app is good": ({"app": {"quality": 2}}, 0.8),
    "the app appeals": ({"app": {"appeal": 2}}, 1.2),
    "the app costs": ({"app": {"price_usd": 1.99}}, -1.1 * np.log(2.99)),
    "it costs who minds": (
        {"app": {"price_usd": 1.99}, "user": {"price_sensitivity": 2}},
        -2.2 * np.log(2.99),
    ),
    "it just fits": ({"app": {"size_mb": 20}, "user": {"free_storage_mb": 100}}, 0),
    "it hardly fits": ({"app": {"size_mb": 40}, "user": {"free_storage_mb": 100}}, -1.5),
    "it is small, for a metered network": ({"app": {"size_mb": 40}, "metered": True}, 0),
    "it is large for a metered network": ({"app": {"size_mb": 41}, "metered": True}, -0.8),
    "it is large for wifi": ({"app": {"size_mb": 41}}, 0),
    "the device is just new enough": ({"app": {"min_os": 9}}, 0),
    "the device is too old": ({"app": {"min_os": 10}}, -8.0),
    "it is new, to who seeks it": (
        {"app": {"release_day": -29}, "user": {"novelty_seeking": 1}},
        0.7,
    ),
    "it is new, to who shuns it": (
        {"app": {"release_day": -29}, "user": {"novelty_seeking": -1}},
        -0.7,
    ),
    "it is no longer new": (
        {"app": {"release_day": -30}, "user": {"novelty_seeking": 1}},
        0,
    ),
}


@pytest.mark.parametrize(("case", "change"), EFFECTS.values(), ids=EFFECTS)
def test_the_logit_moves_by_what_is_planted(small_world, case, change):
    world = small_world(**CALM)
    assert logit_of(world, **case) - logit_of(world) == pytest.approx(change, abs=1e-5)


def test_taste_counts_as_of_the_day(small_world):
    world = small_world(**CALM)
    turning = {"taste_now": E1, "taste_next": np.eye(16)[3], "drift": 0.1}
    moved = logit_of(world, user=turning, day=5) - logit_of(world, user=turning)
    assert moved == pytest.approx(3.2 * (np.cos(0.5) - 1), abs=1e-5)


@pytest.mark.parametrize(
    ("table", "row", "case"),
    [
        ("by_age", 3, {"user": {"age": 3}}),
        ("by_country", 7, {"user": {"country": 7}}),
        ("by_daypart", 0, {"hour": 5.9}),
        ("by_daypart", 1, {"hour": 6.0}),
        ("by_daypart", 3, {"hour": 23.9}),
    ],
)
def test_who_and_when_add_their_liking_of_the_category(small_world, table, row, case):
    world = small_world(**CALM)
    likings = np.zeros_like(getattr(world, table))
    likings[row, 2] = 0.9
    changed = replace(world, **{table: likings})
    assert logit_of(changed, **case) - logit_of(world, **case) == pytest.approx(0.9, abs=1e-5)
    likings[row, 2], likings[row, 3] = 0, 0.9
    assert logit_of(changed, **case) == logit_of(world, **case), "another category's does not"


def test_a_campaign_raises_the_logit_on_its_day_alone(small_world):
    world = small_world(**{**CALM, "hype": 0.6})
    days = np.arange(2_000)
    hyped = np.flatnonzero(world.hyped(np.int64(0), days))
    assert 1 <= len(hyped) <= 30, "about one day in two hundred"
    day = int(hyped[0])
    assert logit_of(world, day=day) == pytest.approx(-5.95 + 0.6)
    assert logit_of(world, day=day + 1) == pytest.approx(-5.95)


def test_a_mood_is_one_users_one_day(small_world):
    world = small_world(**{**CALM, "mood": 0.4})
    same_day = [logit_of(world, day=1, hour=hour) for hour in (1.0, 12.0, 23.0)]
    assert len(set(same_day)) == 1
    moods = np.array([logit_of(world, day=day) for day in range(100)]) + 5.95
    assert abs(moods.mean()) < 4 * 0.4 / 10
    assert moods.std() == pytest.approx(0.4, rel=0.3)


def remembering(world, groups=(), category=2, days_shown=0):
    """What user 0 owns, given by their groups (one category), and has seen of app 0."""
    memory = Memory.empty(
        len(world.users.activity),
        len(marginals.categories()),
        np.array([64, *groups], dtype=np.int32),
        np.full(len(groups) + 1, category, dtype=np.int16),
    )
    owned = np.arange(1, len(groups) + 1)
    memory.install(np.zeros_like(owned), owned)
    for _ in range(days_shown):
        memory.show(np.array([0]), np.array([0]))
    return memory


PASTS = {
    "nothing that matters": ({"groups": [65, 66]}, 0),
    "an app that goes with it": ({"groups": [69]}, 1.1),
    "two that go with it": ({"groups": [69, 69]}, 1.1),
    "an app that does the same job": ({"groups": [64]}, -1.3),
    "both": ({"groups": [64, 69]}, 1.1 - 1.3),
    "five of the category": ({"groups": [1] * 5}, 0),
    "eight of the category": ({"groups": [1] * 8}, -0.18),
    "eight of another": ({"groups": [1] * 8, "category": 3}, 0),
    "seen on one day": ({"days_shown": 1}, -0.35),
    "seen on four days": ({"days_shown": 4}, -1.4),
}


@pytest.mark.parametrize(("what_was", "change"), PASTS.values(), ids=PASTS)
def test_the_past_moves_the_logit_by_what_is_planted(small_world, what_was, change):
    world = small_world(**CALM)
    moved = logit_of(world, memory=remembering(world, **what_was)) - logit_of(world)
    assert moved == pytest.approx(change, abs=1e-5)


def test_every_group_has_a_complement_of_its_own_in_its_category(small_world):
    """Seen through the logits: which owned group pulls each app."""
    world = small_world(**CALM)
    pulls = {}
    for group in range(64, 96):
        for owned in range(64, 96):
            memory = remembering(world, [owned])
            if logit_of(world, app={"group": group}, memory=memory) > -5.95:
                pulls.setdefault(group, []).append(owned)
    assert [len(owned) for owned in pulls.values()] == [1] * 32
    assert len({owned[0] for owned in pulls.values()}) == 32
    assert all(owned[0] != group for group, owned in pulls.items())


# --- The best that can be shown ----------------------------------------------------------------


@pytest.fixture(scope="module")
def visited(small_world):
    """A world, what its users own and have seen, and 300 requests."""
    world = small_world()
    memory = no_memory(world)
    rng = np.random.default_rng(5)
    memory.install(np.repeat(np.arange(N_USERS), 8), rng.integers(N_APPS, size=N_USERS * 8))
    memory.show(np.repeat(np.arange(N_USERS), 20), rng.integers(N_APPS, size=N_USERS * 20))
    return world, memory, requests_of(np.arange(300), day=2, hour=19.0)


def test_the_oracle_shows_the_best_apps_in_order(visited):
    world, memory, requests = visited
    slates = world.oracle_slates(requests, 10, memory, N_APPS)
    every = np.tile(np.arange(N_APPS), len(requests))
    part = requests.take(np.repeat(np.arange(len(requests)), N_APPS))
    logits = world.install_logits(part, every, memory).reshape(-1, N_APPS)
    best = -np.sort(-logits, axis=1)[:, :10]
    assert_array_equal(np.take_along_axis(logits, slates, axis=1), best)
    assert all(len(set(slate)) == 10 for slate in slates.tolist())


@pytest.mark.parametrize("n_apps", [1_000, 25_600, 25_601])  # all; whole stretches; one more
def test_the_shortlist_holds_the_highest_scores(n_apps):
    scores = np.random.default_rng(3).permutation(4 * n_apps).reshape(4, n_apps).astype(np.float32)
    scores[0, -1] = 1e9
    expected = np.sort(np.argsort(-scores, axis=1)[:, :20], axis=1)
    assert_array_equal(np.sort(world_module._highest(scores, 20), axis=1), expected)


def test_the_oracle_beats_the_popular_list_and_that_a_random_one(visited):
    world, memory, requests = visited
    popular = np.argsort(-world.apps.popularity)[:10]
    lists = {
        "random": random_slates(len(requests)),
        "popular": np.tile(popular, (len(requests), 1)),
        "oracle": world.oracle_slates(requests, 10, memory, N_APPS),
    }
    found = {k: world.install_probability(requests, s, memory).sum() for k, s in lists.items()}
    assert found["oracle"] > 2 * found["popular"] > 4 * found["random"]
    answered = {k: world.answer(requests, s, memory).sum() for k, s in lists.items()}
    assert answered["oracle"] > answered["popular"] > answered["random"]


def test_the_oracle_knows_no_app_that_is_not_live(visited):
    world, memory, requests = visited
    assert world.oracle_slates(requests, 10, memory, 450).max() < 450


# --- Making and keeping it ---------------------------------------------------------------------


def assert_same_arrays(one, other):
    for f in fields(one):
        assert_array_equal(getattr(one, f.name), getattr(other, f.name), err_msg=f.name)


def test_a_world_is_the_same_whatever_the_chunks(monkeypatch):
    config = WorldConfig(initial_apps=500, initial_users=100, new_apps_per_day=3)
    world, apps, users = build_world(config, 2)
    rows = []
    monkeypatch.setattr(world_module, "CHUNK", 170)
    again, apps_again, users_again = build_world(config, 2, rows.append)
    assert_same_arrays(world.apps, again.apps)
    assert_same_arrays(world.users, again.users)
    assert apps.to_pydict() == apps_again.to_pydict()
    assert users.equals(users_again)
    assert sum(rows) == len(apps) + len(users) == 506 + 2_100
    assert apps["app_id"].to_pylist() == list(range(506))


def test_a_saved_truth_comes_back_with_equal_logits(visited, tmp_path):
    world, memory, requests = visited
    save_truth(world, tmp_path)
    loaded = load_truth(world.config, tmp_path)
    assert isinstance(loaded, World)
    assert_same_arrays(world.apps, loaded.apps)
    app = np.arange(len(requests))
    assert_array_equal(
        loaded.install_logits(requests, app, memory), world.install_logits(requests, app, memory)
    )
    assert_array_equal(
        loaded.oracle_slates(requests, 5, memory, N_APPS),
        world.oracle_slates(requests, 5, memory, N_APPS),
    )
