"""Versions that nobody can change unnoticed, and labels that move between them."""

import copy
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import astuple, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mlplatform import artifacts
from mlplatform.errors import DataCorrupt, FailedPrecondition, InvalidArgument, NotFound
from mlplatform.registry.registry import STABLE, Registry, require_blessed_version
from mlplatform.registry.signing import sign, signing_key
from tests.platform.registry.bundles import blessed, make_bundle, push


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry")


@pytest.fixture
def two(registry: Registry, tmp_path: Path) -> Registry:
    for name in ("one", "two"):
        push(registry.root, tmp_path / name, made_from=name)
    return registry


def numbers(registry: Registry) -> list[int]:
    return [version.number for version in registry.list()]


def test_a_pushed_bundle_is_whole_numbered_and_labelled(registry: Registry, tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "one", "w")
    before = datetime.now(UTC).replace(microsecond=0)
    version = registry.push(folder, blessed(folder, registry.root, data_days=[1, 2]))
    assert version.number == 1
    assert (version.path / "model" / "weights").read_text() == "w"
    assert (version.path / "card.md").read_text() == "# Card"
    manifest = json.loads((version.path / "manifest.json").read_text())
    assert manifest == version.manifest
    assert manifest["data_days"] == [1, 2]
    assert manifest["version"] == 1 and manifest["parent"] is None
    assert manifest["files"] == artifacts.hash_files(folder)
    created = datetime.fromisoformat(manifest["created"])
    assert before <= created <= datetime.now(UTC) and created.utcoffset() is not None
    assert registry.labels() == {STABLE: 1}
    assert registry.labelled(STABLE) == version == registry.version(1)
    registry.verify(version)
    require_blessed_version(version, signing_key(registry.root))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda manifest: manifest.pop("blessing"), "not blessed"),
        (lambda manifest: manifest.update(blessing=None), "not blessed"),
        (lambda manifest: manifest.update(blessing="blessed"), "not blessed"),
        (lambda manifest: manifest["blessing"].update(blessed=False), "not blessed"),
        (lambda manifest: manifest["blessing"].update(blessed="yes"), "not blessed"),
        (lambda manifest: manifest["blessing"].pop("files"), "other files"),
        (lambda manifest: manifest["blessing"]["files"].pop("card.md"), "other files"),
        (lambda manifest: manifest["blessing"]["files"].update(more="0" * 64), "other files"),
        (lambda manifest: manifest["blessing"].pop("signature"), "not signed"),
        (lambda manifest: manifest["blessing"].update(signature=7), "not signed"),
        (lambda manifest: manifest["blessing"].update(signature="0" * 64), "altered"),
        (lambda manifest: manifest["blessing"].update(signature="ü"), "altered"),
        (lambda manifest: manifest["blessing"].update(checks=["kinder"]), "altered"),
    ],
)
def test_what_the_gate_did_not_bless_is_neither_pushed_nor_served(
    spoil: Callable[[Any], Any], said: str, two: Registry, tmp_path: Path
) -> None:
    folder = make_bundle(tmp_path / "three", "three")
    manifest = blessed(folder, two.root)
    spoil(manifest)
    before = artifacts.hash_files(two.root)
    with pytest.raises(FailedPrecondition, match=rf"three: .*{said}"):
        two.push(folder, manifest)
    assert artifacts.hash_files(two.root) == before
    version = two.push(folder, blessed(folder, two.root))
    require_blessed_version(version, signing_key(two.root))
    altered = copy.deepcopy(dict(version.manifest))
    spoil(altered)
    with pytest.raises(FailedPrecondition, match=rf"versions/3: .*{said}"):
        require_blessed_version(replace(version, manifest=altered), signing_key(two.root))


def test_a_blessing_of_another_registry_is_worth_nothing(two: Registry, tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "three", "three")
    manifest = blessed(folder, tmp_path / "another")
    with pytest.raises(FailedPrecondition, match="another key"):
        two.push(folder, manifest)


def test_versions_count_up_and_record_their_parent(two: Registry, tmp_path: Path) -> None:
    two.set_label(STABLE, 1)
    assert push(two.root, tmp_path / "three").number == 3
    assert numbers(two) == [1, 2, 3]
    # The third replaced the first in service, not the second.
    assert [version.manifest["parent"] for version in two.list()] == [None, 1, 1]
    assert two.labels() == {STABLE: 3}


def test_versions_are_ordered_as_numbers(registry: Registry, tmp_path: Path) -> None:
    for number in range(1, 12):
        assert push(registry.root, tmp_path / str(number)).number == number
    assert numbers(registry) == list(range(1, 12))
    line = registry.lineage(registry.version(11))
    assert [version.number for version in line] == list(range(11, 0, -1))


def test_the_same_files_are_the_same_version(two: Registry, tmp_path: Path) -> None:
    again = make_bundle(tmp_path / "copy of one", "one")
    version = push(two.root, again, made_from="another")
    assert version.number == 1 and version.manifest["made_from"] == "one"
    assert numbers(two) == [1, 2]
    assert two.labels() == {STABLE: 1}


def test_labels_move_independently(two: Registry, tmp_path: Path) -> None:
    assert push(two.root, tmp_path / "three", "canary").manifest["parent"] is None
    assert two.labels() == {STABLE: 2, "canary": 3}
    two.set_label(STABLE, 1)
    assert two.labels() == {STABLE: 1, "canary": 3}
    assert two.labelled(STABLE).manifest["made_from"] == "one"
    assert Registry(two.root).labelled("canary").number == 3


def test_a_label_remembers_where_it_stood_when_and_why(two: Registry) -> None:
    two.set_label(STABLE, 1, why="two is slow")
    two.set_label(STABLE, 1, why="no move at all")
    two.rollback(STABLE)
    two.set_label("canary", 2)
    moves = [(move.before, move.after, move.why) for move in two.history(STABLE)]
    assert moves == [(None, 1, "push"), (1, 2, "push"), (2, 1, "two is slow"), (1, 2, "rollback")]
    assert [astuple(move)[1:5] for move in two.history("canary")] == [("canary", None, 2, None)]
    times = [datetime.fromisoformat(move.at) for move in two.history(STABLE)]
    assert times == sorted(times) and times[0].utcoffset() is not None
    assert two.history("unknown") == []


@pytest.mark.parametrize("label", ["", "Stable", "1st", "-x", "a b", "a" * 33, "a\n", "ä", "a/b"])
def test_what_is_no_label_is_refused(label: str, two: Registry, tmp_path: Path) -> None:
    for act in (
        lambda: two.set_label(label, 1),
        lambda: push(two.root, tmp_path / "three", label),
    ):
        with pytest.raises(InvalidArgument, match="label"):
            act()
    assert numbers(two) == [1, 2]
    two.set_label("a" * 32, 1)
    two.set_label("z-_9", 1)


def test_rollbacks_in_a_row_go_further_back(registry: Registry, tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        push(registry.root, tmp_path / name)
    assert registry.rollback(STABLE).number == 2
    assert registry.rollback(STABLE).number == 1
    with pytest.raises(FailedPrecondition, match=r"version 1 and cannot go back.*before: none"):
        registry.rollback(STABLE)
    # What is pushed now has the first before it: nobody goes back to what was rolled back.
    push(registry.root, tmp_path / "four")
    assert registry.rollback(STABLE).number == 1
    assert registry.labels() == {STABLE: 1}


def test_a_rollback_can_name_how_far(registry: Registry, tmp_path: Path) -> None:
    for name in ("one", "two", "three", "four"):
        push(registry.root, tmp_path / name)
    push(registry.root, tmp_path / "five", "canary")
    for stranger in (5, 6):
        with pytest.raises(FailedPrecondition, match=rf"to version {stranger}.*before: 3, 2, 1"):
            registry.rollback(STABLE, to=stranger)
    assert registry.rollback(STABLE, to=2).number == 2
    assert registry.rollback(STABLE, to=2).number == 2  # is there already
    assert registry.rollback(STABLE).number == 1
    with pytest.raises(NotFound, match="'nightly'"):
        registry.rollback("nightly")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    rewrite(path, bytes(content))


def truncate(path: Path) -> None:
    rewrite(path, path.read_bytes()[:-1])


def link(path: Path) -> None:
    elsewhere = path.parents[3] / "elsewhere"
    elsewhere.write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(elsewhere)


def rewrite(path: Path, content: bytes) -> None:
    path.unlink()  # the pushed file and the bundle's may be one
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["model/weights", "card.md", "manifest.json"])
@pytest.mark.parametrize(
    ("damage", "said"),
    [(flip, "altered"), (truncate, "altered"), (link, "altered"), (Path.unlink, "missing")],
)
def test_verify_names_every_damaged_file(
    name: str, damage: Callable[[Path], None], said: str, two: Registry
) -> None:
    version = two.version(2)
    two.verify(version)
    damage(version.path / name)
    (version.path / "model" / "extra").write_text("?")
    with pytest.raises(DataCorrupt) as caught:
        two.verify(version)
    message = str(caught.value)
    assert f"{version.path / name} " in message and said in message
    assert f"{version.path / 'model' / 'extra'} was not pushed" in message
    assert message.count(str(version.path)) == 2 and "\n" not in message
    two.verify(two.version(1))
    # Readers go by the database, which has the manifest as it was.
    assert two.labelled(STABLE) == version


def test_a_version_whose_directory_is_gone_is_damaged(two: Registry) -> None:
    version = two.version(1)
    shutil.rmtree(version.path)
    with pytest.raises(DataCorrupt, match=r"card\.md is missing.*weights is missing"):
        two.verify(version)


def test_unknown_labels_and_versions_are_not_found(two: Registry) -> None:
    with pytest.raises(NotFound, match="'canary'"):
        two.labelled("canary")
    with pytest.raises(NotFound, match="3"):
        two.version(3)
    with pytest.raises(NotFound, match="3"):
        two.set_label(STABLE, 3)
    assert two.labels() == {STABLE: 2}


def test_reading_an_empty_registry_makes_none(registry: Registry) -> None:
    assert registry.list() == [] and registry.labels() == {} and registry.garbage() == []
    with pytest.raises(NotFound, match="push a bundle"):
        registry.labelled(STABLE)
    assert not registry.root.exists()


def test_a_bundle_with_a_manifest_of_its_own_is_not_overwritten(
    registry: Registry, tmp_path: Path
) -> None:
    folder = make_bundle(tmp_path / "one", "one")
    (folder / "manifest.json").write_text("the bundle's own")
    with pytest.raises(FailedPrecondition, match=r"manifest\.json"):
        registry.push(folder, blessed(folder, registry.root))
    assert (folder / "manifest.json").read_text() == "the bundle's own"


@pytest.mark.parametrize("target", ["card.md", "model", "nowhere"])
def test_a_bundle_with_a_symbolic_link_is_refused(
    target: str, registry: Registry, tmp_path: Path
) -> None:
    folder = make_bundle(tmp_path / "one", "one")
    (folder / "shortcut").symlink_to(target)
    with pytest.raises(FailedPrecondition, match="shortcut: expected a file, got a symbolic link"):
        registry.push(folder, blessed(folder, registry.root))


def test_a_bundle_without_files_is_not_found(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="nothing to push"):
        registry.push(tmp_path / "typo", {})


def test_a_bundle_that_changes_while_it_is_pushed_is_refused(
    two: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_bundle(tmp_path / "three", "three")
    manifest = blessed(folder, two.root)
    link_tree = artifacts.link_tree

    def link_and_change(source: Path, target: Path) -> None:
        link_tree(source, target)
        (source / "card.md").write_text("# Another card")

    monkeypatch.setattr(artifacts, "link_tree", link_and_change)
    with pytest.raises(FailedPrecondition, match="changed while it was pushed"):
        two.push(folder, manifest)
    assert numbers(two) == [1, 2] and two.labels() == {STABLE: 2}
    assert sorted(os.listdir(two.root / "versions")) == ["1", "2"]


def test_old_versions_go_and_their_numbers_and_manifests_stay(
    registry: Registry, tmp_path: Path
) -> None:
    for name in ("one", "two", "three", "four", "five"):
        push(registry.root, tmp_path / name, made_from=name)
    registry.set_label("canary", 1)
    assert registry.garbage(keep=1) == [2, 3]
    assert numbers(registry) == [1, 2, 3, 4, 5]
    assert registry.gc(keep=1) == [2, 3]
    # The first is labelled, the fourth is where a rollback goes, the fifth is labelled and new.
    assert numbers(registry) == [1, 4, 5]
    assert sorted(os.listdir(registry.root / "versions")) == ["1", "4", "5"]
    with pytest.raises(NotFound, match="removed was version 2"):
        registry.version(2)
    line = registry.lineage(registry.labelled(STABLE))
    assert [(version.number, version.removed) for version in line] == [
        (5, False), (4, False), (3, True), (2, True), (1, False)
    ]  # fmt: skip
    assert [version.manifest["made_from"] for version in line][2:4] == ["three", "two"]
    # Removed is removed: the same bundle again is a new version.
    assert push(registry.root, tmp_path / "two").number == 6
    assert registry.rollback(STABLE).number == 5
    assert registry.rollback(STABLE).number == 4
    assert registry.rollback(STABLE).number == 1  # past those that are gone


def test_the_newest_versions_stay(registry: Registry, tmp_path: Path) -> None:
    for number in range(1, 7):
        push(registry.root, tmp_path / str(number))
    registry.set_label(STABLE, 1)  # from 6, where a rollback would go
    assert registry.gc() == [2, 3]
    assert registry.gc() == []
    with pytest.raises(InvalidArgument, match="at least 1"):
        registry.gc(keep=0)


def test_nothing_is_renamed_before_its_files_are_on_the_disk(
    two: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: set[int] = set()
    renamed: list[tuple[str, set[int]]] = []
    fsync, rename, swap = os.fsync, os.rename, os.replace

    def note_fsync(descriptor: int) -> None:
        fsync(descriptor)
        flushed.add(os.fstat(descriptor).st_ino)

    def note(move: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
        def moving(source: Any, target: Any) -> None:
            tree = {source, *Path(source).rglob("*")}
            renamed.append((str(target), {os.stat(path).st_ino for path in tree} - flushed))
            move(source, target)
            flushed.discard(os.stat(Path(target).parent).st_ino)

        return moving

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "rename", note(rename))
    monkeypatch.setattr(os, "replace", note(swap))
    new = tmp_path / "new"
    # The names too: of the first version, of the database beside it, and of a later version.
    assert push(new, tmp_path / "three").number == 1
    assert {os.stat(path).st_ino for path in (tmp_path, new, new / "versions")} <= flushed
    assert push(two.root, tmp_path / "three").number == 3
    assert os.stat(two.root / "versions").st_ino in flushed
    assert [Path(target).name for target, _ in renamed] == ["signing.key", "registry.db", "1", "3"]
    assert all(not left for _, left in renamed)


def test_what_is_not_the_registrys_stays(two: Registry, tmp_path: Path) -> None:
    notes = [two.root / "versions" / name for name in ("notes", "03", "1.backup", "readme")]
    for path in notes[:-1]:
        path.mkdir()
    notes[-1].write_text("x")
    push(two.root, tmp_path / "three")
    assert all(path.exists() for path in notes)
    assert numbers(two) == [1, 2, 3]


def test_a_directory_that_no_push_finished_is_no_version(two: Registry, tmp_path: Path) -> None:
    versions = two.root / "versions"
    for name in ("3.staging", "1.old", "3.staging.old", "3", "3.old"):
        (versions / name).mkdir()
        (versions / name / "half").write_text("h")
    assert numbers(two) == [1, 2]
    assert push(two.root, tmp_path / "three").number == 3
    assert sorted(os.listdir(versions)) == ["1", "2", "3"]
    two.verify(two.version(3))


def test_the_gates_signature_covers_the_record_as_it_was_stored(
    registry: Registry, tmp_path: Path
) -> None:
    folder = make_bundle(tmp_path / "one", "one")
    record = {"blessed": True, "files": artifacts.hash_files(folder), "checks": ({"low": 0.1},)}
    stored = json.loads(artifacts.to_json(sign(record, signing_key(registry.root))))
    assert registry.push(folder, {"blessing": stored}).number == 1
