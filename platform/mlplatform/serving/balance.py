"""How many connections each worker has, in memory that they share, so that they share them evenly.

Enters: a descriptor of the memory, which the supervisor makes.  Leaves: whether
another worker has fewer.  A client that stays, as gRPC's do, asks the same worker for as long, and
the kernel gives connections to whichever wakes first: of 64, one of two workers was seen with 36,
and refused what it could not answer while the other had time.

A worker that is no more, dead or of the generation before, leaves its count to its successor, who
corrects it at once.  Nothing is locked: a count that is not quite so costs a connection that is one
too many, or a short wait.
"""

import mmap
import os
from enum import IntEnum

_ITEM_BYTES = 4
_SLACK = 16


class Door(IntEnum):
    HTTP = 0
    GRPC = 1


def shared_counts(workers: int) -> int:
    """A descriptor of memory for the counts of so many workers, all zero; the caller closes it."""
    descriptor = os.memfd_create("connections")
    os.ftruncate(descriptor, len(Door) * workers * _ITEM_BYTES)
    return descriptor


class Balance:
    """One worker's view of the counts at one door."""

    def __init__(self, descriptor: int, door: Door, worker: int) -> None:
        counts = memoryview(mmap.mmap(descriptor, 0)).cast("i")
        workers = len(counts) // len(Door)
        self._counts = counts[door * workers : (door + 1) * workers]
        self._worker = worker

    def has_more(self, connections: int) -> bool:
        """Tell the others how many this worker has; -> whether one of them has clearly fewer.

        Clearly, since a crowd is taken faster if not each of them is counted out.
        """
        self._counts[self._worker] = connections
        fewest = min(self._counts)
        return connections > fewest + fewest // _SLACK
