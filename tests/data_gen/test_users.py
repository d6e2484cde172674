from collections import Counter
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from data_gen.config import WorldConfig
from data_gen.topics import TopicSpace
from data_gen.users import UserTruth, make_users

N = 50_000
CONFIG = WorldConfig(initial_users=N, new_users_per_day=50)
SPACE = TopicSpace.build(CONFIG.seed)


@pytest.fixture(scope="module")
def users():
    return make_users(CONFIG, SPACE, 0, N)


def test_ranges_made_apart_and_joined_equal_one_made_at_once():
    table, truth = make_users(CONFIG, SPACE, N - 500, N + 500)
    cuts = [N - 500, N - 499, N - 3, N + 77, N + 500]
    parts = [make_users(CONFIG, SPACE, *cut) for cut in pairwise(cuts)]
    assert pa.concat_tables([part for part, _ in parts]).equals(table)
    joined = UserTruth.concatenate([part for _, part in parts])
    for name, expected in vars(truth).items():
        np.testing.assert_array_equal(getattr(joined, name), expected, err_msg=name)


@pytest.mark.parametrize("day", [0, 1, 7, 30, 100])
def test_tastes_are_unit_vectors_on_any_day(users, day):
    taste = users[1].taste_on(day, np.arange(N))
    np.testing.assert_allclose(np.linalg.norm(taste, axis=1), 1, atol=1e-5)


def test_tastes_drift_slowly(users):
    every = np.arange(N)

    def likeness(day, later):
        one, two = (users[1].taste_on(at, every) for at in (day, later))
        return np.einsum("nd,nd->n", one, two)

    assert likeness(0, 1).min() > 0.99
    assert likeness(29, 30).min() > 0.99
    means = [likeness(0, day).mean() for day in (1, 7, 30)]
    assert means[0] > means[1] > means[2]
    assert 0.5 < means[2] < 0.95


def test_tastes_of_some_users_are_the_same_whoever_else_is_asked(users):
    some = np.array([5, 400, 5, 49_999])
    np.testing.assert_array_equal(
        users[1].taste_on(9, some), users[1].taste_on(9, np.arange(N))[some]
    )


def test_tastes_point_to_the_users_interests(users):
    tags = SPACE.tags[users[1].interests]
    taste = users[1].taste_on(0, np.arange(N))
    likeness = np.einsum("nd,ntd->nt", taste, tags).mean(axis=0)
    assert (np.diff(likeness) < 0).all(), "the strongest interest first"
    assert likeness[0] > 0.6
    other = np.einsum("nd,ntd->nt", taste, np.roll(tags, 1, axis=0)).mean()
    assert other < 0.2


# What a store of this kind may look like, stated once more by hand.
SHARES = {
    "country": {
        "IN": 0.22, "US": 0.15, "BR": 0.12, "ID": 0.10, "RU": 0.08, "MX": 0.07,
        "DE": 0.05, "TR": 0.05, "JP": 0.05, "FR": 0.04, "GB": 0.04, "NG": 0.03,
    },
    "device_tier": {"low": 0.40, "mid": 0.42, "high": 0.18},
    "age_band": {
        None: 0.20, "13-17": 0.080, "18-24": 0.192, "25-34": 0.224,
        "35-44": 0.144, "45-54": 0.096, "55+": 0.064,
    },
    "language": {
        "hi": 0.22, "en": 0.22, "pt": 0.12, "id": 0.10, "ru": 0.08, "es": 0.07,
        "de": 0.05, "tr": 0.05, "ja": 0.05, "fr": 0.04,
    },
}  # fmt: skip


@pytest.mark.parametrize("column", SHARES)
def test_users_are_of_the_stated(column, users):
    found = Counter(users[0][column].to_pylist())
    assert found.keys() == SHARES[column].keys()
    for value, share in SHARES[column].items():
        limit = 4 * np.sqrt(share * (1 - share) / N)
        assert abs(found[value] / N - share) < limit, value


def test_a_hidden_age_is_as_likely_at_any_age(users):
    hidden = np.array(users[0]["age_band"].is_null())
    for age in range(6):
        of = users[1].age == age
        assert abs(hidden[of].mean() - 0.2) < 4 * np.sqrt(0.16 / of.sum())


def test_activity_has_mean_one_and_a_heavy_tail(users):
    activity = users[1].activity.astype(np.float64)
    assert abs(activity.mean() - 1) < 4 * activity.std() / np.sqrt(N)
    assert np.sort(activity)[-N // 100 :].sum() > 0.05 * activity.sum()
    assert activity.min() > 0


def test_better_devices_have_more_memory_more_room_and_a_newer_system(users):
    tiers = np.array(users[0]["device_tier"])
    for column in ("ram_gb", "free_storage_mb", "os_version"):
        values = np.array(users[0][column])
        low, mid, high = (values[tiers == tier].mean() for tier in ("low", "mid", "high"))
        assert low < mid < high, column


def test_users_sign_up_before_the_first_day_or_day_by_day_after_it():
    earlier, later = (
        make_users(CONFIG, SPACE, first, first + 150)[0]["signup_day"].to_pylist()
        for first in (N - 150, N)
    )
    assert max(earlier) < 0
    assert later == [0] * 50 + [1] * 50 + [2] * 50


def test_what_no_model_sees_is_not_in_the_table(users):
    assert set(users[0].column_names) == {
        "user_id", "country", "language", "device_tier", "ram_gb",
        "free_storage_mb", "os_version", "age_band", "signup_day",
    }  # fmt: skip
