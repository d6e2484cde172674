"""HTTP/1.1 as the generator speaks it: one request at a time on each kept-alive connection.

Enters: JSON bodies.  Leaves: requests as bytes, made ahead; of an answer its status, its length
and, if it is wanted, its body.  Answers say their Content-Length; chunked ones are not understood.
"""

from collections.abc import Callable

from benchmarks.load import GARBLED, Plan
from benchmarks.load_loop import Connection

_END = b"\r\n\r\n"
_LENGTH = b"\r\ncontent-length:"
_CLOSE = b"\r\nconnection: close"
_STATUS_AT = len(b"HTTP/1.1 ")


def door(plan: Plan) -> Callable[[Connection], "HttpDoor"]:
    head = (
        f"POST {plan.path} HTTP/1.1\r\nHost: {plan.host}:{plan.port}\r\n"
        "Content-Type: application/json\r\nContent-Length: "
    ).encode()
    requests = [b"%b%d\r\n\r\n%b" % (head, len(body), body) for body in plan.messages]
    return lambda connection: HttpDoor(connection, plan, requests)


class HttpDoor:
    def __init__(self, connection: Connection, plan: Plan, requests: list[bytes]) -> None:
        self._connection, self._requests = connection, requests
        self._first, self._keep = plan.first, plan.keep_one_in
        self._number = -1
        self._came = b""

    def greet(self) -> None:
        self._connection.begin()  # HTTP/1.1 has nothing to be said first

    def request(self, number: int) -> bytes:
        self._number = number
        return self._requests[(self._first + number) % len(self._requests)]

    def give_up(self, number: int) -> None:
        self._connection.loop.lose(self._connection)  # HTTP/1.1 takes nothing back

    def receive(self, data: bytes) -> None:
        if self._came:
            data = self._came + data
        end = data.find(_END)
        if end < 0:
            self._came = data
            return
        head = data[:end].lower()
        try:
            status = int(head[_STATUS_AT : _STATUS_AT + 3])
            at = head.index(_LENGTH) + len(_LENGTH)
            stop = head.find(b"\r\n", at)
            length = int(head[at : stop if stop >= 0 else end])
        except ValueError:
            self._connection.loop.lose(self._connection, GARBLED)
            return
        start = end + len(_END)
        if len(data) < start + length:
            self._came = data
            return
        self._came = b""
        connection, number = self._connection, self._number
        if not connection.under_way or len(data) > start + length:  # an answer to no question
            connection.loop.lose(connection, GARBLED)
            return
        if _CLOSE in head:
            connection.open = False
        body = data[start:] if self._keep and not number % self._keep else None
        connection.answered(number, status, length, body)
        if not connection.open:
            connection.finish()
