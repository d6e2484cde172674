"""A server in a process of its own, watched: it may not die, eat memory or let one wait for ever.

Enters: a command.  Leaves: a running server for as long as a `with` block lasts, and of it nothing
after, however the block ends.  Whatever goes wrong in between is told apart and put in one line.
"""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPException
from tempfile import TemporaryFile
from typing import IO

import psutil

from mlplatform.errors import InvalidArgument

SAMPLE_S = 0.05  # between two looks at the memory
MB = 1 << 20
_DYING_S = 2.0  # a process that breaks off a connection gets so long to be seen dead
_PORT_BYTES = 64
_TAIL_BYTES = 4096
_SHOWN = 300  # characters of a line


class Refused(Exception):
    """The server is not safe to serve with; the message says why."""


@contextmanager
def watched(command: Sequence[str], memory_mb: float) -> Iterator["Watched"]:
    """Run a server until the block ends; then kill its process group and its descendants.

    Its standard input is a pipe that closes when this process ends, in whatever way: a server that
    ends with its input is gone even if this process is killed.

    Raises:
        InvalidArgument: the command cannot be started.
    """
    with TemporaryFile() as output, TemporaryFile() as errors:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=errors,
                start_new_session=True,  # a process group of its own, to be killed as one
            )
        except OSError as error:
            raise InvalidArgument(
                f"expected a command that starts a server, got {command[0]!r}, which does not "
                f"start ({error})"
            ) from error
        with process:
            server = Watched(process.pid, output, errors, memory_mb)
            watch = threading.Thread(target=server.watch, name="canary watch", daemon=True)
            try:
                watch.start()
                yield server
            finally:
                server.kill()
                server.over.set()
                watch.join()


class Watched:
    """A running server; `watch` runs beside whatever is done with it."""

    def __init__(self, pid: int, output: IO[bytes], errors: IO[bytes], memory_mb: float) -> None:
        self.peak_mb = 0.0  # resident memory of the server and its descendants, as sampled
        self.over = threading.Event()
        self._pid = pid
        self._output = output
        self._errors = errors
        self._memory_mb = memory_mb
        self._root = psutil.Process(pid)
        self._family = {self._root}  # also those that have left the tree since they were seen
        self._verdict: str | None = None
        self._waiting: tuple[float, str] | None = None  # until when, and what is said if it is late

    @contextmanager
    def within(self, seconds: float, expected: str) -> Iterator[None]:
        """The server must let the block end in time; late, it is killed, which ends the block.

        Raises:
            Refused: it did not, died, took too much memory, or broke off its connection.
        """
        late = f"expected {expected}, got none within {seconds:.3g} s; killed"
        self._waiting = (time.monotonic() + seconds, late)
        try:
            yield
        except (OSError, HTTPException) as error:
            give_up = time.monotonic() + _DYING_S
            while time.monotonic() < give_up:
                self.check()
                time.sleep(0.01)
            what = f"{type(error).__name__}: {error}"
            raise Refused(f"expected {expected}, got {one_line(what)}; killed") from error
        finally:
            self._waiting = None
        self.check()

    def port(self) -> int | None:
        """The port, which is the first line of what the server prints; None if it is not there yet.

        Raises:
            Refused: the line is no port.
        """
        line, end, _ = os.pread(self._output.fileno(), _PORT_BYTES, 0).partition(b"\n")
        if not end and len(line) < _PORT_BYTES:
            return None
        if not (end and line.strip().isdigit() and 0 < int(line) < 1 << 16):
            raise Refused(
                "expected a port as the first line of its standard output, got "
                f"{one_line(line)!r}; killed"
            )
        return int(line)

    def check(self) -> None:
        """See that it lives and was not condemned.

        Raises:
            Refused: it does not, or was; how it died, and the last line of its standard error.
        """
        # Looked at and not reaped: until it is, no other process gets the number that is killed.
        ended = os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if self._verdict is not None:  # asked after that: whoever is killed was condemned before
            raise Refused(self._verdict)
        if ended is not None:
            exited = ended.si_code == os.CLD_EXITED
            how = f"ended with code {ended.si_status}" if exited else _signal(ended.si_status)
            raise Refused(f"the server {how}: {self._last_error()}")

    def watch(self) -> None:
        """Look at memory and clock until `over`."""
        while not self.over.is_set():
            memory_mb = self._memory()
            self.peak_mb = max(self.peak_mb, memory_mb)
            waiting = self._waiting
            if memory_mb > self._memory_mb:
                self._condemn(
                    f"expected at most {self._memory_mb:,.0f} MB of memory, got {memory_mb:,.0f} "
                    "MB; killed"
                )
            elif waiting is not None and time.monotonic() > waiting[0]:
                self._condemn(waiting[1])
            self.over.wait(SAMPLE_S)

    def kill(self) -> None:
        """Kill all of it: the process group, and descendants that left it."""
        family = self._family | self._descendants()  # before they lose their parent
        with suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)
        for member in family:
            if member != self._root:  # by its own handle, which knows a number that was reused
                with suppress(psutil.Error):
                    member.kill()

    def _condemn(self, reason: str) -> None:
        self._verdict = self._verdict or reason
        self.kill()

    def _memory(self) -> float:
        """Resident memory now, in MB; a page that two processes share counts twice."""
        self._family = self._family | self._descendants()
        total = 0
        for member in self._family:
            with suppress(psutil.Error):
                total += member.memory_info().rss
        return total / MB

    def _descendants(self) -> set[psutil.Process]:
        with suppress(psutil.Error):
            return set(self._root.children(recursive=True))
        return set()

    def _last_error(self) -> str:
        size = os.fstat(self._errors.fileno()).st_size
        tail = os.pread(self._errors.fileno(), _TAIL_BYTES, max(0, size - _TAIL_BYTES))
        lines = tail.strip().splitlines()
        return one_line(lines[-1]) if lines else "nothing on its standard error"


def _signal(number: int) -> str:
    names = {s.value: s.name for s in signal.Signals}
    return f"was killed by {names.get(number, f'signal {number}')}"


def one_line(said: bytes | str) -> str:
    """What a server said, as one line that is safe to print."""
    text = said.decode(errors="replace") if isinstance(said, bytes) else said
    return "".join(c if c.isprintable() else " " for c in text).strip()[:_SHOWN]
