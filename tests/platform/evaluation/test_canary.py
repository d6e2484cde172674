"""Servers that misbehave, each in its own way, and what the canary says of them."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlplatform.errors import InvalidArgument
from mlplatform.evaluation.canary import Limits, Report, Request, examine
from mlplatform.evaluation.canary_answers import fault_of

ROOT = Path(__file__).parents[3]
# Asked `{"n": N}`, it answers as `EXPECTED`, unless BEFORE defines a `fault`.
SERVER = """
import json, os, signal, subprocess, sys, time
from http.server import BaseHTTPRequestHandler, HTTPServer

asked = 0


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        self.reply(200)

    def do_POST(self):
        global asked
        asked += 1
        n = json.loads(self.rfile.read(int(self.headers["content-length"])))["n"]
        answer = {"n": n, "items": [{"key": 7, "score": 0.5}, {"key": 8, "score": 0.25}]}
        fault(n, answer)
        self.reply(200, json.dumps(answer))

    def reply(self, status, text="{}"):
        self.send_response(status)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())


def fault(n, answer):
    pass


BEFORE
server = HTTPServer(("127.0.0.1", 0), Handler)
open(sys.argv[1], "w").write(str(os.getpid()))
print(server.server_port, flush=True)
server.serve_forever()
"""
LIMITS = Limits(budget_ms=400, memory_mb=300, ready_s=30, answer_s=10, rounds=3)
REQUESTS = [Request("POST", "/ask", {"n": n}) for n in range(4)]
ITEMS = [{"key": 7, "score": 0.5}, {"key": 8, "score": 0.25}]
EXPECTED = [{"n": n, "items": ITEMS} for n in range(4)]


def command(folder: Path, before: str = "") -> list[str]:
    """A server with a fault: code that defines `fault(n, answer)`, or runs before it listens."""
    script = folder / "server.py"
    script.write_text(SERVER.replace("BEFORE", before))
    return [sys.executable, str(script), str(folder / "pid")]


def on(n: int, what: str) -> str:
    return f"def fault(n, answer):\n    if n == {n}:\n        {what}\n"


def is_gone(pid: int) -> bool:
    """Whether a process ends, at the latest soon: one that was killed may take a moment."""
    for _ in range(500):
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


def refusal(folder: Path, before: str, limits: Limits = LIMITS) -> str:
    """Why a server with a fault is refused."""
    report = examine(command(folder, before), REQUESTS, EXPECTED, limits)
    assert not report.passed
    assert "\n" not in report.reason
    if (folder / "pid").exists():
        assert is_gone(int((folder / "pid").read_text()))
    return report.reason


class TestServers:
    def test_a_sound_server_passes_and_is_measured_and_is_gone(self, tmp_path: Path) -> None:
        report = examine(command(tmp_path), REQUESTS, EXPECTED, LIMITS)
        assert report == Report(True, "4 requests, 3 rounds: all as expected", report.figures)
        figures = report.figures
        assert figures["answers"] == 12
        assert 0 < figures["median_ms"] <= figures["p95_ms"] <= figures["slowest_ms"]
        assert 1 < figures["peak_memory_mb"] < 300 and figures["first_ms"] > 0
        assert 0 < figures["ready_s"] < 30
        assert is_gone(int((tmp_path / "pid").read_text()))

    def test_a_crash_at_start_is_told_with_the_last_line_of_standard_error(
        self, tmp_path: Path
    ) -> None:
        reason = refusal(tmp_path, "raise OSError('no model\\n\\there')")
        assert reason == "the server ended with code 1: here"

    def test_an_exit_at_start_that_says_nothing_is_told_as_such(self, tmp_path: Path) -> None:
        reason = refusal(tmp_path, "sys.exit(0)")
        assert reason == "the server ended with code 0: nothing on its standard error"

    def test_a_crash_at_a_request_names_the_request(self, tmp_path: Path) -> None:
        code = on(2, "print('a\\nout of luck', file=sys.stderr, flush=True); os._exit(3)")
        assert refusal(tmp_path, code) == (
            "request 3 of 4: the server ended with code 3: out of luck"
        )

    def test_an_abort_is_told_by_its_signal(self, tmp_path: Path) -> None:
        limit = "import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n"
        reason = refusal(tmp_path, limit + on(1, "os.abort()"))
        assert reason.startswith("request 2 of 4: the server was killed by SIGABRT: ")

    def test_a_crash_after_half_an_answer_is_a_crash(self, tmp_path: Path) -> None:
        half = (
            "def reply(self, *_): self.wfile.write(b'HTTP/1.0 200 OK\\r\\ncontent-length: 9\\r\\n"
        )
        code = f"{half}\\r\\n{{'); self.wfile.flush(); os._exit(4)\n"
        reason = refusal(tmp_path, code + on(1, "Handler.reply = reply"))
        assert reason.startswith("request 2 of 4: the server ended with code 4: ")

    def test_a_broken_off_connection_of_a_server_that_lives_is_told(self, tmp_path: Path) -> None:
        code = on(1, "Handler.reply = lambda self, *_: self.connection.close()")
        reason = refusal(tmp_path, code)
        assert reason.startswith("request 2 of 4: expected an answer within 400 ms, got Remote")

    def test_a_hang_is_killed_at_the_deadline(self, tmp_path: Path) -> None:
        reason = refusal(tmp_path, on(2, "time.sleep(1000)"), replace(LIMITS, answer_s=1))
        assert reason == (
            "request 3 of 4: expected an answer within 400 ms, got none within 1 s; killed"
        )

    def test_an_answer_that_drips_for_ever_is_a_hang(self, tmp_path: Path) -> None:
        code = (
            "def reply(self, *_):\n"
            "    self.wfile.write(b'HTTP/1.0 200 OK\\r\\n\\r\\n')\n"
            "    while True:\n"
            "        self.wfile.write(b' '); self.wfile.flush(); time.sleep(0.05)\n"
        )
        limits = replace(LIMITS, answer_s=1)
        reason = refusal(tmp_path, code + on(0, "Handler.reply = reply"), limits)
        assert reason.startswith("request 1 of 4: ") and "got none within 1 s" in reason

    def test_a_request_that_is_late_each_round_is_too_slow(self, tmp_path: Path) -> None:
        limits = replace(LIMITS, budget_ms=100)
        reason = refusal(tmp_path, on(1, "time.sleep(0.5)"), limits)
        assert reason.startswith("request 2 of 4: expected an answer within 100 ms, got one after ")
        assert reason.endswith(" ms, late in 2 of 2 rounds")

    def test_a_hiccup_is_forgiven_in_the_first_round_and_in_one_of_the_others(
        self, tmp_path: Path
    ) -> None:
        # The second request of the first round and of the second.
        code = "def fault(n, answer):\n    time.sleep(1.5 if asked in (2, 6) else 0)\n"
        limits = replace(LIMITS, budget_ms=1000)
        report = examine(command(tmp_path, code), REQUESTS, EXPECTED, limits)
        assert report.passed, report.reason
        assert report.figures["first_ms"] >= 1500 and report.figures["slowest_ms"] >= 1500
        assert report.figures["median_ms"] < 1500

    def test_nan_in_an_answer_is_told_and_located(self, tmp_path: Path) -> None:
        code = on(3, "answer['items'][1]['score'] = float('nan')")
        assert refusal(tmp_path, code) == (
            "request 4 of 4: items[1].score: expected a finite number, got NaN"
        )

    def test_an_answer_of_another_shape_is_told_and_located(self, tmp_path: Path) -> None:
        assert refusal(tmp_path, on(0, "answer['items'].pop()")) == (
            "request 1 of 4: items: expected a list of 2, got one of 1"
        )

    def test_a_wrong_number_is_told_and_located(self, tmp_path: Path) -> None:
        code = on(0, "answer['items'][0]['score'] = 0.51")
        assert refusal(tmp_path, code) == (
            "request 1 of 4: items[0].score: expected 0.5 give or take 5.1e-05, got 0.51"
        )

    def test_an_answer_that_changes_in_a_later_round_is_wrong(self, tmp_path: Path) -> None:
        code = "def fault(n, answer):\n    answer['n'] += asked == 7\n"
        assert refusal(tmp_path, code) == "request 3 of 4: n: expected 2, got 3"

    def test_another_status_is_told_with_what_was_said(self, tmp_path: Path) -> None:
        code = on(1, "return self_reply")
        code = code.replace("return self_reply", "raise SystemError('unreachable')")
        code = "def reply(self, *_):\n    self.send_error(500, explain='no')\n" + on(
            1, "Handler.reply = reply"
        )
        assert refusal(tmp_path, code).startswith("request 2 of 4: expected status 200, got 500: ")

    def test_a_server_that_eats_memory_is_killed(self, tmp_path: Path) -> None:
        # Not all of it at once, lest a machine without room be the one to kill it.
        eat = "global eaten; eaten = [(time.sleep(0.05), b'x' * (20 << 20)) for _ in range(100)]"
        reason = refusal(tmp_path, on(1, eat))
        assert reason.startswith("request 2 of 4: expected at most 300 MB of memory, got ")

    def test_memory_of_a_servers_children_counts(self, tmp_path: Path) -> None:
        eater = "import time; x = b'x' * (400 << 20); time.sleep(1000)"
        code = f"subprocess.Popen([sys.executable, '-c', {eater!r}]); time.sleep(1000)"
        assert refusal(tmp_path, code).startswith("expected at most 300 MB of memory, got ")

    def test_a_server_that_prints_no_port_is_never_ready(self, tmp_path: Path) -> None:
        reason = refusal(tmp_path, "time.sleep(1000)", replace(LIMITS, ready_s=1))
        assert reason == "expected a port on its standard output, got none within 1 s; killed"

    def test_a_server_that_does_not_say_ready_never_is(self, tmp_path: Path) -> None:
        code = "Handler.do_GET = lambda self: self.reply(503)"
        reason = refusal(tmp_path, code, replace(LIMITS, ready_s=2))
        assert reason.startswith("expected status 200 from GET /readyz, got none within ")

    @pytest.mark.parametrize(
        "said", ["hello\\x1b[31m", "", "-1", "0", "65536", "9" * 100, "8000.0"]
    )
    def test_garbage_instead_of_a_port_is_told(self, tmp_path: Path, said: str) -> None:
        reason = refusal(tmp_path, f"print('{said}', flush=True); time.sleep(1000)")
        assert reason.startswith("expected a port as the first line of its standard output, got '")
        assert "\x1b" not in reason

    def test_children_that_leave_the_group_are_gone_too(self, tmp_path: Path) -> None:
        code = (
            "child = subprocess.Popen(['sleep', '1000'], start_new_session=True)\n"
            f"open({str(tmp_path / 'child')!r}, 'w').write(str(child.pid))\n"
            "time.sleep(0.5)\n"  # long enough to be seen with its child
        )
        refusal(tmp_path, code + on(1, "os._exit(1)"))
        assert is_gone(int((tmp_path / "child").read_text()))

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
    def test_nothing_is_left_when_the_caller_is_interrupted_or_killed(
        self, tmp_path: Path, number: signal.Signals
    ) -> None:
        # Of a caller that is killed only the closing of its end of a pipe remains.
        obedient = "import threading\nthreading.Thread(target=lambda: (os.read(0, 1), os._exit(1)))"
        server = command(tmp_path, f"{obedient}.start()\n{on(1, 'time.sleep(1000)')}")
        call = (
            "from tests.platform.evaluation.test_canary import *\n"
            # A shell that starts tests in its background lets them ignore the interrupt.
            "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
            f"examine({server!r}, REQUESTS, EXPECTED, replace(LIMITS, answer_s=60))"
        )
        path = os.pathsep.join([str(ROOT), str(ROOT / "platform")])
        with subprocess.Popen(
            [sys.executable, "-c", call],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": path},
            stderr=subprocess.PIPE,
            text=True,
        ) as caller:
            while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
                assert caller.poll() is None, caller.stderr.read() if caller.stderr else ""
                time.sleep(0.02)
            pid = int((tmp_path / "pid").read_text())
            assert psutil.pid_exists(pid)
            caller.send_signal(number)
            said = caller.communicate(timeout=60)[1]
            assert caller.returncode != 0
            assert ("KeyboardInterrupt" in said) == (number == signal.SIGINT)
        assert is_gone(pid)


class TestArguments:
    @pytest.mark.parametrize(
        ("requests", "expected", "rounds"),
        [([], [], 3), (REQUESTS, [1], 3), (REQUESTS, REQUESTS, 1)],
    )
    def test_what_cannot_be_examined_is_refused_in_one_line(
        self, requests: list[Request], expected: list[Any], rounds: int
    ) -> None:
        with pytest.raises(InvalidArgument, match=r"^the canary: expected requests, .*rounds$"):
            examine(["true"], requests, expected, replace(LIMITS, rounds=rounds))

    def test_a_command_that_is_none_is_named(self) -> None:
        with pytest.raises(InvalidArgument, match="got '/no/such/server', which does not start"):
            examine(["/no/such/server"], REQUESTS, EXPECTED, LIMITS)


def faults(answer: Any, expected: Any, rtol: float = 0.0, atol: float = 0.0) -> str | None:
    return fault_of(json.dumps(answer).encode(), expected, rtol, atol)


FINITE = st.floats(allow_nan=False, allow_infinity=False)
LEAVES = st.none() | st.booleans() | st.integers() | FINITE | st.text(max_size=5)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
    ),
    max_leaves=10,
)


class TestAnswers:
    @given(VALUES)
    def test_an_answer_has_no_fault_beside_itself(self, value: Any) -> None:
        assert faults(value, value) is None

    @given(VALUES, VALUES)
    def test_of_two_answers_that_differ_each_is_at_fault_beside_the_other(
        self, one: Any, other: Any
    ) -> None:
        # Python has True equal to 1, JSON has not, and of both 1 and 1.0 are one number.
        plain = [json.dumps(_as_double(v), sort_keys=True) for v in (one, other)]
        if plain[0] != plain[1]:
            assert faults(one, other) and faults(other, one)

    @given(VALUES, st.sampled_from([math.nan, math.inf, -math.inf]), st.data())
    def test_a_number_that_is_not_finite_is_found_wherever_it_is(
        self, value: Any, number: float, data: st.DataObject
    ) -> None:
        expected = {"a": value, "b": [0.5]}
        answer = {"a": value, "b": [number]}
        for _ in range(data.draw(st.integers(0, 3))):
            expected, answer = {"a": [1, expected]}, {"a": [1, answer]}
        found = faults(answer, expected, rtol=1e9, atol=1e9)
        assert found and "b[0]: expected a finite number" in found

    @pytest.mark.parametrize(
        ("answer", "expected", "fault"),
        [
            ([1], {"a": 1}, "expected an object, got [1]"),
            ({"a": {"b": []}}, {"a": {"b": [1]}}, "a.b: expected a list of 1, got one of 0"),
            ({"a": 1}, {"a": 1, "b": 2}, 'expected the key "b", got an object without it'),
            ({"a": 1, "b": 2}, {"a": 1}, 'expected no key "b", got one'),
            ([1, True], [1, 1], "[1]: expected a number, got true"),
            ([None], [0.5], "[0]: expected a number, got null"),
            (["x"], ["y"], '[0]: expected "y", got "x"'),
            ({"k": 1_000_001}, {"k": 1_000_000}, "k: expected 1000000, got 1000001"),
            (1.5, 1, "expected 1 give or take 0.2, got 1.5"),
            ([1, [2]], [5, [2, 3]], "[1]: expected a list of 2, got one of 1"),
            ([1, [], math.inf], [5, [2], 1.0], "[2]: expected a finite number, got Infinity"),
        ],
    )
    def test_a_fault_is_located_and_says_what_was_expected(
        self, answer: Any, expected: Any, fault: str
    ) -> None:
        assert faults(answer, expected, rtol=0.1, atol=0.1) == fault

    @pytest.mark.parametrize(
        ("answer", "sound"), [(9.875, True), (10.125, True), (9.8, False), (10.2, False)]
    )
    def test_the_tolerance_is_absolute_and_relative_together(
        self, answer: float, sound: bool
    ) -> None:
        assert (faults([answer], [10.0], rtol=0.00625, atol=0.0625) is None) == sound

    def test_a_whole_number_may_be_written_as_a_fraction(self) -> None:
        assert faults([1.0, 2], [1, 2.0]) is None

    def test_an_expected_nan_is_met_by_nothing(self) -> None:
        assert faults([0.5], [math.nan], 1.0, 1.0) and faults([math.nan], [math.nan], 1.0, 1.0)

    @pytest.mark.parametrize(
        "body", [b"", b"{", b"\xff", b"[" * 100_000, b"1 2", b"<html>" + b"x" * 1000]
    )
    def test_what_is_no_json_is_told_and_cut_short(self, body: bytes) -> None:
        found = fault_of(body, {}, 0, 0)
        assert found and found.startswith('expected JSON, got "') and len(found) < 300

    @pytest.mark.parametrize("digits", [400, 5000])
    def test_a_number_of_too_many_digits_is_not_finite(self, digits: int) -> None:
        found = fault_of(b"[1" + b"0" * digits + b"]", [0.5], 0, 0)
        assert found == "[0]: expected a finite number, got Infinity"


def _as_double(value: Any) -> Any:
    """With whole numbers that a fraction can be equal to as fractions."""
    if isinstance(value, list):
        return [_as_double(v) for v in value]
    if isinstance(value, dict):
        return {k: _as_double(v) for k, v in value.items()}
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    # Minus zero equals zero.
    return int(value) if value == int(value) else value
