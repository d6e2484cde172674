"""Stages, artifacts and fingerprints: what is finished is kept, what was cut off is done again.

Enters: stages in order, each a function with named inputs, and a workspace.  Leaves: one artifact
directory a stage.  A stage's fingerprint covers its name, parameters, code and the fingerprints of
its inputs: an artifact with that fingerprint is used as it is, so a run that was killed goes on at
the unfinished stage and a run repeated unchanged does nothing.
"""

import hashlib
import importlib.util
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import psutil

from mlplatform import artifacts
from mlplatform.errors import DataCorrupt, FailedPrecondition, InvalidArgument
from mlplatform.registry.locks import locked_if_free

WORKSPACE_FORMAT = 1
RECORD = "stage.json"
SCRATCH_SUFFIX = ".scratch"
_SAMPLE_SECONDS = 0.05


class Progress(Protocol):
    """How a stage tells how far it is."""

    def expect(self, rows: int) -> None:
        """Say how many rows there will be."""

    def advance(self, rows: int) -> None:
        """Say that so many more are done."""


class Observer(Protocol):
    """Who is told what happens, and shows it."""

    def started(self, stage: str) -> Progress: ...

    def finished(self, record: "Record") -> None: ...


@dataclass(frozen=True)
class Context:
    """What a stage is given: its inputs' directories, an empty one to fill, and who to tell.

    scratch: a directory, perhaps not there yet, that outlives a kill: a stage that takes long keeps
        there what it goes on from.  It is deleted when the stage is finished.
    """

    inputs: Mapping[str, Path]
    output: Path
    scratch: Path
    progress: Progress


@dataclass(frozen=True)
class Stage:
    """One verb of the pipeline.

    run: fills `context.output` and returns its figures; 'rows' among them is shown as the size.
    code: packages or modules whose source belongs to the fingerprint.
    """

    name: str
    run: Callable[[Context], Mapping[str, Any]]
    inputs: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    code: tuple[str, ...] = ()


@dataclass(frozen=True)
class Record:
    """What is known of a finished stage; kept in its artifact."""

    stage: str
    fingerprint: str
    inputs: Mapping[str, str]
    figures: Mapping[str, Any]
    seconds: float
    peak_mb: float
    reused: bool = False


class Workspace:
    """A directory of artifacts: `artifacts/STAGE/FINGERPRINT`."""

    def __init__(self, root: Path) -> None:
        """Open or create a workspace.

        Raises:
            FailedPrecondition: it was written by a version with another layout.
        """
        self.root = root
        marker = root / "workspace.json"
        if not marker.exists():
            artifacts.write_file_atomically(marker, artifacts.to_json({"format": WORKSPACE_FORMAT}))
        found = artifacts.read_json(marker).get("format")
        if found != WORKSPACE_FORMAT:
            raise FailedPrecondition(
                f"{root}: a workspace of format {found}, this version works with format "
                f"{WORKSPACE_FORMAT}; name another --workspace, or delete this one"
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep a second run out.

        Raises:
            FailedPrecondition: another run has the workspace.
        """
        with locked_if_free(self.root / "lock") as free:
            if not free:
                raise FailedPrecondition(
                    f"{self.root}: another run works here; wait for it or name another --workspace"
                )
            yield

    def artifact(self, stage: str, fingerprint: str) -> Path:
        return self.root / "artifacts" / stage / fingerprint[:16]

    def latest(self, stage: str) -> Path | None:
        """The artifact of a stage's last run, if there is one."""
        records = (self.root / "artifacts" / stage).glob(f"*/{RECORD}")
        # A name with a suffix is an artifact that is being written, or deleted.
        found = sorted(path.parent for path in records if not path.parent.suffix)
        return found[-1] if found else None

    def remove_others(self, artifact: Path) -> None:
        """A workspace keeps one artifact a stage: the latest, and nothing to make it from."""
        for other in artifact.parent.iterdir():
            if other != artifact:
                artifacts.remove_tree(other)


def run(
    stages: Sequence[Stage],
    workspace: Workspace,
    observer: Observer,
    before: Mapping[str, Record] = MappingProxyType({}),
) -> dict[str, Record]:
    """Run the stages that are not finished, in order; return the record of each.

    Args:
        before: records of an earlier call, whose artifacts these stages may read.

    Raises:
        InvalidArgument: a stage reads an artifact that no earlier stage writes.
        ResourceExhausted: the disk is full.
    """
    records: dict[str, Record] = {}
    for stage in stages:
        known = {**before, **records}
        missing = [name for name in stage.inputs if name not in known]
        if missing:
            raise InvalidArgument(
                f"stage {stage.name!r} reads {missing}, which no stage before it writes"
            )
        inputs = {name: known[name].fingerprint for name in stage.inputs}
        fingerprint = _fingerprint(stage, inputs)
        artifact = workspace.artifact(stage.name, fingerprint)
        if (artifact / RECORD).exists():
            record = read_record(artifact, reused=True)
        else:
            paths = {name: workspace.artifact(name, digest) for name, digest in inputs.items()}
            record = _run_stage(stage, fingerprint, inputs, paths, artifact, observer)
        workspace.remove_others(artifact)
        records[stage.name] = record
        observer.finished(record)
    return records


def read_record(artifact: Path, *, reused: bool = False) -> Record:
    content = artifacts.read_json(artifact / RECORD)
    try:
        return Record(**content | {"reused": reused})
    except TypeError as error:
        raise DataCorrupt(
            f"{artifact / RECORD}: not a stage's record ({error}); delete {artifact} and run again"
        ) from error


def _run_stage(
    stage: Stage,
    fingerprint: str,
    inputs: Mapping[str, str],
    paths: Mapping[str, Path],
    artifact: Path,
    observer: Observer,
) -> Record:
    started = time.monotonic()
    progress = observer.started(stage.name)
    with artifacts.staged_directory(artifact) as staging, _peak_memory() as peak:
        scratch = artifact.with_name(artifact.name + SCRATCH_SUFFIX)
        figures = stage.run(Context(paths, staging, scratch, progress))
        record = Record(
            stage.name,
            fingerprint,
            inputs,
            dict(figures),
            round(time.monotonic() - started, 2),
            round(peak() / 2**20, 1),
        )
        (staging / RECORD).write_bytes(artifacts.to_json(asdict(record)))
    return record


def _fingerprint(stage: Stage, inputs: Mapping[str, str]) -> str:
    content = {
        "stage": stage.name,
        "parameters": stage.parameters,
        "code": [code_hash(name) for name in stage.code],
        "inputs": inputs,
    }
    return hashlib.sha256(artifacts.to_json(content)).hexdigest()


@cache
def code_hash(module: str) -> str:
    """SHA-256 of a module's source, or of all of a package's."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise InvalidArgument(f"no source of module {module!r} was found")
    origin = Path(spec.origin)
    files = sorted(origin.parent.rglob("*.py")) if origin.name == "__init__.py" else [origin]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


@contextmanager
def _peak_memory() -> Iterator[Callable[[], int]]:
    """Sample the resident memory, in bytes, of this process and its children; yield the peak."""
    process = psutil.Process(os.getpid())
    peak = 0
    stop = threading.Event()

    def sample() -> None:
        nonlocal peak
        total = process.memory_info().rss
        for child in process.children(recursive=True):
            try:
                total += child.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        peak = max(peak, total)

    def watch() -> None:
        while not stop.wait(_SAMPLE_SECONDS):
            sample()

    def peak_so_far() -> int:
        sample()
        return peak

    watcher = threading.Thread(target=watch, name="peak memory", daemon=True)
    watcher.start()
    try:
        yield peak_so_far
    finally:
        stop.set()
        watcher.join()
