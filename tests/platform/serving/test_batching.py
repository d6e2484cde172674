"""The queue in front of a computation, in a loop and a time of the test's own."""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.errors import DeadlineExceeded, NotFound, PlatformError, Unavailable
from mlplatform.serving.admission import Admission, TooMany
from mlplatform.serving.batching import Batcher, Ran

COST_S = 0.25  # of a batch, whatever is in it: in steps that a float adds up exactly
LATER = 1000.0


@dataclass
class Bench:
    """A batcher whose `run` doubles numbers, takes COST_S, and fails as it is told."""

    most_at_once: int = 4
    limit: int = 16
    floor: int = 16
    now: float = 0.0
    ready: deque[Callable[[], None]] = field(default_factory=deque)
    batches_at: list[tuple[list[int], float]] = field(default_factory=list)
    ran: list[Ran] = field(default_factory=list)
    answers: dict[int, Any] = field(default_factory=dict)
    meanwhile: Callable[[], None] = lambda: None
    failure: Exception | None = None
    target_s: float = LATER  # no wait is too long

    def __post_init__(self) -> None:
        admission = Admission(self.target_s, LATER, 0.5, min(self.floor, self.limit), self.limit)
        self.batcher: Batcher[int, int] = Batcher(
            self.run, self.most_at_once, admission, self.ready.append, self.ran.append,
            lambda: self.now,
        )  # fmt: skip

    def run(self, items: Sequence[int]) -> Sequence[int | PlatformError]:
        self.batches_at.append((list(items), self.now))
        self.meanwhile()
        self.now += COST_S
        if self.failure:
            raise self.failure
        return [2 * item for item in items]

    @property
    def batches(self) -> list[list[int]]:
        return [batch for batch, _ in self.batches_at]

    def submit(self, *items: int, deadline: float = LATER) -> None:
        for item in items:
            self.batcher.submit(item, deadline, lambda answer, item=item: self.tell(item, answer))

    def tell(self, item: int, answer: Any) -> None:
        assert item not in self.answers, "told twice"
        self.answers[item] = answer

    def turn(self) -> None:
        """One turn of the loop: what was ready when it began."""
        for _ in range(len(self.ready)):
            self.ready.popleft()()

    def work(self) -> None:
        while self.ready:
            self.turn()


def test_a_first_item_waits_for_nobody_and_is_never_answered_inside_submit() -> None:
    bench = Bench()
    bench.submit(1)
    assert not bench.answers
    bench.turn()
    assert bench.answers == {1: 2} and bench.batches == [[1]] and not bench.ready
    assert bench.ran == [Ran([0.0], COST_S, 0)]


def test_what_comes_while_a_batch_runs_is_the_next_batch() -> None:
    bench = Bench()
    arrivals = deque([(2, 3, 4), (5,), ()])

    def arrive() -> None:
        bench.submit(*arrivals.popleft())

    bench.meanwhile = arrive
    bench.submit(1)
    bench.turn()
    # The loop gets to its sockets between two batches: the next one is not run at once.
    assert bench.batches == [[1]] and bench.batcher.waiting == 3 and len(bench.ready) == 1
    bench.work()
    assert bench.batches == [[1], [2, 3, 4], [5]]
    assert [ran.waits for ran in bench.ran] == [[0.0], [COST_S] * 3, [COST_S]]


def test_a_queue_longer_than_a_batch_is_served_in_the_order_of_its_arrival() -> None:
    bench = Bench(most_at_once=4)
    bench.submit(*range(10))
    bench.work()
    assert bench.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert bench.answers == {n: 2 * n for n in range(10)}


def test_who_is_too_late_is_told_and_not_computed_and_takes_nobodys_place() -> None:
    bench = Bench(most_at_once=2)
    bench.submit(0)
    bench.meanwhile = lambda: setattr(bench, "now", bench.now + 1)  # a stall
    bench.turn()
    bench.meanwhile = lambda: None
    now = bench.now
    bench.submit(1, deadline=now)
    bench.submit(2)
    bench.submit(3, deadline=now - 0.5)
    bench.submit(4, deadline=now + COST_S)
    bench.work()
    assert bench.batches == [[0], [2, 4]]
    assert {n for n, told in bench.answers.items() if isinstance(told, DeadlineExceeded)} == {1, 3}
    assert sum(ran.expired for ran in bench.ran) == 2


def test_a_queue_of_the_late_alone_computes_nothing() -> None:
    bench = Bench()
    bench.submit(1, 2, deadline=0.0)
    bench.work()
    assert bench.batches == [] and bench.ran == [Ran([], 0.0, 2)]
    bench.submit(3)
    bench.work()
    assert bench.answers[3] == 6


@pytest.mark.parametrize(
    ("failure", "kind", "text"),
    [
        (NotFound("no model"), NotFound, "no model"),
        (ZeroDivisionError("secret"), PlatformError, "the server's log says why"),
    ],
)
def test_an_error_of_the_computation_reaches_everybody_in_the_batch_and_nobody_else(
    failure: Exception, kind: type[Exception], text: str, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(most_at_once=2, failure=failure)
    bench.submit(1, 2, 3)
    bench.turn()
    bench.failure = None
    bench.work()
    for n in (1, 2):
        assert type(bench.answers[n]) is kind and text in str(bench.answers[n])
        assert "secret" not in str(bench.answers[n])
    assert bench.answers[3] == 6
    logged = [record.levelno for record in caplog.records]
    assert logged == ([] if isinstance(failure, PlatformError) else [logging.ERROR])


def test_an_item_may_have_an_error_of_its_own() -> None:
    bench = Bench()
    error = NotFound("no such user")
    told: list[Any] = []
    batcher: Batcher[int, int] = Batcher(
        lambda items: [error if item == 2 else item for item in items],
        4, Admission(), bench.ready.append,
    )  # fmt: skip
    for n in (1, 2, 3):
        batcher.submit(n, float("inf"), told.append)
    bench.work()
    assert told == [1, error, 3]


def test_answers_that_are_too_few_are_an_error_for_all(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    told: list[Any] = []
    batcher: Batcher[int, int] = Batcher(lambda items: [7], 4, Admission(), bench.ready.append)
    for n in (1, 2):
        batcher.submit(n, float("inf"), told.append)
    bench.work()
    assert [type(one) for one in told] == [PlatformError] * 2 and "a batch of 2" in caplog.text


def test_a_listener_that_fails_keeps_no_answer_from_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = Bench()

    def fail(answer: int | PlatformError) -> None:
        raise ConnectionError("gone")

    bench.submit(1)
    bench.batcher.submit(2, LATER, fail)
    bench.submit(3)
    bench.work()
    assert bench.answers == {1: 2, 3: 6} and "could not be delivered" in caplog.text


def test_an_observer_that_fails_does_not_end_the_queue() -> None:
    bench = Bench(most_at_once=1)

    def fail(ran: Ran) -> None:
        raise RuntimeError("no metrics today")

    told: list[Any] = []
    batcher: Batcher[int, int] = Batcher(list, 1, Admission(), bench.ready.append, fail)
    for n in (1, 2):
        batcher.submit(n, float("inf"), told.append)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="no metrics"):  # the loop's to report
            bench.turn()
    assert told == [1, 2]


def test_more_than_may_wait_are_refused_and_those_who_wait_are_served() -> None:
    bench = Bench(most_at_once=4, limit=6)
    bench.submit(*range(6))
    with pytest.raises(TooMany, match="6 requests wait already"):
        bench.submit(6)
    bench.turn()  # two are left
    bench.submit(7)
    bench.work()
    assert sorted(bench.answers) == [0, 1, 2, 3, 4, 5, 7]


def test_whoever_waits_too_long_in_a_queue_that_stands_is_refused_after_all() -> None:
    bench = Bench(limit=16, floor=4, target_s=0.125)
    bench.submit(*range(16))  # full: that counts for many times as long, and it stands
    bench.turn()
    assert bench.batches == [[0, 1, 2, 3]]
    bench.turn()
    assert bench.batches[1:] == [[4, 5, 6, 7]]  # 0.25 s are within three times 0.125
    bench.turn()
    assert len(bench.batches) == 2  # 0.5 s are not
    refused = [item for item, answer in bench.answers.items() if isinstance(answer, TooMany)]
    assert refused == list(range(8, 16))
    assert [ran.expired for ran in bench.ran] == [0, 0, 0]


def test_while_others_wait_the_time_between_batches_is_part_of_their_cost() -> None:
    costs: list[tuple[int, float, bool]] = []

    class Noted(Admission):
        def observe(self, items: int, seconds: float, queued: int, full: bool = True) -> None:
            costs.append((items, seconds, queued, full))

    bench, told = Bench(), list[Any]()
    batcher: Batcher[int, int] = Batcher(
        bench.run, 2, Noted(), bench.ready.append, clock=lambda: bench.now
    )
    for n in range(3):
        batcher.submit(n, LATER, told.append)
    bench.now += 1.0  # the loop reads its sockets
    bench.turn()
    bench.now += 2.0  # and writes to them
    bench.turn()
    bench.now += 50.0  # nobody waits: that costs nothing
    batcher.submit(3, LATER, told.append)
    bench.turn()
    assert costs == [
        (2, 1.0 + COST_S, 3, True),
        (1, 2.0 + COST_S, 1, False),
        (1, COST_S, 1, False),
    ]


def test_closing_finishes_what_waits_and_refuses_what_comes() -> None:
    bench = Bench(most_at_once=4)
    bench.submit(*range(6))
    bench.batcher.close()
    assert bench.answers == {n: 2 * n for n in range(6)}
    with pytest.raises(Unavailable, match="stopping"):
        bench.submit(6)
    bench.work()  # the turn that was scheduled finds nothing to do
    assert bench.batches == [[0, 1, 2, 3], [4, 5]]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["submit", "turn", "wait"]), st.integers(0, 3))),
    st.integers(1, 5),
)
def test_everybody_who_was_let_in_is_told_once_and_only_the_late_are_not_computed(
    steps: list[tuple[str, int]], most_at_once: int
) -> None:
    bench = Bench(most_at_once=most_at_once, limit=8)
    deadlines: dict[int, float] = {}
    for number, (step, size) in enumerate(steps):
        if step == "turn":
            bench.turn()
        elif step == "wait":
            bench.now += size * COST_S
        elif bench.batcher.waiting < 8:
            deadlines[number] = bench.now + (size + 0.5) * COST_S
            bench.submit(number, deadline=deadlines[number])
        else:
            with pytest.raises(TooMany):
                bench.submit(number)
        # Work conserving: whoever waits has a turn scheduled, and only one.
        assert len(bench.ready) == (bench.batcher.waiting > 0)
    bench.work()
    assert bench.answers.keys() == deadlines.keys()
    computed = [item for batch in bench.batches for item in batch]
    assert computed == sorted(computed)
    assert all(len(batch) <= most_at_once for batch in bench.batches)
    begun = {item: start for batch, start in bench.batches_at for item in batch}
    for number, told in bench.answers.items():
        if number in begun:
            assert told == 2 * number and begun[number] < deadlines[number]
        else:
            assert isinstance(told, DeadlineExceeded) and deadlines[number] <= bench.now
    assert sum(len(ran.waits) for ran in bench.ran) == len(computed)
    assert sum(ran.expired for ran in bench.ran) == len(deadlines) - len(computed)
