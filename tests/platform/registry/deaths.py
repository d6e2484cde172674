"""A writer that is killed, at whatever step, loses nothing and leaves nothing behind.

`test_killed.py` runs these tests in a process of their own.
"""

import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mlplatform.errors import DataCorrupt
from mlplatform.registry.registry import STABLE, Registry
from tests.platform.registry.bundles import blessed, files_below, make_bundle, push
from tests.platform.registry.stepping import after_every_death, kill_at_write

MEMORY = Path("/dev/shm")  # SIGKILL takes nothing from the kernel's cache: no disk is needed here
ALWAYS = {"registry.db", "registry.lock", "signing.key", "versions"}


@dataclass(frozen=True)
class Place:
    """A registry in some state, a new bundle, and a disk on which to use up copies of it."""

    before: Path
    bundle: Path
    disk: Path

    @property
    def root(self) -> Path:
        return self.disk / "registry"

    def prepare(self) -> None:
        shutil.rmtree(self.disk, ignore_errors=True)
        self.disk.mkdir()
        if self.before.exists():
            shutil.copytree(self.before, self.root)

    @property
    def registry(self) -> Registry:
        return Registry(self.root)


@pytest.fixture
def place() -> Iterator[Place]:
    parent = MEMORY if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        yield Place(
            Path(folder) / "before",
            make_bundle(Path(folder) / "new", "new"),
            Path(folder) / "disk",
        )


def history(place: Place, n_versions: int) -> None:
    """Versions 1, 2, … on disk, the label having stood at each in its turn."""
    for number in range(1, n_versions + 1):
        push(place.before, place.before.parent / str(number))


def require_intact(place: Place, complete: set[int], stands: tuple[Any, ...]) -> None:
    """What holds after any death: readers see whole versions, and a label at one of them."""
    registry = place.registry
    versions = registry.list()
    assert complete <= {version.number for version in versions}
    for version in versions:
        registry.verify(version)
    assert registry.labels().get(STABLE) in stands
    if registry.labels():
        registry.verify(registry.labelled(STABLE))


def litter(place: Place) -> set[str]:
    held = {f"holds/{version.number}" for version in place.registry.list()}
    kept = {f"versions/{version.number}" for version in place.registry.list()}
    return files_below(place.root) - ALWAYS - kept - held - {"holds"}


@pytest.mark.parametrize("n_before", [0, 2])
def test_a_push_killed_at_any_step(
    n_before: int, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secrets, "token_hex", lambda n_bytes: "5e" * n_bytes)  # disks compare
    history(place, n_before)
    complete, new = set(range(1, n_before + 1)), n_before + 1
    other = make_bundle(place.bundle.with_name("other"), "other")
    numbers_of_other = set()

    def again() -> None:
        place.registry.push(place.bundle, blessed(place.bundle, place.root))

    def survived() -> None:
        require_intact(place, complete, (n_before or None, new))
        left = shutil.copytree(place.disk, place.disk.with_name("left"))
        again()
        require_intact(place, complete | {new}, (new,))
        assert len(place.registry.list()) == new  # and not one more
        assert place.registry.labelled(STABLE).manifest["parent"] == (n_before or None)
        assert [move.after for move in place.registry.history(STABLE)] == [*range(1, new + 1)]
        assert not litter(place)
        # Another bundle may come first as well; a version that had its name by then is kept.
        shutil.rmtree(place.disk)
        left.rename(place.disk)
        named = {int(path.name) for path in place.root.glob("versions/*") if not path.suffix}
        version = place.registry.push(other, blessed(other, place.root))
        numbers_of_other.add(version.number)
        require_intact(place, complete | named | {version.number}, (version.number,))
        assert version.number == max(named, default=0) + 1
        assert not litter(place)

    assert after_every_death(again, place.prepare, place.disk, survived) > 400
    assert numbers_of_other == {new, new + 1}


@pytest.mark.parametrize(
    ("act", "n_before", "numbers", "label"),
    [
        (lambda registry: registry.set_label(STABLE, 1, "slow answers"), 2, [1, 2], 1),
        (lambda registry: registry.rollback(STABLE, to=1), 3, [1, 2, 3], 1),
        (lambda registry: registry.gc(keep=1), 4, [3, 4], 4),
    ],
    ids=["set_label", "rollback", "gc"],
)
def test_labels_and_removal_killed_at_any_step(
    act: Callable[[Registry], object], n_before: int, numbers: list[int], label: int, place: Place
) -> None:
    history(place, n_before)

    def again() -> None:
        act(place.registry)

    def survived() -> None:
        require_intact(place, set(numbers), (n_before, label))
        again()
        require_intact(place, set(numbers), (label,))
        assert [version.number for version in place.registry.list()] == numbers
        assert len(place.registry.history(STABLE)) == n_before + (label != n_before)
        # What is gone is known by its manifest.
        line = place.registry.lineage(place.registry.version(n_before))
        assert [version.number for version in line] == list(range(n_before, 0, -1))
        assert not litter(place)

    assert after_every_death(again, place.prepare, place.disk, survived) > 100


def test_a_rebuild_killed_at_any_step(place: Place) -> None:
    history(place, 3)
    damaged = bytearray((place.before / "registry.db").read_bytes())
    damaged[:100] = bytes(100)
    (place.before / "registry.db").write_bytes(damaged)

    def again() -> None:
        place.registry.rebuild()

    def survived() -> None:
        try:
            place.registry.list()
        except DataCorrupt as error:  # dead before the new database had its name
            assert "rebuild" in str(error)
            again()
        require_intact(place, {1, 2, 3}, (None,))
        place.registry.set_label(STABLE, 3)
        assert not litter(place)

    assert after_every_death(again, place.prepare, place.disk, survived) > 100


@pytest.mark.parametrize("n_before", [0, 12])
def test_a_push_whose_writes_are_cut_off_at_any_length(n_before: int, place: Place) -> None:
    history(place, n_before)
    complete, new = set(range(1, n_before + 1)), n_before + 1

    def again() -> None:
        place.registry.push(place.bundle, blessed(place.bundle, place.root))

    size, hot = 0, 0
    place.prepare()
    while kill_at_write(again, size):
        hot += (place.root / "registry.db-journal").exists()
        require_intact(place, complete, (n_before or None, new))
        again()
        require_intact(place, complete | {new}, (new,))
        assert not litter(place)
        size += 512
        place.prepare()
    assert size > 8192
    # Some died amid a commit, which the next one to open the database undid.
    assert n_before == 0 or hot > 0
