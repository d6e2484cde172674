"""What a gRPC service is made of: methods, and what their errors are to a client.

Enters: functions of an application, and classes of messages.  Leaves: methods by their paths, for
`grpc_server.serve`, and an error's status.
"""

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import grpc

from mlplatform.errors import PlatformError
from mlplatform.serving.doors import retry_after_s

Form = Literal["unary", "hot", "streaming"]
Methods = Mapping[str, "Method"]  # by "/service/method"
_LONGEST_TEXT_BYTES = 1000  # of an error; clients take 8 KB of metadata, three for a byte at worst


class Unimplemented(PlatformError):
    """There is no such call, or it cannot be made in this way."""

    http_status = 501
    grpc_status = "UNIMPLEMENTED"


class Context(Protocol):
    """A call, as its method sees it."""

    def time_remaining(self) -> float | None:
        """Seconds that the client still waits, at least 0; None if it did not say."""


class Reply(Protocol):
    """Answers one call; called in the loop's thread.  What comes second or too late is dropped."""

    def __call__(self, answer: Any) -> None: ...


@dataclass(frozen=True)
class Method:
    """answer: see the functions below.  parse: bytes -> a message; what it raises is the client's
    mistake.  guarded: whether it is behind the doors, and told of when it is answered."""

    answer: Callable[..., Any]
    form: Form
    parse: Callable[[bytes], Any]
    guarded: bool = True


def unary(answer: Callable[[Any, Context], Awaitable[Any]], request: Any) -> Method:
    """A call with one message each way, in a task of its own.

    Args:
        answer: of (message, context) the message to answer with; may raise.
        request: the class of the message that enters.
    """
    return Method(answer, "unary", request.FromString)


def hot(answer: Callable[[Any, Context, Reply], None], request: Any) -> Method:
    """As `unary`, without the cost of a task.

    Args:
        answer: of (message, context, reply), called in the loop; it may raise, else calls `reply`,
            at once or later, with a message or a PlatformError.
    """
    return Method(answer, "hot", request.FromString)


def streaming(
    answer: Callable[[AsyncIterator[Any], Context], AsyncIterator[Any]], request: Any
) -> Method:
    """A call with any number of messages each way.

    Args:
        answer: of (messages, context), an asynchronous generator of messages; may raise.
    """
    return Method(answer, "streaming", request.FromString)


def service(name: str, methods: Mapping[str, Method]) -> dict[str, Method]:
    """The methods of a service, by path."""
    return {f"/{name}/{method}": made for method, made in methods.items()}


def status_of(error: PlatformError) -> tuple[grpc.StatusCode, str, tuple[tuple[str, str], ...]]:
    """An error as gRPC: status, text and trailing metadata."""
    again = retry_after_s(error)
    trailing = () if again is None else (("retry-after-s", f"{max(1, math.ceil(again))}"),)
    text = str(error).encode()[:_LONGEST_TEXT_BYTES].decode(errors="ignore")
    return grpc.StatusCode[error.grpc_status], text, trailing
