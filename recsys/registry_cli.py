"""Verbs about the registry: what was pushed, what serves, going back, clearing up, where from.

They work on any registry of the platform's; nothing here knows the store.  Each verb imports what
it needs when it runs, so that help is immediate.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlplatform.errors import DataCorrupt
from recsys.data_cli import JsonOption

if TYPE_CHECKING:
    from mlplatform.registry.registry import Registry, Version

WORKSPACE = Path("workspace")
WorkspaceOption = Annotated[
    Path, typer.Option("--workspace", help="Directory that keeps all artifacts.")
]
Which = Annotated[str, typer.Argument(metavar="N|LABEL", help="A version's number, or a label.")]
LabelName = Annotated[str, typer.Option("--label", help="Which label to move.")]
_DIGITS = 12  # of a fingerprint, to tell by eye whether two are one


def list_versions(workspace: WorkspaceOption = WORKSPACE, as_json: JsonOption = False) -> None:
    """List the pushed versions and their labels."""
    registry = _registry(workspace)
    rows = [_row(registry, version) for version in registry.list()]
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    for row in rows:
        labels = ", ".join(row["labels"])
        print(f"{row['version']:>8}  {row['created']}  {row['files']} files  {labels}".rstrip())
    if not rows:
        print("no version was pushed yet; `storeloop run` pushes one")


def show(which: Which, workspace: WorkspaceOption = WORKSPACE, as_json: JsonOption = False) -> None:
    """Show a version: its files, what it was judged by, and its labels' moves."""
    registry = _registry(workspace)
    version = _version(registry, which)
    row = _row(registry, version)
    if as_json:
        print(json.dumps({**row, "manifest": version.manifest}, indent=1))
        return
    _show_origin(version)
    print(f"  labels: {', '.join(row['labels']) or 'none'}")
    for check in version.manifest["blessing"].get("checks", ()):
        print(f"  {check['outcome']}: {_describe(check)}")
    for label in registry.labels():
        for move in registry.history(label):
            if version.number in (move.before, move.after):
                why = f"  {move.why}" if move.why else ""
                print(f"  {move.at}  {label}: {move.before or 'nowhere'} -> {move.after}{why}")
    for name, digest in version.manifest["files"].items():
        print(f"  {digest[:_DIGITS]}  {version.path / name}")


def verify(workspace: WorkspaceOption = WORKSPACE) -> None:
    """Check every file of every pushed version against its hash."""
    registry = _registry(workspace)
    damaged = []
    for version in registry.list():
        try:
            registry.verify(version)
        except DataCorrupt as error:
            damaged.append(str(error))
        else:
            files = len(version.manifest["files"])
            print(f"version {version.number}: {files} files, all as pushed")
    if damaged:
        raise DataCorrupt("\n".join(damaged))


def label(
    name: Annotated[str, typer.Argument(help="As stable or canary.")],
    number: Annotated[int, typer.Argument(min=1, help="The version it is to point at.")],
    why: Annotated[str, typer.Option(help="For the label's history.")] = "",
    workspace: WorkspaceOption = WORKSPACE,
) -> None:
    """Point a label at a version."""
    _registry(workspace).set_label(name, number, why)
    print(f"{name} points at version {number}")


def rollback(
    label: LabelName = "stable",
    to: Annotated[
        int | None, typer.Option(min=1, help="How far back. Default: one step, each time.")
    ] = None,
    workspace: WorkspaceOption = WORKSPACE,
) -> None:
    """Point a label at the version where it stood before."""
    version = _registry(workspace).rollback(label, to)
    print(f"{label} points at version {version.number}")


def gc(
    keep: Annotated[int, typer.Option(min=1, help="How many of the newest stay.")] = 3,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go.")] = False,
    workspace: WorkspaceOption = WORKSPACE,
) -> None:
    """Remove old versions that no label needs and no server holds."""
    registry = _registry(workspace)
    numbers = registry.garbage(keep) if dry_run else registry.gc(keep)
    for number in numbers:
        print(f"version {number}: {'would be removed' if dry_run else 'removed'}")
    if not numbers:
        print("nothing to remove")


def lineage(
    which: Which = "stable",
    workspace: WorkspaceOption = WORKSPACE,
    as_json: JsonOption = False,
) -> None:
    """Say where a version came from: it and its ancestors, the data and the checks of each."""
    registry = _registry(workspace)
    line = registry.lineage(_version(registry, which))
    if as_json:
        print(json.dumps([_origin(version) for version in line], indent=1))
        return
    for version in line:
        _show_origin(version)


def rebuild(workspace: WorkspaceOption = WORKSPACE) -> None:
    """Make a damaged registry database anew from the versions; then set the labels."""
    versions = _registry(workspace).rebuild()
    numbers = ", ".join(str(version.number) for version in versions) or "none"
    print(f"versions found: {numbers}; no label is set, `storeloop label stable N` sets one")


def _registry(workspace: Path) -> "Registry":
    from mlplatform.registry.registry import Registry

    return Registry(workspace / "registry")


def _version(registry: "Registry", which: str) -> "Version":
    numeric = which.isascii() and which.isdecimal()
    return registry.version(int(which)) if numeric else registry.labelled(which)


def _row(registry: "Registry", version: "Version") -> dict[str, Any]:
    labels = registry.labels()
    return {
        "version": version.number,
        "labels": sorted(name for name, number in labels.items() if number == version.number),
        "files": len(version.manifest["files"]),
        "parent": version.manifest["parent"],
        "created": version.manifest["created"],
    }


def _origin(version: "Version") -> dict[str, Any]:
    """What a version was made from and judged by, as far as its manifest says so."""
    manifest = version.manifest
    blessing = manifest["blessing"]
    passed = [one["figure"] for one in blessing.get("checks", ()) if one["outcome"] == "passed"]
    passed += [one["name"] for one in blessing.get("parts", ())]
    return {
        "version": version.number,
        "removed": version.removed,
        "created": manifest["created"],
        "parent": manifest["parent"],
        "days": manifest.get("spans", []),
        "transform": manifest.get("transform"),
        "stages": manifest.get("lineage", {}),
        "checks": list(dict.fromkeys(passed)),
    }


def _show_origin(version: "Version") -> None:
    origin = _origin(version)
    parent = "first of its line" if origin["parent"] is None else f"after {origin['parent']}"
    gone = ", removed" if version.removed else ""
    print(f"version {version.number}, {parent}, {origin['created']}{gone}")
    if origin["days"]:
        print(f"  days: {', '.join(map(str, origin['days']))}")
    fingerprints = {**origin["stages"]}
    if origin["transform"]:
        fingerprints["the transform"] = origin["transform"]
    for name, fingerprint in fingerprints.items():
        print(f"  {fingerprint[:_DIGITS]}  {name}")
    if origin["checks"]:
        print(f"  blessed by: {', '.join(origin['checks'])}")


def _describe(check: Mapping[str, Any]) -> str:
    bounds = [f"{word} {check[word]}" for word in ("above", "below") if check.get(word) is not None]
    return " ".join([check["figure"], *bounds])
