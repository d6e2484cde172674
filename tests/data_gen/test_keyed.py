import numpy as np
import pytest
from scipy import stats

from data_gen import keyed

N = 100_000
# The Kolmogorov-Smirnov statistic exceeds this for one fair sample in a thousand.
KS_LIMIT = 1.95 / np.sqrt(N)


def test_a_draw_depends_on_its_keys_not_on_the_order_of_calls():
    users = np.arange(1_000)
    first = keyed.uniform(3, "luck", users, 5)
    keyed.uniform(3, "something else", users)
    shuffled = np.random.default_rng(0).permutation(users)
    np.testing.assert_array_equal(keyed.uniform(3, "luck", shuffled, 5), first[shuffled])


def test_a_draw_depends_on_its_keys_not_on_chunks():
    users = np.arange(1_000)
    parts = [keyed.normal(3, "luck", chunk) for chunk in np.array_split(users, 7)]
    np.testing.assert_array_equal(np.concatenate(parts), keyed.normal(3, "luck", users))


def test_a_draw_depends_on_its_keys_not_on_broadcasting():
    users, apps = np.arange(20)[:, None], np.arange(30)
    grid = keyed.bits(3, "luck", users, apps)
    assert grid.shape == (20, 30)
    flat = keyed.bits(3, "luck", np.repeat(np.arange(20), 30), np.tile(apps, 20))
    np.testing.assert_array_equal(grid.ravel(), flat)
    assert keyed.bits(3, "luck", 4, 17) == grid[4, 17]


def test_a_draw_depends_on_its_keys_not_on_their_integer_type():
    expected = keyed.bits(3, "luck", np.arange(100, dtype=np.int64))
    for dtype in (np.int16, np.int32, np.uint64):
        np.testing.assert_array_equal(
            keyed.bits(3, "luck", np.arange(100, dtype=dtype)), expected, err_msg=str(dtype)
        )


def test_keys_are_ordered():
    assert keyed.bits(3, "luck", 1, 2) != keyed.bits(3, "luck", 2, 1)


def test_no_two_of_many_neighbouring_keys_meet_the_same_bits():
    draws = keyed.bits(3, "luck", np.arange(300)[:, None], np.arange(300))
    assert len(np.unique(draws)) == draws.size


@pytest.mark.parametrize(
    ("other_seed", "other_purpose", "shift"),
    [(4, "luck", 0), (3, "luck2", 0), (3, "look", 0), (3, "luck", 1), (3, "luck", 2**32)],
)
def test_other_seeds_purposes_and_keys_give_uncorrelated_draws(other_seed, other_purpose, shift):
    keys = np.arange(N)
    one = keyed.normal(3, "luck", keys)
    other = keyed.normal(other_seed, other_purpose, keys + shift)
    # Correlation of independent draws has standard deviation 1 / sqrt(N).
    assert abs(np.corrcoef(one, other)[0, 1]) < 4 / np.sqrt(N)
    assert abs(np.corrcoef(one**2, other**2)[0, 1]) < 4 / np.sqrt(N)


@pytest.mark.parametrize("keys", [(np.arange(N),), (5, np.arange(N)), (np.arange(N) << 8, 3)])
def test_uniform_is_uniform(keys):
    assert stats.kstest(keyed.uniform(11, "u", *keys), "uniform").statistic < KS_LIMIT


@pytest.mark.parametrize("keys", [(np.arange(N),), (5, np.arange(N)), (np.arange(N) << 8, 3)])
def test_normal_is_standard_normal(keys):
    assert stats.kstest(keyed.normal(11, "z", *keys), "norm").statistic < KS_LIMIT


def test_every_bit_is_set_half_of_the_time():
    draws = keyed.bits(11, "bits", np.arange(N))
    share = np.array([((draws >> np.uint64(bit)) & np.uint64(1)).mean() for bit in range(64)])
    assert np.abs(share - 0.5).max() < 4.5 * 0.5 / np.sqrt(N)


@pytest.mark.parametrize("extreme", [0, 2**64 - 1])
def test_uniform_lies_in_the_open_interval_for_any_bits(monkeypatch, extreme):
    monkeypatch.setattr(keyed, "bits", lambda *keys: np.array([extreme], dtype=np.uint64))
    u = keyed.uniform(1, "any", 0)
    assert 0 < u < 1
    assert np.isfinite(keyed.normal(1, "any", 0))
