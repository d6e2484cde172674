"""Artifacts: directories that are either whole or absent.

Enters: a function that fills an empty directory.  Leaves: the directory under its final name,
flushed to disk, with a SHA-256 of every file.  A reader never sees half an artifact: the work
happens in a staging directory beside the target, and one rename publishes it.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from mlplatform.errors import DataCorrupt, ResourceExhausted

STAGING_SUFFIX = ".staging"
_ROOM_BYTES = 1 << 20


@contextmanager
def staged_directory(target: Path) -> Iterator[Path]:
    """Yield an empty staging directory that becomes `target` if the block succeeds.

    What an earlier, interrupted attempt left in the staging directory is removed first; an
    exception removes it too, so a failure leaves no trace and the old `target`, if any, intact.

    Raises:
        ResourceExhausted: the disk is full.
    """
    staging = target.with_name(target.name + STAGING_SUFFIX)
    shutil.rmtree(staging, ignore_errors=True)
    try:
        make_directories(staging)
        yield staging
        publish(staging, target)
    except Exception as error:
        # Looked at before the staging directory is removed, which makes room again.
        full = is_disk_full(error, target)
        shutil.rmtree(staging, ignore_errors=True)
        if full:
            raise disk_full(target) from error
        raise
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def publish(staging: Path, target: Path) -> None:
    """Flush `staging` to disk and rename it to `target`, replacing what stood there."""
    for path in files_of(staging):
        _fsync(staging / path)
    for directory in [p for p in staging.rglob("*") if p.is_dir()] + [staging]:
        _fsync(directory)
    doomed = target.with_name(target.name + ".old")
    shutil.rmtree(doomed, ignore_errors=True)
    if target.exists():
        target.rename(doomed)
    try:
        staging.rename(target)
    except BaseException:
        if doomed.exists():
            doomed.rename(target)
        raise
    _fsync(target.parent)
    shutil.rmtree(doomed, ignore_errors=True)


def make_directories(path: Path) -> None:
    """Create a directory with its missing parents, none of which a power cut takes back."""
    missing = [one for one in (path, *path.parents) if not one.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for directory in missing:
        _fsync(directory.parent)


def write_file_atomically(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Replace one small file: readers see the old content or the new, nothing between.

    Args:
        mode: who may read and write it, before the process's umask takes from that.
    """
    staging = path.with_name(path.name + STAGING_SUFFIX)
    try:
        make_directories(path.parent)
        with open(staging, "wb", opener=partial(os.open, mode=mode)) as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        staging.replace(path)
        _fsync(path.parent)
    except OSError as error:
        staging.unlink(missing_ok=True)
        if is_disk_full(error, path):
            raise disk_full(path) from error
        raise


def hash_files(directory: Path) -> dict[str, str]:
    """SHA-256 of every file below `directory`, keyed by its relative path."""
    return {name: hash_file(directory / name) for name in files_of(directory)}


def hash_file(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def files_of(directory: Path) -> list[str]:
    """Relative paths of the files below `directory`, sorted."""
    return sorted(str(p.relative_to(directory)) for p in directory.rglob("*") if p.is_file())


def remove_tree(directory: Path) -> None:
    """Delete a directory; the rename first makes it vanish in one step."""
    doomed = directory.with_name(directory.name + ".old")
    if directory.name.endswith(".old"):
        doomed = directory
    else:
        shutil.rmtree(doomed, ignore_errors=True)
        directory.rename(doomed)
    shutil.rmtree(doomed)


def link_tree(source: Path, target: Path, only: str = "*") -> None:
    """Fill `target` with the files of `source`: hard links where the file system has them."""
    for name in (name for name in files_of(source) if Path(name).match(only)):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source / name, target / name)
        except OSError:
            shutil.copy2(source / name, target / name)


def read_json(path: Path) -> Any:
    """Parse a JSON file that this program wrote.

    Raises:
        DataCorrupt: the file is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataCorrupt(
            f"{path}: expected JSON, got a file that does not parse ({error}); "
            "delete it and run the command again"
        ) from error


def to_json(value: Any) -> bytes:
    """The one form in which JSON is stored: sorted, indented, ending in a newline."""
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def is_disk_full(error: BaseException, path: Path) -> bool:
    """Whether an error comes of a full disk.

    Libraries tell it in ways of their own, so whatever fails where no room is left counts.
    """
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    existing = next(parent for parent in path.absolute().parents if parent.exists())
    return shutil.disk_usage(existing).free < _ROOM_BYTES


def disk_full(path: Path) -> ResourceExhausted:
    return ResourceExhausted(
        f"{path}: the disk is full; free some space and run the same command again, "
        "finished work is kept"
    )


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
