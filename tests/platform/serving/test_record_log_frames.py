"""Record logs that are cut, flipped and overwritten, against frames laid out by hand."""

import struct
from pathlib import Path
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.errors import FailedPrecondition, NotFound
from mlplatform.serving.record_frames import (
    MAX_RECORD_BYTES,
    Loss,
    encode,
    new_head,
    read_log,
    read_records,
)

HEAD = 32
MARKER = b"\xa7\x01\x3c\xe9"


def head(marker: bytes = MARKER, version: int = 1) -> bytes:
    once = b"RECLOG\n" + bytes([version]) + marker
    return 2 * (once + struct.pack("<I", crc32(once)))


def frame(number: int, record: bytes, marker: bytes = MARKER) -> bytes:
    checked = struct.pack("<II", number, len(record)) + record
    return marker + struct.pack("<I", crc32(checked)) + checked


def sample() -> list[bytes]:
    """Records of lengths from 0; one is a copy of the frames before it, one of bare markers."""
    first = [b"", b"a", bytes(range(37))]
    copy = b"".join(frame(number, record) for number, record in enumerate(first))
    return [*first, copy, MARKER * 3, bytes(20), b"\xff" * 9, b"last"]


def read(path: Path, content: bytes) -> tuple[list[bytes], Loss]:
    path.write_bytes(content)
    return read_log(path)


def write(records: list[bytes], marker: bytes = MARKER) -> tuple[bytes, list[int]]:
    """A log's content, and where each frame begins, and the last one ends."""
    content, bounds = head(marker), [HEAD]
    for number, record in enumerate(records):
        content += frame(number, record, marker)
        bounds.append(len(content))
    return content, bounds


def test_frames_are_laid_out_as_described() -> None:
    records = sample()
    assert encode(MARKER, 5, records) == b"".join(
        frame(number, record) for number, record in enumerate(records, 5)
    )
    begun, marker = new_head()
    assert begun == head(marker)
    assert new_head()[1] != marker  # one chance in 2^32 that this is wrong


def test_a_sound_log_is_read_as_it_is(tmp_path: Path) -> None:
    records = sample()
    assert read(tmp_path / "log", write(records)[0]) == (records, Loss(0, 0))
    assert list(read_records(tmp_path / "log")) == records


def test_a_log_cut_at_any_byte_is_a_prefix(tmp_path: Path) -> None:
    records = sample()
    content, bounds = write(records)
    for size in range(len(content) + 1):
        whole = sum(end <= size for end in bounds[1:])
        torn = size - bounds[whole] if size >= HEAD else size
        assert read(tmp_path / "log", content[:size]) == (records[:whole], Loss(torn, 0)), size


def test_a_flipped_bit_costs_its_record_and_no_other(tmp_path: Path) -> None:
    records = sample()
    content, bounds = write(records)
    last = len(records) - 1
    for at in range(len(content)):
        hit = sum(begin <= at for begin in bounds) - 1  # -1: the head
        left = records[:hit] + records[hit + 1 :] if hit >= 0 else records
        loss = Loss(0, 0) if hit < 0 else Loss(0, 1)
        if hit == last:  # no sound record behind it says that it was whole
            loss = Loss(bounds[-1] - bounds[-2], 0)
        for bit in range(8):
            damaged = bytearray(content)
            damaged[at] ^= 1 << bit
            assert read(tmp_path / "log", bytes(damaged)) == (left, loss), (at, bit)


SMALL = st.lists(st.binary(max_size=40) | st.just(MARKER * 2), max_size=12)


@settings(max_examples=300, deadline=None)
@given(SMALL, st.binary(min_size=4, max_size=4), st.data())
def test_whatever_is_overwritten_the_rest_is_read_and_what_is_missing_is_counted(
    tmp_path_factory: pytest.TempPathFactory,
    records: list[bytes],
    marker: bytes,
    data: st.DataObject,
) -> None:
    content, bounds = write(records, marker)
    begin = data.draw(st.integers(HEAD, len(content)))
    noise = data.draw(st.binary(max_size=min(120, len(content) - begin)))
    damaged = content[:begin] + noise + content[begin + len(noise) :]
    hit = {
        index
        for index in range(len(records))
        if damaged[bounds[index] : bounds[index + 1]] != content[bounds[index] : bounds[index + 1]]
    }
    whole = [index for index in range(len(records)) if index not in hit]
    end = bounds[whole[-1] + 1] if whole else HEAD
    found, loss = read(tmp_path_factory.mktemp("log") / "log", damaged)
    assert found == [records[index] for index in whole]
    assert loss == Loss(len(content) - end, (whole[-1] + 1 if whole else 0) - len(whole))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.booleans())
def test_a_file_of_anything_holds_no_record(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, headed: bool
) -> None:
    content = head() + content if headed else content
    path = tmp_path_factory.mktemp("log") / "log"
    assert read(path, content) == ([], Loss(len(content) - HEAD * headed, 0))


def test_a_number_that_goes_down_is_of_a_frame_from_before(tmp_path: Path) -> None:
    content = head() + frame(0, b"a") + frame(4, b"e") + frame(1, b"b") + frame(6, b"g")
    assert read(tmp_path / "log", content) == ([b"a", b"e", b"g"], Loss(0, 4))


def test_a_frame_of_another_file_is_not_taken(tmp_path: Path) -> None:
    other = frame(1, b"other", marker=b"\x01\x02\x03\x04")
    content = head() + frame(0, b"a") + other + frame(1, b"b")
    assert read(tmp_path / "log", content) == ([b"a", b"b"], Loss(0, 0))


def test_a_record_longer_than_any_is_not_taken(tmp_path: Path) -> None:
    longest = bytes(MAX_RECORD_BYTES)
    content = head() + frame(0, longest) + frame(1, longest + b"x") + frame(2, b"c")
    assert read(tmp_path / "log", content) == ([longest, b"c"], Loss(0, 1))


@pytest.mark.parametrize("damage", [range(7, 8), range(0, 16)])
def test_either_head_is_enough(tmp_path: Path, damage: range) -> None:
    records = sample()
    for first in (0, 16):
        content = bytearray(write(records)[0])
        for at in damage:
            content[first + at] ^= 0xFF
        assert read(tmp_path / "log", bytes(content)) == (records, Loss(0, 0))


def test_a_log_of_another_version_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(head(version=2) + frame(0, b"a"))
    with pytest.raises(FailedPrecondition) as caught:
        read_log(path)
    assert str(caught.value) == (
        f"{path}: expected a record log of version 1, got version 2; "
        "read it with the release that wrote it"
    )


def test_a_log_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="expected a record log, got no file"):
        read_log(tmp_path / "log")
