"""A log of records that survives its writer: what `append` took, the file has.

Enters: batches of records, which are bytes.  Leaves: files of frames (`record_frames`) under names
that say when (`record_files`).  What may be changed: when files are rotated and flushed.

What is promised of a batch for which `append` returned True:
    the process dies, however       nothing is lost: the kernel has it
    the machine dies                what `fsync_seconds` and the fsync after that did not cover is
                                    lost; without, what the kernel did not write (30 s, usually)
    the disk is full or fails       batches are lost whole, counted and told to `alarm`; nothing
                                    raises, and the next append tries again

`append` costs one write(2).  All that waits for the disk is done by one thread of the log's own.
"""

import errno
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mlplatform.errors import InvalidArgument
from mlplatform.serving import record_files
from mlplatform.serving.record_frames import HEAD_BYTES, MAX_RECORD_BYTES, encode, new_head

ROTATE_BYTES = 64 << 20
ROTATE_SECONDS = 300.0


@dataclass
class _Growing:
    """The file that is written now; `size` and `flushed` are bytes of whole batches."""

    path: Path
    descriptor: int
    marker: bytes
    due: float  # time.monotonic() at which it is old
    records: int = 0
    size: int = HEAD_BYTES
    flushed: int = 0
    last: datetime = datetime.max


class RecordLog:
    """Appends records to files in a directory; of one process and one of its threads.

    Attributes:
        written, lost: records since the log was made.
        bytes: written, with their frames.
        failed_syncs: times that a file could not be flushed or sealed; one that stays open is
            sealed by `seal_abandoned` when this process has ended.
    """

    def __init__(
        self,
        directory: Path,
        kind: str,
        *,
        rotate_bytes: int = ROTATE_BYTES,
        rotate_seconds: float = ROTATE_SECONDS,
        fsync_seconds: float | None = None,
        alarm: Callable[[str | None], None] = lambda reason: None,
    ) -> None:
        """Make a log; its first file is created by the first append.

        Args:
            rotate_bytes: a file as large as this is sealed by the next append.
            rotate_seconds: so is one as old as this, also by `rotate_if_due`.
            fsync_seconds: how often what was written is flushed to disk, if ever.
            alarm: called in `append` with the reason when records begin to be lost, and with None
                when they are written again.

        Raises:
            InvalidArgument: `kind` cannot begin a file's name, or `fsync_seconds` is not positive.
        """
        record_files.require_kind(kind)
        if fsync_seconds is not None and not fsync_seconds > 0:
            raise InvalidArgument(
                f"fsync_seconds: expected more than 0 or None, got {fsync_seconds}; "
                "None leaves it to the kernel"
            )
        self._directory, self._kind = directory, kind
        self._rotate_bytes, self._rotate_seconds = rotate_bytes, rotate_seconds
        self._fsync_seconds, self._alarm = fsync_seconds, alarm
        self.written = self.lost = self.bytes = self.failed_syncs = 0
        self._losing = False
        self._growing: _Growing | None = None
        self._finished: queue.SimpleQueue[_Growing | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._tend, name=f"{kind} log", daemon=True)
        self._thread.start()

    def append(self, records: Sequence[bytes]) -> bool:
        """Write a batch; False if a record of it is lost.  Never raises for what is on disk.

        A record of more than MAX_RECORD_BYTES is lost alone, otherwise all of a batch or none.
        """
        fitting = [record for record in records if len(record) <= MAX_RECORD_BYTES]
        reason = None
        if len(fitting) < len(records):
            reason = f"expected records of at most {MAX_RECORD_BYTES:,} bytes, got a longer one"
        if fitting:
            try:
                self._write(fitting)
            except OSError as error:
                reason, fitting = os.strerror(error.errno or errno.EIO), []
                self._cut_back()
        self.written += len(fitting)
        self.lost += len(records) - len(fitting)
        if (reason is not None) != self._losing:
            self._losing = reason is not None
            self._alarm(reason and f"{self._directory}: records of {self._kind} are lost: {reason}")
        return reason is None

    def rotate_if_due(self) -> None:
        """Seal a file that is large or old; to be called now and then where appends are rare."""
        file = self._growing
        if file and (file.size >= self._rotate_bytes or time.monotonic() >= file.due):
            self._finish(file)

    def close(self) -> None:
        """Seal the last file and wait for it; the log takes no more records."""
        if self._growing:
            self._finish(self._growing)
        self._finished.put(None)
        self._thread.join()

    def _write(self, records: Sequence[bytes]) -> None:
        self.rotate_if_due()
        file = self._growing = self._growing or self._begin()
        batch = encode(file.marker, file.records, records)
        _write_all(file.descriptor, batch)
        file.records += len(records)
        file.size += len(batch)
        self.bytes += len(batch)

    def _begin(self) -> _Growing:
        path, descriptor = record_files.create(self._directory, self._kind)
        head, marker = new_head()
        try:
            _write_all(descriptor, head)
        except OSError:
            os.close(descriptor)
            path.unlink()
            raise
        return _Growing(path, descriptor, marker, time.monotonic() + self._rotate_seconds)

    def _cut_back(self) -> None:
        """After a failed write.  Its file is done with, so that a file has one tail at most."""
        file = self._growing
        if file is None:
            return
        with suppress(OSError):  # a reader finds the last whole frame, cut or not
            os.ftruncate(file.descriptor, file.size)
            if not file.records:  # as good as a new one
                return
        self._finish(file)

    def _finish(self, file: _Growing) -> None:
        file.last = datetime.now(UTC) + timedelta(microseconds=1)
        self._growing = None
        self._finished.put(file)

    def _tend(self) -> None:
        """The log's own thread: it alone closes files, so what it flushes is never closed."""
        while True:
            try:
                file = self._finished.get(timeout=self._fsync_seconds)
            except queue.Empty:
                self._flush()
                continue
            if file is None:
                return
            self._seal(file)

    def _flush(self) -> None:
        file = self._growing
        if file is None or file.flushed == (size := file.size):
            return
        try:
            os.fsync(file.descriptor)
            record_files.sync_directory(self._directory)
            file.flushed = size
        except OSError:
            self.failed_syncs += 1

    def _seal(self, file: _Growing) -> None:
        try:
            try:
                if file.records:
                    record_files.seal(file.path, file.descriptor, file.last)
                else:
                    file.path.unlink()
            finally:
                os.close(file.descriptor)
        except OSError:
            self.failed_syncs += 1


def _write_all(descriptor: int, content: bytes) -> None:
    """Write, and go on where the kernel stopped early, which it does where room ends."""
    left = memoryview(content)
    while left:
        n_bytes = os.write(descriptor, left)
        if not n_bytes:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        left = left[n_bytes:]
