"""What a request has to show: keys, rate, lengths, types; before a hot route and before an app."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.errors import InvalidArgument, NotFound, PlatformError, Unauthenticated, Unavailable
from mlplatform.serving.admission import TooMany
from mlplatform.serving.doors import (
    BodyTooLong,
    Doors,
    Headers,
    HeadTooLong,
    Keys,
    LengthRequired,
    NotJson,
    RateLimit,
    refusal,
    retry_after_s,
)

KEY, OTHER_KEY = "a" * 32, "b" * 32
PLAIN = {b"content-type": b"application/json", b"content-length": b"2"}


class TestKeys:
    def test_each_key_is_a_client_of_its_own_and_always_the_same(self) -> None:
        keys = Keys([KEY, OTHER_KEY])
        assert keys.client(KEY.encode()) == keys.client(KEY.encode())
        assert keys.client(KEY.encode()) != keys.client(OTHER_KEY.encode())

    @pytest.mark.parametrize("wrong", [None, b"", b"a", b"a" * 31, b"a" * 33, b"c" * 32, b"\xff"])
    def test_what_is_none_of_the_keys_is_refused(self, wrong: bytes | None) -> None:
        with pytest.raises(Unauthenticated, match="x-api-key") as caught:
            Keys([KEY, OTHER_KEY]).client(wrong)
        assert KEY not in str(caught.value) and "ccc" not in str(caught.value)

    @pytest.mark.parametrize("wrong", [[], ["a" * 15], [KEY, ""]])
    def test_keys_that_can_be_guessed_are_refused_when_the_server_starts(
        self, wrong: list[str]
    ) -> None:
        with pytest.raises(InvalidArgument, match="at least 16 characters"):
            Keys(wrong)


class TestRate:
    def test_a_quiet_client_has_its_burst_and_then_its_rate(self) -> None:
        now = 100.0
        rate = RateLimit(10, burst=3, clock=lambda: now)
        for _ in range(3):
            rate.take("a")
        with pytest.raises(TooMany, match="10 requests a second") as caught:
            rate.take("a")
        assert caught.value.retry_after_s == pytest.approx(0.1)
        rate.take("b")  # another's bucket
        now += 0.15  # one and a half tokens
        rate.take("a")
        with pytest.raises(TooMany) as caught:
            rate.take("a")
        assert caught.value.retry_after_s == pytest.approx(0.05)
        now += 1e6  # the bucket holds no more than the burst
        for _ in range(3):
            rate.take("a")
        with pytest.raises(TooMany):
            rate.take("a")

    def test_only_the_clients_seen_last_are_remembered(self) -> None:
        rate = RateLimit(1, burst=1, clients=2, clock=lambda: 0.0)
        for client in ("a", "b", "c"):  # and a is forgotten
            rate.take(client)
        for client in ("b", "c"):
            with pytest.raises(TooMany):
                rate.take(client)
        rate.take("a")

    @settings(deadline=None)
    @given(st.lists(st.floats(0, 2), max_size=100), st.integers(1, 5))
    def test_no_stretch_of_time_has_more_than_its_rate_and_a_burst(
        self, gaps: list[float], burst: int
    ) -> None:
        now = 0.0
        rate = RateLimit(2, burst, clock=lambda: now)
        taken: list[float] = []
        for gap in gaps:
            now += gap
            try:
                rate.take("a")
                taken.append(now)
            except TooMany as refused:
                # Just long enough: then one more is let in.
                assert 0 < refused.retry_after_s <= 0.5
        for first in range(len(taken)):
            for last in range(first, len(taken)):
                most = burst + 2 * (taken[last] - taken[first])
                assert last - first + 1 <= most + 1e-6

    @pytest.mark.parametrize("wrong", [(0, 1, 1), (1, 0, 1), (1, 1, 0), (float("nan"), 1, 1)])
    def test_a_limit_that_lets_nobody_in_is_refused(self, wrong: tuple[float, int, int]) -> None:
        with pytest.raises(InvalidArgument, match="rate limit"):
            RateLimit(*wrong)


def admit(doors: Doors, headers: Headers, path: str = "/a", method: bytes = b"POST") -> None:
    doors.admit(method, path, headers, "127.0.0.1")


class TestDoors:
    def test_a_body_up_to_the_cap_that_says_its_length_is_let_in(self) -> None:
        doors = Doors(max_body_bytes=100)
        admit(doors, PLAIN | {b"content-length": b"100"})
        admit(doors, PLAIN | {b"content-length": b"0"})
        with pytest.raises(BodyTooLong, match="at most 100 bytes"):
            admit(doors, PLAIN | {b"content-length": b"101"})
        with pytest.raises(BodyTooLong):
            admit(doors, PLAIN | {b"content-length": b"9" * 5000})

    @pytest.mark.parametrize("length", [b"", b"-1", b"+1", b"1.0", b"0x1", b"1,1", "²".encode()])
    def test_a_length_that_is_no_number_is_none(self, length: bytes) -> None:
        with pytest.raises(LengthRequired):
            admit(Doors(), PLAIN | {b"content-length": length})

    @pytest.mark.parametrize("method", [b"POST", b"GET"])
    def test_chunks_do_not_say_how_long_they_are(self, method: bytes) -> None:
        with pytest.raises(LengthRequired):
            admit(Doors(), PLAIN | {b"transfer-encoding": b"chunked"}, method=method)

    def test_without_a_body_there_is_no_length_and_no_type_to_state(self) -> None:
        admit(Doors(), {}, method=b"GET")
        with pytest.raises(BodyTooLong):
            admit(Doors(max_body_bytes=1), {b"content-length": b"2"}, method=b"GET")

    @pytest.mark.parametrize(
        ("kind", "good"),
        [
            (b"application/json", True),
            (b"Application/JSON; charset=utf-8", True),
            (b" application/json ;", True),
            (b"application/x-www-form-urlencoded", False),
            (b"application/jsonp", False),
            (b"", False),
            (None, False),
        ],
    )
    def test_a_body_has_to_be_json_but_under_the_paths_that_take_any(
        self, kind: bytes | None, good: bool
    ) -> None:
        doors = Doors(any_type_under=("/v1/models/", "/other/"))
        headers = {b"content-length": b"2"} | ({} if kind is None else {b"content-type": kind})
        for path in ("/v1/models/m:predict", "/other/a"):
            admit(doors, headers, path)
        for path in ("/v1/models", "/a/v1/models/", "/"):
            if good:
                admit(doors, headers, path)
            else:
                with pytest.raises(NotJson, match="expected Content-Type application/json"):
                    admit(doors, headers, path)

    def test_any_type_does_not_mean_any_length_or_no_key(self) -> None:
        doors = Doors(max_body_bytes=1, keys=Keys([KEY]), any_type_under=("/",))
        with pytest.raises(Unauthenticated):
            admit(doors, {b"content-length": b"2"})
        with pytest.raises(BodyTooLong):
            admit(doors, {b"content-length": b"2", b"x-api-key": KEY.encode()})
        with pytest.raises(LengthRequired):
            admit(doors, {b"x-api-key": KEY.encode()})

    def test_with_keys_a_client_is_its_key_and_else_its_address(self) -> None:
        by_key = Doors(keys=Keys([KEY, OTHER_KEY]), rate=RateLimit(0.001, burst=1))
        by_key.identify(KEY.encode(), "1.1.1.1")
        by_key.identify(OTHER_KEY.encode(), "1.1.1.1")
        with pytest.raises(TooMany):
            by_key.identify(KEY.encode(), "2.2.2.2")
        by_address = Doors(rate=RateLimit(0.001, burst=1))
        by_address.identify(KEY.encode(), "1.1.1.1")
        by_address.identify(KEY.encode(), "2.2.2.2")
        with pytest.raises(TooMany):
            by_address.identify(OTHER_KEY.encode(), "1.1.1.1")

    def test_guesses_at_a_key_do_not_use_up_the_holders_rate(self) -> None:
        doors = Doors(keys=Keys([KEY]), rate=RateLimit(0.001, burst=1))
        for _ in range(3):
            with pytest.raises(Unauthenticated):
                doors.identify(b"c" * 32, "1.1.1.1")
        doors.identify(KEY.encode(), "1.1.1.1")

    def test_probes_need_neither_key_nor_rate_but_their_bodies_are_held_to_the_cap(self) -> None:
        doors = Doors(
            1, keys=Keys([KEY]), rate=RateLimit(0.001, 1), open_paths=frozenset({"/healthz"})
        )
        for _ in range(3):
            admit(doors, {}, "/healthz", b"GET")
        with pytest.raises(Unauthenticated):
            admit(doors, {}, "/healthz/", b"GET")
        with pytest.raises(BodyTooLong):
            admit(doors, PLAIN, "/healthz")


@pytest.mark.parametrize(
    ("error", "status", "again"),
    [
        (NotFound("x"), 404, None),
        (PlatformError("x"), 500, None),
        (BodyTooLong("x"), 413, None),
        (HeadTooLong("x"), 431, None),
        (Unavailable("x"), 503, b"1"),
        (TooMany("x", 0.03), 429, b"1"),
        (TooMany("x", 1.2), 429, b"2"),
    ],
)
def test_a_refusal_is_the_errors_status_its_text_and_when_to_come_again(
    error: PlatformError, status: int, again: bytes | None
) -> None:
    assert refusal(error) == (status, b'{"error": "x"}', [(b"retry-after", again)] if again else [])
    assert (retry_after_s(error) is None) == (again is None)


class TestAround:
    """The same doors before an app, whatever serves it."""

    @staticmethod
    def ask(
        doors: Doors, headers: Headers, path: str = "/a", kind: str = "http"
    ) -> tuple[int, dict[bytes, bytes], bytes]:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"inside"})

        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": kind, "method": "POST", "path": path, "headers": list(headers.items()),
            "client": ("127.0.0.1", 5),
        }  # fmt: skip
        asyncio.run(doors.around(app)(scope, None, send))
        start, body = sent
        return start["status"], dict(start["headers"]), body["body"]

    def test_who_is_let_in_reaches_the_app(self) -> None:
        assert self.ask(Doors(), PLAIN)[2] == b"inside"
        form = PLAIN | {b"content-type": b"application/x-www-form-urlencoded"}
        doors = Doors(any_type_under=("/v1/models/",))
        assert self.ask(doors, form, "/v1/models/m:predict")[2] == b"inside"
        assert self.ask(doors, form)[0] == 415
        assert self.ask(Doors(keys=Keys([KEY])), {}, kind="lifespan")[2] == b"inside"

    @pytest.mark.parametrize(
        ("doors", "headers", "status"),
        [
            (Doors(keys=Keys([KEY])), PLAIN, 401),
            (Doors(), {b"content-type": b"application/json"}, 411),
            (Doors(max_body_bytes=1), PLAIN, 413),
            (Doors(), PLAIN | {b"content-type": b"text/plain"}, 415),
            (Doors(max_header_bytes=100), PLAIN | {b"x-pad": b"p" * 100}, 431),
        ],
    )
    def test_who_is_not_is_told_why_in_json(
        self, doors: Doors, headers: Headers, status: int
    ) -> None:
        found, lines, body = self.ask(doors, headers)
        assert found == status and set(json.loads(body)) == {"error"}
        assert lines[b"content-type"] == b"application/json"
        assert lines[b"content-length"] == str(len(body)).encode()

    def test_who_comes_too_often_is_told_when_to_come_again(self) -> None:
        doors = Doors(rate=RateLimit(0.5, burst=1, clock=lambda: 0.0))
        assert self.ask(doors, PLAIN)[0] == 200
        status, lines, _ = self.ask(doors, PLAIN)
        assert (status, lines[b"retry-after"]) == (429, b"2")
