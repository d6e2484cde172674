"""The verbs about the registry say what it holds, and change what they say."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from mlplatform.artifacts import hash_files
from mlplatform.errors import DataCorrupt, FailedPrecondition, NotFound
from mlplatform.registry.registry import Registry
from mlplatform.registry.signing import sign, signing_key
from recsys import registry_cli

app = typer.Typer()
for verb in ("show", "verify", "label", "rollback", "gc", "lineage", "rebuild"):
    app.command(verb)(getattr(registry_cli, verb))
app.command("list")(registry_cli.list_versions)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """Three versions; the second one's days, stages and checks are its own."""
    registry = Registry(tmp_path / "registry")
    for number in (1, 2, 3):
        bundle = tmp_path / f"bundle {number}"
        bundle.mkdir()
        (bundle / "model").write_text(str(number))
        check = {"figure": "AUC", "above": 0.5 + number / 10, "below": None, "outcome": "passed"}
        later = {**check, "figure": "AUC - baseline", "outcome": "not compared: no baseline"}
        blessing = {
            "blessed": True,
            "checks": [check, later],
            "parts": [{"name": "canary", "passed": True, "reason": "it answers"}],
            "files": hash_files(bundle),
        }
        registry.push(
            bundle,
            {
                "blessing": sign(blessing, signing_key(registry.root)),
                "spans": [10 * number, 10 * number + 1],
                "transform": f"{number}f" * 32,
                "lineage": {"infer_schema": f"{number}a" * 32, "train": f"{number}b" * 32},
            },
        )
    return tmp_path


def ask(workspace: Path, *arguments: str) -> str:
    done = CliRunner().invoke(
        app, [*arguments, "--workspace", str(workspace)], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    return done.output


def test_list_shows_versions_and_labels(workspace: Path) -> None:
    rows = json.loads(ask(workspace, "list", "--json"))
    found = [(row["version"], row["parent"], row["labels"], row["files"]) for row in rows]
    assert found == [(1, None, [], 1), (2, 1, [], 1), (3, 2, ["stable"], 1)]
    lines = ask(workspace, "list").splitlines()
    assert [line.split()[0] for line in lines] == ["1", "2", "3"]
    assert lines[2].endswith("1 files  stable") and lines[0].endswith("1 files")
    assert "storeloop run" in ask(workspace / "empty", "list")


@pytest.mark.parametrize("which", ["3", "stable"])
def test_show_takes_a_number_or_a_label(which: str, workspace: Path) -> None:
    text = ask(workspace, "show", which)
    for part in (
        "version 3, after 2", "days: 30, 31", "3a3a3a3a3a3a  infer_schema",
        "3f3f3f3f3f3f  the transform", "passed: AUC above 0.8",
        "not compared: no baseline: AUC - baseline above 0.8", "blessed by: AUC, canary",
        "stable: 2 -> 3  push", "versions/3/model",
    ):  # fmt: skip
        assert part in text
    shown = json.loads(ask(workspace, "show", which, "--json"))
    assert shown["version"] == 3 and shown["labels"] == ["stable"]
    assert shown["manifest"] == Registry(workspace / "registry").version(3).manifest


def test_lineage_goes_back_past_versions_that_are_gone(workspace: Path) -> None:
    assert ask(workspace, "gc", "--keep", "1", "--dry-run") == "version 1: would be removed\n"
    assert ask(workspace, "gc", "--keep", "1") == "version 1: removed\n"
    assert ask(workspace, "gc", "--keep", "1") == "nothing to remove\n"
    line = json.loads(ask(workspace, "lineage", "--json"))
    assert [(one["version"], one["parent"], one["removed"]) for one in line] == [
        (3, 2, False), (2, 1, False), (1, None, True)
    ]  # fmt: skip
    assert [one["days"] for one in line] == [[30, 31], [20, 21], [10, 11]]
    assert line[1]["stages"] == {"infer_schema": "2a" * 32, "train": "2b" * 32}
    assert line[1]["checks"] == ["AUC", "canary"]
    text = ask(workspace, "lineage", "2")
    assert "version 3" not in text
    assert "version 2, after 1" in text and "version 1, first of its line" in text
    assert ", removed" in text


def test_labels_go_where_they_are_told_and_back(workspace: Path) -> None:
    registry = Registry(workspace / "registry")
    assert ask(workspace, "rollback") == "stable points at version 2\n"
    assert ask(workspace, "rollback", "--label", "stable", "--to", "1").endswith("version 1\n")
    assert ask(workspace, "label", "canary", "3", "--why", "a trial").endswith("version 3\n")
    assert registry.labels() == {"stable": 1, "canary": 3}
    assert registry.history("canary")[-1].why == "a trial"
    with pytest.raises(FailedPrecondition):
        ask(workspace, "rollback")
    with pytest.raises(NotFound, match="'nightly'"):
        ask(workspace, "show", "nightly")


def test_verify_names_what_is_damaged_and_goes_on(workspace: Path) -> None:
    assert ask(workspace, "verify").count("1 files, all as pushed") == 3
    versions = workspace / "registry" / "versions"
    (versions / "1" / "model").unlink()
    (versions / "2" / "more").write_text("?")
    with pytest.raises(DataCorrupt, match=r"(?s)1/model is missing.*\n.*2/more was not pushed"):
        ask(workspace, "verify")


def test_a_lost_database_is_made_anew(workspace: Path) -> None:
    (workspace / "registry" / "registry.db").unlink()
    with pytest.raises(DataCorrupt, match="rebuild"):
        ask(workspace, "list")
    assert ask(workspace, "rebuild").startswith("versions found: 1, 2, 3; no label")
    ask(workspace, "label", "stable", "2")
    assert Registry(workspace / "registry").labelled("stable").number == 2
