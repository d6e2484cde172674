"""The registry: immutable, numbered versions of bundles, and labels that point at them.

Enters: a bundle's directory, its manifest and its blessing.  Leaves: `versions/NUMBER`, whole or
absent, with a SHA-256 of every file; `labels.json`.  A bundle without a blessing is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlplatform import artifacts
from mlplatform.errors import DataCorrupt, FailedPrecondition, NotFound

MANIFEST = "manifest.json"
STABLE = "stable"


@dataclass(frozen=True)
class Version:
    """One bundle in the registry."""

    number: int
    path: Path
    manifest: Mapping[str, Any]


class Registry:
    """`root/versions/1, 2, …` and `root/labels.json`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def push(self, bundle: Path, manifest: Mapping[str, Any], label: str = STABLE) -> Version:
        """Make `bundle` the next version and point `label` at it.

        Files are hard-linked where possible. The same bundle pushed again, as after a kill, is
        recognised by its hashes and gets its label, not a second number.

        Raises:
            FailedPrecondition: the manifest has no blessing for just these files, or the bundle
            has a file of the manifest's name.
        """
        files = artifacts.hash_files(bundle)
        if MANIFEST in files:
            raise FailedPrecondition(
                f"{bundle / MANIFEST}: expected a bundle without a manifest, since the registry "
                "writes it; rename the file"
            )
        blessing = manifest.get("blessing") or {}
        if not blessing.get("blessed") or blessing.get("files") != files:
            raise FailedPrecondition(
                f"{bundle}: not blessed by the gate, so it is not pushed; evaluate it first"
            )
        for version in self.list():
            if version.manifest["files"] == files:
                self.set_label(label, version.number)
                return version
        number = max((version.number for version in self.list()), default=0) + 1
        target = self.root / "versions" / str(number)
        target.parent.mkdir(parents=True, exist_ok=True)
        complete = {
            **manifest,
            "version": number,
            "parent": self.labels().get(label),
            "files": files,
        }
        with artifacts.staged_directory(target) as staging:
            artifacts.link_tree(bundle, staging)
            (staging / MANIFEST).write_bytes(artifacts.to_json(complete))
        self.set_label(label, number)
        return Version(number, target, complete)

    def list(self) -> list[Version]:
        """All complete versions, the oldest first."""
        folders = (self.root / "versions").glob("*")
        numbers = sorted(int(path.name) for path in folders if path.name.isdigit())
        return [self.version(number) for number in numbers]

    def version(self, number: int) -> Version:
        """One version.

        Raises:
            NotFound: there is none of that number.
        """
        path = self.root / "versions" / str(number)
        if not (path / MANIFEST).exists():
            raise NotFound(
                f"{self.root}: there is no version {number}; `list` shows those there are"
            )
        return Version(number, path, artifacts.read_json(path / MANIFEST))

    def labels(self) -> dict[str, int]:
        path = self.root / "labels.json"
        return dict(artifacts.read_json(path)) if path.exists() else {}

    def set_label(self, label: str, number: int) -> None:
        self.version(number)
        labels = self.labels() | {label: number}
        artifacts.write_file_atomically(self.root / "labels.json", artifacts.to_json(labels))

    def labelled(self, label: str) -> Version:
        """The version that a label points at.

        Raises:
            NotFound: nothing carries the label.
        """
        labels = self.labels()
        if label not in labels:
            raise NotFound(
                f"{self.root}: no version is labelled {label!r}; push a bundle first "
                "(`storeloop run` does)"
            )
        return self.version(labels[label])

    def verify(self, version: Version) -> None:
        """Check every file of a version against its manifest.

        Raises:
            DataCorrupt: a file is missing, altered or not listed; it is named.
        """
        found = artifacts.hash_files(version.path)
        found.pop(MANIFEST, None)
        for name in sorted(found.keys() | version.manifest["files"].keys()):
            expected, got = version.manifest["files"].get(name), found.get(name)
            if expected != got:
                raise DataCorrupt(
                    f"{version.path / name}: expected SHA-256 {expected}, got {got}; roll back to "
                    "another version or push the bundle again"
                )
