"""What users did with the apps that they were shown: taken from clients, and kept.

Enters: `contract.Event`s.  Leaves: records, acknowledged only once they are written, which
`joining.py` makes a day of.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pyarrow as pa

from mlplatform.errors import DataCorrupt, Unavailable
from mlplatform.serving.record_log import RecordLog
from recsys.online.contract import Event

KIND = "events"
KINDS = ("impression", "click", "install")
COLUMNS = pa.schema(
    [
        ("event_id", pa.string()),
        ("request_id", pa.int64()),
        ("app_id", pa.int64()),
        ("kind", pa.string()),
        ("time", pa.float64()),
        ("received_at", pa.float64()),
    ]
)


class _Record(msgspec.Struct, array_like=True, gc=False):
    """One event, as an array of msgpack: `COLUMNS`, times in Unix seconds."""

    event_id: str
    request_id: int
    app_id: int
    kind: str
    time: float
    received_at: float


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Record).decode


class EventLog(RecordLog):
    """The log of the events that one worker is told."""

    def __init__(
        self,
        directory: Path,
        alarm: Callable[[str | None], None] = lambda reason: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """As `RecordLog`, whose counts it has; `clock` gives Unix seconds."""
        super().__init__(directory, KIND, alarm=alarm)
        self._clock = clock

    def keep(self, events: Sequence[Event]) -> None:
        """Write events; once this returns they are written, and may be acknowledged.

        Raises:
            Unavailable: not all of them are.
        """
        if not self.append(encode_events(events, self._clock())):
            raise Unavailable(
                "the events could not be written; send them again, a known event_id counts once"
            )


def encode_events(events: Sequence[Event], received_at: float) -> list[bytes]:
    """A record for each; `received_at` in Unix seconds."""
    return [
        _encode((e.event_id, int(e.request_id), e.app_id, e.kind, e.time, received_at))
        for e in events
    ]


def read_events(records: Sequence[bytes]) -> pa.Table:
    """One row a record: event_id, request_id, app_id, kind, and Unix seconds time, received_at.

    Raises:
        DataCorrupt: a record is none of an event.
    """
    try:
        read = [_decode(record) for record in records]
    except msgspec.DecodeError as error:
        raise DataCorrupt(
            f"event log: expected records of events, got another one ({error}); read it with the "
            "release that wrote it"
        ) from error
    columns = {name: [getattr(one, name) for one in read] for name in COLUMNS.names}
    return pa.table(columns, schema=COLUMNS)
