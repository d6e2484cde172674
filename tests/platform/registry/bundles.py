"""Small bundles, blessed and signed, and a registry with a few versions of them."""

from pathlib import Path
from typing import Any

from mlplatform import artifacts
from mlplatform.registry.registry import Registry, Version
from mlplatform.registry.signing import sign, signing_key


def make_bundle(folder: Path, content: str) -> Path:
    """Two files, one of them in a folder; `content` tells bundles apart."""
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "weights").write_text(content)
    (folder / "card.md").write_text("# Card")
    return folder


def blessed(folder: Path, root: Path, **more: Any) -> dict[str, Any]:
    """The manifest of a bundle that the gate of the registry at `root` let pass."""
    blessing = {"blessed": True, "checks": [], "files": artifacts.hash_files(folder)}
    return {"blessing": sign(blessing, signing_key(root)), **more}


def push(root: Path, folder: Path, label: str = "stable", **more: Any) -> Version:
    """Push the bundle in `folder`, which is made with its own name for a content if absent."""
    if not folder.exists():
        make_bundle(folder, folder.name)
    return Registry(root).push(folder, blessed(folder, root, **more), label)


def files_below(root: Path) -> set[str]:
    """What lies in a registry, its versions' own files left out."""
    found = set()
    for path in root.rglob("*"):
        name = path.relative_to(root)
        if len(name.parts) <= 2:
            found.add(str(name))
    return found
