"""gRPC's calls, each on a stream of HTTP/2.

Enters: requests' heads and bytes.  Leaves: messages, or the status of what was wrong.

Whoever sends is let in before the message is read.  A PlatformError ends a call with its status,
and says in the trailing metadata `retry-after-s` when to come again, where that helps.  Anything
else is INTERNAL and a line in the log, with where it happened and no word of the request.  What a
method answers after the deadline, or to a client that gave up, is dropped.
"""

import asyncio
import logging
import math
import time
import traceback
import zlib
from collections import deque
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from mlplatform.errors import (
    DeadlineExceeded,
    InvalidArgument,
    PlatformError,
    ResourceExhausted,
    Unavailable,
)
from mlplatform.serving.admission import TooMany
from mlplatform.serving.grpc_head import OK_HEAD, OK_TRAILERS, Head, error_fields
from mlplatform.serving.grpc_methods import Method
from mlplatform.serving.http2_stream import Stream

if TYPE_CHECKING:
    from mlplatform.serving.grpc_protocol import GrpcConnection

logger = logging.getLogger(__name__)

_NO_ROOM = error_fields(TooMany("the server is overloaded; try again later", 1.0))
PREFIX_BYTES = 5  # before every message: whether it is compressed, and its length


class Call(Stream):
    """A call, and the context that its method is given.

    deadline: `time.monotonic`'s; infinite if the client did not say.
    """

    __slots__ = ("_began", "_buffer", "_head", "_task", "_told", "deadline")
    connection: "GrpcConnection"

    def __init__(self, connection: "GrpcConnection", stream_id: int, head: Head) -> None:
        super().__init__(connection, stream_id)
        self._head = head
        self._began = time.monotonic()
        self.deadline = math.inf
        self._task: asyncio.Task[None] | None = None
        self._buffer = bytearray()  # of messages, what is not complete
        self._told = False  # the status is decided

    def time_remaining(self) -> float | None:
        left = self.deadline - time.monotonic()
        return None if left == math.inf else max(0.0, left)

    def begin(self) -> None:
        head, site = self._head, self.connection.site
        if head.refusal:
            self._told = True
            self.send(trailers=head.refusal)
            return
        if head.timeout_s is not None:
            self.deadline = self._began + head.timeout_s
            self.connection.expire_at(self.deadline)
        if site.asks and head.method.guarded:
            try:
                site.doors.identify(head.key, self.connection.remote)
            except PlatformError as error:
                self._fail(error)

    def lost(self) -> None:
        self._tell("CANCELLED")
        self._cancel()

    def cut(self) -> None:
        self._fail(Unavailable("the server stopped before it had the answer; ask again"))
        self._cancel()

    def expire(self) -> None:
        self._fail(DeadlineExceeded("the deadline is over"))
        self._cancel()

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _fail(self, error: BaseException) -> None:
        if not isinstance(error, PlatformError):
            if self._told and isinstance(error, asyncio.CancelledError):
                return  # that is how it ends
            error = _unexpected(self._head.path, error)
        if self._told:
            return
        status, fields = error_fields(error)
        self.send(trailers=self._before_trailers() + fields)
        self._tell(status)

    def _before_trailers(self) -> bytes:
        """What trailers begin with: a head, if nothing was sent before."""
        return OK_HEAD

    def _tell(self, status: str) -> None:
        if self._told:
            return
        self._told = True
        if self._buffer:
            self._release(len(self._buffer))
        if self._head.method.guarded and not self.lasting:
            seconds = time.monotonic() - self._began
            self.connection.site.answered(self._head.path, status, seconds)

    def _gather(self, data: bytes) -> None:
        """
        Raises:
            ResourceExhausted: more than is read.
        """
        connection = self.connection
        self._buffer += data
        connection.held += len(data)
        if connection.held > connection.site.held_bytes:
            raise ResourceExhausted("too much is sent at once on this connection")
        if len(self._buffer) >= PREFIX_BYTES:
            self._length(self._buffer)

    def _release(self, length: int) -> None:
        self.connection.held -= length
        del self._buffer[:length]

    def _length(self, framed: bytes | bytearray) -> int:
        """How long a message says that it is.

        Raises:
            ResourceExhausted: longer than is read.
        """
        length = int.from_bytes(framed[1:PREFIX_BYTES], "big")
        longest = self.connection.site.longest_bytes
        if length > longest:
            raise ResourceExhausted(
                f"a message of {length} bytes is too long, at most {longest} are read"
            )
        return length

    def _parsed(self, framed: bytes) -> Any:
        """A message with its prefix, of the right length, read.

        Raises:
            PlatformError: it cannot be.
        """
        message, head = framed[PREFIX_BYTES:], self._head
        longest = self.connection.site.longest_bytes
        if len(message) > longest:
            self._length(framed)
        if framed[0]:
            message = _decompressed(message, head.window_bits, longest)
        try:
            return head.method.parse(message)
        except Exception:
            raise InvalidArgument(f"{head.path}: the message cannot be read") from None


class UnaryCall(Call):
    """One message, one answer."""

    __slots__ = ()

    def received(self, data: bytes) -> None:
        try:
            if self._buffer or not self.received_all:
                self._gather(data)
                self.consumed(len(data))
                if not self.received_all:
                    return
                data = bytes(self._buffer)
                self._release(len(data))
            if int.from_bytes(data[1:PREFIX_BYTES], "big") != len(data) - PREFIX_BYTES:
                self._length(data)
                raise InvalidArgument(f"{self._head.path}: expected exactly one message")
            method = self._head.method
            if method.form == "hot" and self.connection.site.full():
                self.send(trailers=OK_HEAD + _NO_ROOM[1])
                self._tell(_NO_ROOM[0])
                return
            request = self._parsed(data)
            if method.form == "hot":
                method.answer(request, self, self._reply)
            else:
                self._task = asyncio.get_running_loop().create_task(self._run(method, request))
        except Exception as error:
            self._fail(error)

    async def _run(self, method: Method, request: Any) -> None:
        try:
            self._reply(await method.answer(request, self))
        except asyncio.CancelledError as error:
            self._fail(error)  # unless it was told before why
            raise
        except Exception as error:
            self._fail(error)

    def _reply(self, answer: Any) -> None:
        if self._told:
            return
        if isinstance(answer, PlatformError):
            self._fail(answer)
            return
        try:
            framed = _framed(answer)
        except Exception as error:
            self._fail(error)
            return
        self.send(OK_HEAD, framed, OK_TRAILERS)
        self._tell("OK")


class StreamingCall(Call):
    """Any number of messages, each way."""

    lasting = True

    __slots__ = ("_complete", "_more", "_opened", "_sent")

    def __init__(self, connection: "GrpcConnection", stream_id: int, head: Head) -> None:
        super().__init__(connection, stream_id, head)
        self._complete: deque[bytes] = deque()  # messages, with their prefixes
        self._more = asyncio.Event()
        self._sent = asyncio.Event()
        self._opened = False  # the answer's head is sent

    def begin(self) -> None:
        super().begin()
        if not self._told:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def received(self, data: bytes) -> None:
        if self._told:
            return
        try:
            self._gather(data)
            while len(self._buffer) >= PREFIX_BYTES:
                size = PREFIX_BYTES + self._length(self._buffer)
                if len(self._buffer) < size:
                    break
                self._complete.append(bytes(self._buffer[:size]))
                self._release(size)
            if self.received_all and self._buffer:
                raise InvalidArgument(f"{self._head.path}: the last message is cut off")
        except PlatformError as error:
            self._fail(error)
            self._cancel()
        self._more.set()

    def sent(self) -> None:
        self._sent.set()

    async def _messages(self) -> AsyncIterator[Any]:
        while True:
            while self._complete:
                framed = self._complete.popleft()
                self.consumed(len(framed))
                yield self._parsed(framed)
            if self.received_all:
                return
            self._more.clear()
            await self._more.wait()

    async def _run(self) -> None:
        method = self._head.method
        try:
            async with aclosing(method.answer(self._messages(), self)) as answers:
                async for answer in answers:
                    self.send(b"" if self._opened else OK_HEAD, _framed(answer))
                    self._opened = True
                    if self.unsent:
                        self._sent.clear()
                        await self._sent.wait()
            self.send(trailers=self._before_trailers() + OK_TRAILERS)
            self._tell("OK")
        except asyncio.CancelledError as error:
            self._fail(error)  # unless it was told before why
            raise
        except Exception as error:
            self._fail(error)

    def _before_trailers(self) -> bytes:
        return b"" if self._opened else OK_HEAD


def _framed(message: Any) -> bytes:
    content: bytes = message.SerializeToString()
    return b"\0" + len(content).to_bytes(4, "big") + content


def _decompressed(message: bytes, window_bits: int, longest: int) -> bytes:
    if not window_bits:
        raise InvalidArgument("a compressed message, of which grpc-encoding does not say how")
    unpacking = zlib.decompressobj(window_bits)
    try:
        content = unpacking.decompress(message, longest + 1)
    except zlib.error:
        raise InvalidArgument("a compressed message that cannot be read") from None
    if len(content) > longest:
        raise ResourceExhausted(f"a message is too long, at most {longest} bytes are read")
    if not unpacking.eof:
        raise InvalidArgument("a compressed message that is cut off")
    return content


def _unexpected(path: str, error: BaseException) -> PlatformError:
    # Not its text, which may quote the request.
    where = "".join(traceback.format_tb(error.__traceback__))
    logger.error("%s failed: %s\n%s", path, type(error).__name__, where)
    return PlatformError("the call failed; the server's log says why")
