"""Batching: requests that came together are computed together.

Enters: items one by one, each with a deadline and whom to tell.  Leaves: for each an answer or an
error, once.  The queue never waits for a batch to fill: the first item has the loop run the batch
after it has read every socket that was readable, and while one batch is computed the next one
gathers in the sockets.  So a batch is as large as the load makes it, and alone costs no wait.

A batch is computed in the loop's own thread.  A worker has one core: a second thread would compute
nothing sooner, and the handoff costs more than parsing the request did.

First come, first served.  Last come, first served saves a queue that is longer than its deadlines;
this one is not, for admission bounds its wait, and in a bounded queue that order would only let the
unlucky wait until they are too late.  After a stall those who are too late are told so, uncomputed,
and under overload those whose wait has become too long.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from mlplatform.errors import DeadlineExceeded, PlatformError, Unavailable
from mlplatform.serving.admission import Admission

logger = logging.getLogger(__name__)

Q = TypeVar("Q")
A = TypeVar("A")
_Done = Callable[[A | PlatformError], None]


@dataclass(frozen=True, slots=True)
class Ran:
    """What one turn of the queue did; seconds."""

    waits: Sequence[float]  # of each item of the batch, from submit to the start of the batch
    seconds: float  # that the batch took; 0 for an empty one
    expired: int  # items that were past their deadline


class Batcher(Generic[Q, A]):
    """A queue in front of a function that is cheaper by the batch."""

    def __init__(
        self,
        run: Callable[[Sequence[Q]], Sequence[A | PlatformError]],
        most_at_once: int,
        admission: Admission,
        call_soon: Callable[[Callable[[], None]], Any],
        observe: Callable[[Ran], None] = lambda ran: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            run: answers 1 to `most_at_once` items, in their order.
            call_soon: the loop's; nothing here is safe to call from another thread.
            observe: told of every turn of the queue, after its answers were given.
            clock: seconds, the one deadlines are by; `time.monotonic` and a loop's `time` agree.
        """
        self._run_batch = run
        self._most_at_once = most_at_once
        self._admission = admission
        self._call_soon = call_soon
        self._observe = observe
        self._clock = clock
        self._queue: deque[tuple[Q, float, _Done[A], float]] = deque()
        self._busy_since = 0.0  # since when the queue is not empty, or the end of the last batch
        self._scheduled = False
        self._closed = False

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def full(self) -> bool:
        """Whether `submit` would raise TooMany."""
        return len(self._queue) >= self._admission.limit

    def submit(self, item: Q, deadline: float, done: _Done[A]) -> None:
        """Queue an item; `done` is called later, once, with its answer or its error.

        Raises:
            TooMany: the wait would be too long; `done` is not called.
            Unavailable: the batcher is closed; `done` is not called.
        """
        if self._closed:
            raise Unavailable("the server is stopping; ask again, another one answers")
        queue = self._queue
        now = self._clock()
        if not queue:
            self._admission.idle(now - self._busy_since)
            self._busy_since = now
        self._admission.admit(len(queue))
        queue.append((item, deadline, done, now))
        self._schedule()

    def close(self) -> None:
        """Refuse what comes from now on, and finish what waits before this returns."""
        self._closed = True
        while self._queue:
            self._batch()

    def _schedule(self) -> None:
        if self._queue and not self._scheduled:
            self._scheduled = True
            self._call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        try:
            if self._queue:  # else closed in the meantime
                self._batch()
        finally:
            # The loop looks at its sockets first: who came meanwhile may be in the next batch.
            self._schedule()

    def _batch(self) -> None:
        started, queued = self._clock(), len(self._queue)
        batch, late, crowd = self._take(started)
        answers = self._answers([item for item, _, _, _ in batch]) if batch else []
        ended = self._clock()
        if batch:
            # While others wait, the seconds between two batches are the cost too: reading and
            # writing requests, or another process on the core.
            full = len(batch) == min(self._most_at_once, self._admission.limit)
            self._admission.observe(len(batch), ended - self._busy_since, queued, full)
        self._busy_since = ended
        for (_, _, done, _), answer in zip(batch, answers, strict=True):
            _tell(done, answer)
        for done in late:
            _tell(done, DeadlineExceeded("the answer would come too late; it was not computed"))
        for done in crowd:
            _tell(done, self._admission.refusal(queued))
        self._observe(Ran([started - since for *_, since in batch], ended - started, len(late)))

    def _take(self, now: float) -> tuple[list[Any], list[_Done[A]], list[_Done[A]]]:
        """The next batch; whom to tell that they are too late, and whom that they are too many."""
        queue, longest_s = self._queue, self._admission.longest_s
        batch: list[Any] = []
        late: list[_Done[A]] = []
        crowd: list[_Done[A]] = []
        while queue and len(batch) < self._most_at_once:
            entry = queue.popleft()
            _, deadline, done, since = entry
            if deadline <= now:
                late.append(done)
            elif now - since > longest_s:
                crowd.append(done)
            else:
                batch.append(entry)
        return batch, late, crowd

    def _answers(self, items: list[Q]) -> Sequence[A | PlatformError]:
        try:
            answers = self._run_batch(items)
            if len(answers) != len(items):
                raise ValueError(f"{len(items)} items got {len(answers)} answers")
            return answers
        except PlatformError as error:
            return [error] * len(items)
        except Exception:
            logger.exception("a batch of %d failed", len(items))
            return [PlatformError("the computation failed; the server's log says why")] * len(items)


def _tell(done: _Done[A], answer: A | PlatformError) -> None:
    try:
        done(answer)
    except Exception:  # the others are still to be told
        logger.exception("an answer could not be delivered")
