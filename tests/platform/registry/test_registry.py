"""Versions that nobody can change unnoticed, and labels that move between them."""

import json
from pathlib import Path
from typing import Any

import pytest

from mlplatform import artifacts
from mlplatform.errors import DataCorrupt, FailedPrecondition, NotFound
from mlplatform.registry.registry import STABLE, Registry


def bundle(folder: Path, content: str) -> Path:
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "weights").write_text(content)
    (folder / "card.md").write_text("# Card")
    return folder


def blessed(folder: Path, **more: Any) -> dict[str, Any]:
    return {"blessing": {"blessed": True, "files": artifacts.hash_files(folder)}, **more}


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry")


@pytest.fixture
def two(registry: Registry, tmp_path: Path) -> Registry:
    for name in ("one", "two"):
        folder = bundle(tmp_path / name, name)
        registry.push(folder, blessed(folder, made_from=name))
    return registry


def test_a_pushed_bundle_is_whole_numbered_and_labelled(registry: Registry, tmp_path: Path) -> None:
    folder = bundle(tmp_path / "one", "w")
    version = registry.push(folder, blessed(folder, data_days=[1, 2]))
    assert version.number == 1
    assert (version.path / "model" / "weights").read_text() == "w"
    assert (version.path / "card.md").read_text() == "# Card"
    manifest = json.loads((version.path / "manifest.json").read_text())
    assert manifest == version.manifest
    assert manifest["data_days"] == [1, 2]
    assert manifest["version"] == 1 and manifest["parent"] is None
    assert manifest["files"] == artifacts.hash_files(folder)
    assert registry.labels() == {STABLE: 1}
    assert registry.labelled(STABLE) == version == registry.version(1)
    registry.verify(version)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda manifest: manifest.pop("blessing"),
        lambda manifest: manifest.update(blessing=None),
        lambda manifest: manifest["blessing"].update(blessed=False),
        lambda manifest: manifest["blessing"].pop("files"),
        lambda manifest: manifest["blessing"]["files"].pop("card.md"),
        lambda manifest: manifest["blessing"]["files"].update({"card.md": "0" * 64}),
        lambda manifest: manifest["blessing"]["files"].update({"more": "0" * 64}),
    ],
)
def test_a_bundle_not_blessed_as_it_is_is_refused(
    spoil: Any, two: Registry, tmp_path: Path
) -> None:
    folder = bundle(tmp_path / "three", "three")
    manifest = blessed(folder)
    spoil(manifest)
    before = artifacts.hash_files(two.root)
    with pytest.raises(FailedPrecondition, match="three"):
        two.push(folder, manifest)
    assert artifacts.hash_files(two.root) == before


def test_versions_count_up_and_record_their_parent(two: Registry, tmp_path: Path) -> None:
    folder = bundle(tmp_path / "three", "three")
    two.set_label(STABLE, 1)
    assert two.push(folder, blessed(folder)).number == 3
    assert [version.number for version in two.list()] == [1, 2, 3]
    # The third replaced the first in service, not the second.
    assert [version.manifest["parent"] for version in two.list()] == [None, 1, 1]
    assert two.labels() == {STABLE: 3}


def test_versions_are_ordered_as_numbers(registry: Registry, tmp_path: Path) -> None:
    for number in range(1, 12):
        folder = bundle(tmp_path / str(number), str(number))
        assert registry.push(folder, blessed(folder)).number == number
    assert [version.number for version in registry.list()] == list(range(1, 12))
    assert [version.manifest["parent"] for version in registry.list()] == [None, *range(1, 11)]


def test_the_same_files_are_the_same_version(two: Registry, tmp_path: Path) -> None:
    copy = bundle(tmp_path / "copy of one", "one")
    version = two.push(copy, blessed(copy, made_from="another"))
    assert version.number == 1 and version.manifest["made_from"] == "one"
    assert [version.number for version in two.list()] == [1, 2]
    assert two.labels() == {STABLE: 1}


def test_labels_move_independently(two: Registry, tmp_path: Path) -> None:
    folder = bundle(tmp_path / "three", "three")
    assert two.push(folder, blessed(folder), label="canary").manifest["parent"] is None
    assert two.labels() == {STABLE: 2, "canary": 3}
    two.set_label(STABLE, 1)
    assert two.labels() == {STABLE: 1, "canary": 3}
    assert two.labelled(STABLE).manifest["made_from"] == "one"
    assert Registry(two.root).labelled("canary").number == 3


def alter(path: Path) -> None:
    content = path.read_text()
    path.unlink()  # the pushed file and the bundle's may be one
    path.write_text(content[::-1])


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("model/weights", alter),
        ("card.md", Path.unlink),
        ("model/extra", lambda path: path.write_text("?")),
    ],
)
def test_verify_names_the_file(name: str, damage: Any, two: Registry) -> None:
    version = two.version(2)
    two.verify(version)
    damage(version.path / name)
    with pytest.raises(DataCorrupt) as caught:
        two.verify(version)
    assert str(version.path / name) in str(caught.value)
    two.verify(two.version(1))


def test_a_damaged_manifest_is_named(two: Registry) -> None:
    (two.root / "versions" / "2" / "manifest.json").write_text("{")
    with pytest.raises(DataCorrupt, match=r"2/manifest\.json"):
        two.labelled(STABLE)


def test_unknown_labels_and_versions_are_not_found(two: Registry) -> None:
    with pytest.raises(NotFound, match="'canary'"):
        two.labelled("canary")
    with pytest.raises(NotFound, match="3"):
        two.version(3)
    with pytest.raises(NotFound, match="3"):
        two.set_label(STABLE, 3)
    assert two.labels() == {STABLE: 2}


def test_an_empty_registry_has_nothing(registry: Registry) -> None:
    assert registry.list() == [] and registry.labels() == {}
    with pytest.raises(NotFound, match="storeloop run"):
        registry.labelled(STABLE)


def test_what_an_interrupted_push_left_is_no_version(two: Registry, tmp_path: Path) -> None:
    staging = two.root / "versions" / "3.staging"
    staging.mkdir()
    (staging / "half").write_text("h")
    assert [version.number for version in two.list()] == [1, 2]
    folder = bundle(tmp_path / "three", "three")
    version = two.push(folder, blessed(folder))
    assert version.number == 3
    two.verify(version)
    assert not staging.exists()


def test_a_bundle_with_a_manifest_of_its_own_is_not_overwritten(
    registry: Registry, tmp_path: Path
) -> None:
    folder = bundle(tmp_path / "one", "one")
    (folder / "manifest.json").write_text("the bundle's own")
    with pytest.raises(FailedPrecondition, match=r"manifest\.json"):
        registry.push(folder, blessed(folder))
    assert (folder / "manifest.json").read_text() == "the bundle's own"
