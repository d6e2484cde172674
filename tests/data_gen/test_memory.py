import numpy as np
import pytest

from data_gen.memory import OWNED_MOST, Memory, pair_key

N_APPS = 200


@pytest.fixture
def memory():
    """Three users, 200 apps: app a is of group a // 2 and of category a % 4."""
    apps = np.arange(N_APPS)
    return Memory.empty(3, 4, (apps // 2).astype(np.int32), (apps % 4).astype(np.int16))


def ints(*values):
    return np.array(values, dtype=np.int64)


def owned_by(memory, user):
    apps = np.arange(N_APPS)
    return set(apps[memory.owns(np.full(N_APPS, user), apps)].tolist())


def test_at_first_nobody_owns_or_has_seen_anything(memory):
    users, apps = np.repeat(np.arange(3), N_APPS), np.tile(np.arange(N_APPS), 3)
    assert not memory.owns(users, apps).any()
    assert not memory.owns_group(users, memory.app_group[apps]).any()
    assert not memory.times_shown(users, apps).any()


def test_a_user_owns_exactly_what_was_installed(memory):
    memory.install(ints(0, 2, 0), ints(10, 11, 12))
    memory.install(ints(2, 0), ints(13, 14))
    assert [owned_by(memory, user) for user in range(3)] == [{10, 12, 14}, set(), {11, 13}]


def test_a_user_owns_the_groups_of_the_owned_apps(memory):
    memory.install(ints(0, 0), ints(10, 21))
    groups = np.arange(N_APPS // 2, dtype=np.int32)
    owned = groups[memory.owns_group(np.zeros(len(groups), dtype=np.int64), groups)]
    assert owned.tolist() == [5, 10]


def test_owned_apps_are_counted_by_category(memory):
    memory.install(ints(0, 0, 1), ints(4, 8, 5))
    assert memory.category_counts.tolist() == [[2, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]


def test_installing_nothing_changes_nothing(memory):
    memory.install(ints(), ints())
    assert memory.n_owned.tolist() == [0, 0, 0]


@pytest.mark.parametrize("batch", [1, 7, OWNED_MOST])
def test_a_full_list_forgets_its_oldest(memory, batch):
    total = OWNED_MOST + 10
    apps = np.arange(total)
    for at in range(0, total, batch):
        part = apps[at : at + batch]
        memory.install(np.ones(len(part), dtype=np.int64), part)
    assert owned_by(memory, 1) == set(range(10, total))
    assert memory.n_owned.tolist() == [0, total, 0]


def test_a_batch_longer_than_the_list_leaves_its_latest(memory):
    memory.install(np.zeros(OWNED_MOST + 5, dtype=np.int64), np.arange(OWNED_MOST + 5))
    assert owned_by(memory, 0) == set(range(5, OWNED_MOST + 5))


def test_times_shown_counts_days_not_impressions(memory):
    memory.show(ints(0, 0, 1), ints(7, 7, 8))
    memory.show(ints(0, 1), ints(7, 9))
    memory.show(ints(), ints())
    asked = ints(0, 0, 1, 1, 1, 2), ints(7, 8, 7, 8, 9, 7)
    assert memory.times_shown(*asked).tolist() == [2, 0, 0, 1, 1, 0]


def test_what_is_saved_comes_back_and_goes_on_alike(memory, tmp_path):
    memory.install(ints(0, 2, 0), ints(10, 11, 12))
    memory.show(ints(0, 1), ints(7, 9))
    memory.save(tmp_path)
    loaded = Memory.load(tmp_path, memory.app_group, memory.app_category)
    for one in (memory, loaded):
        one.install(ints(0), ints(13))
        one.show(ints(1), ints(9))
    for name, expected in vars(memory).items():
        np.testing.assert_array_equal(getattr(loaded, name), expected, err_msg=name)


def test_pairs_have_keys_of_their_own_in_order():
    users, apps = np.divmod(np.arange(10_000), 100)
    users[-1], apps[-1] = 2**31 - 1, 2**31 - 1
    keys = pair_key(users, apps)
    assert (np.diff(keys.astype(object)) > 0).all()


def test_new_users_own_nothing_and_the_others_what_they_owned(memory):
    memory.install(ints(0, 2), ints(10, 11))
    memory.show(ints(1), ints(12))
    grown = memory.grown(5)
    assert [owned_by(grown, user) for user in range(5)] == [{10}, set(), {11}, set(), set()]
    assert grown.times_shown(ints(1, 4), ints(12, 12)).tolist() == [1, 0]
    grown.install(ints(4), ints(13))
    assert owned_by(grown, 4) == {13}
    assert grown.category_counts.shape == (5, 4)
