"""Admission: how many may wait, so that whoever is let in is served in time.

Enters: what served items cost, as it is measured, and how many waited.  Leaves: yes, or an error
that says when to come again.  A queue of L items that each take s seconds is a wait of L * s
(Little's law: J. D. C. Little, A Proof for the Queuing Formula L = lambda W, 1961), so L is held at
a wait / s.  What is over it is refused at once, while refusing is cheap: to compute an answer that
comes too late would take the time of one that does not (Adaptive concurrency: Netflix, Performance
Under Load, 2018).

A queue that is long for a moment has met a burst, or the machine stood still, and is soon worked
off; one that stays long has met more than can be served, and then its length helps nobody
(K. Nichols and V. Jacobson, Controlling Queue Delay, 2012).  So a long wait is allowed until the
queue has stood for `patience_s`, or was full for a fraction of it, and from then on a short one;
whoever has waited for `_LONGEST` times that by then is refused after all, for they would be late.
When nothing more waits for a moment the long one is allowed again; but until the queue has been
short for `patience_s` in all, standing for another moment ends it: clients, too, stand still.
"""

import math

from mlplatform.errors import InvalidArgument, ResourceExhausted

_WEIGHT = 0.2  # of a new batch in the moving average: what is ten batches old has a tenth of it
_LONGEST = 3.0  # times `target_s`: what a short queue may come to when batches are slow
_STANDS = 1.1  # times `patience_s` is the most that is remembered of how long a queue stood
_FULL = 16.0  # a queue that is full counts as one that stands for so many times as long
_SURPRISE = 4.0  # a batch counts as this many times the average at most


class TooMany(ResourceExhausted):
    """More than can be served; `retry_after_s` is when to come again, in seconds."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Admission:
    """A limit on a queue, in items, that follows what an item costs.

    limit: how many may wait now.
    longest_s: whoever has waited for longer is to be refused instead of served.

    One stall of the machine is a matter of one batch: it moves the average as if it had been
    `_SURPRISE` times as long as usual.  A lasting change is followed within ten batches.
    """

    def __init__(
        self,
        target_s: float = 0.01,
        burst_s: float = 0.1,
        patience_s: float = 0.25,
        floor: int = 16,
        cap: int = 1024,
    ) -> None:
        """
        Args:
            target_s: the longest acceptable wait in a queue that stands, seconds.
            burst_s: the longest acceptable wait in one that does not.
            patience_s: how long a queue may wait longer than `target_s` until it stands.
            floor: let so many wait whatever they cost, or there is nothing to measure.
            cap: let no more than this wait, however cheap they are.

        Raises:
            InvalidArgument: not 0 < target_s <= burst_s, or not 1 <= floor <= cap.
        """
        if not (0 < target_s <= burst_s and 1 <= floor <= cap):
            raise InvalidArgument(
                "admission: expected 0 < target_s <= burst_s and 1 <= floor <= cap, "
                f"got target_s {target_s}, burst_s {burst_s}, floor {floor}, cap {cap}"
            )
        # Until a full batch tells what items cost there is no crowd, and nobody is refused.
        self.limit = self._short = self._long = cap
        self.longest_s = math.inf
        self._target_s = target_s
        self._burst_s = burst_s
        self._patience_s = patience_s
        self._floor = floor
        self._cap = cap
        self._item_s: float | None = None
        self._stood_s = 0.0  # for how long the queue has been longer, less for how long it was not

    def admit(self, waiting: int) -> None:
        """Let one more in behind `waiting` others.

        Raises:
            TooMany: their wait would be longer than the target.
        """
        if waiting >= self.limit:
            raise self.refusal(waiting)

    def refusal(self, waiting: int) -> TooMany:
        """The error of one for whom there is no room behind, or among, `waiting` others."""
        return TooMany(
            f"the server is overloaded: {waiting} requests wait already; try again later",
            self._target_s,
        )

    def observe(self, items: int, seconds: float, queued: int, full: bool = True) -> None:
        """`items`, at least 1, left the queue in `seconds` in which it was never empty.

        Args:
            queued: how many there were, themselves included, when they left it.
            full: whether the batch was as large as one may be.  A smaller one's items cost more
                each than a crowd's would, so they are an upper bound and no measure.
        """
        if queued < self._short:
            stood_s = self._stood_s - seconds
        else:
            stood_s = self._stood_s + seconds * (_FULL if queued >= self.limit else 1.0)
        self._stood_s = min(max(stood_s, 0.0), _STANDS * self._patience_s)
        item_s = seconds / items
        average = self._item_s
        if full and average is not None:
            item_s = average + _WEIGHT * (min(item_s, _SURPRISE * average) - average)
        elif average is not None:
            item_s = min(average, item_s)
        elif not full:
            return
        self._item_s = item_s = max(item_s, 1e-9)
        self._short = self._limit_of(self._target_s / item_s)
        self._long = self._limit_of(self._burst_s / item_s)
        self._choose()

    def idle(self, seconds: float) -> None:
        """For so long nothing waited."""
        self._stood_s = max(self._stood_s - seconds, 0.0)
        self._choose()

    def _choose(self) -> None:
        stands = self._stood_s > self._patience_s
        self.limit = self._short if stands else self._long
        self.longest_s = _LONGEST * self._target_s if stands else math.inf

    def _limit_of(self, items: float) -> int:
        return max(self._floor, min(self._cap, int(items)))
