from collections import Counter
from copy import deepcopy
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from data_gen import marginals
from data_gen.config import WorldConfig
from data_gen.memory import Memory, pair_key
from data_gen.sessions import first_memory, logged_slates, play_day, simulate_day, visits
from data_gen.world import Requests, build_world

DAYS = 4


@pytest.fixture(scope="module")
def world(small_world):
    """600 visits and 200 searches or so a day."""
    return small_world()


@pytest.fixture(scope="module")
def history(world):
    """Installs before the first day, then days, each with the installs that truly happened."""
    memory, before = first_memory(world)
    owned = [memory.n_owned.copy()]
    days = []
    for day in days_of(world, memory, DAYS):
        days.append(day)
        owned.append(memory.n_owned.copy())
    true_installs = [int((b - a).sum()) for a, b in pairwise(owned)]
    return memory, before, days, true_installs


def days_of(world, memory, n):
    return (simulate_day(world, memory, day) for day in range(n))


def column(table, name):
    return table[name].to_numpy()


# --- What the first policy shows ---------------------------------------------------------------


@pytest.fixture(scope="module", params=[0, 3])
def many_slates(request, world):
    """60,000 requests on one day: with no new apps yet, and with some."""
    n = 60_000
    ids = np.arange(n) + (np.int64(request.param) << 40)
    requests = Requests(
        ids, np.zeros(n, np.int64), np.full(n, 24.0 * request.param + 1), np.zeros(n, bool)
    )
    live = world.config.apps_by(request.param)
    slates, propensities = logged_slates(world, requests)
    return live, slates, propensities


def test_no_app_is_twice_in_a_slate(many_slates):
    _, slates, _ = many_slates
    shown = np.sort(slates, axis=1)
    assert not ((shown[:, 1:] == shown[:, :-1]) & (shown[:, 1:] >= 0)).any()


def test_every_live_app_and_no_other_is_shown(many_slates):
    live, slates, _ = many_slates
    assert np.unique(slates[slates >= 0]).tolist() == list(range(live))


def one_propensity_an_app(slates, propensities, place):
    """What is logged of every app at a place; asserts that it is always the same."""
    shown = slates[:, place] >= 0
    app, first, which = np.unique(slates[shown, place], return_index=True, return_inverse=True)
    logged = propensities[shown, place]
    np.testing.assert_array_equal(logged, logged[first][which])
    return app, logged[first]


def test_propensities_of_all_apps_sum_to_one_at_the_top(many_slates):
    live, slates, propensities = many_slates
    app, p = one_propensity_an_app(slates, propensities, 0)
    # The rarest apps may never have come up in the first place: add what the second says.
    later, q = one_propensity_an_app(slates, propensities, 1)
    known = dict(zip(later.tolist(), q.tolist(), strict=True)) | dict(
        zip(app.tolist(), p.tolist(), strict=True)
    )
    assert len(known) == live
    assert sum(known.values()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("place", [0, 1, 5, 9])
def test_logged_propensities_are_how_often_apps_are_shown(many_slates, place):
    live, slates, propensities = many_slates
    app, top = one_propensity_an_app(slates, propensities, 0)
    p = np.full(live, np.nan)
    p[app] = top
    app, logged = one_propensity_an_app(slates, propensities, place)
    # An app that came before leaves the place empty.
    np.testing.assert_allclose(logged, (p * (1 - p) ** place)[app])
    expected = np.nan_to_num(p * (1 - p) ** place) * len(slates)
    observed = np.bincount(slates[slates[:, place] >= 0, place], minlength=live)
    common = expected >= 10
    expected = np.append(expected[common], len(slates) - expected[common].sum())
    observed = np.append(observed[common], len(slates) - observed[common].sum())
    if expected[-1] < 10:
        expected, observed = (
            expected[:-1] * observed[:-1].sum() / expected[:-1].sum(),
            observed[:-1],
        )
    assert stats.chisquare(observed, expected).pvalue > 1e-3


def test_what_is_logged_weighs_what_is_seen_without_bias(many_slates):
    """Inverse propensity: each app's weighted count estimates the number of requests."""
    live, slates, propensities = many_slates
    shown = slates >= 0
    weighted = np.bincount(slates[shown], 1 / propensities[shown], minlength=live)
    assert weighted.mean() / slates.size == pytest.approx(1, abs=0.01)


def test_popular_apps_are_shown_more_and_new_ones_explored(world, many_slates):
    live, slates, _ = many_slates
    count = np.bincount(slates[slates >= 0], minlength=live)
    ranked = np.argsort(-world.apps.popularity[:500])
    assert count[ranked[:50]].sum() > 3 * count[ranked[-50:]].sum()
    assert count[ranked[-50:]].min() > 0
    if live > 500:
        new_share = count[500:].sum() / count.sum()
        # 3 % to the new ones, and their part of the 10 % for all alike.
        assert new_share == pytest.approx(0.03 + 0.1 * (live - 500) / live, rel=0.1)


def test_a_campaign_raises_exposure(world):
    n = 20_000
    count = {}
    for day in range(2):
        requests = Requests(
            np.arange(n), np.zeros(n, np.int64), np.full(n, 24.0 * day), np.zeros(n, bool)
        )
        slates, _ = logged_slates(world, requests)
        count[day] = np.bincount(slates[slates >= 0], minlength=505)
    hyped = [world.hyped(np.arange(500), day) for day in range(2)]
    only_today, only_tomorrow = hyped[0] & ~hyped[1], hyped[1] & ~hyped[0]
    assert only_today.any()
    assert (count[0][:500][only_today] > 1.5 * count[1][:500][only_today]).all()
    assert (count[1][:500][only_tomorrow] > 1.5 * count[0][:500][only_tomorrow]).all()


# --- A day's events ----------------------------------------------------------------------------


def test_requests_come_in_order_of_time_within_their_day_each_with_its_own_id(history):
    days = history[2]
    for number, day in enumerate(days):
        hour = column(day.requests, "hour")
        assert (np.diff(hour) >= 0).all()
        assert 24 * number <= hour.min()
        assert hour.max() < 24 * (number + 1)
    ids = np.concatenate([column(day.requests, "request_id") for day in days])
    assert len(np.unique(ids)) == len(ids)


def test_new_users_appear_on_the_day_they_sign_up_and_not_before(world, history):
    for number, day in enumerate(history[2]):
        visitors = column(day.requests, "user_id")
        newest = np.flatnonzero(world.users.signup_day == number)
        assert len(newest) == 10
        assert set(newest) <= set(visitors)
        assert world.users.signup_day[visitors].max() == number
        assert world.users.signup_day[column(day.installs, "user_id")].max() <= number


def test_visits_are_as_many_as_configured():
    config = WorldConfig(initial_apps=500, initial_users=40_000, new_users_per_day=1)
    world, _, _ = build_world(config, 1)
    requests = visits(world, 0)
    # The cut at six a day costs the most active a little.
    assert len(requests) / 40_000 == pytest.approx(0.5, rel=0.03)
    count = np.bincount(requests.user, minlength=40_001)
    assert count.max() <= 6
    active = world.users.activity[:40_000]
    assert count[:40_000][active > 2].mean() > 4 * count[:40_000][active < 0.5].mean()


def test_every_impression_belongs_to_a_request_at_a_place_of_its_own(world, history):
    for day in history[2]:
        shown = column(day.impressions, "request_id")
        assert set(shown) <= set(column(day.requests, "request_id"))
        places, app = column(day.impressions, "position"), column(day.impressions, "app_id")
        assert places.min() == 1
        assert places.max() == world.config.slate_size
        assert max(Counter(zip(shown, places, strict=True)).values()) == 1
        assert max(Counter(zip(shown, app, strict=True)).values()) == 1
        p = column(day.impressions, "propensity")
        assert ((p > 0) & (p < 1)).all()


def test_apps_are_shown_only_once_released(world, history):
    for number, day in enumerate(history[2]):
        for table in (day.impressions, day.installs):
            assert world.apps.release_day[column(table, "app_id")].max() < number


def test_an_install_from_a_slate_is_of_an_app_shown_to_that_user_and_follows_it(history):
    for day in history[2]:
        rows = day.requests.to_pylist()
        request = {row["request_id"]: row for row in rows}
        shown = set(
            zip(
                column(day.impressions, "request_id"),
                column(day.impressions, "app_id"),
                strict=True,
            )
        )
        installs = [row for row in day.installs.to_pylist() if row["request_id"] is not None]
        assert 0 < len(installs) < day.installs.num_rows, "some by slates and some by search"
        for row in installs:
            visit = request[row["request_id"]]
            assert row["user_id"] == visit["user_id"]
            assert (row["request_id"], row["app_id"]) in shown
            assert visit["hour"] < row["hour"] < visit["hour"] + 1


def test_installs_arrive_after_they_happen_most_within_hours_some_after_days(history):
    delay = np.concatenate(
        [column(d.installs, "arrival_hour") - column(d.installs, "hour") for d in history[2]]
    )
    assert delay.min() > 0
    assert np.median(delay) < 4
    assert 0.02 < (delay > 24).mean() < 0.10


def test_about_two_percent_of_the_installs_are_never_reported(history):
    _, _, days, true_installs = history
    happened = sum(true_installs)
    lost = happened - sum(day.installs.num_rows for day in days)
    assert abs(lost - 0.02 * happened) < 4 * np.sqrt(0.02 * 0.98 * happened)
    assert lost > 0


def test_nobody_installs_an_app_twice_counting_what_they_owned_at_first(history):
    _, before, days, _ = history
    tables = [before, *(day.installs for day in days)]
    keys = np.concatenate([pair_key(column(t, "user_id"), column(t, "app_id")) for t in tables])
    assert len(np.unique(keys)) == len(keys)


def test_nobody_installs_the_same_app_twice_in_a_day_even_from_two_slates(small_world):
    eager = small_world(intercept=3.0)
    memory, _ = first_memory(eager)
    before = memory.n_owned.sum()
    day = simulate_day(eager, memory, 0)
    keys = pair_key(column(day.installs, "user_id"), column(day.installs, "app_id"))
    assert len(np.unique(keys)) == len(keys) > 1_000
    assert memory.n_owned.sum() - before < 1.05 * len(keys)


def test_memory_moves_on_by_the_day(world):
    memory, _ = first_memory(world)
    day = simulate_day(world, memory, 0)
    user, app = column(day.installs, "user_id"), column(day.installs, "app_id")
    assert memory.owns(user, app).all()
    of_request = dict(
        zip(column(day.requests, "request_id"), column(day.requests, "user_id"), strict=True)
    )
    viewer = np.array([of_request[x] for x in column(day.impressions, "request_id")])
    assert (memory.times_shown(viewer, column(day.impressions, "app_id")) == 1).all()


def test_the_same_day_made_twice_is_the_same(world):
    one, other = (list(days_of(world, first_memory(world)[0], 2)) for _ in range(2))
    for day, again in zip(one, other, strict=True):
        for name in ("requests", "impressions", "installs"):
            assert getattr(day, name).equals(getattr(again, name)), name


def test_another_seed_makes_another_day(world, small_world):
    one, other = (simulate_day(w, first_memory(w)[0], 0) for w in (world, small_world(seed=8)))
    assert not one.requests.equals(other.requests)
    assert not one.impressions.equals(other.impressions)


def test_what_is_shown_on_a_day_depends_on_no_day_before(world):
    n_users, n_categories = len(world.users.activity), len(marginals.categories())
    memory = Memory.empty(n_users, n_categories, world.apps.group, world.apps.category)
    alone = simulate_day(world, memory, 2)
    *_, after = days_of(world, first_memory(world)[0], 3)
    assert alone.requests.equals(after.requests)
    assert alone.impressions.equals(after.impressions)
    assert not alone.installs.equals(after.installs)


# --- What users own before the first day -------------------------------------------------------


def test_at_first_every_user_owns_some_apps_installed_since_sign_up(world):
    memory, table = first_memory(world)
    user, app, hour = (column(table, x) for x in ("user_id", "app_id", "hour"))
    assert np.unique(user).tolist() == list(range(400))
    assert memory.owns(user, app).all()
    assert memory.n_owned.sum() == len(user)
    assert (np.diff(hour) >= 0).all()
    assert (hour < 0).all()
    assert (hour >= 24.0 * world.users.signup_day[user]).all()
    assert table["request_id"].null_count == len(user)


def test_at_first_nobody_owns_an_app_since_before_it_came_out(world):
    _, table = first_memory(world)
    released = 24.0 * world.apps.release_day[column(table, "app_id")]
    assert (column(table, "hour") >= released).all()


def test_at_first_users_own_what_they_like(world):
    _, table = first_memory(world)
    user, app = column(table, "user_id"), column(table, "app_id")
    taste = world.users.taste_on(0, user)
    liked = np.einsum("nd,nd->n", taste, world.apps.topic[app]).mean()
    others = np.random.default_rng(0).permutation(app)
    assert liked > np.einsum("nd,nd->n", taste, world.apps.topic[others]).mean() + 0.2


# --- Plausible ranges (section 4 of the design) ------------------------------------------------


@pytest.fixture(scope="module")
def store():
    """A smaller store of the default seed: 50,000 apps, 3,000 users, their first visits."""
    config = WorldConfig(initial_apps=50_000, initial_users=3_000, new_users_per_day=20)
    world, _, _ = build_world(config, 1)
    memory, _ = first_memory(world)
    return world, memory, visits(world, 0)


@pytest.fixture(scope="module")
def install_rate(store):
    """Expected installs an impression of three lists, over the same 400 requests."""
    world, memory, requests = store
    requests = requests.take(np.random.default_rng(0).choice(len(requests), 400, replace=False))
    popular = np.argsort(-world.apps.popularity[:50_000])[:10]
    lists = {
        "popular": np.tile(popular, (400, 1)),
        "random": np.random.default_rng(0).integers(50_000, size=(400, 10)),
        "oracle": world.oracle_slates(requests, 10, memory, 50_000),
    }
    return {k: world.install_probability(requests, s, memory).mean() for k, s in lists.items()}


def test_a_popularity_list_is_installed_at_two_to_five_percent(install_rate):
    assert 0.02 < install_rate["popular"] < 0.05


def test_a_random_list_is_installed_far_less(install_rate):
    assert install_rate["random"] < install_rate["popular"] / 3


def test_the_oracle_is_worth_two_to_eight_popularity_lists(install_rate):
    assert 2 < install_rate["oracle"] / install_rate["popular"] < 8


def test_the_thousand_most_shown_apps_get_less_than_half_of_the_impressions(store):
    world, _, requests = store
    slates, _ = logged_slates(world, requests)
    count = np.sort(np.bincount(slates[slates >= 0]))[::-1]
    assert count[:1_000].sum() < 0.5 * count.sum()


# --- What any other policy shows ---------------------------------------------------------------


def test_the_morning_is_the_same_whatever_follows(world):
    memory, _ = first_memory(world)
    requests = visits(world, 0)
    slates, propensities = logged_slates(world, requests)
    early = np.flatnonzero(requests.hour < 6)

    def installs_of_the_morning(rows):
        played = play_day(
            world, deepcopy(memory), 0, requests.take(rows), slates[rows], propensities[rows]
        )
        return played.installs.filter(column(played.installs, "hour") < 6)

    found = installs_of_the_morning(early)
    assert len(found) > 0
    assert 0 < found["request_id"].null_count < len(found)  # both searched for and shown
    assert found.equals(installs_of_the_morning(np.arange(len(requests))))


def test_users_install_only_what_they_were_shown_or_searched_for(world):
    memory, _ = first_memory(world)
    requests = visits(world, 0)
    slates = np.tile(np.arange(10), (len(requests), 1))
    slates[:, 3] = -1
    played = play_day(world, memory, 0, requests, slates, np.ones(slates.shape))
    assert set(column(played.impressions, "app_id")) == {0, 1, 2, 4, 5, 6, 7, 8, 9}
    assert set(column(played.impressions, "position")) == {1, 2, 3, 5, 6, 7, 8, 9, 10}
    from_shown = played.installs.filter(played.installs["request_id"].is_valid())
    assert set(column(from_shown, "app_id")) <= {0, 1, 2, 4, 5, 6, 7, 8, 9}
