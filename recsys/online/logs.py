"""The logs of one worker: what was shown, and what users did with it.

Enters: what `answering` shows and what clients tell.  Leaves: records in a directory that all
workers share.  What a disk does not take costs records, which are counted, and never an answer.
"""

import logging
import time
from collections.abc import Sequence
from pathlib import Path

from mlplatform.serving.metrics import Metrics
from mlplatform.serving.record_files import seal_abandoned
from recsys.online import request_log
from recsys.online.answering import Shown
from recsys.online.contract import Event
from recsys.online.events import EventLog
from recsys.online.feature_store import FeatureStore
from recsys.online.request_log import RequestLog, records_of

logger = logging.getLogger(__name__)
LOST = "log_records_lost"


class Logs:
    """Of one worker and one of its threads."""

    def __init__(self, directory: Path, store: FeatureStore, metrics: Metrics) -> None:
        """Also seals what killed workers left.

        Args:
            metrics: has a counter `LOST`, by kind.
        """
        directory.mkdir(parents=True, exist_ok=True)
        seal_abandoned(directory)
        self._store, self._metrics = store, metrics
        self._requests = RequestLog(directory, _alarm)
        self._events = EventLog(directory, _alarm)

    def shown(self, shown: Sequence[Shown]) -> None:
        """Write what a batch was answered with; nothing is raised for what is on disk."""
        if not self._requests.append(records_of(shown, self._store, time.time())):
            self._metrics.count(LOST, request_log.KIND, len(shown))

    def told(self, told: Sequence[Event]) -> None:
        """Write events.

        Raises:
            Unavailable: they could not be written.
        """
        self._events.keep(told)

    def rotate_if_due(self) -> None:
        """Seal files that are old; for times without requests."""
        self._requests.rotate_if_due()
        self._events.rotate_if_due()

    def close(self) -> None:
        """Seal what is open; nothing can be logged from then on."""
        self._requests.close()
        self._events.close()


def _alarm(reason: str | None) -> None:
    if reason is None:
        logger.warning("records are logged again")
    else:
        logger.error("%s", reason)
