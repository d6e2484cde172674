"""Joining: the log of a day, and what users did, become the span that models learn from.

Enters: the morning after, the sealed files of requests and of events.  Leaves: the span of a day,
with the tables that `examples.EventLog` and the loop read.

An event is of the day of its request, for it is the features of that moment that it labels; its
hour is its own.

    watermark   A day is joined `WAIT_S` after its end, with what was received by then.  What is
                received later labels nothing any more, but is not lost: it is feedback of the day
                that is joined next, and if it is an install one of that day's installs.
    duplicates  An event_id counts once for a request, as it was first received.  Several events of
                one kind about one app of one request are one, the earliest.
    orphans     Events that are set aside: there is no such request, neither since the day began nor
                in the `LOOKBACK_DAYS` before it; the app was not in its list; the time is more than
                `SKEW_S` before the request, or after the event was received.
    skew        Within `SKEW_S` the time becomes that of the request, or of the reception.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mlplatform.artifacts import staged_directory, to_json
from mlplatform.data.files.spans import read_parquet, span_path, write_parquet
from mlplatform.errors import FailedPrecondition
from mlplatform.serving.record_files import OPEN, sealed_files
from mlplatform.serving.record_frames import Loss, read_log
from recsys.online.events import COLUMNS, KINDS, read_events
from recsys.online.events import KIND as EVENTS
from recsys.online.request_log import KIND as REQUESTS
from recsys.online.request_log import Logged, read_requests

DAY_S = 86_400.0
WAIT_S = 6 * 3600.0
SKEW_S = 300.0  # how far a client's clock may be off
LOOKBACK_DAYS = 7
ASKED, SHOWN = Path("log/requests.parquet"), Path("log/impressions.parquet")  # in a span
_MARGIN_S = 60.0  # at most, between a record's time and that of its file
_ABOUT = ["request_id", "app_id", "kind"]


@dataclass(frozen=True)
class Sealed:
    """Counts of one span.

    requests, anonymous: all, and those of nobody known, which only the log has.
    impressions, clicks, installs: of the day's requests, in time.
    duplicates: events that another one made superfluous.
    late: events of earlier days' requests that missed their watermark.
    orphans: events set aside.
    lost_records, lost_bytes: damaged records, and bytes behind the last sound one, in the files
        read; of a file that two days share, both count them.
    """

    requests: int
    anonymous: int
    impressions: int
    clicks: int
    installs: int
    duplicates: int
    late: int
    orphans: int
    lost_records: int
    lost_bytes: int


@dataclass(frozen=True)
class _Window:
    """Unix seconds.  The day is [start, end); `since` and `until` are its and its eve's watermarks.

    What is read was served, or received, in [start, until).
    """

    start: float
    end: float
    since: float
    until: float

    @classmethod
    def of(cls, day: int, began: float) -> "_Window":
        start = began + DAY_S * day
        return cls(start, start + DAY_S, start + WAIT_S, start + DAY_S + WAIT_S)


def seal_span(log: Path, root: Path, dataset: str, day: int, began: float, now: float) -> Sealed:
    """Join a day and write its span, replacing in one step what stood there.

    Days are joined in their order.  A span depends on the records alone, neither on their order nor
    on their files.  It is `root/dataset/day=NNN`, with hours since day 0 began:

        requests, impressions, installs   as `examples.EVENT_TABLES`, of known users
        feedback                          all events that count, late and anonymous ones too
        set_aside                         the orphans, and why
        log/requests, log/impressions     as served, see `request_log.Logged`
        counts.json                       `Sealed`

    Args:
        log: where `RequestLog` and `EventLog` wrote.
        root: of spans; the days before are read for what came late.
        began: Unix seconds at which day 0 began.
        now: Unix seconds.

    Raises:
        FailedPrecondition: it is too early, a file is not sealed yet, or it is of another release.
        DataCorrupt: a record is of another kind than its file.
    """
    window = _Window.of(day, began)
    _require_complete(log, window, now)
    records, lost = _read(log, REQUESTS, window)
    served = _in_order(read_requests(records), window)
    records, lost_too = _read(log, EVENTS, window)
    eve = [span_path(root, dataset, one) for one in range(max(0, day - LOOKBACK_DAYS), day)]
    feedback, aside, duplicates = _join(
        read_events(records), served, [span for span in eve if span.exists()], window
    )
    feedback = _with_hours(feedback, began, {"hour": "time", "arrival_hour": "received_at"})
    asked = served.requests.filter(pc.less(served.requests["served_at"], window.end))
    shown = served.impressions.filter(_is_in(served.impressions["request_id"], asked["request_id"]))
    known = _with_hours(asked.filter(pc.is_valid(asked["user_id"])), began, {"hour": "served_at"})
    in_time = feedback.filter(pc.invert(feedback["late"]))
    told = {kind: pc.sum(pc.equal(in_time["kind"], kind)).as_py() or 0 for kind in KINDS}
    sealed = Sealed(
        requests=len(asked),
        anonymous=len(asked) - len(known),
        impressions=told["impression"],
        clicks=told["click"],
        installs=told["install"],
        duplicates=duplicates,
        late=len(feedback) - len(in_time),
        orphans=len(aside),
        lost_records=lost.corrupt_records + lost_too.corrupt_records,
        lost_bytes=lost.torn_bytes + lost_too.torn_bytes,
    )
    tables = _event_tables(known, feedback) | {"feedback": feedback, "set_aside": aside}
    target = span_path(root, dataset, day)
    target.parent.mkdir(parents=True, exist_ok=True)
    with staged_directory(target) as staging:
        (staging / ASKED).parent.mkdir()
        write_parquet(asked, staging / ASKED)
        write_parquet(shown, staging / SHOWN)
        for name, table in tables.items():
            write_parquet(table, staging / f"{name}.parquet")
        (staging / "counts.json").write_bytes(to_json(asdict(sealed)))
    return sealed


def _require_complete(log: Path, window: _Window, now: float) -> None:
    complete = window.until + _MARGIN_S
    if now < complete:
        raise FailedPrecondition(
            f"{log}: expected a day whose watermark is past, got one of which events are awaited "
            f"until {_stamp(complete)}; join it then"
        )
    for kind in (REQUESTS, EVENTS):
        for path in sorted(log.glob(f"{kind}-*{OPEN}")):
            if path.name.split("-")[1] < _stamp(complete):
                raise FailedPrecondition(
                    f"{path}: expected every file of the day sealed, got an open one; have its "
                    "writer rotate it, or call `seal_abandoned` if it has none"
                )


def _stamp(seconds: float) -> str:
    """As in the names of `record_files`."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y%m%dT%H%M%S.%fZ")


def _read(log: Path, kind: str, window: _Window) -> tuple[list[bytes], Loss]:
    """The records of the files that may have some of the window, and what these lost."""
    records: list[bytes] = []
    torn = corrupt = 0
    first, last = window.start - _MARGIN_S, window.until + _MARGIN_S
    for file in sealed_files(log, kind):
        if file.first.timestamp() < last and file.last.timestamp() > first:
            found, loss = read_log(file.path)
            records += found
            torn, corrupt = torn + loss.torn_bytes, corrupt + loss.corrupt_records
    return records, Loss(torn, corrupt)


def _in_order(served: Logged, window: _Window) -> Logged:
    """What was served in the window, by time and position."""
    at = served.requests["served_at"]
    requests = served.requests.filter(_between(at, window.start, window.until))
    shown = served.impressions
    shown = shown.filter(_is_in(shown["request_id"], requests["request_id"]))
    return Logged(
        _sorted(requests, ["served_at", "request_id"]), _sorted(shown, ["request_id", "position"])
    )


def _join(
    events: pa.Table, served: Logged, eve: Sequence[Path], window: _Window
) -> tuple[pa.Table, pa.Table, int]:
    """Events that count, those that are set aside, and how many are duplicates.

    The first have the columns of `_ABOUT`, time, received_at, late, user_id, position, propensity;
    the others those of events, and why.

    Args:
        eve: the spans of the days before.
    """

    def known(table: pa.Table, name: Path, columns: list[str]) -> pa.Table:
        return pa.concat_tables(
            [table.select(columns), *(read_parquet(day / name, columns) for day in eve)]
        )

    requests = known(served.requests, ASKED, ["request_id", "served_at", "user_id"])
    places = known(served.impressions, SHOWN, ["request_id", "app_id", "position", "propensity"])
    events = events.filter(_between(events["received_at"], window.start, window.until))
    events = events.join(requests, "request_id").join(places, ["request_id", "app_id"])
    events = _sorted(events, ["request_id", "event_id", "received_at", "app_id", "kind", "time"])
    served_at, received_at, told = (
        events[name].to_numpy() for name in ("served_at", "received_at", "time")
    )
    # Of the day's requests, or received since the watermark before: what that day left over, and
    # what is from nowhere, but not what the next day is to look at.
    mine = (served_at >= window.start) & (served_at < window.end)
    since = window.since if eve else window.start
    mine |= (received_at >= since) & ~(served_at >= window.start)
    first = mine & _differs(events, ["request_id", "event_id"])
    why = np.select(
        [
            np.isnan(served_at),
            events["position"].is_null().to_numpy(),
            told < served_at - SKEW_S,
            told > received_at + SKEW_S,
        ],
        ["no such request", "not in its list", "before its request", "after it was received"],
        "",
    )
    aside = events.append_column("why", pa.array(why, pa.string())).filter(first & (why != ""))
    happened = np.maximum(np.minimum(told, received_at), served_at)
    events = events.set_column(events.column_names.index("time"), "time", pa.array(happened))
    events = events.append_column("late", pa.array(served_at < window.start))
    feedback = _sorted(events.filter(first & (why == "")), [*_ABOUT, "time", "received_at"])
    feedback = feedback.filter(_differs(feedback, _ABOUT))
    for day in eve:
        past = read_parquet(day / "feedback.parquet", _ABOUT)
        feedback = feedback.join(past, _ABOUT, join_type="left anti")
    feedback = _sorted(feedback, ["time", *_ABOUT]).drop_columns(["event_id", "served_at"])
    aside = aside.select([*COLUMNS.names, "why"])
    return feedback, aside, int(mine.sum()) - len(aside) - len(feedback)


def _event_tables(known: pa.Table, feedback: pa.Table) -> dict[str, pa.Table]:
    """Those of `examples.EVENT_TABLES`, of requests and feedback of known users."""
    feedback = feedback.filter(pc.is_valid(feedback["user_id"]))
    seen = pc.and_(pc.equal(feedback["kind"], "impression"), pc.invert(feedback["late"]))
    surface = pa.array(["home"] * len(known), pa.string())
    return {
        "requests": known.select(["request_id", "user_id", "hour", "network"]).append_column(
            "surface", surface
        ),
        "impressions": _sorted(
            feedback.filter(seen).select(["request_id", "position", "app_id", "propensity"]),
            ["request_id", "position"],
        ),
        "installs": feedback.filter(pc.equal(feedback["kind"], "install")).select(
            ["user_id", "app_id", "request_id", "hour", "arrival_hour"]
        ),
    }


def _with_hours(table: pa.Table, began: float, hours: Mapping[str, str]) -> pa.Table:
    """The table with hours since day 0 beside its Unix seconds."""
    for name, seconds in hours.items():
        hour = pc.divide(pc.subtract(table[seconds], began), 3600.0)
        table = table.append_column(name, hour)
    return table


def _differs(table: pa.Table, names: Sequence[str]) -> NDArray[np.bool_]:
    """Which rows of a sorted table differ from the row before in one of the columns."""
    differs = np.ones(len(table), np.bool_)
    if len(table):
        differs[1:] = False
        for name in names:
            codes = table[name].combine_chunks().dictionary_encode().indices.to_numpy()
            differs[1:] |= codes[1:] != codes[:-1]
    return differs


def _sorted(table: pa.Table, names: Sequence[str]) -> pa.Table:
    return table.sort_by([(name, "ascending") for name in names])


def _between(column: pa.ChunkedArray, first: float, end: float) -> pa.ChunkedArray:
    return pc.and_(pc.greater_equal(column, first), pc.less(column, end))


def _is_in(column: pa.ChunkedArray, values: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.is_in(column, value_set=values.combine_chunks())
