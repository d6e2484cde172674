"""Appending: batches, rotation, and disks that take nothing more."""

import errno
import os
import resource
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.errors import InvalidArgument
from mlplatform.serving import record_log
from mlplatform.serving.record_files import sealed_files
from mlplatform.serving.record_frames import MAX_RECORD_BYTES, Loss, read_log
from mlplatform.serving.record_log import RecordLog

FRAME, HEAD = 16, 32  # bytes that a record, and a file, costs besides
PATIENCE_SECONDS = 60


def sealed(directory: Path) -> list[bytes]:
    """The records of all sealed files in time order, none of which is damaged."""
    records = []
    for file in sealed_files(directory, "a"):
        found, loss = read_log(file.path)
        assert loss == Loss(0, 0)
        records += found
    return records


def names(directory: Path) -> list[str]:
    return sorted(path.suffix for path in directory.iterdir())


def wait_until(true: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < end
        time.sleep(0.002)


def batch(number: int, n_records: int = 3) -> list[bytes]:
    return [b"%d/%d" % (number, index) * 20 for index in range(n_records)]


class Heard(list[str | None]):
    """An alarm that remembers."""

    def __call__(self, reason: str | None) -> None:
        self.append(reason)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.binary(max_size=200), max_size=6), max_size=8), st.integers(0, 900))
def test_what_is_appended_is_read(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[bytes]], rotate_bytes: int
) -> None:
    directory = tmp_path_factory.mktemp("log")
    log = RecordLog(directory, "a", rotate_bytes=rotate_bytes)
    assert all(log.append(records) for records in batches)
    log.close()
    records = [record for one in batches for record in one]
    assert sealed(directory) == records
    assert (log.written, log.lost, log.failed_syncs) == (len(records), 0, 0)
    assert log.bytes == sum(FRAME + len(record) for record in records)
    assert set(names(directory)) <= {".log"}


def test_a_batch_is_in_the_file_when_append_returns(tmp_path: Path) -> None:
    log = RecordLog(tmp_path / "made" / "by the log", "a")
    assert not (tmp_path / "made").exists()
    for number in range(5):
        log.append(batch(number))
        (path,) = (tmp_path / "made" / "by the log").iterdir()
        expected = [record for n in range(number + 1) for record in batch(n)]
        assert path.suffix == ".open" and read_log(path) == (expected, Loss(0, 0))
    log.close()


def test_a_batch_is_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = RecordLog(tmp_path, "a")
    log.append(batch(0))
    sizes, write = [], os.write
    monkeypatch.setattr(os, "write", lambda fd, data: sizes.append(len(data)) or write(fd, data))
    log.append(batch(1, n_records=8))
    monkeypatch.undo()
    log.close()
    assert sizes == [8 * (FRAME + 60)]


def test_a_file_that_is_large_is_sealed_by_the_next_append(tmp_path: Path) -> None:
    log = RecordLog(tmp_path, "a", rotate_bytes=HEAD + 2 * (FRAME + 100))
    for _ in range(5):
        log.append([bytes(100)])
    log.close()
    assert [len(read_log(file.path)[0]) for file in sealed_files(tmp_path, "a")] == [2, 2, 1]


def test_a_file_that_is_old_is_sealed_without_an_append(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(record_log, "time", SimpleNamespace(monotonic=lambda: now[0]))
    log = RecordLog(tmp_path, "a", rotate_seconds=300)
    log.append([b"x"])
    now[0] = 1299.9
    log.rotate_if_due()
    log.append([b"y"])
    assert names(tmp_path) == [".open"]
    now[0] = 1300.0
    log.rotate_if_due()
    wait_until(lambda: names(tmp_path) == [".log"])
    assert sealed(tmp_path) == [b"x", b"y"]
    log.rotate_if_due()  # there is no file
    log.append([b"z"])
    assert names(tmp_path) == [".log", ".open"]
    log.close()


def test_while_the_disk_keeps_a_file_waiting_the_next_ones_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, free, fsync = threading.Event(), threading.Event(), os.fsync

    def slow(descriptor: int) -> None:
        reached.set()
        assert free.wait(PATIENCE_SECONDS)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", slow)
    log = RecordLog(tmp_path, "a", rotate_bytes=400)
    for number in range(20):
        assert log.append(batch(number))
    assert reached.wait(PATIENCE_SECONDS)
    assert set(names(tmp_path)) == {".open"}
    free.set()
    log.close()
    assert sealed(tmp_path) == [record for number in range(20) for record in batch(number)]
    assert len(names(tmp_path)) > 5


def test_what_is_written_is_flushed_by_and_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[int] = []
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: flushed.append(os.fstat(descriptor).st_size)
    )
    log = RecordLog(tmp_path, "a", fsync_seconds=0.005)
    for number in range(1, 4):
        log.append([bytes(100)])
        wait_until(lambda n=number: HEAD + n * (FRAME + 100) in flushed)  # type: ignore[misc]
    assert names(tmp_path) == [".open"]
    log.close()


def test_without_an_interval_nothing_is_flushed_before_rotation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[int] = []
    log = RecordLog(tmp_path, "a")
    monkeypatch.setattr(os, "fsync", flushed.append)
    log.append(batch(0))
    assert flushed == []
    log.close()
    assert len(flushed) == 2  # the file and its name


def test_a_file_that_cannot_be_flushed_stays_open_and_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "stub")

    log = RecordLog(tmp_path, "a", fsync_seconds=0.005)
    monkeypatch.setattr(os, "fsync", fail)
    log.append(batch(0))
    wait_until(lambda: log.failed_syncs > 0)
    assert log.append(batch(1))
    log.close()
    assert log.failed_syncs > 1 and log.lost == 0
    (path,) = tmp_path.iterdir()
    assert path.suffix == ".open" and read_log(path) == (batch(0) + batch(1), Loss(0, 0))


class Disk:
    """Stands for `os.write`: takes as many bytes as there is room, `at_once` of them in a call."""

    def __init__(self, room: int, at_once: int = 1 << 30, error: int = errno.ENOSPC) -> None:
        self.room, self.at_once, self.error = room, at_once, error
        self.write = os.write

    def __call__(self, descriptor: int, data: bytes | memoryview) -> int:
        if not self.room:
            raise OSError(self.error, "stub")
        n_bytes = self.write(descriptor, data[: min(self.room, self.at_once)])
        self.room -= n_bytes
        return n_bytes


@pytest.mark.parametrize("at_once", [1, 7, 100])
def test_a_write_that_stops_early_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(os, "write", Disk(1 << 30, at_once))
    log = RecordLog(tmp_path, "a")
    assert log.append(batch(0)) and log.append(batch(1))
    log.close()
    assert sealed(tmp_path) == batch(0) + batch(1)


def test_a_disk_that_takes_nothing_and_says_nothing_ends_in_a_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = RecordLog(tmp_path, "a")
    monkeypatch.setattr(os, "write", lambda descriptor, data: 0)
    assert not log.append(batch(0))
    log.close()
    assert log.lost == 3 and names(tmp_path) == []


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EFBIG, errno.EINTR, errno.EDQUOT])
@pytest.mark.parametrize("room", [0, 1, 76, 100, 3 * (FRAME + 60) - 1])  # one byte too little
@pytest.mark.parametrize("before", [0, 1, 2])
def test_a_batch_for_which_there_is_no_room_is_lost_whole_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int, room: int, error: int
) -> None:
    heard = Heard()
    log = RecordLog(tmp_path, "a", alarm=heard)
    kept = [record for number in range(before) for record in batch(number)]
    assert all(log.append(batch(number)) for number in range(before))
    monkeypatch.setattr(os, "write", Disk(room, error=error))
    assert sum(FRAME + len(record) for record in batch(7)) > 227
    assert not log.append(batch(7)) and not log.append(batch(8, n_records=2))
    (reason,) = heard
    assert reason == f"{tmp_path}: records of a are lost: {os.strerror(error)}"
    assert (log.written, log.lost) == (3 * before, 5)
    monkeypatch.undo()
    assert log.append(batch(9)) and log.append(batch(10))
    log.close()
    assert heard == [reason, None]
    assert (log.written, log.lost) == (3 * before + 6, 5)
    assert sealed(tmp_path) == [*kept, *batch(9), *batch(10)]
    assert names(tmp_path) == [".log"] * (2 if before else 1)


def test_what_cannot_be_cut_off_is_skipped_by_the_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int, size: int) -> None:
        raise OSError(errno.EIO, "stub")

    log = RecordLog(tmp_path, "a")
    log.append(batch(0))
    monkeypatch.setattr(os, "ftruncate", fail)
    monkeypatch.setattr(os, "write", Disk(50))
    assert not log.append(batch(1))
    monkeypatch.undo()
    assert log.append(batch(2))
    log.close()
    first, second = (read_log(file.path) for file in sealed_files(tmp_path, "a"))
    assert first == (batch(0), Loss(50, 0)) and second == (batch(2), Loss(0, 0))


def test_where_no_file_can_be_made_records_are_lost_until_one_can(tmp_path: Path) -> None:
    heard, directory = Heard(), tmp_path / "logs"
    directory.write_text("a file where the directory should be")
    log = RecordLog(directory, "a", alarm=heard)
    assert not log.append(batch(0)) and not log.append(batch(1))
    assert log.lost == 6 and len(heard) == 1
    directory.unlink()
    assert log.append(batch(2))
    log.close()
    assert heard[1:] == [None] and sealed(directory) == batch(2)


def test_a_record_that_is_too_long_is_lost_alone(tmp_path: Path) -> None:
    heard = Heard()
    log = RecordLog(tmp_path, "a", alarm=heard)
    longest = bytes(MAX_RECORD_BYTES)
    assert log.append([b"x", longest]) and heard == []
    assert not log.append([b"y", longest + b"1", b"z"])
    assert not log.append([longest + b"1"])
    assert log.append([])
    log.close()
    assert sealed(tmp_path) == [b"x", longest, b"y", b"z"]
    assert (log.written, log.lost) == (4, 2)
    assert heard == [
        f"{tmp_path}: records of a are lost: "
        "expected records of at most 1,048,576 bytes, got a longer one",
        None,
    ]


@pytest.fixture
def small_files() -> Iterator[int]:
    """Files of this process end at so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield 1000
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_that_may_not_grow_is_followed_by_another(tmp_path: Path, small_files: int) -> None:
    log = RecordLog(tmp_path, "a")
    taken = [number for number in range(40) if log.append([b"%05d" % number * 40])]
    log.close()
    assert sealed(tmp_path) == [b"%05d" % number * 40 for number in taken]
    # 32 + 4 x 216 bytes have room in a file; what meets its end is lost.
    assert taken == [number for number in range(40) if number % 5 != 4]
    assert (log.written, log.lost, len(sealed_files(tmp_path, "a"))) == (32, 8, 8)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KiB, where one may be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not permitted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_costs_what_finds_no_room_and_nothing_else(tiny_disk: Path) -> None:
    heard = Heard()
    log = RecordLog(tiny_disk, "a", alarm=heard)
    taken = [number for number in range(600) if log.append(batch(number))]
    assert 200 < len(taken) < 600 and len(heard) == 1
    assert heard[0] == f"{tiny_disk}: records of a are lost: No space left on device"
    assert log.lost == 3 * (600 - len(taken))
    wait_until(lambda: sealed_files(tiny_disk, "a"))
    assert sealed(tiny_disk) == [record for number in taken for record in batch(number)]
    for file in sealed_files(tiny_disk, "a"):
        file.path.unlink()
    assert log.append(batch(600))
    log.close()
    assert heard[1:] == [None] and sealed(tiny_disk) == batch(600)


@pytest.mark.parametrize("kind", ["", "A", "a-b", "1a", "a/b", "a\n"])
def test_a_kind_that_cannot_begin_a_name_is_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(InvalidArgument, match="kind of records: expected lower-case letters"):
        RecordLog(tmp_path, kind)


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_an_interval_without_length_is_refused(tmp_path: Path, seconds: float) -> None:
    with pytest.raises(InvalidArgument, match="fsync_seconds: expected more than 0 or None"):
        RecordLog(tmp_path, "a", fsync_seconds=seconds)
