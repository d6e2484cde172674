"""Several processes at one registry: pushers queue, and what a server holds stays."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mlplatform
from mlplatform.errors import NotFound
from mlplatform.registry.registry import STABLE, Registry
from tests.platform.registry.bundles import blessed, make_bundle, push

HOLD = """
import sys
from pathlib import Path
from mlplatform.registry.registry import Registry
registry = Registry(Path(sys.argv[1]))
with registry.hold(registry.version(int(sys.argv[2]))):
    print("held", flush=True)
    sys.stdin.read()
"""
PUSH = """
import json, sys
from pathlib import Path
from mlplatform.registry.registry import Registry
print("ready", flush=True)
sys.stdin.readline()
root, bundle, manifest = sys.argv[1:]
print(Registry(Path(root)).push(Path(bundle), json.loads(manifest)).number)
"""


def start(script: str, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(mlplatform.__file__).parents[1])},
    )


@contextlib.contextmanager
def server(registry: Registry, number: int) -> Iterator["subprocess.Popen[str]"]:
    with start(HOLD, str(registry.root), str(number)) as process:
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.stdin.close()


@pytest.fixture
def four(tmp_path: Path) -> Registry:
    for number in range(1, 5):
        push(tmp_path / "registry", tmp_path / str(number))
    return Registry(tmp_path / "registry")


def numbers(registry: Registry) -> list[int]:
    return [version.number for version in registry.list()]


def test_what_a_server_holds_is_not_removed_until_it_lets_go(four: Registry) -> None:
    with server(four, 1) as first:
        with server(four, 1):  # a hold is shared
            assert four.garbage(keep=1) == [2]
            assert four.gc(keep=1) == [2]
            assert numbers(four) == [1, 3, 4]
        assert four.gc(keep=1) == []
        assert first.poll() is None
    assert four.gc(keep=1) == [1]
    assert numbers(four) == [3, 4]
    assert os.listdir(four.root / "holds") == []


def test_the_hold_of_a_killed_server_is_free(four: Registry) -> None:
    with server(four, 1) as process:
        assert four.garbage(keep=1) == [2]
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert four.gc(keep=1) == [1, 2]


def test_a_hold_within_the_process_counts_as_well(four: Registry) -> None:
    version = four.version(2)
    with four.hold(version) as held:
        assert held == version
        assert four.gc(keep=1) == [1]
    assert four.gc(keep=1) == [2]
    with pytest.raises(NotFound, match="removed was version 2"), four.hold(version):
        pass
    assert os.listdir(four.root / "holds") == []


def test_a_version_that_goes_before_the_hold_is_had_is_not_served(
    four: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = four.version(1)
    look = Registry.version

    def look_and_lose(registry: Registry, number: int) -> object:
        found = look(registry, number)
        monkeypatch.undo()
        assert registry.gc(keep=1) == [1, 2]
        return found

    monkeypatch.setattr(Registry, "version", look_and_lose)
    with pytest.raises(NotFound), four.hold(version):
        pass
    four.set_label(STABLE, 4)  # any writer clears up
    assert os.listdir(four.root / "holds") == []


def test_pushers_at_once_get_a_number_each(four: Registry, tmp_path: Path) -> None:
    folders = [make_bundle(tmp_path / name, name) for name in ("a", "b", "c", "d")]
    pushers = [
        start(PUSH, str(four.root), str(folder), json.dumps(blessed(folder, four.root)))
        for folder in folders
    ]
    for pusher in pushers:
        assert pusher.stdout is not None and pusher.stdout.readline() == "ready\n"
    for pusher in pushers:
        assert pusher.stdin is not None
        pusher.stdin.write("go\n")
        pusher.stdin.flush()
    given = [int(pusher.communicate()[0]) for pusher in pushers]
    assert sorted(given) == [5, 6, 7, 8]
    for folder, number in zip(folders, given, strict=True):
        four.verify(four.version(number))
        assert (four.version(number).path / "model" / "weights").read_text() == folder.name
    # One after another: each one's parent is the one before.
    assert [four.version(number).manifest["parent"] for number in range(5, 9)] == [4, 5, 6, 7]
    assert four.labelled(STABLE).number == 8
    assert [move.after for move in four.history(STABLE)] == list(range(1, 9))
