"""The schema at the door of a server: sampled requests are checked and what they break is counted.

Enters: requests as Arrow tables, as they are about to be transformed.  Leaves: counts by feature
and type of anomaly, and a log.  A request is never refused here: what a missing feature becomes is
declared with the feature, and the answer says so.
"""

import logging
import threading
from collections import Counter

import pyarrow as pa
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2

from mlplatform.data.validation.broken_rows import broken_rows
from mlplatform.errors import InvalidArgument

logger = logging.getLogger(__name__)


class ServingCheck:
    """Checks one request in `every` against a schema's environment; safe to share by threads.

    counts: how many checked requests broke the schema, by (feature, name of the anomaly).
    checked: how many were checked.
    """

    def __init__(self, schema: schema_pb2.Schema, environment: str, every: int) -> None:
        if every < 1:
            raise InvalidArgument(f"every: expected at least 1, got {every}")
        self.counts: Counter[tuple[str, str]] = Counter()
        self.checked = 0
        self._schema, self._environment, self._every = schema, environment, every
        self._seen = 0
        self._lock = threading.Lock()

    def observe(self, requests: pa.Table) -> None:
        """Count the requests, and check those whose turn it is."""
        with self._lock:
            first = -self._seen % self._every
            self._seen += len(requests)
        if first < len(requests):
            turns = pa.array(range(first, len(requests), self._every))
            self._check(requests.take(turns).combine_chunks().to_batches()[0])

    def _check(self, batch: pa.RecordBatch) -> None:
        broken = [
            (feature, anomalies_pb2.AnomalyInfo.Type.Name(anomaly), int(mask.sum()))
            for feature, anomaly, mask in broken_rows(batch, self._schema, self._environment)
        ]
        with self._lock:
            self.checked += len(batch)
            for feature, anomaly, rows in broken:
                before = self.counts[feature, anomaly]
                self.counts[feature, anomaly] = before + rows
                # At each doubling, so that a fault in every request cannot fill the disk.
                if before.bit_length() < (before + rows).bit_length():
                    logger.warning(
                        "feature %r of the requests: %s in %d of %d checked",
                        feature, anomaly, before + rows, self.checked,
                    )  # fmt: skip
