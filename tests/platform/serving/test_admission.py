"""How many may wait: by hand from Little's law, and as an invariant."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.errors import InvalidArgument, ResourceExhausted
from mlplatform.serving.admission import Admission, TooMany


def settled(seconds: float, items: int = 8) -> Admission:
    """After many batches that cost the same."""
    admission = Admission(target_s=0.03, burst_s=0.03, floor=2, cap=1000)
    for _ in range(50):
        admission.observe(items, seconds, items)
    return admission


def test_as_many_may_wait_as_are_served_within_the_target() -> None:
    # L = W / s: 8 items in 1 ms are 0.125 ms each, and 30 ms hold 240 of them.
    assert settled(0.001).limit in (239, 240)
    assert settled(0.016).limit in (14, 15)  # 2 ms each


def test_until_a_full_batch_was_measured_as_many_as_the_cap_may_wait() -> None:
    admission = Admission(floor=16, cap=100)
    admission.observe(1, 10.0, 1, full=False)  # alone, and in a process that is cold
    admission.admit(99)
    with pytest.raises(TooMany):
        admission.admit(100)
    admission.observe(16, 10.0, 16)
    admission.admit(15)
    with pytest.raises(TooMany):
        admission.admit(16)


def test_who_is_refused_is_told_when_to_come_again() -> None:
    admission = Admission(target_s=0.5, burst_s=1, floor=1, cap=1)
    with pytest.raises(TooMany, match="1 requests wait already") as caught:
        admission.admit(1)
    assert caught.value.retry_after_s == 0.5
    assert isinstance(caught.value, ResourceExhausted)


@pytest.mark.parametrize(("seconds", "limit"), [(100.0, 4), (1e-12, 64), (0.0, 64)])
def test_the_limit_stays_between_floor_and_cap(seconds: float, limit: int) -> None:
    admission = Admission(floor=4, cap=64)
    for _ in range(50):
        admission.observe(8, seconds, 8)
    assert admission.limit == limit


def test_one_stall_counts_as_four_times_the_usual_however_long_it_was() -> None:
    # With a weight of 0.2: 0.8 + 0.2 * 4 = 1.6 times the average, so 240 / 1.6 = 150.
    short, long = settled(0.001), settled(0.001)
    short.observe(8, 0.004, 8)
    long.observe(8, 10.0, 8)
    assert short.limit == long.limit and short.limit in (149, 150)


def test_a_lasting_change_is_followed_within_ten_batches() -> None:
    slower, faster = settled(0.001), settled(0.008)
    for _ in range(10):
        slower.observe(8, 0.002, 8)
        faster.observe(8, 0.001, 8)
    assert slower.limit == pytest.approx(120, rel=0.15)  # of 240
    assert faster.limit == pytest.approx(30 * 8 / (1 + 7 * 0.8**10), rel=0.02)


def test_small_batches_only_ever_raise_the_limit() -> None:
    admission = settled(0.001)  # 0.125 ms each
    admission.observe(1, 0.002, 1, full=False)  # dear, as one alone is
    assert admission.limit in (239, 240)
    admission.observe(2, 0.0002, 2, full=False)  # 0.1 ms each: no full batch's items cost more
    assert admission.limit in (299, 300)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 64), st.floats(0, 10), st.booleans()), min_size=1))
def test_the_limit_is_what_costs_between_the_smallest_and_the_largest_seen_allow(
    batches: list[tuple[int, float, bool]],
) -> None:
    admission = Admission(target_s=0.03, burst_s=0.03, floor=2, cap=500)
    for items, seconds, full in batches:
        admission.observe(items, seconds, items, full)
    first = next((i for i, (_, _, full) in enumerate(batches) if full), None)
    if first is None:
        assert admission.limit == 500
        return
    costs = [max(seconds / items, 1e-9) for items, seconds, _ in batches[first:]]
    least, most = (min(500.0, max(2.0, 0.03 / cost)) for cost in (max(costs), min(costs)))
    assert least - 1 <= admission.limit <= most + 1


def waiting(queued: int, batches: int, admission: Admission | None = None) -> Admission:
    """After so many batches of 10 ms, each of 10 of so many that waited: 1 ms an item."""
    if admission is None:
        admission = Admission(target_s=0.02, burst_s=0.1, patience_s=0.25, floor=10)
        admission.observe(10, 0.01, 10)  # what they cost is known from here on
        admission.idle(10.0)
    for _ in range(batches):
        admission.observe(10, 0.01, queued)
    return admission


def test_a_queue_may_be_long_for_a_moment_and_not_for_long() -> None:
    assert waiting(90, 1).limit == 100  # 100 ms of 1 ms each
    assert waiting(90, 24).limit == 100  # for 240 ms, though it is never shorter
    assert waiting(90, 26).limit == 20  # 20 ms
    assert waiting(19, 1000).limit == 100  # never as long as would be too long


def test_whoever_has_waited_for_three_times_a_short_wait_is_late_in_a_queue_that_stands() -> None:
    assert waiting(90, 24).longest_s == math.inf
    assert waiting(90, 26).longest_s == pytest.approx(0.06)


def test_a_queue_that_is_full_stands_sooner() -> None:
    # A full one's 10 ms count as 160: over 250 with the second batch.
    assert waiting(100, 1).limit == 100
    assert waiting(100, 2).limit == 20


def test_a_queue_that_is_short_for_a_moment_may_be_long_for_a_moment() -> None:
    standing = waiting(20, 1000)
    assert standing.limit == 20
    assert waiting(19, 2, standing).limit == 20  # 20 ms of the 25 that are remembered over 250
    assert waiting(19, 1, standing).limit == 100
    assert waiting(90, 2, standing).limit == 20  # it stands again, 20 ms later
    standing.idle(0.03)
    assert standing.limit == 100
    standing.idle(10.0)  # and by now it is forgotten
    assert waiting(90, 24, standing).limit == 100
    assert waiting(90, 2, standing).limit == 20


@pytest.mark.parametrize(
    "wrong",
    [{"target_s": 0.0}, {"target_s": 0.2, "burst_s": 0.1}, {"floor": 0}, {"floor": 9, "cap": 8}],
)
def test_settings_that_let_nobody_in_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(
        InvalidArgument, match="expected 0 < target_s <= burst_s and 1 <= floor <= cap"
    ):
        Admission(**wrong)
