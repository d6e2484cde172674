"""Doors: what every request has to show before anything is done for it.

Enters: a request's method, path, headers and where it comes from.  Leaves: nothing, or the error it
is turned away with.  The routes of `http.py` and gRPC's calls ask `Doors` themselves; `around` puts
the same doors before an ASGI app.

A body's length has to be declared: what was declared can be refused unread, and the parser holds
the sender to it.  Keys are kept and compared as digests, all of them whatever the first says, so
time tells nothing.  The limit of requests is a token bucket for each client, by key where there are
keys, else by remote address; behind a proxy that is the proxy's.
"""

import hashlib
import hmac
import json
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from time import monotonic
from typing import Any

from mlplatform.errors import InvalidArgument, PlatformError, Unauthenticated, Unavailable
from mlplatform.serving.admission import TooMany

API_KEY = b"x-api-key"
_SHORTEST_KEY = 16  # characters; a shorter one is guessed
_MAX_TEXT = 64  # characters of what was sent that an error repeats
_DIGITS = 18  # more, and the number is no length
_JSON = (b"content-type", b"application/json")

Headers = Mapping[bytes, bytes]  # names in lower case; of a repeated one the last
ASGI = Callable[[MutableMapping[str, Any], Any, Any], Awaitable[None]]


class LengthRequired(InvalidArgument):
    """A body that does not say how long it is."""

    http_status = 411


class BodyTooLong(InvalidArgument):
    """More bytes than are read."""

    http_status = 413


class NotJson(InvalidArgument):
    """A body of another type."""

    http_status = 415


class HeadTooLong(InvalidArgument):
    """More bytes of headers than are read."""

    http_status = 431


class Keys:
    """Who may come in: whoever has one of these."""

    def __init__(self, keys: Iterable[str]) -> None:
        """
        Raises:
            InvalidArgument: no key, or one too short to be a secret.
        """
        self._digests = [_digest(key.encode()) for key in keys]
        if not self._digests or any(len(key) < _SHORTEST_KEY for key in keys):
            raise InvalidArgument(
                f"API keys: expected one or more of at least {_SHORTEST_KEY} characters each; "
                "make one with `openssl rand -hex 32`"
            )

    def client(self, key: bytes | None) -> bytes:
        """What stands for the key's holder.

        Raises:
            Unauthenticated: it is none of the keys.
        """
        digest = _digest(key or b"")
        if not sum(hmac.compare_digest(digest, known) for known in self._digests):
            raise Unauthenticated(
                "expected an API key in the header x-api-key, got "
                + ("none" if key is None else "one that is not known")
            )
        return digest


class RateLimit:
    """`per_s` requests a second for each client, and `burst` at once for one that was quiet.

    It is this process's: a client that reaches n workers gets n times as much.  The `clients` seen
    last are remembered; one that was forgotten begins anew.
    """

    def __init__(
        self,
        per_s: float,
        burst: int,
        clients: int = 10_000,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """
        Raises:
            InvalidArgument: a limit that lets nobody in.
        """
        if not (per_s > 0 and burst >= 1 and clients >= 1):
            raise InvalidArgument(
                "rate limit: expected per_s > 0, burst >= 1 and clients >= 1, "
                f"got {per_s}, {burst} and {clients}"
            )
        self._per_s = per_s
        self._burst = float(burst)
        self._clients = clients
        self._clock = clock
        self._buckets: OrderedDict[bytes | str, tuple[float, float]] = OrderedDict()

    def take(self, client: bytes | str) -> None:
        """Count one request.

        Raises:
            TooMany: the client's bucket is empty; the request is not counted.
        """
        now = self._clock()
        tokens, since = self._buckets.get(client, (self._burst, now))
        tokens = min(self._burst, tokens + (now - since) * self._per_s)
        if tokens < 1:
            raise TooMany(
                f"more than {self._per_s:g} requests a second from one client",
                (1 - tokens) / self._per_s,
            )
        self._buckets[client] = (tokens - 1, now)
        self._buckets.move_to_end(client)
        if len(self._buckets) > self._clients:
            self._buckets.popitem(last=False)


@dataclass(frozen=True)
class Doors:
    """The conditions.  Without keys anybody may come in; without a rate, as often as they like."""

    max_body_bytes: int = 64 * 1024
    max_header_bytes: int = 16 * 1024  # path, names and values of one request
    keys: Keys | None = None
    rate: RateLimit | None = None
    open_paths: frozenset[str] = frozenset()  # probes: no key, no rate
    any_type_under: tuple[str, ...] = ()  # beginnings of paths whose clients state no body's type

    def identify(self, key: bytes | None, remote: str) -> None:
        """Let a client in.

        Args:
            key: as the client sent it.
            remote: where it comes from.

        Raises:
            Unauthenticated: the client's key is not known.
            TooMany: it asks too often.
        """
        client = remote if self.keys is None else self.keys.client(key)
        if self.rate is not None:
            self.rate.take(client)

    def admit(self, method: bytes, path: str, headers: Headers, remote: str) -> None:
        """Let a request in, of which the body was not read yet.

        Raises:
            Unauthenticated, TooMany: as `identify` does.
            LengthRequired, BodyTooLong, NotJson: a body that will not be read.
        """
        if (self.keys or self.rate) and path not in self.open_paths:
            self.identify(headers.get(API_KEY), remote)
        posts = method == b"POST"
        length = headers.get(b"content-length", b"")
        if (posts and not length.isdigit()) or b"transfer-encoding" in headers:
            raise LengthRequired("a body needs a Content-Length in digits")
        if len(length) > _DIGITS or int(length or b"0") > self.max_body_bytes:
            raise BodyTooLong(f"the body is too long, at most {self.max_body_bytes} bytes are read")
        if posts and not path.startswith(self.any_type_under):
            kind = headers.get(b"content-type", b"none")
            if kind != b"application/json":
                kind = kind.partition(b";")[0].strip().lower()
                if kind != b"application/json":
                    told = kind.decode("latin-1")[:_MAX_TEXT]
                    raise NotJson(f"expected Content-Type application/json, got {told}")

    def head_too_long(self) -> HeadTooLong:
        return HeadTooLong(
            f"the headers are too long, at most {self.max_header_bytes} bytes are read"
        )

    def around(self, app: ASGI) -> ASGI:
        """The app behind these doors."""

        async def guarded(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                remote = (scope.get("client") or ("",))[0]
                method = scope["method"].encode()
                lines = scope["headers"]
                try:
                    names_and_values = sum(len(name) + len(value) for name, value in lines)
                    if len(scope["path"]) + names_and_values > self.max_header_bytes:
                        raise self.head_too_long()
                    self.admit(method, scope["path"], dict(lines), remote)
                except PlatformError as error:
                    status, body, headers = refusal(error)
                    length = (b"content-length", b"%d" % len(body))
                    start = {"status": status, "headers": [_JSON, length, *headers]}
                    await send({"type": "http.response.start"} | start)
                    await send({"type": "http.response.body", "body": body})
                    return
            await app(scope, receive, send)

        return guarded


def retry_after_s(error: PlatformError) -> float | None:
    """When to come again; None if that would not help."""
    if isinstance(error, TooMany):
        return error.retry_after_s
    return 1.0 if isinstance(error, Unavailable) else None


def refusal(error: PlatformError) -> tuple[int, bytes, list[tuple[bytes, bytes]]]:
    """An error as HTTP: status, body and headers."""
    again = retry_after_s(error)
    headers = [] if again is None else [(b"retry-after", b"%d" % max(1, math.ceil(again)))]
    return error.http_status, json.dumps({"error": str(error)}).encode(), headers


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
