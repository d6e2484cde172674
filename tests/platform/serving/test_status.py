"""The file that says what is served, and by whom."""

from pathlib import Path

import pytest

from mlplatform.errors import DataCorrupt, NotFound
from mlplatform.serving.child import Stage
from mlplatform.serving.status import (
    State,
    Status,
    VersionStatus,
    WorkerStatus,
    read_status,
    version_states,
    write_status,
)

STATUS = Status(
    labels={"stable": 3},
    versions={3: VersionStatus(State.AVAILABLE), 12: VersionStatus(State.END, "broken")},
    workers=[WorkerStatus(worker=0, pid=77, generation=2, stage=Stage.SERVING, restarts=1)],
    error="unreadable",
)


def test_what_was_written_is_read_and_read_again_only_when_it_changed(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    write_status(path, STATUS)
    assert read_status(path) == STATUS
    assert read_status(path) is read_status(path)
    write_status(path, Status({}, {}, []))
    assert read_status(path) == Status({}, {}, [])
    assert [file.name for file in tmp_path.iterdir()] == ["status.json"]


def test_a_file_that_is_no_status_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    with pytest.raises(NotFound, match="no server's status"):
        read_status(path)
    for content in ("", "{}", '{"labels": {"stable": "x"}, "versions": {}, "workers": []}'):
        path.write_text(content)
        with pytest.raises(DataCorrupt, match="does not parse"):
            read_status(path)


def test_a_version_in_several_generations_has_the_state_that_its_users_see() -> None:
    states = version_states(
        available=[1],
        loading=[1, 2],
        unloading=[1, 2, 3],
        wanted=[1, 2, 3, 4],
        ended=[1, 2, 3, 4, 5],
        errors={4: "once", 6: "not listed"},
    )
    assert states == {
        1: VersionStatus(State.AVAILABLE),
        2: VersionStatus(State.LOADING),
        3: VersionStatus(State.UNLOADING),
        4: VersionStatus(State.START, "once"),
        5: VersionStatus(State.END),
    }
