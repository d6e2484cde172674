"""Costs: what a way to answer takes, as measured, so that what would be too late is not begun.

Enters: batches and their seconds.  Leaves: whether a batch fits into the time that is left.
"""

from collections.abc import Sequence

_WEIGHT = 0.1  # of a new batch in the moving average
_FORGIVEN = 0.9  # of a cost is left each time that it ruled a way out: it is tried again some day


class Costs:
    """Seconds a request, of each way; what was never measured fits."""

    def __init__(self, ways: Sequence[str]) -> None:
        self._request_s = dict.fromkeys(ways, 0.0)

    def fits(self, way: str, requests: int, left_s: float) -> bool:
        if self._request_s[way] * requests < left_s:
            return True
        self._request_s[way] *= _FORGIVEN
        return False

    def observe(self, way: str, requests: int, seconds: float) -> None:
        average = self._request_s[way]
        self._request_s[way] = average + _WEIGHT * (seconds / requests - average)
