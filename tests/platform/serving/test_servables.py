"""What is served: found by name, version and label; one thread, before which few may wait."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlplatform.errors import InvalidArgument, NotFound, PlatformError
from mlplatform.serving.admission import TooMany
from mlplatform.serving.servables import MAX_WAITING, ModelSpec, Servables
from mlplatform.serving.status import State, VersionStatus
from tests.platform.serving.small_models import half_plus

AVAILABLE = VersionStatus(State.AVAILABLE)


@pytest.fixture
def servables() -> Iterator[Servables]:
    """Of two versions; nothing here loads them."""
    paths = {"line": {2: Path("two"), 10: Path("ten")}, "curve": {10: Path("curve")}}
    states = {
        2: VersionStatus(State.UNLOADING),
        11: VersionStatus(State.END, "out of memory"),
    }
    served = Servables(paths, {"stable": 2, "canary": 10}, lambda: states)
    yield served
    served.close()


@pytest.mark.parametrize(
    ("spec", "version"),
    [
        (ModelSpec("line"), 10),
        (ModelSpec("line", version=2), 2),
        (ModelSpec("line", label="stable"), 2),
        (ModelSpec("line", label="canary"), 10),
    ],
)
def test_a_version_is_found_by_number_by_label_or_as_the_latest(
    servables: Servables, spec: ModelSpec, version: int
) -> None:
    found = servables.find(spec)
    assert (found.name, found.version) == ("line", version)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        (ModelSpec("other"), "Servable not found for request: Latest(other)"),
        (ModelSpec("line", version=3), "Servable not found for request: Specific(line, 3)"),
        (ModelSpec("curve", label="stable"), "Servable not found for request: Specific(curve, 2)"),
        (ModelSpec("../line"), "Servable not found for request: Latest(../line)"),
    ],
)
def test_what_is_not_served_is_not_found(servables: Servables, spec: ModelSpec, told: str) -> None:
    with pytest.raises(NotFound) as error:
        servables.find(spec)
    assert str(error.value) == told


def test_a_label_that_is_not_there_is_a_mistake(servables: Servables) -> None:
    for ask in (servables.find, servables.status):
        with pytest.raises(InvalidArgument, match="Unrecognized servable version label: nope"):
            ask(ModelSpec("line", label="nope"))


def test_the_status_has_all_versions_the_latest_first(servables: Servables) -> None:
    found = servables.status(ModelSpec("line"))
    assert list(found) == [11, 10, 2]
    assert found[10] == AVAILABLE
    assert found[2] == VersionStatus(State.UNLOADING)
    assert found[11] == VersionStatus(State.END, "out of memory")
    assert servables.status(ModelSpec("line", label="canary")) == {10: AVAILABLE}


def test_the_status_of_what_is_not_there_is_not_found(servables: Servables) -> None:
    with pytest.raises(NotFound, match="Could not find any versions of model other"):
        servables.status(ModelSpec("other"))
    with pytest.raises(NotFound, match="Could not find version 3 of model line"):
        servables.status(ModelSpec("line", version=3))


def test_load_loads_every_model_or_says_which_it_cannot(tmp_path: Path) -> None:
    whole = {1: half_plus(tmp_path / "one", 2)}
    served = Servables({"line": whole}, {})
    served.load()
    assert {"model", "signature_defs"} <= vars(served.find(ModelSpec("line"))).keys()
    served.close()
    broken = Servables({"line": {**whole, 2: tmp_path / "nothing"}}, {})
    with pytest.raises(PlatformError, match="version 2 of model line cannot be loaded"):
        broken.load()
    broken.close()


def test_work_is_done_in_one_thread_beside_the_loops(servables: Servables) -> None:
    async def threads() -> set[int]:
        return set(await asyncio.gather(*(servables.run(threading.get_ident) for _ in range(8))))

    (found,) = asyncio.run(threads())
    assert found != threading.get_ident()


def test_more_than_may_wait_are_refused_and_the_others_served(servables: Servables) -> None:
    async def crowd() -> None:
        go = threading.Event()
        waiting = [asyncio.create_task(servables.run(go.wait)) for _ in range(MAX_WAITING)]
        await asyncio.sleep(0)  # each task has asked
        with pytest.raises(TooMany):
            await servables.run(bool)
        go.set()
        assert await asyncio.gather(*waiting) == [True] * MAX_WAITING
        assert await servables.run(bool) is False  # there is room again

    asyncio.run(crowd())


def test_what_nobody_waits_for_any_more_is_not_begun(servables: Servables) -> None:
    done: list[str] = []

    async def impatient() -> None:
        go = threading.Event()
        first = asyncio.create_task(servables.run(go.wait))
        second = asyncio.create_task(servables.run(lambda: done.append("second")))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        go.set()
        await first
        await servables.run(lambda: done.append("third"))

    asyncio.run(impatient())
    assert done == ["third"]


def test_an_error_of_the_work_is_the_callers(servables: Servables) -> None:
    async def fail() -> None:
        await servables.run(lambda: 1 // 0)

    for _ in range(MAX_WAITING + 1):  # it takes no room with it
        with pytest.raises(ZeroDivisionError):
            asyncio.run(fail())


def test_tensorflow_is_not_imported_before_it_is_needed() -> None:
    code = (
        "import sys, mlplatform.serving.rest, mlplatform.serving.model_service; "
        "print([name for name in sys.modules if name.startswith('tensorflow')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr
