"""One version: a directory of files, and the manifest that says what each of them must be.

Enters: a bundle or a pushed version.  Leaves: its files' hashes, its blessing checked, and every
difference between what was pushed and what lies on the disk, by the file's name.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlplatform import artifacts
from mlplatform.errors import DataCorrupt, FailedPrecondition, NotFound
from mlplatform.registry.signing import require_signed

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Version:
    """One bundle in the registry; of a removed one only the manifest is left."""

    number: int
    path: Path
    manifest: Mapping[str, Any]
    removed: bool = False


def hash_bundle(bundle: Path) -> dict[str, str]:
    """SHA-256 of every file of a bundle that can become a version.

    Raises:
        NotFound: there are no files.
        FailedPrecondition: there is a file of the manifest's name, or a symbolic link, through
        which a version could change after all.
    """
    files = artifacts.hash_files(bundle)
    if not files:
        raise NotFound(f"{bundle}: expected a bundle's directory, got nothing to push")
    if MANIFEST in files:
        raise FailedPrecondition(
            f"{bundle / MANIFEST}: expected a bundle without a manifest, since the registry "
            "writes it; rename the file"
        )
    for path in sorted(bundle.rglob("*")):
        if path.is_symlink():
            raise FailedPrecondition(
                f"{path}: expected a file, got a symbolic link, whose target may change after the "
                "push; put the file itself into the bundle"
            )
    return files


def require_blessing(blessing: Any, files: Mapping[str, str], key: bytes, where: Path) -> None:
    """See that the gate blessed just these files.

    Raises:
        FailedPrecondition: there is no blessing, it refuses, it is for other files, or its
        signature is missing or wrong.
    """
    if not isinstance(blessing, Mapping) or blessing.get("blessed") is not True:
        raise FailedPrecondition(f"{where}: not blessed by the gate; evaluate it first")
    if blessing.get("files") != files:
        raise FailedPrecondition(
            f"{where}: the gate blessed other files than these; evaluate the bundle as it is"
        )
    require_signed(blessing, key, where)


def require_blessed_version(version: Version, key: bytes) -> None:
    """See that a version may serve: `require_blessing` of its manifest's files."""
    manifest = version.manifest
    require_blessing(manifest.get("blessing"), manifest["files"], key, version.path)


def parse_manifest(content: bytes, number: int) -> dict[str, Any]:
    """A version's manifest from its bytes.

    Raises:
        ValueError: it is not one, or not that version's.
    """
    manifest = json.loads(content)
    expected = {"version": int, "files": dict, "created": str}
    for name, kind in expected.items():
        if not isinstance(manifest, dict) or not isinstance(manifest.get(name), kind):
            raise ValueError(f"expected {name!r} to be of type {kind.__name__}")
    parent = manifest.get("parent")
    if manifest["version"] != number or not (parent is None or 0 < parent < number):
        raise ValueError(f"it says version {manifest['version']}, parent {parent}")
    return manifest


def find_damage(path: Path, files: Mapping[str, str], manifest_sha256: str) -> list[str]:
    """What differs from what was pushed: a phrase for each file, with its path, in order."""
    expected = {**files, MANIFEST: manifest_sha256}
    found = {}
    for one in path.rglob("*"):
        if one.is_symlink() or not one.is_dir():
            regular = one.is_file() and not one.is_symlink()
            found[str(one.relative_to(path))] = artifacts.hash_file(one) if regular else "no file"
    damage = []
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            damage.append(f"{path / name} is missing")
        elif name not in expected:
            damage.append(f"{path / name} was not pushed")
        elif found[name] != expected[name]:
            damage.append(
                f"{path / name} was altered (SHA-256 {expected[name]}, now {found[name]})"
            )
    return damage


def read_version(path: Path, number: int) -> tuple[dict[str, Any], bytes]:
    """The manifest of a version on the disk, parsed and as it lies there.

    Raises:
        DataCorrupt: the manifest does not parse, or a file is not what it says.
    """
    file = path / MANIFEST
    try:
        content = file.read_bytes()
        manifest = parse_manifest(content, number)
    except (OSError, ValueError, TypeError) as error:
        raise DataCorrupt(
            f"{file}: not the manifest of version {number} ({error}); delete or restore {path}"
        ) from error
    damage = find_damage(path, manifest["files"], sha256(content))
    if damage:
        raise DataCorrupt(f"version {number}: {'; '.join(damage)}; delete or restore {path}")
    return manifest, content


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
