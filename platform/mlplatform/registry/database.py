"""The registry's metadata: which versions there are, and every move of every label.

Enters: versions with their manifests, and moves.  Leaves: `registry.db`, SQLite.  A label stands
where its last move put it; there is no second place that could say otherwise.

The journal is a rollback journal, not a write-ahead log, and `synchronous` is EXTRA (FULL, and the
journal's removal flushed too): a commit survives a kill and a power cut, one cut short is undone by
whoever opens the file next, and a database at rest is one file, which a copy of the registry has
whole.  Transactions are a row or two, so readers wait for nothing that lasts.  Every call opens a
connection of its own and closes it.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlplatform import artifacts
from mlplatform.errors import DataCorrupt, FailedPrecondition, PlatformError, Unavailable
from mlplatform.registry.version import parse_manifest, sha256

FORMAT = 1
COMPLETE, REMOVED = "complete", "removed"
_SCHEMA = f"""
CREATE TABLE versions (
    number INTEGER PRIMARY KEY,
    state TEXT NOT NULL CHECK (state IN ('{COMPLETE}', '{REMOVED}')),
    manifest BLOB NOT NULL,
    sha256 TEXT NOT NULL
);
CREATE TABLE moves (
    id INTEGER PRIMARY KEY,
    label TEXT NOT NULL,
    before INTEGER REFERENCES versions,
    after INTEGER NOT NULL REFERENCES versions,
    back INTEGER REFERENCES moves,
    at TEXT NOT NULL,
    why TEXT NOT NULL
);
PRAGMA user_version = {FORMAT};
"""
_PATIENCE_SECONDS = 30.0
_ENTRIES = "SELECT number, state, manifest, sha256 FROM versions"


@dataclass(frozen=True)
class Entry:
    """A version as the database knows it; sha256 is of the manifest's bytes."""

    number: int
    state: str
    manifest: Mapping[str, Any]
    sha256: str


@dataclass(frozen=True)
class Move:
    """A label's step from one version to another.

    back: the id of the earlier move that a rollback returns to.  A rollback to a move takes over
    that move's own `back`, so the next one goes a step further.
    at: UTC, ISO 8601.
    """

    id: int
    label: str
    before: int | None
    after: int
    back: int | None
    at: str
    why: str


class Database:
    """`path`, a database of the format above; where there is none yet, it reads as empty."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self, manifests: Mapping[int, bytes]) -> None:
        """Put a new database in place of any other: these versions, and no label."""
        rows = [(n, COMPLETE, content, sha256(content)) for n, content in manifests.items()]
        with closing(_empty()) as connection:
            connection.executemany("INSERT INTO versions VALUES (?, ?, ?, ?)", rows)
            content = connection.serialize()
        # A journal left beside the old file would be played back into the new one.
        self.path.with_name(self.path.name + "-journal").unlink(missing_ok=True)
        artifacts.write_file_atomically(self.path, content)

    def entries(self) -> list[Entry]:
        """All versions that there ever were, the oldest first.

        Raises:
            DataCorrupt: of this and every other method: the file is damaged.
            FailedPrecondition: it is of another format.
            Unavailable: another process writes, and does not end.
        """
        return self._entries(f"{_ENTRIES} ORDER BY number")

    def states(self) -> dict[int, str]:
        """The state of every version, by its number, the oldest first."""
        with self._connected() as connection:
            query = "SELECT number, state FROM versions ORDER BY number"
            return dict(connection.execute(query).fetchall())

    def entry(self, number: int) -> Entry | None:
        return next(iter(self._entries(f"{_ENTRIES} WHERE number = ?", number)), None)

    def labelled(self, label: str) -> Entry | None:
        """The version that a label stands at."""
        last = "SELECT after FROM moves WHERE label = ? ORDER BY id DESC LIMIT 1"
        return next(iter(self._entries(f"{_ENTRIES} WHERE number = ({last})", label)), None)

    def labels(self) -> dict[str, int]:
        last = "SELECT max(id) FROM moves GROUP BY label"
        with self._connected() as connection:
            query = f"SELECT label, after FROM moves WHERE id IN ({last}) ORDER BY label"
            return dict(connection.execute(query).fetchall())

    def moves(self, label: str) -> list[Move]:
        """A label's history, the oldest move first."""
        query = "SELECT id, label, before, after, back, at, why FROM moves WHERE label = ?"
        with self._connected() as connection:
            rows = connection.execute(f"{query} ORDER BY id", (label,)).fetchall()
        return [Move(*row) for row in rows]

    def add_version(self, number: int, manifest: bytes) -> None:
        row = (number, COMPLETE, manifest, sha256(manifest))
        self._write("INSERT INTO versions VALUES (?, ?, ?, ?)", row)

    def mark_removed(self, number: int) -> None:
        self._write("UPDATE versions SET state = ? WHERE number = ?", (REMOVED, number))

    def add_move(
        self, label: str, before: int | None, after: int, back: int | None, why: str
    ) -> None:
        row = (label, before, after, back, now(), why)
        query = "INSERT INTO moves (label, before, after, back, at, why) VALUES (?, ?, ?, ?, ?, ?)"
        self._write(query, row)

    def check(self) -> None:
        """Read everything.

        Raises:
            DataCorrupt: something is damaged.
        """
        self.entries()
        with self._connected() as connection:
            if connection.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
                raise self._damaged("its pages do not fit together")
            if connection.execute("PRAGMA foreign_key_check").fetchall():
                raise self._damaged("labels point at versions that it does not have")

    def _entries(self, query: str, *values: Any) -> list[Entry]:
        with self._connected() as connection:
            rows = connection.execute(query, values).fetchall()
        return list(self._parse(rows))

    def _parse(self, rows: Iterable[Sequence[Any]]) -> Iterator[Entry]:
        for number, state, content, digest in rows:
            if not isinstance(content, bytes) or sha256(content) != digest:
                raise self._damaged(f"its copy of version {number}'s manifest was altered")
            yield Entry(number, state, parse_manifest(content, number), digest)

    def _write(self, statement: str, values: Sequence[Any]) -> None:
        with self._connected() as connection:
            connection.execute(statement, values)  # one statement, one transaction

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(self._open()) as connection:
                connection.execute("PRAGMA synchronous = EXTRA")
                connection.execute("PRAGMA foreign_keys = ON")
                found = connection.execute("PRAGMA user_version").fetchone()[0]
                if found == 0:
                    raise self._damaged("no registry is in it")
                if found != FORMAT:
                    raise FailedPrecondition(
                        f"{self.path}: expected a registry of format {FORMAT}, got format {found};"
                        " use the program that wrote it, or another registry"
                    )
                yield connection
        except sqlite3.Error as error:
            raise self._explained(error) from error

    def _open(self) -> sqlite3.Connection:
        if not self.path.exists():
            return _empty()
        # Readers may write as well, since one may have to undo a commit that was cut short.
        address = f"{self.path.absolute().as_uri()}?mode=rw"
        return sqlite3.connect(address, uri=True, isolation_level=None, timeout=_PATIENCE_SECONDS)

    def _explained(self, error: sqlite3.Error) -> PlatformError:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            return artifacts.disk_full(self.path)
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return Unavailable(
                f"{self.path}: another process writes since {_PATIENCE_SECONDS:.0f} s; try again "
                "when it has ended"
            )
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR):
            return self._damaged(str(error))
        return FailedPrecondition(
            f"{self.path}: cannot be read or written ({error}); see to its permissions and its disk"
        )

    def _damaged(self, why: str) -> DataCorrupt:
        return DataCorrupt(
            f"{self.path}: damaged ({why}); `rebuild` makes it anew from the versions on the disk, "
            "then set the labels"
        )


def _empty() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(_SCHEMA)
    return connection


def now() -> str:
    """UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
