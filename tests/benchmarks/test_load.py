"""The load generator, against servers whose behaviour is known to the request."""

import asyncio
import math
import socket
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import load_grpc
from benchmarks.load import GARBLED, Generator, Outcome, Plan, percentile

Answer = Callable[[int, bytes, asyncio.StreamWriter], Awaitable[bool]]
METHOD = "/things.v1.Things/Echo"


@pytest.fixture(scope="module")
def generator() -> Iterator[Generator]:
    with Generator() as one:
        yield one


@contextmanager
def in_a_thread(begin: Callable[[], Awaitable[tuple[int, Callable[[], Awaitable[None]]]]]) -> (
    Iterator[tuple[int, asyncio.AbstractEventLoop]]
):  # fmt: skip
    """A server in a thread of its own: `begin` gives its port, and what ends it."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def call(what: Awaitable[object]) -> Future[object]:
        return asyncio.run_coroutine_threadsafe(what, loop)  # type: ignore[arg-type]

    port, end = call(begin()).result(20)  # type: ignore[misc]
    try:
        yield port, loop
    finally:
        call(end()).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


# A server of the tests' own ends while clients still come to it: what asyncio has taken and not yet
# told it of, it cannot close.  The generator, which is tested, is in another process.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@contextmanager
def http_server(answer: Answer) -> Iterator[tuple[int, asyncio.AbstractEventLoop]]:
    """Calls `answer` with the request's number and body; where it returns False, it hangs up."""
    count = iter(range(10**9))
    conversations: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
                body = await reader.readexactly(length)
                if not await answer(next(count), body, writer):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        conversations[asyncio.ensure_future(converse(reader, writer))] = writer

    async def begin() -> tuple[int, Callable[[], Awaitable[None]]]:
        server = await asyncio.start_server(connected, "127.0.0.1", 0)

        async def end() -> None:
            server.close()
            # What was accepted just now may still begin its conversation.
            while others := asyncio.all_tasks() - {asyncio.current_task()}:
                for conversation, writer in conversations.items():
                    conversation.cancel()
                    writer.close()
                await asyncio.wait(others)
            closed = [writer.wait_closed() for writer in conversations.values()]
            await asyncio.gather(*closed, return_exceptions=True)

        return server.sockets[0].getsockname()[1], end

    with in_a_thread(begin) as served:
        yield served


def response(body: bytes = b"{}", status: str = "200 OK", more: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n{more}\r\n".encode() + body


def plan(port: int, **changes: object) -> Plan:
    return replace(
        Plan(
            "http", "127.0.0.1", port, "/v1/things", [b'{"n": 1}', b'{"n": 22}'],
            rate=400, seconds=0.5, connections=8,
        ),
        **changes,  # type: ignore[arg-type]
    )  # fmt: skip


def test_every_request_is_sent_once_and_counted_by_what_became_of_it(
    generator: Generator,
) -> None:
    bodies: list[bytes] = []

    async def answer(number: int, body: bytes, writer: asyncio.StreamWriter) -> bool:
        bodies.append(body)
        if number % 5 == 1:
            writer.write(response(b'{"error": ""}', "503 Service Unavailable"))
        elif number % 5 == 2:
            head, _, rest = response(body * 100).partition(b"\r\n\r\n")
            writer.write(head)  # in pieces
            await writer.drain()
            await asyncio.sleep(0.001)
            writer.write(b"\r\n\r\n" + rest[:10])
            await asyncio.sleep(0.001)
            writer.write(rest[10:])
        else:
            writer.write(response(body))
        return True

    with http_server(answer) as (port, _):
        outcome = generator.run(plan(port, keep_one_in=1, first=1))
    n = len(outcome)
    assert len(bodies) == n == len(plan(port).arrivals())
    # The server counts in the order in which requests came, which may differ from that of arrivals
    # between connections: what is known is how many there are of each.
    assert sorted(bodies) == sorted([b'{"n": 22}', b'{"n": 1}'][i % 2] for i in range(n))
    assert outcome.errors() == {"status 503": len(range(1, n, 5))}
    assert sum(outcome.length == 13) == len(range(1, n, 5))
    assert sum(outcome.length >= 800) == len(range(2, n, 5))
    for i in np.flatnonzero(outcome.ok):
        asked = [b'{"n": 22}', b'{"n": 1}'][i % 2]
        assert outcome.bodies[int(i)] in (asked, asked * 100)
        assert outcome.length[i] == len(outcome.bodies[int(i)])
    assert outcome.goodput(within_ms=10_000) == pytest.approx(outcome.ok.sum() / 0.5)
    assert outcome.connections >= 8


def test_a_server_that_stands_still_is_charged_with_all_that_was_due_meanwhile(
    generator: Generator,
) -> None:
    stalls: list[tuple[float, float]] = []
    came: list[float] = []

    async def answer(number: int, body: bytes, writer: asyncio.StreamWriter) -> bool:
        came.append(time.monotonic())
        if number == 100:
            began = time.monotonic()
            time.sleep(1)  # the loop stands still, and with it every connection
            stalls.append((began, time.monotonic()))
        writer.write(response())
        return True

    with http_server(answer) as (port, _):
        outcome = generator.run(plan(port, rate=300, seconds=2, connections=4, most_connections=4))
    began, ended = stalls[0]
    due = outcome.started + outcome.intended
    meanwhile = (due > began) & (due < ended)
    assert meanwhile.sum() > 200
    # Only four connections: what they could carry was sent, and the rest was still to be sent.
    assert np.count_nonzero((np.array(came) > began) & (np.array(came) < ended)) <= 4
    assert np.all(outcome.latency_ms[meanwhile] >= 1000 * (ended - due[meanwhile]) - 1)
    assert outcome.ok.all()
    assert outcome.percentile_ms(99) > 900


def test_a_connection_that_the_server_closes_in_good_order_costs_no_request(
    generator: Generator,
) -> None:
    async def answer(number: int, body: bytes, writer: asyncio.StreamWriter) -> bool:
        last = number % 7 == 0
        writer.write(response(more="Connection: close\r\n" if last else ""))
        return not last

    with http_server(answer) as (port, _):
        outcome = generator.run(plan(port))
    assert outcome.errors() == {}
    assert outcome.connections >= len(outcome) // 7  # one was opened for each that was closed


def test_a_connection_that_breaks_costs_the_request_under_way_and_no_other(
    generator: Generator,
) -> None:
    async def answer(number: int, body: bytes, writer: asyncio.StreamWriter) -> bool:
        if number % 10 != 3:
            writer.write(response())
        elif number % 20 == 3:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{")
        return number % 10 != 3

    with http_server(answer) as (port, _):
        outcome = generator.run(plan(port))
    assert outcome.errors() == {"connection lost": len(range(3, len(outcome), 10))}


def test_no_answer_is_waited_for_longer_than_the_timeout(generator: Generator) -> None:
    async def answer(number: int, body: bytes, writer: asyncio.StreamWriter) -> bool:
        if number % 10:
            writer.write(response())
        return True

    with http_server(answer) as (port, _):
        outcome = generator.run(plan(port, timeout=1))
    unanswered = len(range(0, len(outcome), 10))
    assert outcome.errors() == {"no answer in time": unanswered}
    assert np.all(outcome.latency_ms[~outcome.ok] >= 1000)


def test_an_answer_without_a_length_is_not_understood(generator: Generator) -> None:
    async def answer(number: int, body: bytes, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n")
        return True

    with http_server(answer) as (port, _):
        outcome = generator.run(plan(port, rate=100, seconds=0.2))
    assert outcome.errors() == {"answer not understood": len(outcome)}


def test_where_nobody_listens_it_says_so(generator: Generator) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ConnectionError, match=f"127.0.0.1:{port}"):
        generator.run(plan(port))


def test_more_connections_are_opened_only_up_to_the_limit(generator: Generator) -> None:
    open_now, most = 0, 0

    async def answer(number: int, body: bytes, writer: asyncio.StreamWriter) -> bool:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        await asyncio.sleep(0.2)
        open_now -= 1
        writer.write(response())
        return True

    with http_server(answer) as (port, _):
        outcome = generator.run(plan(port, connections=2, most_connections=20))
    assert outcome.errors() == {}
    assert most == 20
    assert outcome.connections == 20


@contextmanager
def grpc_server(
    answer: Callable[[bytes, grpc.aio.ServicerContext], Awaitable[bytes]],
    port: int = 0,
    grace: float = 0,
    **options: int,
) -> Iterator[tuple[int, Callable[[], None]]]:
    """-> its port, and what begins a stop in good order."""
    servers: list[grpc.aio.Server] = []

    async def begin() -> tuple[int, Callable[[], Awaitable[None]]]:
        name, _, method = METHOD[1:].partition("/")
        server = grpc.aio.server(options=list(options.items()))
        handler = grpc.unary_unary_rpc_method_handler(answer)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(name, {method: handler}),)
        )
        bound = server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        servers.append(server)

        async def end() -> None:
            await server.stop(grace)

        return bound, end

    with in_a_thread(begin) as (bound, loop):
        yield bound, lambda: asyncio.run_coroutine_threadsafe(servers[0].stop(grace), loop)


def grpc_plan(port: int, **changes: object) -> Plan:
    return plan(port, door="grpc", path=METHOD, messages=[b"\x08\x01", b"\x08\x02" * 50], **changes)


def test_over_grpc_answers_are_those_of_a_real_server(generator: Generator) -> None:
    async def answer(message: bytes, context: grpc.aio.ServicerContext) -> bytes:
        if len(message) == 2:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a message with the word status")
        return message * 200

    with grpc_server(answer) as (port, _):
        outcome = generator.run(grpc_plan(port, keep_one_in=1))
    odd = np.arange(len(outcome)) % 2 == 1
    np.testing.assert_array_equal(outcome.status, np.where(odd, 0, 3))
    np.testing.assert_array_equal(outcome.length, np.where(odd, 20_000, 0))
    assert all(outcome.bodies[int(i)] == b"\x08\x02" * 10_000 for i in np.flatnonzero(odd))
    assert outcome.errors() == {"status 3": np.count_nonzero(~odd)}


def test_over_grpc_a_connection_that_does_not_answer_is_asked_less(generator: Generator) -> None:
    calls = Counter[str]()

    async def answer(message: bytes, context: grpc.aio.ServicerContext) -> bytes:
        peer = context.peer()
        calls[peer] += 1
        if peer == next(iter(calls)):
            await asyncio.sleep(0.4)
        return message

    with grpc_server(answer) as (port, _):
        outcome = generator.run(grpc_plan(port, connections=5, seconds=1, rate=100))
    assert outcome.ok.all()
    slow, *others = calls.values()
    # Turns alone would give it a fifth, about 20; the others have their turns.
    assert slow <= 6 and max(others) - min(others) <= 4


def test_over_grpc_calls_share_a_connection_but_no_more_than_the_server_allows(
    generator: Generator,
) -> None:
    now, most = 0, 0

    async def answer(message: bytes, context: grpc.aio.ServicerContext) -> bytes:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.05)
        now -= 1
        return message

    options = {"grpc.max_concurrent_streams": 5}
    with grpc_server(answer, **options) as (port, _):
        outcome = generator.run(
            grpc_plan(port, connections=2, most_connections=2, seconds=1, rate=300)
        )
    assert outcome.errors() == {}
    assert most == 10


def test_over_grpc_no_call_is_lost_to_a_server_that_stops_in_good_order(
    generator: Generator,
) -> None:
    asked = threading.Event()

    async def slowly(message: bytes, context: grpc.aio.ServicerContext) -> bytes:
        asked.set()
        await asyncio.sleep(0.01)
        return b"old"

    async def other(message: bytes, context: grpc.aio.ServicerContext) -> bytes:
        return b"new"

    with grpc_server(slowly, grace=5) as (port, stop):
        running = generator.start(grpc_plan(port, keep_one_in=1, seconds=2))
        assert asked.wait(30)  # the generator may take a while to begin
        time.sleep(0.5)
        with grpc_server(other, port):  # both listen on the port
            stop()
            outcome = running.result(30)
    # grpcio's server itself cancels a call that it hears in the moment of its stop.
    assert outcome.errors().keys() <= {"status 1"}
    assert np.count_nonzero(~outcome.ok) <= 5
    assert {outcome.bodies[0], outcome.bodies[len(outcome) - 1]} == {b"old", b"new"}


def test_over_grpc_a_call_without_an_answer_is_given_up_and_the_others_are_not(
    generator: Generator,
) -> None:
    async def answer(message: bytes, context: grpc.aio.ServicerContext) -> bytes:
        if len(message) == 2:
            await asyncio.sleep(60)
        return message

    with grpc_server(answer) as (port, _):
        outcome = generator.run(grpc_plan(port, connections=1, timeout=0.4, streams=500))
    odd = np.arange(len(outcome)) % 2 == 1
    assert outcome.ok[odd].all()
    assert np.all(~outcome.ok[~odd])
    # Either side may be first: both know of the deadline.
    assert outcome.errors().keys() <= {"no answer in time", "status 4", "connection lost"}


@pytest.mark.parametrize(
    ("block", "status"),
    [
        ("000b677270632d7374617475730130", 0),  # without indexing, in plain letters
        ("400b677270632d73746174757302" + b"13".hex(), 13),  # with indexing
        ("40889acac8b21234da8f0130", 0),  # the name by Huffman, as grpc-go writes it
        ("88" + "5f10" + b"application/grpc".hex() + "000b677270632d7374617475730135", 5),
        ("20" + "000c677270632d6d657373616765" + "0b677270632d737461747573"
         + "000b677270632d7374617475730137", 7),  # a message that reads like a status
        ("88", GARBLED),
        ("000b677270632d7374617475730178", GARBLED),  # a status that is no number
        ("000b677270", GARBLED),  # cut off
    ],
)  # fmt: skip
def test_the_status_is_found_in_trailers(block: str, status: int) -> None:
    assert load_grpc.status_of(bytes.fromhex(block)) == status


@given(st.binary(max_size=200))
def test_whatever_trailers_hold_there_is_a_status_or_none(block: bytes) -> None:
    assert load_grpc.status_of(block) in {GARBLED, *range(17)}


def test_arrivals_are_a_poisson_process_that_the_seed_decides() -> None:
    one = plan(1, rate=1000, seconds=60)
    times = one.arrivals()
    assert np.array_equal(times, replace(one).arrivals())
    assert not np.array_equal(times[:10], replace(one, seed=2).arrivals()[:10])
    assert np.all(np.diff(times) >= 0) and times[-1] < 60
    # Counts by second have mean and variance 1000; five standard errors of each are allowed.
    counts = np.histogram(times, bins=60, range=(0, 60))[0]
    assert abs(counts.mean() - 1000) < 5 * math.sqrt(1000 / 60)
    assert abs(counts.var(ddof=1) / 1000 - 1) < 5 * math.sqrt(2 / 59)


@given(
    st.lists(st.floats(0, 1e6), min_size=1, max_size=50),
    st.floats(0.1, 100),
)
def test_a_percentile_is_the_least_value_that_so_many_are_within(
    values: list[float], percent: float
) -> None:
    found = percentile(np.array(values), percent)
    assert found in values
    share = [100 * sum(other <= value for other in values) / len(values) for value in values]
    enough = [value for value, one in zip(values, share, strict=True) if one >= percent - 1e-9]
    assert found == min(enough)


def outcome_of(taken_ms: list[float], ended_ms: list[float], status: list[int]) -> Outcome:
    """Of requests that were due every 100 ms."""
    n = len(status)
    intended = np.arange(n) / 10
    return Outcome(
        plan(1, seconds=n / 10), 0.0, intended, intended + np.array(taken_ms) / 1000,
        intended + np.array(ended_ms) / 1000, np.array(status), np.zeros(n, np.int64),
        cpu_seconds=n * 30e-6, connections=1,
    )  # fmt: skip


def test_latency_counts_from_when_a_request_was_due_and_failures_are_no_good_answers() -> None:
    outcome = outcome_of([0, 0, 20, 0], [10, 60, 30, 1], [200, 200, 200, 503])
    np.testing.assert_allclose(outcome.latency_ms, [10, 60, 30, 1])
    np.testing.assert_allclose(outcome.lag_ms, [0, 0, 20, 0], atol=1e-9)
    assert outcome.percentile_ms(50, outcome.ok) == pytest.approx(30)
    assert outcome.percentile_ms(50) == pytest.approx(10)
    assert outcome.goodput(within_ms=50) == pytest.approx(2 / 0.4)
    assert outcome.cpu_us == pytest.approx(30)
    assert list(outcome.between(0.1, 0.3)) == [False, True, True, False]


def test_a_run_in_which_the_generator_itself_was_late_says_so() -> None:
    assert outcome_of([1] * 200, [2] * 200, [200] * 200).doubt == ""
    late = outcome_of([1] * 190 + [40] * 10, [50] * 200, [200] * 200)
    assert "40.0 ms late" in late.doubt
