"""Events: kept before they are acknowledged, and joined to spans whatever their order."""

import json
import resource
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlplatform.errors import DataCorrupt, FailedPrecondition, Unavailable
from mlplatform.serving.record_files import sealed_files
from mlplatform.serving.record_frames import encode, new_head, read_log
from recsys import examples
from recsys.online.contract import Event
from recsys.online.events import EventLog, encode_events, read_events
from recsys.online.joining import DAY_S, SKEW_S, WAIT_S, Sealed, seal_span
from recsys.online.request_log import PLACE, encode_request

BEGAN = 1_700_000_000.0
HOUR = 3600.0
NOON = BEGAN + 12 * HOUR  # of day 0
WATERMARK = BEGAN + DAY_S + WAIT_S
NOW = WATERMARK + HOUR


def event(name: str, request: int, app: int, kind: Any = "impression", at: float = NOON) -> Event:
    return Event(event_id=name, request_id=str(request), app_id=app, kind=kind, time=at)


def told(received_at: float, *events: Event) -> list[bytes]:
    return encode_events(events, received_at)


def request(request_id: int, at: float, slate: Sequence[int], user: int | None = 1) -> bytes:
    places = np.zeros(len(slate), PLACE)
    places["app_id"], places["propensity"] = slate, 0.98
    served = {"country": "BR", "hour_of_day": 12, "network": "wifi", "history": [3]}
    return encode_request(request_id, at, user, served, places, 7, "stable", None)


def write_file(log: Path, kind: str, records: Sequence[bytes], first: float, n: int = 0) -> Path:
    """A sealed file of a writer of its own, from `first` on, five minutes long."""
    log.mkdir(exist_ok=True)
    head, marker = new_head()
    begin, end = (
        datetime.fromtimestamp(t, UTC).strftime("%Y%m%dT%H%M%S.%fZ") for t in (first, first + 300)
    )
    path = log / f"{kind}-{begin}-{end}-1-{n}.log"
    path.write_bytes(head + encode(marker, 0, records))
    return path


def tables(span: Path) -> dict[str, list[dict[str, Any]]]:
    return {
        str(path.relative_to(span).with_suffix("")): pq.read_table(path).to_pylist()
        for path in span.rglob("*.parquet")
    }


def seal(folder: Path, day: int = 0, now: float = NOW) -> tuple[Sealed, Any]:
    sealed = seal_span(folder / "log", folder, "events", day, BEGAN, now)
    return sealed, tables(folder / "events" / f"day={day:03d}")


def test_a_day_is_joined_as_counted_by_hand(tmp_path: Path) -> None:
    log = tmp_path / "log"
    write_file(
        log,
        "requests",
        [request(100, NOON, [10, 20, 30]), request(101, NOON + 60, [20, 40], user=None)],
        NOON,
    )
    seen = [event("a", 100, 10, at=NOON + 1), event("b", 100, 20, at=NOON + 2)]
    install = event("c", 100, 20, "install", NOON + 1800)
    write_file(log, "events", told(NOON + 5, *seen), NOON)
    write_file(
        log,
        "events",
        [
            *told(NOON + 1801, install, event("d", 100, 10, "click", NOON + 3)),
            *told(NOON + 1900, install, seen[0]),  # sent again
            *told(NOON + 1900, event("e", 100, 20, "install", NOON + 1810)),  # told anew
            *told(NOON + 1900, event("f", 101, 40, at=NOON + 61)),  # of nobody known
            *told(NOON + 1900, event("g", 999, 10), event("h", 100, 40, at=NOON + 4)),
        ],
        NOON + 1800,
        1,
    )
    sealed, span = seal(tmp_path)
    assert sealed == Sealed(
        requests=2, anonymous=1, impressions=3, clicks=1, installs=1, duplicates=3, late=0,
        orphans=2, lost_records=0, lost_bytes=0,
    )  # fmt: skip
    assert span["requests"] == [
        {"request_id": 100, "user_id": 1, "hour": 12.0, "network": "wifi", "surface": "home"}
    ]
    assert span["impressions"] == [
        {"request_id": 100, "position": 1, "app_id": 10, "propensity": 0.98},
        {"request_id": 100, "position": 2, "app_id": 20, "propensity": 0.98},
    ]
    (found,) = span["installs"]
    assert found == {
        "user_id": 1, "app_id": 20, "request_id": 100, "hour": 12.5,
        "arrival_hour": pytest.approx(12.5 + 1 / 3600),
    }  # fmt: skip
    assert [(row["event_id"], row["why"]) for row in span["set_aside"]] == [
        ("h", "not in its list"),
        ("g", "no such request"),
    ]
    assert [(r["request_id"], r["app_id"], r["kind"]) for r in span["feedback"]] == [
        (100, 10, "impression"), (100, 20, "impression"), (100, 10, "click"),
        (101, 40, "impression"), (100, 20, "install"),
    ]  # fmt: skip
    assert [row["request_id"] for row in span["log/requests"]] == [100, 101]
    assert len(span["log/impressions"]) == 5
    counts = json.loads((tmp_path / "events/day=000/counts.json").read_text())
    assert counts == vars(sealed)


def test_the_loop_reads_the_span_as_it_reads_the_worlds_days(tmp_path: Path) -> None:
    log, world = tmp_path / "log", tmp_path / "world"
    world.mkdir()
    write_file(log, "requests", [request(100, NOON, [10, 20])], NOON)
    events = [event("a", 100, 10), event("b", 100, 20), event("c", 100, 20, "install", NOON + 9)]
    write_file(log, "events", told(NOON + 10, *events), NOON)
    seal(tmp_path)
    pq.write_table(pa.table({"app_id": [10, 20], "release_day": [-5, -5]}), world / "apps.parquet")
    pq.write_table(pa.table({"user_id": [0, 1]}), world / "users.parquet")
    empty = {"user_id": pa.array([], pa.int64()), "app_id": pa.array([], pa.int64())}
    pq.write_table(
        pa.table(empty | {"arrival_hour": pa.array([], pa.float64())}), world / "owned.parquet"
    )
    read = examples.EventLog.read(world, tmp_path / "events")
    counters = examples.AppCounters.of(read, 1)
    assert counters.impressions.tolist() == [1, 1] and counters.installs.tolist() == [0, 1]
    shown = examples.impressions_of(read, examples.AppCounters.of(read, 0), 0, known_by_hour=30.0)
    assert shown["app_id"].to_pylist() == [10, 20]
    assert shown["installed"].to_pylist() == [0, 1]
    assert read.history().latest(np.array([1]), np.array([24.0]), 9)[0].tolist() == [20]


class TestWatermark:
    """A request shortly before midnight, of which events come before and after."""

    LAST = BEGAN + DAY_S - 60

    def fill(self, folder: Path, *batches: tuple[float, Sequence[Event]]) -> None:
        write_file(folder / "log", "requests", [request(1, self.LAST, [10, 20, 30])], self.LAST)
        for n, (received_at, events) in enumerate(batches):
            write_file(folder / "log", "events", told(received_at, *events), received_at, n)

    def test_an_event_of_the_next_day_in_a_later_file_is_of_its_requests_day(
        self, tmp_path: Path
    ) -> None:
        install = event("a", 1, 20, "install", self.LAST + HOUR)
        self.fill(tmp_path, (WATERMARK - 1, [install]))
        sealed, span = seal(tmp_path)
        assert sealed.installs == 1 and sealed.late == 0
        assert span["installs"][0]["hour"] == pytest.approx(24 + 59 / 60)
        assert span["installs"][0]["arrival_hour"] == pytest.approx(30 - 1 / 3600)
        again, following = seal(tmp_path, 1, NOW + DAY_S)
        assert again == Sealed(*[0] * 10) and not following["installs"]

    def test_what_comes_at_the_watermark_or_later_is_late_for_the_next_day(
        self, tmp_path: Path
    ) -> None:
        install = event("a", 1, 20, "install", self.LAST + 9)
        seen = event("b", 1, 30, at=self.LAST + 5)
        self.fill(
            tmp_path,
            (self.LAST + 9, [event("c", 1, 10, at=self.LAST + 1)]),
            (WATERMARK, [install, seen]),
            # The client did not hear that this one was received, and sends it again.
            (WATERMARK + HOUR, [event("c", 1, 10, at=self.LAST + 1)]),
            (WATERMARK + DAY_S, [install]),
        )
        sealed, span = seal(tmp_path)
        assert (sealed.impressions, sealed.installs, sealed.late) == (1, 0, 0)
        sealed, span = seal(tmp_path, 1, NOW + DAY_S)
        assert (sealed.impressions, sealed.installs, sealed.late) == (0, 0, 2)
        assert sealed.duplicates == 1 and sealed.orphans == 0
        assert not span["impressions"] and not span["requests"]
        assert [row["request_id"] for row in span["installs"]] == [1]
        assert [row["late"] for row in span["feedback"]] == [True, True]
        sealed, span = seal(tmp_path, 2, NOW + 2 * DAY_S)
        assert sealed.late == 0 and sealed.duplicates == 1 and not span["installs"]

    def test_events_of_the_next_days_requests_are_left_to_it(self, tmp_path: Path) -> None:
        early = self.LAST + 120
        log = tmp_path / "log"
        write_file(log, "requests", [request(2, early, [10])], early)
        # By its client's clock it is still the day before.
        write_file(log, "events", told(early + 1, event("a", 2, 10, at=early - 90)), early)
        assert seal(tmp_path)[0] == Sealed(*[0] * 10)
        sealed, span = seal(tmp_path, 1, NOW + DAY_S)
        assert (sealed.requests, sealed.impressions, sealed.orphans) == (1, 1, 0)
        assert span["feedback"][0]["hour"] == pytest.approx(24 + 1 / 60)

    def test_a_day_is_not_joined_before_its_watermark(self, tmp_path: Path) -> None:
        self.fill(tmp_path)
        with pytest.raises(
            FailedPrecondition, match=r"watermark is past, .* until 20231116T041420"
        ):
            seal(tmp_path, now=WATERMARK)

    def test_nor_while_a_file_of_it_is_open(self, tmp_path: Path) -> None:
        self.fill(tmp_path)
        open_file = tmp_path / "log" / "events-20231115T120000.000000Z-1-0.open"
        open_file.touch()
        with pytest.raises(FailedPrecondition, match=rf"{open_file.name}: .* sealed, got an open"):
            seal(tmp_path)
        open_file.rename(open_file.with_name("events-20231116T120000.000000Z-1-0.open"))
        assert seal(tmp_path)[0].requests == 1

    def test_lost_bytes_and_records_are_counted(self, tmp_path: Path) -> None:
        self.fill(tmp_path, (self.LAST, [event(str(n), 1, 10, at=self.LAST) for n in range(3)]))
        path = sealed_files(tmp_path / "log", "events")[0].path
        content = bytearray(path.read_bytes())
        content[-10 - (len(content) - 40) // 3] ^= 1  # in the second of three records
        path.write_bytes(bytes(content) + b"torn")
        sealed, _ = seal(tmp_path)
        assert (sealed.lost_records, sealed.lost_bytes) == (1, 4)
        assert sealed.impressions == 1 and sealed.duplicates == 1


@pytest.mark.parametrize(
    ("off_s", "hour", "why"),
    [
        (-SKEW_S, 12.0, None),
        (-SKEW_S - 1, None, "before its request"),
        (10 + SKEW_S, 12 + 10 / 3600, None),  # received ten seconds after the request
        (11 + SKEW_S, None, "after it was received"),
        (4.0, 12 + 4 / 3600, None),
    ],
)
def test_a_clients_clock_may_be_off_by_so_much(
    tmp_path: Path, off_s: float, hour: float | None, why: str | None
) -> None:
    write_file(tmp_path / "log", "requests", [request(1, NOON, [10])], NOON)
    event_ = event("a", 1, 10, at=NOON + off_s)
    write_file(tmp_path / "log", "events", told(NOON + 10, event_), NOON)
    _, span = seal(tmp_path)
    assert [row["why"] for row in span["set_aside"]] == ([] if why is None else [why])
    assert [row["hour"] for row in span["feedback"]] == (
        [] if hour is None else [pytest.approx(hour)]
    )


REQUESTS = [request(n, NOON + n, [10, 20], user=n or None) for n in range(3)]
# Few different values, so that events meet in some of their fields and differ in others.
a_record = st.builds(
    lambda name, of, app, kind, at, after: told(
        NOON + at + after, event(name, of, app, kind, NOON + at)
    )[0],
    st.sampled_from("ab"),
    st.sampled_from([0, 1, 1, 7]),
    st.sampled_from([10, 10, 20, 40]),
    st.sampled_from(["impression", "install"]),
    st.sampled_from([-400, 5, 6, 7]),
    st.sampled_from([-301.0, 0.0, 1.0, 2.0]),
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(a_record, max_size=12), st.data())
def test_neither_order_nor_repetition_nor_files_change_a_span(
    tmp_path_factory: pytest.TempPathFactory, records: list[bytes], data: st.DataObject
) -> None:
    again = data.draw(st.lists(st.sampled_from(records), max_size=9)) if records else []
    repeated = data.draw(st.permutations(records + again))
    cut = data.draw(st.integers(0, len(repeated)))
    spans, counts = [], []
    for files in ([records], [repeated[:cut], repeated[cut:]]):
        folder = tmp_path_factory.mktemp("span")
        write_file(folder / "log", "requests", REQUESTS, NOON)
        for n, some in enumerate(files):
            write_file(folder / "log", "events", some, NOON, n)
        sealed, span = seal(folder)
        spans.append(span)
        counts.append(vars(sealed))
    assert spans[0] == spans[1]
    assert counts[1] == counts[0] | {"duplicates": counts[0]["duplicates"] + len(again)}
    counted = len(spans[0]["feedback"]) + len(spans[0]["set_aside"]) + counts[0]["duplicates"]
    assert counted == len(records)


def test_two_clients_may_choose_the_same_event_id(tmp_path: Path) -> None:
    requests = [request(1, NOON, [10]), request(2, NOON, [10])]
    write_file(tmp_path / "log", "requests", requests, NOON)
    write_file(tmp_path / "log", "events", told(NOON, event("e", 1, 10), event("e", 2, 10)), NOON)
    sealed, span = seal(tmp_path)
    assert sealed.duplicates == 0
    assert [row["request_id"] for row in span["impressions"]] == [1, 2]


def test_what_was_received_first_of_an_event_id_counts_and_the_earliest_of_a_kind(
    tmp_path: Path,
) -> None:
    write_file(tmp_path / "log", "requests", [request(1, NOON, [10, 20, 30])], NOON)
    records = [
        *told(NOON + 50, event("a", 1, 10, at=NOON + 9)),
        *told(NOON + 40, event("a", 1, 30, at=NOON + 8)),
        *told(NOON + 60, event("c", 1, 20, at=NOON + 5)),
        *told(NOON + 30, event("b", 1, 20, at=NOON + 7)),
    ]
    write_file(tmp_path / "log", "events", records, NOON)
    sealed, span = seal(tmp_path)
    assert sealed.impressions == sealed.duplicates == 2
    assert [(row["app_id"], row["time"], row["received_at"]) for row in span["feedback"]] == [
        (20, NOON + 5, NOON + 60),
        (30, NOON + 8, NOON + 40),
    ]


def test_the_first_day_sets_aside_what_came_from_nowhere_since_it_began(tmp_path: Path) -> None:
    night = BEGAN + 60
    write_file(tmp_path / "log", "events", told(night, event("a", 1, 10, at=night)), night)
    assert seal(tmp_path)[0].orphans == 1
    # The watermark of a first day before has passed them to it.
    assert seal(tmp_path, 1, NOW + DAY_S)[0].orphans == 0


class TestLog:
    def test_what_is_kept_is_read_with_when_it_was_received(self, tmp_path: Path) -> None:
        log = EventLog(tmp_path, clock=lambda: NOON + 7)
        log.keep([event("a", 1, 10), event("b", 2, 20, "install", NOON + 1)])
        assert log.written == 2 and log.lost == 0
        log.close()
        records, _ = read_log(sealed_files(tmp_path, "events")[0].path)
        assert read_events(records).to_pylist() == [
            {"event_id": "a", "request_id": 1, "app_id": 10, "kind": "impression", "time": NOON,
             "received_at": NOON + 7},
            {"event_id": "b", "request_id": 2, "app_id": 20, "kind": "install", "time": NOON + 1,
             "received_at": NOON + 7},
        ]  # fmt: skip

    def test_what_cannot_be_written_is_not_acknowledged(self, tmp_path: Path) -> None:
        reasons: list[str | None] = []
        log = EventLog(tmp_path, reasons.append)
        with files_of_at_most(0), pytest.raises(Unavailable, match="send them again"):
            log.keep([event("a", 1, 10)])
        assert log.lost == 1 and reasons[0] is not None and "events" in reasons[0]
        log.keep([event("a", 1, 10)])
        assert reasons[1:] == [None]
        log.close()
        records, _ = read_log(sealed_files(tmp_path, "events")[0].path)
        assert read_events(records)["event_id"].to_pylist() == ["a"]

    def test_a_record_of_something_else_is_refused(self) -> None:
        with pytest.raises(DataCorrupt, match="expected records of events, got another"):
            read_events([request(1, NOON, [10])])


@contextmanager
def files_of_at_most(n_bytes: int) -> Iterator[None]:
    """As if the disk were full behind so many bytes of a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
