"""The bytes of a record log: frames that tell damage from data, and lead past it.

Enters: records, which are bytes of any meaning; or a log, whole, torn or damaged.  Leaves: frames
to append; or every record that is as it was written, and how much is lost.  What may be changed:
the layout, together with `VERSION`.

    log     head head frame*          the head twice: without its marker nothing can be read
    head    magic 7, version 1, marker 4, crc32 of these
    frame   marker 4, crc32 of what follows, number 4, length 4, the record

The marker is random, of one file, and stands before every frame: behind damage, reading goes on at
the next marker whose frame has the right checksum.  Frames are numbered from 0, and a number
never goes down in a file: so what is missing is counted exactly, and a record that holds a copy of
earlier frames is not taken for these.  (Sync markers as in Avro's object container files; numbers
that tell old frames from new as in RocksDB's recyclable logs.)

Changes of up to 32 neighbouring bits in number or record are always found.  A frame damaged in
another way is taken for sound only if its crc32 is right by chance, one time in 2^32.
"""

import os
import struct
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

from mlplatform.errors import FailedPrecondition, NotFound

VERSION = 1
MAX_RECORD_BYTES = 1 << 20
_MAGIC = b"RECLOG\n"
_HEAD = struct.Struct("<7sB4sI")
_FRAME = struct.Struct("<4sIII")
_NUMBERED = struct.Struct("<II")
_CHECKED = _FRAME.size - _NUMBERED.size  # where in a frame begins what its checksum covers
HEAD_BYTES = 2 * _HEAD.size


@dataclass(frozen=True)
class Loss:
    """What a log has no more.

    Args:
        torn_bytes: behind the last sound record; what a writer's death leaves.
        corrupt_records: missing before the last sound record.
    """

    torn_bytes: int
    corrupt_records: int


def new_head() -> tuple[bytes, bytes]:
    """A new log's first bytes, and its marker."""
    marker = os.urandom(4)
    checked = _HEAD.pack(_MAGIC, VERSION, marker, 0)[:-4]
    return 2 * (checked + crc32(checked).to_bytes(4, "little")), marker


def encode(marker: bytes, first: int, records: Sequence[bytes]) -> bytes:
    """The frames of records; `first` is the first one's number in its file."""
    parts: list[bytes] = []
    for number, record in enumerate(records, first):
        length = len(record)
        checksum = crc32(record, crc32(_NUMBERED.pack(number, length)))
        parts += (_FRAME.pack(marker, checksum, number, length), record)
    return b"".join(parts)


def read_log(path: Path) -> tuple[list[bytes], Loss]:
    """All sound records of a log in the order in which they were appended, and what is lost.

    Damage is no error; the file is read at once, as large as its rotation let it become.

    Raises:
        NotFound: there is no such file.
        FailedPrecondition: its format is of another version.
    """
    records: list[bytes] = []
    reading = read_records(path)
    while True:
        try:
            records.append(next(reading))
        except StopIteration as end:
            return records, end.value


def read_records(path: Path) -> Generator[bytes, None, Loss]:
    """As `read_log`, one by one; the generator returns the loss.  It raises at the first record."""
    # Not mapped: a mapped file that is cut, or whose disk fails, kills its reader.
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"{path}: expected a record log, got no file; list them again") from None
    version, marker = _read_head(content)
    if version not in (None, VERSION):
        raise FailedPrecondition(
            f"{path}: expected a record log of version {VERSION}, got version {version}; "
            "read it with the release that wrote it"
        )
    if version is None or len(content) < HEAD_BYTES:
        return Loss(len(content), 0)
    return (yield from _sound_frames(content, marker))


def _read_head(content: bytes) -> tuple[int | None, bytes]:
    """Version and marker of a log; no version if neither copy of the head is sound."""
    for at in range(0, min(len(content), HEAD_BYTES) - _HEAD.size + 1, _HEAD.size):
        magic, version, marker, checksum = _HEAD.unpack_from(content, at)
        if magic == _MAGIC and checksum == crc32(content[at : at + _HEAD.size - 4]):
            return version, marker
    return None, b""


def _sound_frames(content: bytes, marker: bytes) -> Generator[bytes, None, Loss]:
    size, view = len(content), memoryview(content)
    unpack, head, checked = _FRAME.unpack_from, _FRAME.size, _CHECKED
    at = end = HEAD_BYTES
    next_number = corrupt = 0
    while at + head <= size:
        found, checksum, number, length = unpack(content, at)
        after = at + head + length
        if (
            found == marker
            and after <= size
            and length <= MAX_RECORD_BYTES
            and number >= next_number
            and crc32(view[at + checked : after]) == checksum
        ):
            yield content[at + head : after]
            corrupt += number - next_number
            next_number = number + 1
            at = end = after
        else:
            at = content.find(marker, at + 1)
            if at < 0:
                break
    return Loss(size - end, corrupt)
