"""The calls: what can be asked, whichever door it comes through.

Enters: what `contract.py` describes, and whom to tell.  Leaves: answers as plain dicts, and errors,
given in the loop's thread.
"""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from mlplatform.errors import PlatformError
from mlplatform.serving.admission import Admission
from mlplatform.serving.batching import Batcher, Ran
from recsys.online.answering import CHECKED_ONE_IN, Answering, Asked
from recsys.online.contract import Event, Query

# Requests.  All of a batch waits for its last, and 32 at once save but a sixth of the work.
MOST_AT_ONCE = 16
DEADLINE_S = 0.25

Answer = dict[str, Any]
Done = Callable[[Answer | PlatformError], None]


class Calls:
    """The calls of one process, made in any thread and used in the loop's.

    answering: what computes; versions and counts are there.
    """

    def __init__(
        self,
        answering: Answering,
        record: Callable[[Sequence[Event]], None],
        observe: Callable[[Ran], None] = lambda ran: None,
        admission: Admission | None = None,
    ) -> None:
        """
        Args:
            record: keeps events; returns when they are kept.
            observe: told of every batch.
        """
        self.answering = answering
        self._record = record
        self._batcher: Batcher[Asked, Answer] = Batcher(
            answering.run,
            MOST_AT_ONCE,
            admission or Admission(floor=MOST_AT_ONCE // 2),
            lambda turn: asyncio.get_running_loop().call_soon(turn),
            observe,
        )

    @property
    def full(self) -> bool:
        """Whether `recommend` would raise ResourceExhausted."""
        return self._batcher.full

    def recommend(self, query: Query, done: Done, within_s: float = DEADLINE_S) -> None:
        """Have `done` called, later and once.

        Raises:
            ResourceExhausted: too many wait already.
            Unavailable: the server is stopping.
        """
        deadline = time.monotonic() + within_s
        self._batcher.submit(asked_of(query, deadline), deadline, done)

    async def answer(self, query: Query, within_s: float = DEADLINE_S) -> Answer:
        """
        Raises:
            PlatformError: as `recommend`, or what the query is answered with.
        """
        told: asyncio.Future[Answer | PlatformError] = asyncio.get_running_loop().create_future()

        def done(answer: Answer | PlatformError) -> None:
            if not told.done():  # nobody may wait any more
                told.set_result(answer)

        self.recommend(query, done, within_s)
        answer = await told
        if isinstance(answer, PlatformError):
            raise answer
        return answer

    async def answer_each(
        self, queries: Sequence[Query], within_s: float = DEADLINE_S
    ) -> list[Answer | PlatformError]:
        """An answer or an error for each."""

        async def one(query: Query) -> Answer | PlatformError:
            try:
                return await self.answer(query, within_s)
            except PlatformError as error:
                return error

        return await asyncio.gather(*map(one, queries))

    def record(self, events: Sequence[Event]) -> int:
        """Keep what users did; return how many events are kept, which is all.

        Raises:
            Unavailable: they could not be kept, and are to be sent again.
        """
        self._record(events)
        return len(events)

    def violations(self) -> dict[str, Any]:
        """What sampled requests broke of the schema, in this process."""
        checked, counts = 0, Counter[tuple[str, str]]()
        for arm in self.answering.arms:
            arm.check_sampled()
            checked += arm.check.checked
            counts += arm.check.counts
        return {
            "checked_requests": checked,
            "checked_one_in": CHECKED_ONE_IN,
            "violations": [
                {"feature": feature, "anomaly": anomaly, "requests": count}
                for (feature, anomaly), count in sorted(counts.items())
            ],
        }

    def close(self) -> None:
        """Take no more queries, and answer those that wait before this returns."""
        self._batcher.close()


def asked_of(query: Query, deadline: float = math.inf) -> Asked:
    visit = query.context
    return Asked(
        query.user_id, query.stated(), visit.hour_of_day, visit.network, query.k, query.explain,
        deadline,
    )  # fmt: skip


def keeps_nothing(events: Sequence[Event]) -> None:
    """For a server whose log nobody reads."""
