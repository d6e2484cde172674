"""The registry: immutable, numbered versions of bundles, and labels that point at them.

    ROOT/versions/N/     a version's files and its manifest.json, whole or absent
    ROOT/registry.db     which versions there are, and every move of every label
    ROOT/holds/N         what a server of version N has locked
    ROOT/registry.lock   what a writer has locked; the others wait for it
    ROOT/signing.key     what blessings are signed with, unless the environment has a key

Enters: a bundle's directory, its manifest and its signed blessing.  Leaves: its version.  Numbers
count up and none comes back, not even that of a version that was removed.

A version is a directory under its final name, flushed to the disk, before the database knows it,
and the database forgets it before its files go; so what the database calls complete can be served
at any moment, and a reader needs no lock.  What a killed writer left, the next one finishes or
undoes (`recovery.py`).  Nothing is changed in place: a version's files may be hard links to the
bundle's, which whoever made the bundle leaves alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlplatform import artifacts
from mlplatform.errors import DataCorrupt, FailedPrecondition, NotFound
from mlplatform.registry import recovery
from mlplatform.registry.database import COMPLETE, Database, Entry, Move, now
from mlplatform.registry.garbage import Holds, unneeded
from mlplatform.registry.labels import move_label, require_label, ways_back
from mlplatform.registry.locks import WRITERS, locked
from mlplatform.registry.signing import signing_key
from mlplatform.registry.version import (
    MANIFEST,
    Version,
    find_damage,
    hash_bundle,
    require_blessed_version,
    require_blessing,
)

__all__ = ["MANIFEST", "STABLE", "Move", "Registry", "Version", "require_blessed_version"]

STABLE = "stable"


class Registry:
    """The registry at `root`, which the first push creates.

    Every method raises what `Database` does, and writers ResourceExhausted where the disk is full.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._versions, self._holds = root / "versions", Holds(root / "holds")

    def push(self, bundle: Path, manifest: Mapping[str, Any], label: str = STABLE) -> Version:
        """Make `bundle` the next version and point `label` at it.

        The same files pushed again, as after a kill, are recognised by their hashes and get the
        label, not a second number.

        Args:
            manifest: whatever is to be known of the bundle later, and its `blessing`.  Added are
                `version`, `parent` (where the label stood), `created` (UTC) and `files`.

        Raises:
            FailedPrecondition: the gate did not bless just these files, the blessing's signature
            is wrong, or the bundle has a manifest of its own or a symbolic link.
            InvalidArgument: that is no label.
            NotFound: the bundle has no files.
        """
        require_label(label)
        files = hash_bundle(bundle)
        require_blessing(manifest.get("blessing"), files, signing_key(self.root), bundle)
        with self._writing() as database:
            same = [version for version in self.list() if version.manifest["files"] == files]
            version = same[-1] if same else self._add(database, bundle, files, manifest, label)
            move_label(database, label, version.number, "push")
        return version

    def list(self) -> Sequence[Version]:
        """All complete versions, the oldest first."""
        entries = self._database().entries()
        return [self._version(entry) for entry in entries if entry.state == COMPLETE]

    def version(self, number: int) -> Version:
        """One complete version.

        Raises:
            NotFound: there is none of that number.
        """
        return self._version(self._complete(number))

    def labels(self) -> dict[str, int]:
        """Where every label stands, by its name."""
        return self._database().labels()

    def labelled(self, label: str) -> Version:
        """The version that a label points at.

        Raises:
            NotFound: nothing carries the label.
        """
        entry = self._database().labelled(label)
        if entry is None:
            raise NotFound(
                f"{self.root}: no version is labelled {label!r}; push a bundle, or set the label"
            )
        return self._version(entry)

    def set_label(self, label: str, number: int, why: str = "") -> None:
        """Point a label at a complete version; where it already stands is no move.

        Raises:
            InvalidArgument: that is no label.
            NotFound: there is no such version.
        """
        require_label(label)
        with self._writing() as database:
            move_label(database, label, self.version(number).number, why)

    def history(self, label: str) -> Sequence[Move]:
        """Every move of a label, the oldest first."""
        return self._database().moves(label)

    def rollback(self, label: str, to: int | None = None) -> Version:
        """Point a label at the version where it stood before, so that two of them go two back.

        Versions that were removed meanwhile are passed over.

        Args:
            to: go back as far as this version; where the label stands there, nothing is done.

        Raises:
            NotFound: nothing carries the label.
            FailedPrecondition: it stood nowhere before, or never at `to`.
        """
        with self._writing() as database:
            current = self.labelled(label)
            if to == current.number:
                return current
            back = ways_back(database, label)
            wanted = [move for move in back if to in (None, move.after)]
            if not wanted:
                stood = ", ".join(dict.fromkeys(str(move.after) for move in back)) or "none"
                raise FailedPrecondition(
                    f"{self.root}: {label!r} points at version {current.number} and cannot go back"
                    f"{'' if to is None else f' to version {to}'}; versions where it stood before: "
                    f"{stood}; any other is a matter of setting the label"
                )
            move = wanted[0]
            database.add_move(label, current.number, move.after, move.back, "rollback")
            return self.version(move.after)

    def verify(self, version: Version) -> None:
        """Check every file of a version, its manifest among them.

        Raises:
            DataCorrupt: a file is missing, altered or was not pushed; every such one is named.
            NotFound: there is no such version.
        """
        entry = self._complete(version.number)
        damage = find_damage(version.path, entry.manifest["files"], entry.sha256)
        if damage:
            raise DataCorrupt(
                f"version {version.number}: {'; '.join(damage)}; roll back to another version or "
                "push the bundle again"
            )

    def lineage(self, version: Version) -> Sequence[Version]:
        """A version and its ancestors, the youngest first: each one's label stood at the next."""
        known = {entry.number: entry for entry in self._database().entries()}
        line = [version]
        while (parent := line[-1].manifest["parent"]) in known:
            line.append(self._version(known[parent]))
        return line

    @contextmanager
    def hold(self, version: Version) -> Iterator[Version]:
        """Keep a version from being removed for as long as the block, or the process, lives.

        Raises:
            NotFound: it was removed before.
        """
        self.version(version.number)
        with self._holds.hold(version.number):
            yield self.version(version.number)  # asked again: it may have gone while we waited

    @contextmanager
    def serving(self, version: Version) -> Iterator[Version]:
        """Hold a version that may be served: whole, as it was pushed, and blessed.

        Raises:
            NotFound: it was removed.
            DataCorrupt: a file is damaged.
            FailedPrecondition: its blessing is missing, or is not this registry's.
        """
        with self.hold(version):
            require_blessed_version(version, signing_key(self.root))
            self.verify(version)
            yield version

    def garbage(self, keep: int = 3) -> Sequence[int]:
        """The numbers that `gc` would remove now."""
        numbers = unneeded(self._database(), keep)
        return [number for number in numbers if self._holds.is_free(number)]

    def gc(self, keep: int = 3) -> Sequence[int]:
        """Remove old versions; return their numbers. The database keeps their manifests.

        Left are the newest `keep`, those a label points at or would roll back to, and those held.

        Raises:
            InvalidArgument: `keep` is below 1. The newest one stays, and numbers go on from it.
        """
        removed = []
        with self._writing() as database:
            for number in unneeded(database, keep):
                with self._holds.taken_if_free(number) as free:
                    if free:
                        database.mark_removed(number)
                        self._recover(database)  # which clears up what is left of it
                        removed.append(number)
        return removed

    def rebuild(self) -> Sequence[Version]:
        """Make a damaged or lost database anew from the versions on the disk; return them.

        Labels are not restored, since which version had been rolled back, only the database knew;
        nor is what it knew of removed versions, at which a lineage then ends.

        Raises:
            FailedPrecondition: the database is sound, and has labels to lose.
            DataCorrupt: a version on the disk is damaged; nothing was changed.
        """
        artifacts.make_directories(self.root)
        database = Database(self.root / "registry.db")
        with locked(self.root / WRITERS):
            if database.path.exists():
                try:
                    database.check()
                except DataCorrupt:
                    pass
                else:
                    raise FailedPrecondition(f"{database.path}: sound, so it is not made anew")
            database.create(recovery.read_all(self._versions))
        return self.list()

    def _add(
        self,
        database: Database,
        bundle: Path,
        files: Mapping[str, str],
        manifest: Mapping[str, Any],
        label: str,
    ) -> Version:
        number = max(database.states(), default=0) + 1
        complete = {
            **manifest,
            "version": number,
            "parent": database.labels().get(label),
            "created": now(),
            "files": files,
        }
        content = artifacts.to_json(complete)
        with artifacts.staged_directory(self._versions / str(number)) as staging:
            artifacts.link_tree(bundle, staging)
            if artifacts.hash_files(staging) != files:
                raise FailedPrecondition(f"{bundle}: changed while it was pushed; push it again")
            (staging / MANIFEST).write_bytes(content)
        database.add_version(number, content)
        return self.version(number)

    def _complete(self, number: int) -> Entry:
        entry = self._database().entry(number)
        if entry is None or entry.state != COMPLETE:
            there = "there is no version" if entry is None else "removed was version"
            raise NotFound(f"{self.root}: {there} {number}; `list` shows those there are")
        return entry

    def _version(self, entry: Entry) -> Version:
        path = self._versions / str(entry.number)
        return Version(entry.number, path, entry.manifest, removed=entry.state != COMPLETE)

    def _database(self) -> Database:
        database = Database(self.root / "registry.db")
        lost = self._versions.exists() and any(self._versions.iterdir())
        if lost and not database.path.exists():
            raise DataCorrupt(
                f"{database.path}: expected beside versions, got none; `rebuild` makes it from "
                f"them, unless the registry is an earlier program's: delete {self.root} then"
            )
        return database

    @contextmanager
    def _writing(self) -> Iterator[Database]:
        """Wait for other writers, clear up after those that were killed, and keep others out."""
        artifacts.make_directories(self.root)
        with locked(self.root / WRITERS):
            database = self._database()
            if not database.path.exists():
                database.create({})
            self._recover(database)
            yield database

    def _recover(self, database: Database) -> None:
        recovery.recover(self._versions, self._holds, database)
