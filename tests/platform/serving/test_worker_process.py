"""A worker's side, on pipes that the test holds the other ends of."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from mlplatform.errors import FailedPrecondition, NotFound
from mlplatform.serving.assignment import GO, VARIABLE, Assignment, Report
from mlplatform.serving.worker_process import Worker


@dataclass
class Supervising:
    """The supervisor's ends of the pipes, and the assignment with the worker's."""

    assignment: Assignment
    reports: int
    orders: int

    def heard(self) -> list[Report]:
        return [Report.from_line(line) for line in os.read(self.reports, 1 << 16).splitlines()]


@pytest.fixture
def supervising(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervising]:
    reports, reports_in = os.pipe()
    orders_out, orders = os.pipe()
    assignment = Assignment(
        versions={"stable": 3, "canary": 4},
        worker=1,
        generation=2,
        http=0,
        grpc=0,
        counts=0,
        reports=reports_in,
        orders=orders_out,
        low_priority=False,
        drain_s=1.5,
        status=tmp_path / "status.json",
        metrics=None,
    )
    for name, value in assignment.to_environment().items():
        monkeypatch.setenv(name, value)
    yield (made := Supervising(assignment, reports, orders))
    for descriptor in (reports, reports_in, orders_out, made.orders):
        if descriptor >= 0:
            os.close(descriptor)


def test_an_assignment_survives_the_environment(
    supervising: Supervising, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert Assignment.from_environment() == supervising.assignment
    other = replace(supervising.assignment, metrics=tmp_path / "ü", grpc=None, low_priority=True)
    monkeypatch.setenv(VARIABLE, other.to_environment()[VARIABLE])
    assert Assignment.from_environment() == other


@pytest.mark.parametrize("text", [None, "", "{}", '{"versions": []}'])
def test_a_worker_that_no_supervisor_started_says_so(
    text: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    if text is not None:
        monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(FailedPrecondition, match=f"{VARIABLE}: expected a supervisor's"):
        Assignment.from_environment()


def test_a_worker_waits_for_its_turn_and_serves_until_it_is_told_to_stop(
    supervising: Supervising,
) -> None:
    async def live() -> list[list[Report]]:
        worker = Worker.from_environment()
        assert await worker.load_quietly(lambda: 7) == 7
        turn = asyncio.create_task(worker.ready())
        done, _ = await asyncio.wait([turn], timeout=0.05)
        assert not done
        heard = [supervising.heard()]
        os.write(supervising.orders, GO)
        await asyncio.wait_for(turn, 30)
        worker.serving()
        heard.append(supervising.heard())
        assert not worker.stopping.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(worker.stopping.wait(), 30)
        return heard

    assert asyncio.run(live()) == [[Report("ready")], [Report("serving")]]


def test_the_supervisor_s_end_stops_a_worker(supervising: Supervising) -> None:
    async def live() -> None:
        worker = Worker.from_environment()
        os.write(supervising.orders, GO)
        await worker.ready()
        os.close(supervising.orders)
        supervising.orders = -1
        await asyncio.wait_for(worker.stopping.wait(), 30)

    asyncio.run(live())


def test_a_failure_is_one_line_and_names_the_version_that_was_being_loaded(
    supervising: Supervising,
) -> None:
    async def fail() -> None:
        worker = Worker.from_environment()
        with worker.loading(3):
            pass
        worker.failed(NotFound("no\n  such thing"))
        try:
            with worker.loading(4):
                raise ZeroDivisionError("x" * 10**6)
        except ZeroDivisionError as error:
            worker.failed(error)

    asyncio.run(fail())
    first, second = supervising.heard()
    assert first == Report("failed", "no such thing", None)
    assert second.version == 4 and second.error.startswith("ZeroDivisionError: xxx")
    assert len(second.error) == 2000


@pytest.mark.parametrize("how", ["signal", "end of the supervisor"])
def test_a_worker_that_loads_ends_at_once(how: str, supervising: Supervising) -> None:
    """Even where what it loads cannot be interrupted."""
    code = (
        "import os, time\n"
        "from mlplatform.serving.worker_process import run\n"
        "def load(worker):\n"
        "    os.write(worker.assignment.reports, b'loading')\n"
        "    time.sleep(3600)\n"
        "run(load, None)\n"
    )
    assignment = supervising.assignment
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        pass_fds=(assignment.reports, assignment.orders),
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3] / "platform")},
    )
    assert os.read(supervising.reports, 100) == b"loading"
    if how == "signal":
        process.terminate()
    else:
        os.close(supervising.orders)
        supervising.orders = -1
    assert process.wait(30) == 0
