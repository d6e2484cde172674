"""Artifacts are whole or absent, whatever happens while they are written."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mlplatform import artifacts
from mlplatform.errors import DataCorrupt, ResourceExhausted

PLATFORM = Path(artifacts.__file__).parents[1]


def contents(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def half_written(target: Path, error: BaseException) -> None:
    """Write an artifact up to an error in the middle."""
    with artifacts.staged_directory(target) as staging:
        (staging / "x").write_bytes(b"half of the n")
        raise error


def killed(script: str, *arguments: str) -> None:
    """Run Python code that kills itself without any chance to clean up."""
    child = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env=os.environ | {"PYTHONPATH": str(PLATFORM)},
        timeout=60,
        check=False,
    )
    assert child.returncode == -signal.SIGKILL


def test_a_block_that_ends_publishes_everything(tmp_path: Path) -> None:
    target = tmp_path / "a" / "target"
    with artifacts.staged_directory(target) as staging:
        (staging / "deep" / "er").mkdir(parents=True)
        (staging / "deep" / "er" / "x").write_bytes(b"1")
        (staging / "y").write_bytes(b"2")
        assert not target.exists()
    assert contents(target) == {"deep/er/x": b"1", "y": b"2"}
    assert [path.name for path in target.parent.iterdir()] == ["target"]


def test_a_new_artifact_replaces_all_of_the_old_one(tmp_path: Path) -> None:
    for name in ("old", "new"):
        with artifacts.staged_directory(tmp_path / "target") as staging:
            (staging / name).write_text(name)
    assert contents(tmp_path) == {"target/new": b"new"}


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), OSError(errno.EIO, "no")])
def test_an_exception_leaves_the_old_artifact_and_nothing_else(
    error: BaseException, tmp_path: Path
) -> None:
    with artifacts.staged_directory(tmp_path / "target") as staging:
        (staging / "x").write_bytes(b"old")
    with pytest.raises(type(error)) as caught:
        half_written(tmp_path / "target", error)
    assert caught.value is error
    assert contents(tmp_path) == {"target/x": b"old"}
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_a_killed_process_leaves_no_target_and_the_next_run_works(tmp_path: Path) -> None:
    target = tmp_path / "target"
    killed(
        "import os, signal, sys; from pathlib import Path\n"
        "from mlplatform.artifacts import staged_directory\n"
        "with staged_directory(Path(sys.argv[1])) as staging:\n"
        "    (staging / 'half').write_text('h')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n",
        str(target),
    )
    assert not target.exists()
    assert "target.staging/half" in contents(tmp_path)
    with artifacts.staged_directory(target) as staging:
        assert list(staging.iterdir()) == []
        (staging / "whole").write_text("w")
    assert contents(tmp_path) == {"target/whole": b"w"}


def test_a_process_killed_while_it_writes_anew_leaves_the_old_artifact(tmp_path: Path) -> None:
    target = tmp_path / "target"
    with artifacts.staged_directory(target) as staging:
        (staging / "x").write_bytes(b"old")
    killed(
        "import os, signal, sys; from pathlib import Path\n"
        "from mlplatform.artifacts import staged_directory\n"
        "with staged_directory(Path(sys.argv[1])) as staging:\n"
        "    (staging / 'x').write_text('ne')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n",
        str(target),
    )
    assert contents(target) == {"x": b"old"}


def test_a_rename_that_fails_leaves_the_old_artifact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "target"
    with artifacts.staged_directory(target) as staging:
        (staging / "x").write_bytes(b"old")
    rename = Path.rename

    def failing(path: Path, to: Any) -> Path:
        if path.name.endswith(artifacts.STAGING_SUFFIX):
            raise OSError(errno.EIO, "the disk is tired")
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", failing)
    with (
        pytest.raises(OSError, match="tired"),
        artifacts.staged_directory(target) as staging,
    ):
        (staging / "x").write_bytes(b"new")
    assert contents(target) == {"x": b"old"}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_said_with_the_path(code: int, tmp_path: Path) -> None:
    target = tmp_path / "target"
    with pytest.raises(ResourceExhausted) as caught:
        half_written(target, OSError(code, "no room"))
    assert str(target) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_librarys_own_words_for_a_full_disk_are_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Half a megabyte free while the block runs; its staging is looked at before it is removed.
    def usage(path: Any) -> Any:
        assert (tmp_path / "target.staging").exists()
        return SimpleNamespace(total=1 << 30, used=1 << 30, free=1 << 19)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    with (
        pytest.raises(ResourceExhausted, match="target"),
        artifacts.staged_directory(tmp_path / "target"),
    ):
        raise RuntimeError("RocksDB: write stalled")
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "x.json"
    for content in (b"old and longer", b"new"):
        artifacts.write_file_atomically(path, content)
        assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("code", "error"), [(errno.ENOSPC, ResourceExhausted), (errno.EIO, OSError)]
)
def test_a_file_that_cannot_be_written_stays_as_it_was(
    code: int, error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.json"
    artifacts.write_file_atomically(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(error, match=r"x\.json"):
        artifacts.write_file_atomically(path, b"new")
    assert contents(tmp_path) == {"x.json": b"old"}


def test_json_comes_back_and_is_stored_in_one_form(tmp_path: Path) -> None:
    value = {"b": [1, 2.5, None], "a": "ü"}
    path = tmp_path / "x.json"
    path.write_bytes(artifacts.to_json(value))
    assert artifacts.read_json(path) == value
    assert artifacts.to_json({"a": "ü", "b": [1, 2.5, None]}) == path.read_bytes()
    assert path.read_bytes().endswith(b"}\n")


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"{} {}", b'"\xff"', b"\x00\x01"])
def test_damaged_json_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(DataCorrupt, match=r"x\.json"):
        artifacts.read_json(path)


def test_hashes_are_sha_256_of_every_file(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "abc").write_bytes(b"abc")
    (tmp_path / "empty").write_bytes(b"")
    # The first is the example of FIPS 180-4.
    assert artifacts.hash_files(tmp_path) == {
        "d/abc": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        "empty": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    }


@pytest.mark.parametrize("links", [True, False])
def test_a_linked_tree_has_the_same_files(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a" / "d").mkdir(parents=True)
    (tmp_path / "a" / "d" / "x.npy").write_bytes(b"1")
    (tmp_path / "a" / "y.json").write_bytes(b"2")

    def refuse(*_: Any) -> None:
        raise OSError(errno.EXDEV, "another file system")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    artifacts.link_tree(tmp_path / "a", tmp_path / "all")
    artifacts.link_tree(tmp_path / "a", tmp_path / "some", only="*.npy")
    assert contents(tmp_path / "all") == {"d/x.npy": b"1", "y.json": b"2"}
    assert contents(tmp_path / "some") == {"d/x.npy": b"1"}
    assert os.path.samefile(tmp_path / "a" / "y.json", tmp_path / "all" / "y.json") == links
