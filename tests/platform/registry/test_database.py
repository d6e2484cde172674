"""A database that is damaged, lost or another program's ends in one line, and can be made anew."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from mlplatform.errors import (
    DataCorrupt,
    FailedPrecondition,
    PlatformError,
    ResourceExhausted,
    Unavailable,
)
from mlplatform.registry import database
from mlplatform.registry.registry import STABLE, Registry
from tests.platform.registry.bundles import blessed, make_bundle, push


@pytest.fixture
def two(tmp_path: Path) -> Registry:
    root = tmp_path / "a registry? 100% #1"
    for name in ("one", "two"):
        push(root, tmp_path / name)
    return Registry(root)


def write(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
        connection.commit()


def overwrite(path: Path) -> None:
    path.write_bytes(b"not a database, but as long as the header of one would be; " * 3)


DAMAGES: list[Callable[[Path], object]] = [
    overwrite,
    lambda path: path.write_bytes(b""),
    lambda path: path.write_bytes(path.read_bytes()[:5000]),
    lambda path: path.write_bytes(path.read_bytes()[:4096] + bytes(8192)),
    lambda path: write(path, "DROP TABLE versions"),
    lambda path: write(path, "UPDATE versions SET manifest = CAST('{}' AS BLOB)"),
    lambda path: write(path, "UPDATE versions SET sha256 = '0'"),
    lambda path: path.unlink(),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_database_is_named_and_made_anew_from_the_versions(
    damage: Callable[[Path], object], two: Registry, tmp_path: Path
) -> None:
    before = two.list()
    damage(two.root / "registry.db")
    folder = make_bundle(tmp_path / "three", "three")
    manifest = blessed(folder, two.root)
    for act in (
        two.list,
        lambda: two.version(1),
        lambda: two.labelled(STABLE),
        lambda: two.push(folder, manifest),
    ):
        with pytest.raises(DataCorrupt, match=r"registry\.db: .*`rebuild`") as found:
            act()
        assert "\n" not in str(found.value)
    assert two.rebuild() == before == two.list()
    assert two.labels() == {}
    two.set_label(STABLE, 1)
    assert two.push(folder, manifest).number == 3


def test_the_journal_of_a_lost_database_is_not_played_into_the_new_one(two: Registry) -> None:
    path = two.root / "registry.db"
    journal = path.with_name("registry.db-journal")
    before = two.list()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA cache_size = 1")  # so that pages go to the disk before the end
        connection.execute("BEGIN")
        many = [("stable", 1, "", "x" * 1000)] * 100
        connection.executemany("INSERT INTO moves (label, after, at, why) VALUES (?,?,?,?)", many)
        hot = journal.read_bytes()
    path.unlink()
    journal.write_bytes(hot)
    assert two.rebuild() == before
    assert two.labels() == {} and not journal.exists()


def test_a_sound_database_keeps_its_labels(two: Registry) -> None:
    with pytest.raises(FailedPrecondition, match="sound"):
        two.rebuild()
    assert two.labels() == {STABLE: 2}


def test_a_rebuild_beside_a_damaged_version_changes_nothing(two: Registry) -> None:
    (two.root / "registry.db").write_bytes(b"")
    second = two.root / "versions" / "2"
    manifests = ["", "[]", "{}", '{"version": 2, "files": {}}', b"\xff".decode("latin-1")]
    whole = {"version": 2, "files": {}, "created": "today", "parent": 1}
    manifests += [
        json.dumps(whole | {name: value})
        for name, value in (("version", 7), ("parent", 2), ("parent", "1"), ("files", None))
    ]
    for name, content in [("card.md", "another"), *(("manifest.json", one) for one in manifests)]:
        (second / name).unlink()
        (second / name).write_text(content)
        with pytest.raises(DataCorrupt, match=rf"2/{name}"):
            two.rebuild()
        assert second.exists()
        assert (two.root / "registry.db").read_bytes() == b""


def test_another_format_is_one_clear_line(two: Registry) -> None:
    write(two.root / "registry.db", "PRAGMA user_version = 7")
    for act in (two.list, two.labels, two.rebuild):
        with pytest.raises(FailedPrecondition, match="format 1, got format 7") as found:
            act()
        assert str(two.root / "registry.db") in str(found.value)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (sqlite3.SQLITE_FULL, ResourceExhausted),
        (sqlite3.SQLITE_BUSY, Unavailable),
        (sqlite3.SQLITE_IOERR, FailedPrecondition),
        (sqlite3.SQLITE_CORRUPT | 1 << 8, DataCorrupt),  # an extended code
    ],
)
def test_every_failure_of_the_library_is_said_in_one_line(
    code: int, error: type[PlatformError], two: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        failure = sqlite3.OperationalError("no luck")
        failure.sqlite_errorcode = code
        raise failure

    monkeypatch.setattr(sqlite3, "connect", fail)
    with pytest.raises(error, match=r"registry\.db: "):
        two.labels()


def test_a_writer_that_does_not_end_is_waited_for_and_then_named(
    two: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_PATIENCE_SECONDS", 0.01)
    with closing(sqlite3.connect(two.root / "registry.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(Unavailable, match="another process writes"):
            two.labels()
    assert two.labels() == {STABLE: 2}


def test_every_connection_is_closed_and_every_commit_flushed(
    two: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[sqlite3.Connection] = []
    levels: list[int] = []

    class Watched(sqlite3.Connection):
        def close(self) -> None:
            levels.append(self.execute("PRAGMA synchronous").fetchone()[0])
            super().close()

    def connect(*arguments: object, **named: object) -> sqlite3.Connection:
        opened.append(plain(*arguments, factory=Watched, **named))  # type: ignore[call-overload]
        return opened[-1]

    plain = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", connect)
    two.set_label(STABLE, 1)
    two.rollback(STABLE)
    two.labelled(STABLE)
    assert len(opened) == len(levels) > 5
    assert set(levels) == {3}  # EXTRA
    for connection in opened:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            connection.execute("SELECT 1")
