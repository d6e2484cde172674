"""A transport that only writes down, and its frames."""

import asyncio
import struct
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

from mlplatform.serving import http2_frames as h2

Frame = tuple[int, int, int, bytes]  # type, flags, stream, payload


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


class Wire(asyncio.Transport):
    """The client's end: what it was sent, and whether it is still read."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = bytearray()
        self.reading = True
        self.ended = self.aborted = False

    def write(self, data: Any) -> None:
        assert not self.ended
        self.sent += data

    def write_eof(self) -> None:
        self.ended = True

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def frames(self) -> list[Frame]:
        """What was sent since the last time."""
        found, at = [], 0
        while at < len(self.sent):
            word, flags, stream = struct.unpack_from(">IBI", self.sent, at)
            end = at + 9 + (word >> 8)
            assert end <= len(self.sent)
            found.append((word & 0xFF, flags, stream, bytes(self.sent[at + 9 : end])))
            at = end
        self.sent.clear()
        return found

    def faults(self) -> list[tuple[int, int, int]]:
        """Of GOAWAY and RST_STREAM among it: type, stream, error code."""
        return [
            (kind, stream, struct.unpack(">I", payload[4:8] if kind == h2.GOAWAY else payload)[0])
            for kind, _, stream, payload in self.frames()
            if kind in (h2.GOAWAY, h2.RST_STREAM)
        ]
