"""Writers that are killed, writers side by side, and the files that they leave."""

import fcntl
import itertools
import os
import random
import struct
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zlib import crc32

import pytest

from mlplatform.serving import record_files
from mlplatform.serving.record_files import Recovered, seal_abandoned, sealed_files
from mlplatform.serving.record_frames import Loss, encode, new_head, read_log
from mlplatform.serving.record_log import RecordLog

ROOT = Path(__file__).parents[3]
# Appends batches of 1 to 8 numbered records, and says after each how many stand in the log.
WRITER = """
import os, struct, sys
from pathlib import Path
from mlplatform.serving.record_log import RecordLog

directory, first, n_batches = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
log = RecordLog(directory, "a", rotate_bytes=30_000)
number = first
for n_records in (1 + index % 8 for index in range(n_batches)):
    records = [struct.pack("<Q", n) * (1 + n % 150) for n in range(number, number + n_records)]
    assert log.append(records)
    number += n_records
    os.write(1, struct.pack("<Q", number - first))
log.close()
"""


def start(directory: Path, first: int, n_batches: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(directory), str(first), str(n_batches)],
        env=os.environ | {"PYTHONPATH": str(ROOT / "platform")},
        stdout=subprocess.PIPE,
    )


def numbers(directory: Path) -> list[int]:
    """The numbers of all sealed records, every one of which is as its writer made it."""
    found = []
    for file in sealed_files(directory, "a"):
        for record in read_log(file.path)[0]:
            (number,) = struct.unpack("<Q", record[:8])
            assert record == struct.pack("<Q", number) * (1 + number % 150)
            found.append(number)
    return found


@pytest.mark.parametrize("seed", range(12))
def test_a_writer_killed_at_any_moment_loses_nothing_that_it_was_told_is_written(
    tmp_path: Path, seed: int
) -> None:
    with start(tmp_path, 0, 1_000_000) as writer:
        assert writer.stdout is not None
        said = writer.stdout.read(8 * random.Random(seed).randrange(1, 3000))
        writer.kill()
        said += writer.stdout.read()
    (acknowledged,) = struct.unpack("<Q", said[len(said) // 8 * 8 - 8 : len(said) // 8 * 8])
    recovered = seal_abandoned(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".log"}
    assert all(one.loss.corrupt_records == 0 for one in recovered)
    found = numbers(tmp_path)
    assert found == list(range(len(found)))
    # Of the batch that was being written, which has at most 8, some may be there too.
    assert acknowledged <= len(found) <= acknowledged + 8
    assert seal_abandoned(tmp_path) == []


def test_files_of_living_writers_are_left_alone_however_often_one_looks(tmp_path: Path) -> None:
    writers = [start(tmp_path, first, 4000) for first in (0, 1_000_000)]
    for writer in writers:
        assert writer.stdout is not None
        writer.stdout.read(8)
    looks = 0
    said = [b"", b""]
    while any(writer.poll() is None for writer in writers):
        assert seal_abandoned(tmp_path) == []
        looks += 1
        for index, writer in enumerate(writers):
            assert writer.stdout is not None
            os.set_blocking(writer.stdout.fileno(), False)
            said[index] += writer.stdout.read() or b""
    assert [writer.returncode for writer in writers] == [0, 0]
    for writer in writers:
        assert writer.stdout is not None
        writer.stdout.close()
    n_each = sum(1 + index % 8 for index in range(4000))
    found = numbers(tmp_path)
    for first in (0, 1_000_000):  # each one's in its order
        own = [number for number in found if (number >= 1_000_000) == bool(first)]
        assert own == list(range(first, first + n_each))
    assert looks > 1 and {path.suffix for path in tmp_path.iterdir()} == {".log"}
    assert len(sealed_files(tmp_path, "a")) > 100


NAME = "a-20240229T235959.000001Z-41-7.open"
CHANGED = datetime(2024, 3, 1, 0, 0, 8, 250_000, UTC)


def abandon(directory: Path, content: bytes, name: str = NAME) -> Path:
    path = directory / name
    path.write_bytes(content)
    os.utime(path, (CHANGED.timestamp(), CHANGED.timestamp()))
    return path


def test_an_abandoned_file_is_cut_and_sealed_with_the_time_of_its_last_change(
    tmp_path: Path,
) -> None:
    head, marker = new_head()
    whole = head + encode(marker, 0, [b"x", b"y"])
    abandon(tmp_path, whole + encode(marker, 2, [b"zz"])[:-1])
    sealed = tmp_path / "a-20240229T235959.000001Z-20240301T000008.260000Z-41-7.log"
    assert seal_abandoned(tmp_path) == [Recovered(sealed, 2, Loss(17, 0))]
    assert sealed.read_bytes() == whole and list(tmp_path.iterdir()) == [sealed]
    (file,) = sealed_files(tmp_path, "a")
    assert file.first == datetime(2024, 2, 29, 23, 59, 59, 1, UTC)
    assert file.last == CHANGED + timedelta(milliseconds=10)
    assert seal_abandoned(tmp_path) == []


@pytest.mark.parametrize("size", [0, 1, 16, 31, 32])
def test_an_abandoned_file_without_a_record_is_removed(tmp_path: Path, size: int) -> None:
    abandon(tmp_path, new_head()[0][:size])
    assert seal_abandoned(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def other_version() -> bytes:
    once = b"RECLOG\n\x02mark"
    return 2 * (once + struct.pack("<I", crc32(once))) + b"of a later release"


@pytest.mark.parametrize(
    ("content", "loss"), [(bytes(40), Loss(40, 0)), (other_version(), Loss(0, 0))]
)
def test_an_abandoned_file_that_cannot_be_read_is_sealed_as_it_is(
    tmp_path: Path, content: bytes, loss: Loss
) -> None:
    abandon(tmp_path, content)
    ((path, records, found),) = [
        (one.path, one.records, one.loss) for one in seal_abandoned(tmp_path)
    ]
    assert path.read_bytes() == content and (records, found) == (0, loss)


def test_a_clock_that_went_back_does_not_make_a_file_end_before_it_begins(tmp_path: Path) -> None:
    head, marker = new_head()
    abandon(tmp_path, head + encode(marker, 0, [b"x"]), "a-20250101T000000.000000Z-41-7.open")
    seal_abandoned(tmp_path)
    (file,) = sealed_files(tmp_path, "a")
    assert file.last == file.first + timedelta(microseconds=1)


def test_files_of_other_names_are_not_the_logs(tmp_path: Path) -> None:
    for name in ("a.open", "a-20240229T235959.000001Z-41-7.open.bak", "A" + NAME, "notes.log"):
        (tmp_path / name).write_bytes(bytes(50))
    before = sorted(tmp_path.iterdir())
    assert seal_abandoned(tmp_path) == [] and sealed_files(tmp_path, "a") == []
    assert sorted(tmp_path.iterdir()) == before
    assert seal_abandoned(tmp_path / "none") == [] and sealed_files(tmp_path / "none", "a") == []


def test_a_file_that_the_disk_does_not_let_seal_stays_for_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head, marker = new_head()
    content = head + encode(marker, 0, [b"x"])
    paths = [abandon(tmp_path, content, NAME.replace("a-", f"{kind}-")) for kind in "ab"]
    rename = Path.rename

    def fail_once(path: Path, target: Path) -> Path:
        if path == paths[0]:
            raise OSError(5, "stub")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail_once)
    assert [one.path.name[0] for one in seal_abandoned(tmp_path)] == ["b"]
    monkeypatch.undo()
    assert [one.path.name[0] for one in seal_abandoned(tmp_path)] == ["a"]


def test_a_file_taken_for_abandoned_before_its_lock_is_followed_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, sealings = fcntl.flock, []

    def late(descriptor: int, operation: int) -> None:
        monkeypatch.undo()
        sealings.append(seal_abandoned(tmp_path))
        assert list(tmp_path.iterdir()) == []
        flock(descriptor, operation)

    monkeypatch.setattr(record_files.fcntl, "flock", late)
    log = RecordLog(tmp_path, "a")
    assert log.append([b"x"])
    log.close()
    assert sealings == [[]]
    assert [read_log(file.path)[0] for file in sealed_files(tmp_path, "a")] == [[b"x"]]


def test_sealed_files_are_in_time_order_and_their_times_hold_the_appends(tmp_path: Path) -> None:
    log, other = RecordLog(tmp_path, "a", rotate_bytes=0), RecordLog(tmp_path, "a_b")
    moments = []
    for number in range(20):
        before = datetime.now(UTC)
        log.append([b"%d" % number])
        other.append([b"other"])
        moments.append((before, datetime.now(UTC)))
    log.close()
    other.close()
    files = sealed_files(tmp_path, "a")
    assert [read_log(file.path)[0] for file in files] == [[b"%d" % n] for n in range(20)]
    for file, (before, after) in zip(files, moments, strict=True):
        assert before <= file.first <= after < file.last
        assert file.kind == "a" and file.path.parent == tmp_path
    for file, following in itertools.pairwise(files):
        assert file.last <= following.first + timedelta(microseconds=1)
    assert [file.kind for file in sealed_files(tmp_path, "a_b")] == ["a_b"]
    assert {path.suffix for path in tmp_path.iterdir()} == {".log"}
