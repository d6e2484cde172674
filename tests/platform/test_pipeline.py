"""What is finished is kept, what was cut off is done again."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from mlplatform import artifacts, pipeline
from mlplatform.errors import DataCorrupt, FailedPrecondition, InvalidArgument
from mlplatform.pipeline import Context, Record, Stage, Workspace, run

PLATFORM = Path(pipeline.__file__).parents[1]


class Watcher:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.records: list[Record] = []
        self.rows: list[int] = []

    def started(self, stage: str) -> "Watcher":
        self.ran.append(stage)
        return self

    def finished(self, record: Record) -> None:
        self.records.append(record)

    def expect(self, rows: int) -> None: ...

    def advance(self, rows: int) -> None:
        self.rows.append(rows)


def adding(name: str, amount: int, *inputs: str) -> Stage:
    """A stage that writes the sum of its inputs and `amount`."""

    def work(context: Context) -> Mapping[str, Any]:
        total = amount + sum(int((p / "sum").read_text()) for p in context.inputs.values())
        (context.output / "sum").write_text(str(total))
        context.progress.advance(3)
        return {"rows": 3, "total": total}

    return Stage(name, work, inputs, {"amount": amount})


def diamond(**changes: Stage) -> list[Stage]:
    stages = [
        adding("a", 1),
        adding("b", 10, "a"),
        adding("c", 100, "a"),
        adding("d", 1000, "b", "c"),
    ]
    return [changes.get(stage.name, stage) for stage in stages]


def ran(stages: list[Stage], root: Path) -> list[str]:
    watcher = Watcher()
    run(stages, Workspace(root), watcher)
    return watcher.ran


def total_of(root: Path, stage: str) -> int:
    latest = Workspace(root).latest(stage)
    assert latest is not None
    return int((latest / "sum").read_text())


def test_stages_run_once_in_order_and_read_what_earlier_ones_wrote(tmp_path: Path) -> None:
    watcher = Watcher()
    records = run(diamond(), Workspace(tmp_path), watcher)
    assert watcher.ran == list(records) == ["a", "b", "c", "d"]
    assert watcher.records == list(records.values())
    assert watcher.rows == [3, 3, 3, 3]
    assert [records[name].figures["total"] for name in "abcd"] == [1, 11, 101, 1112]
    assert total_of(tmp_path, "d") == 1112


def test_a_second_run_reuses_everything(tmp_path: Path) -> None:
    first = run(diamond(), Workspace(tmp_path), Watcher())
    before = artifacts.hash_files(tmp_path)
    watcher = Watcher()
    second = run(diamond(), Workspace(tmp_path), watcher)
    assert watcher.ran == []
    assert [record.reused for record in watcher.records] == [True] * 4
    assert second == {name: replace(record, reused=True) for name, record in first.items()}
    assert artifacts.hash_files(tmp_path) == before


def test_a_changed_parameter_reruns_its_stage_and_those_downstream(tmp_path: Path) -> None:
    ran(diamond(), tmp_path)
    changed = diamond(b=adding("b", 20, "a"))
    assert ran(changed, tmp_path) == ["b", "d"]
    assert total_of(tmp_path, "d") == 1122
    assert ran(changed, tmp_path) == []
    assert ran(diamond(), tmp_path) == ["b", "d"]
    assert total_of(tmp_path, "d") == 1112


def test_a_workspace_keeps_one_artifact_a_stage(tmp_path: Path) -> None:
    ran(diamond(), tmp_path)
    ran(diamond(a=adding("a", 2)), tmp_path)
    assert {
        p.name: len(list(p.iterdir())) for p in (tmp_path / "artifacts").iterdir()
    } == dict.fromkeys("abcd", 1)


def failing(stage: Stage) -> Stage:
    def work(context: Context) -> Mapping[str, Any]:
        (context.output / "sum").write_text("half")
        raise RuntimeError("stop here")

    return replace(stage, run=work)


def test_a_failure_keeps_what_was_finished_and_the_next_run_goes_on_there(tmp_path: Path) -> None:
    watcher = Watcher()
    with pytest.raises(RuntimeError, match="stop here"):
        run(diamond(c=failing(adding("c", 100, "a"))), Workspace(tmp_path), watcher)
    assert watcher.ran == ["a", "b", "c"]
    assert [record.stage for record in watcher.records] == ["a", "b"]
    assert Workspace(tmp_path).latest("c") is None
    assert list((tmp_path / "artifacts" / "c").iterdir()) == []
    assert ran(diamond(), tmp_path) == ["c", "d"]
    assert total_of(tmp_path, "d") == 1112


KILLED = """
import os, signal, sys
from pathlib import Path
from mlplatform.pipeline import Stage, Workspace, run

class Nobody:
    def started(self, stage): print(stage, flush=True); return self
    def finished(self, record): ...

def first(context):
    (context.output / "numbers").write_text("1 2 3")
    return {"rows": 3}

def second(context):
    numbers = (context.inputs["first"] / "numbers").read_text().split()
    with (context.output / "squares").open("w") as stream:
        for number in numbers:
            print(int(number) ** 2, file=stream, flush=True)
            if number == "2" and sys.argv[2] == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
    return {"rows": len(numbers)}

def third(context):
    text = (context.inputs["second"] / "squares").read_text()
    (context.output / "sum").write_text(str(sum(map(int, text.split()))))
    return {"rows": 1}

stages = [Stage("first", first), Stage("second", second, ("first",)),
          Stage("third", third, ("second",))]
workspace = Workspace(Path(sys.argv[1]))
with workspace.locked():
    run(stages, workspace, Nobody())
"""


def child(script: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env=os.environ | {"PYTHONPATH": str(PLATFORM)},
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )


def outputs(root: Path) -> dict[str, Any]:
    """Every file of every artifact; of the records, what does not depend on the machine."""
    found: dict[str, Any] = {}
    for path in sorted((root / "artifacts").rglob("*")):
        name = str(path.relative_to(root))
        if path.name == pipeline.RECORD:
            found[name] = json.loads(path.read_text()) | {"seconds": None, "peak_mb": None}
        elif path.is_file():
            found[name] = path.read_bytes()
    return found


def test_a_killed_run_goes_on_and_ends_with_the_bytes_of_an_uncut_one(tmp_path: Path) -> None:
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    first = child(KILLED, str(cut), "kill")
    assert first.returncode == -signal.SIGKILL
    assert first.stdout.split() == ["first", "second"]
    assert Workspace(cut).latest("second") is None
    again = child(KILLED, str(cut), "")
    assert (again.returncode, again.stdout.split()) == (0, ["second", "third"])
    assert child(KILLED, str(whole), "").stdout.split() == ["first", "second", "third"]
    assert outputs(cut) == outputs(whole)
    assert sorted(path.rsplit("/", 1)[1] for path in outputs(cut)) == [
        "numbers", "squares", "stage.json", "stage.json", "stage.json", "sum",
    ]  # fmt: skip


def test_a_stage_keeps_its_scratch_over_a_failure_and_not_when_it_is_finished(
    tmp_path: Path,
) -> None:
    def work(context: Context) -> Mapping[str, Any]:
        at = context.scratch / "at"
        if not at.exists():
            at.parent.mkdir()
            at.write_text("half way")
            raise RuntimeError("stop here")
        (context.output / "found").write_text(at.read_text())
        return {}

    with pytest.raises(RuntimeError, match="stop here"):
        run([Stage("a", work)], Workspace(tmp_path), Watcher())
    run([Stage("a", work)], Workspace(tmp_path), Watcher())
    (artifact,) = (tmp_path / "artifacts" / "a").iterdir()
    assert (artifact / "found").read_text() == "half way"


def test_an_unpublished_artifact_is_not_the_latest(tmp_path: Path) -> None:
    ran([adding("a", 1)], tmp_path)
    finished = Workspace(tmp_path).latest("a")
    assert finished is not None
    # What a kill between the record and the rename leaves; 'g' sorts after every digest.
    unpublished = finished.with_name("g.staging")
    unpublished.mkdir()
    (unpublished / pipeline.RECORD).write_bytes((finished / pipeline.RECORD).read_bytes())
    assert Workspace(tmp_path).latest("a") == finished


def test_a_workspace_of_another_format_is_refused(tmp_path: Path) -> None:
    Workspace(tmp_path)
    marker = tmp_path / "workspace.json"
    assert json.loads(marker.read_text()) == {"format": pipeline.WORKSPACE_FORMAT}
    Workspace(tmp_path)
    marker.write_text('{"format": 99}')
    with pytest.raises(FailedPrecondition, match=f"{tmp_path.name}.*99"):
        Workspace(tmp_path)


LOCKER = """
import sys
from pathlib import Path
from mlplatform.pipeline import Workspace
with Workspace(Path(sys.argv[1])).locked():
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_second_run_is_refused_until_the_first_is_gone_even_if_killed(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LOCKER, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(PLATFORM)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        with (
            pytest.raises(FailedPrecondition, match="another run"),
            Workspace(tmp_path).locked(),
        ):
            raise AssertionError("both runs are in")
        other.kill()
    entered = False
    with Workspace(tmp_path).locked():
        entered = True
    assert entered


def test_an_input_that_no_earlier_stage_writes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"'b'.*\['a'\]"):
        run([adding("b", 1, "a"), adding("a", 1)], Workspace(tmp_path), Watcher())


def test_a_record_knows_rows_seconds_and_memory(tmp_path: Path) -> None:
    held = []

    def work(context: Context) -> Mapping[str, Any]:
        block = np.ones(8_000_000)
        held.append(psutil.Process().memory_info().rss / 2**20)
        time.sleep(0.3)  # several samples
        assert block[-1] == 1
        return {"rows": 7}

    record = run([Stage("a", work)], Workspace(tmp_path), Watcher())["a"]
    assert record.figures == {"rows": 7}
    assert record.seconds >= 0.3
    assert held[0] * 0.98 <= record.peak_mb < held[0] + 2000
    path = Workspace(tmp_path).latest("a")
    assert path is not None
    assert pipeline.read_record(path) == record


def test_a_peak_that_has_passed_is_remembered(tmp_path: Path) -> None:
    def work(context: Context) -> Mapping[str, Any]:
        block = np.ones(16_000_000)  # 122 MB, given back to the system when deleted
        time.sleep(0.4)
        assert block[-1] == 1
        return {}

    quiet = run([Stage("quiet", lambda context: {})], Workspace(tmp_path), Watcher())["quiet"]
    loud = run([Stage("loud", work)], Workspace(tmp_path), Watcher())["loud"]
    assert loud.peak_mb > quiet.peak_mb + 90


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    ran([adding("a", 1)], tmp_path)
    path = Workspace(tmp_path).latest("a")
    assert path is not None
    for content in ("[]", '{"stage": "a"}', "{"):
        (path / pipeline.RECORD).write_text(content)
        with pytest.raises(DataCorrupt, match=r"stage\.json"):
            ran([adding("a", 1)], tmp_path)


def test_changed_code_reruns_its_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "code" / "tested_code"
    (package / "deep").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "deep" / "part.py").write_text("X = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    stages = [replace(adding("a", 1), code=("tested_code",)), adding("b", 2)]

    def next_run() -> list[str]:
        pipeline.code_hash.cache_clear()  # as in a new process
        return ran(stages, tmp_path / "workspace")

    assert next_run() == ["a", "b"]
    assert next_run() == []
    (package / "deep" / "part.py").write_text("X = 2\n")
    assert next_run() == ["a"]


def test_code_without_a_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="no_such_module"):
        ran([replace(adding("a", 1), code=("no_such_module",))], tmp_path)
