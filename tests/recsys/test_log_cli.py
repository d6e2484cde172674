"""A day of a server's log, sealed from the command line."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mlplatform.errors import FailedPrecondition, NotFound
from recsys.cli import app
from tests.recsys.online.test_events import NOON, event, request, told, write_file

DAY_0 = "2023-11-14"  # in which NOON is, in UTC


@pytest.fixture
def state(tmp_path: Path) -> Path:
    write_file(tmp_path / "log", "requests", [request(100, NOON, [10, 20])], NOON)
    write_file(tmp_path / "log", "events", told(NOON + 5, event("a", 100, 10, at=NOON + 1)), NOON)
    return tmp_path


def test_a_day_that_is_over_is_counted_and_written(state: Path) -> None:
    run = ["seal", "1", "--began", DAY_0, "--state", str(state)]
    shown = CliRunner().invoke(app, run, catch_exceptions=False).stdout.splitlines()
    span = state / "events" / "day=001"
    assert shown[0] == str(span) and (span / "impressions.parquet").exists()
    assert shown[1].split() == ["1", "requests"] and shown[3].split() == ["1", "impressions"]
    found = json.loads(CliRunner().invoke(app, [*run, "--json"]).stdout)
    assert (found["requests"], found["orphans"]) == (1, 0)


def test_what_cannot_be_sealed_is_said_in_a_line(state: Path) -> None:
    early = CliRunner().invoke(app, ["seal", "99999", "--began", DAY_0, "--state", str(state)])
    assert isinstance(early.exception, FailedPrecondition) and "join it then" in str(
        early.exception
    )
    when = CliRunner().invoke(app, ["seal", "0", "--began", "yesterday", "--state", str(state)])
    assert when.exit_code == 2 and "%Y-%m-%d" in when.stderr


def test_where_no_server_was_is_said_and_nothing_is_written(tmp_path: Path) -> None:
    found = CliRunner().invoke(app, ["seal", "0", "--began", DAY_0, "--workspace", str(tmp_path)])
    assert isinstance(found.exception, NotFound) and "--state" in str(found.exception)
    assert list(tmp_path.iterdir()) == []
