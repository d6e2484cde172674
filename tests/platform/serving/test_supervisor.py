"""What is labelled is served, whatever dies, fails or moves: with real processes."""

import os
import signal
import socket
import sqlite3
import sys
import threading
from contextlib import suppress
from itertools import groupby
from pathlib import Path

import psutil
import pytest

from mlplatform.serving.child import Stage
from mlplatform.serving.status import State, VersionStatus
from tests.platform.serving.small_server import (
    TOKEN,
    Client,
    Server,
    is_running,
    server,
    wait_until,
)


def test_what_the_labels_point_at_is_served_by_every_worker(tmp_path: Path) -> None:
    with server(tmp_path, "one", "two") as running:
        running.registry.set_label("canary", 1)
        running.wait_for(stable=2, canary=1)
        status = running.status()
        assert status.versions == {n: VersionStatus(State.AVAILABLE) for n in (1, 2)}
        assert status.error == ""
        assert [(worker.worker, worker.restarts) for worker in status.workers] == [(0, 0), (1, 0)]
        answer = running.get()
        assert answer["pid"] in running.pids()
        assert answer["word"] == "two" and answer["versions"] == {"stable": 2, "canary": 1}
        assert answer["one_thread"]
        host, port = answer["grpc"]
        assert host == "127.0.0.1" and int(port) not in (0, running.port)


def test_versions_change_under_load_without_a_failed_request(tmp_path: Path) -> None:
    with server(tmp_path, "one") as running:
        running.wait_for(stable=1)
        old = set(running.pids())
        with (
            Client(running.port, keep_alive=True) as kept,
            Client(running.port, keep_alive=True) as kept_too,
            Client(running.port, keep_alive=False) as new,
        ):
            for number in (2, 3):
                assert running.push("more") == number
                running.wait_for(stable=number)
            running.registry.rollback("stable", to=1)
            running.wait_for(stable=1)
            answered = len(new.versions)
            wait_until(lambda: len(new.versions) > answered + 5, "more answers have come")
        for client in (kept, kept_too, new):
            assert client.failures == []
            assert set(client.versions) == {1, 2, 3}
            assert client.versions[0] == client.versions[-1] == 1
        for client in (kept, kept_too):  # a kept connection goes over once
            assert [version for version, _ in groupby(client.versions)] == [1, 2, 3, 1]
        assert not old & set(running.pids())
        states = {number: found.state for number, found in running.status().versions.items()}
        assert states == {1: State.AVAILABLE, 2: State.END, 3: State.END}
        assert running.get()["low"], "loaded beside others, so at low priority"


def test_no_worker_is_told_the_server_s_secrets(tmp_path: Path) -> None:
    with server(tmp_path, "one") as running:
        running.wait_for(stable=1)

        def environment(pid: int) -> str:
            return Path(f"/proc/{pid}/environ").read_text()

        assert TOKEN in environment(running.process.pid)
        workers = running.pids()
        assert len(workers) == 2 and not any(TOKEN in environment(pid) for pid in workers)


def test_the_first_load_is_in_nobody_s_way(tmp_path: Path) -> None:
    with server(tmp_path, "one") as running:
        assert running.get()["low"] is False  # the connection waited for the worker


def test_a_failed_load_leaves_the_old_version_and_says_why_and_is_tried_three_times(
    tmp_path: Path,
) -> None:
    with server(tmp_path, "one") as running:
        running.wait_for(stable=1)
        old = running.pids()
        running.push("broken")
        given_up = VersionStatus(State.END, "version 2: its weights are broken")
        wait_until(lambda: running.status().versions.get(2) == given_up, "2 is given up")
        assert running.pids() == old and running.get()["word"] == "one"
        assert running.loads() == [1, 2, 3, 4]
        # The other label goes on meanwhile; that needed one generation, so there was no other try.
        running.registry.set_label("canary", 1)
        running.wait_for(stable=1, canary=1)
        assert running.loads() == [1, 2, 3, 4, 5]
        assert running.status().versions[2] == given_up
        # Once no label points there that is forgotten, and it is tried again when one does.
        running.registry.set_label("stable", 1)
        wait_until(lambda: running.status().versions[2].error == "", "the error is forgotten")
        running.registry.set_label("stable", 2)
        wait_until(lambda: running.loads()[-1] > 5, "2 is tried again")


def test_a_damaged_version_is_refused_before_a_worker_is_started(tmp_path: Path) -> None:
    with server(tmp_path, "one") as running:
        running.wait_for(stable=1)
        number = running.push("two", "other")
        weights = tmp_path / "registry" / "versions" / str(number) / "model" / "weights"
        weights.chmod(0o644)
        weights.write_text("twO")
        running.registry.set_label("stable", number)

        def error() -> str:
            found = running.status().versions.get(number)
            return found.error if found else ""

        wait_until(lambda: error() != "", "its damage is told")
        assert "model/weights" in error() and running.get()["word"] == "one"
        assert running.loads() == [1]


def test_a_label_that_cannot_be_served_does_not_keep_the_other_from_moving(tmp_path: Path) -> None:
    with server(tmp_path, "one") as running:
        running.wait_for(stable=1)
        running.push("broken", "canary")
        running.push("three")
        running.wait_for(stable=3)
        wait_until(lambda: running.status().versions[2].state == State.END, "2 is given up")
        assert "its weights are broken" in running.status().versions[2].error


@pytest.mark.parametrize(
    ("word", "load_timeout_s", "said"),
    [
        ("crashing", 60, "ended with status 7 before it served"),
        ("endless", 2, "did not load within 2 s"),
    ],
)
def test_a_worker_that_cannot_say_why_it_does_not_load_is_spoken_for(
    word: str, load_timeout_s: float, said: str, tmp_path: Path
) -> None:
    with server(tmp_path, "one", load_timeout_s=load_timeout_s) as running:
        running.wait_for(stable=1)
        running.push(word)
        wait_until(
            lambda: said in running.status().versions.get(2, VersionStatus(State.START)).error,
            f"the status says {said!r}",
        )
        assert running.get()["word"] == "one"


def places(running: Server) -> list[list[int]]:
    """The cores of each process, in the order of the status; none of one that has ended since."""

    def kept_to(pid: int) -> list[int]:
        cores: set[int] = set()
        with suppress(FileNotFoundError):  # the process has ended
            for task in Path(f"/proc/{pid}/task").iterdir():
                with suppress(ProcessLookupError):  # the thread has; the others have not
                    cores |= os.sched_getaffinity(int(task.name))
        return sorted(cores)

    return [kept_to(pid) for pid in running.pids()]


def test_who_serves_and_who_loads_are_kept_apart_until_it_is_loaded(tmp_path: Path) -> None:
    cores = sorted(os.sched_getaffinity(0))
    with server(tmp_path, "one", workers=len(cores)) as running:
        running.wait_for(stable=1)
        assert places(running) == [cores] * len(cores)
        running.push("waiting")
        wait_until(lambda: len(running.pids()) == 2 * len(cores), "2 loads")
        assert places(running) == [[core] for core in cores] + [cores[-1:]] * len(cores)
        running.registry.rollback("stable")
        wait_until(lambda: len(running.pids()) == len(cores), "2 is dropped")
        wait_until(lambda: places(running) == [cores] * len(cores), "they may roam again")
        (running.registry.root / "release").touch()
        running.registry.set_label("stable", 2)
        wait_until(lambda: running.status().labels == {"stable": 2}, "2 is served")
        wait_until(lambda: places(running) == [cores] * len(cores), "none is bound")


def test_a_version_that_a_label_goes_back_to_is_loaded_on_all_cores(tmp_path: Path) -> None:
    cores = sorted(os.sched_getaffinity(0))
    with server(tmp_path, "waiting", workers=len(cores)) as running:
        release = running.registry.root / "release"
        release.touch()
        running.push("two")
        running.wait_for(stable=2)
        release.unlink()
        running.registry.rollback("stable")
        wait_until(lambda: len(running.pids()) == 2 * len(cores), "1 loads")
        assert places(running) == [cores] * 2 * len(cores)


def test_who_loads_in_the_place_of_a_dead_worker_has_its_core(tmp_path: Path) -> None:
    cores = sorted(os.sched_getaffinity(0))
    with server(tmp_path, "waiting", workers=len(cores)) as running:
        release = running.registry.root / "release"
        release.touch()
        running.wait_for(stable=1)
        release.unlink()
        os.kill(running.pids()[0], signal.SIGKILL)
        wait_until(lambda: running.status().workers[0].restarts == 1, "another loads")
        assert places(running) == [[core] for core in cores]
        release.touch()
        running.wait_for(stable=1)
        wait_until(lambda: places(running) == [cores] * len(cores), "none is bound")


def test_a_generation_that_still_loads_is_dropped_when_the_label_moves_on(tmp_path: Path) -> None:
    with server(tmp_path, "one") as running:
        running.wait_for(stable=1)
        running.push("waiting")
        wait_until(lambda: len(running.pids()) == 4, "2 loads")
        assert running.status().versions[2].state is State.LOADING
        loading = running.pids()[2:]
        running.registry.rollback("stable")
        running.wait_for(stable=1)
        assert not any(map(is_running, loading))
        assert running.get()["word"] == "one"


def test_the_first_to_answer_is_not_dropped_when_the_label_moves_on(tmp_path: Path) -> None:
    with server(tmp_path, "hesitant") as running:
        first = running.get()  # worker 1's doors are not open yet
        number = running.push("one")
        wait_until(lambda: number in running.status().versions, "it is seen that the label moved")
        assert running.status().versions[1].state is State.LOADING  # and not unloading
        assert running.get() == first
        (running.registry.root / "release").touch()
        running.wait_for(stable=number)
        assert running.get()["word"] == "one"


def test_a_killed_worker_comes_back_while_the_other_answers(tmp_path: Path) -> None:
    with server(tmp_path, "waiting") as running:
        release = running.registry.root / "release"
        release.touch()
        running.wait_for(stable=1)
        killed, left = running.pids()
        release.unlink()
        os.kill(killed, signal.SIGKILL)
        wait_until(
            lambda: [w.stage for w in running.status().workers] == [Stage.LOADING, Stage.SERVING],
            "another loads in its place",
        )
        assert {running.get()["pid"] for _ in range(20)} == {left}
        release.touch()
        running.wait_for(stable=1)
        first, second = running.status().workers
        assert (first.worker, first.restarts, first.generation) == (0, 1, 1)
        assert first.pid != killed and (second.pid, second.restarts) == (left, 0)
        os.kill(left, signal.SIGKILL)  # now only the new one can answer
        wait_until(lambda: [w.restarts for w in running.status().workers] == [1, 1], "it came back")
        running.wait_for(stable=1)


def test_a_worker_that_dies_as_soon_as_it_serves_is_replaced_again_and_again(
    tmp_path: Path,
) -> None:
    with server(tmp_path, "mortal") as running:
        wait_until(
            lambda: any(w.worker == 0 and w.restarts >= 2 for w in running.status().workers),
            "it was replaced twice",
        )
        assert running.get()["word"] == "mortal"


def test_a_worker_that_cannot_be_started_now_is_started_later(tmp_path: Path) -> None:
    program = tmp_path / "program"
    started = f"{sys.executable} -m tests.platform.serving.small_worker {tmp_path / 'registry'}"
    program.write_text(f"#!/bin/sh\nexec {started}\n")
    program.chmod(0o755)
    with server(tmp_path, "one", command=[str(program)]) as running:
        running.wait_for(stable=1)
        killed, left = running.pids()
        program.rename(tmp_path / "elsewhere")
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: running.pids() == [left], "one is left")
        assert running.get()["pid"] == left
        (tmp_path / "elsewhere").rename(program)
        running.wait_for(stable=1)
        running.process.send_signal(signal.SIGTERM)
        assert "cannot start a worker" in running.last_words()


@pytest.mark.parametrize("word", ["one", "deaf"])
def test_workers_end_when_their_supervisor_is_killed(word: str, tmp_path: Path) -> None:
    with server(tmp_path, word, drain_s=0.5) as running:
        running.wait_for(stable=1)
        running.push("waiting")
        wait_until(lambda: len(running.pids()) == 4, "2 loads beside 1")
        wait_until(lambda: running.loads() == [1, 2], "its load has begun")
        running.process.kill()
        for pid in running.pids():
            wait_until(lambda pid=pid: not is_running(pid), "it has ended")  # type: ignore[misc]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_an_answer_in_flight_be_finished(
    number: signal.Signals, tmp_path: Path
) -> None:
    with server(tmp_path, "one") as running:
        running.wait_for(stable=1)
        answers = []
        asking = threading.Thread(target=lambda: answers.append(running.get("/slow")))
        asking.start()
        wait_until(
            lambda: any(
                connection.status == psutil.CONN_ESTABLISHED
                for pid in running.pids()
                for connection in psutil.Process(pid).net_connections()
            ),
            "a worker has the connection",
        )
        running.process.send_signal(number)
        assert running.process.wait(30) == 0
        asking.join()
        assert [answer["word"] for answer in answers] == ["one"]
        assert running.pids() == []
        assert running.status().versions[1].state is State.END
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", running.port))


def test_a_worker_that_does_not_drain_is_killed(tmp_path: Path) -> None:
    with server(tmp_path, "deaf", drain_s=0.2) as running:
        running.wait_for(stable=1)
        deaf = running.pids()
        running.push("two")
        running.wait_for(stable=2)
        assert not any(map(is_running, deaf))


def test_a_damaged_registry_changes_nothing_until_it_is_mended(tmp_path: Path) -> None:
    with server(tmp_path, "one", "two") as running:
        running.wait_for(stable=2)
        old, database = running.pids(), running.registry.root / "registry.db"
        content = database.read_bytes()
        database.write_bytes(b"no database " * 100)
        wait_until(lambda: "damaged" in running.status().error, "it is noticed")
        assert running.pids() == old and running.get()["word"] == "two"
        database.unlink()
        wait_until(lambda: "expected beside versions" in running.status().error, "and this too")
        database.write_bytes(content)
        running.registry.set_label("stable", 1)
        running.wait_for(stable=1)
        assert running.status().error == ""


def test_a_label_that_is_gone_is_served_on(tmp_path: Path) -> None:
    with server(tmp_path, "one") as running:
        running.registry.set_label("canary", 1)
        running.wait_for(stable=1, canary=1)
        with sqlite3.connect(running.registry.root / "registry.db") as connection:
            connection.execute("DELETE FROM moves WHERE label = 'canary'")
        connection.close()
        wait_until(lambda: "labelled 'canary'" in running.status().error, "it is noticed")
        assert running.serves(stable=1, canary=1)


def test_a_status_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with server(tmp_path, "one", status=str(tmp_path / "file" / "status.json")) as running:
        assert running.get()["word"] == "one"
        running.push("two")
        wait_until(lambda: running.get()["word"] == "two", "2 is served")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "no version is labelled 'stable'"),
        (["broken"], "version 1: its weights are broken"),
        (["crashing"], "ended with status 7 before it served"),
    ],
)
def test_a_server_that_has_nothing_to_serve_ends_and_says_so(
    words: list[str], said: str, tmp_path: Path
) -> None:
    with server(tmp_path, *words) as running:
        last = running.last_words().splitlines()[-1]
        assert last.startswith("error: ") and said in last
        assert running.process.returncode == 1


def test_a_port_that_is_taken_is_said_at_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for door in ("http", "grpc"):
            with server(tmp_path / door, "one", **{door: ("127.0.0.1", port)}) as running:
                last = running.last_words().splitlines()[-1]
                assert last.startswith(f"error: 127.0.0.1:{port}: cannot listen there")
                assert not (running.registry.root / "loads").exists()


def test_a_broken_candidate_does_not_keep_a_server_from_starting(tmp_path: Path) -> None:
    bundles = tmp_path / "other"
    with server(bundles, "one") as running:
        running.wait_for(stable=1)
        running.push("broken", "canary")
        wait_until(lambda: 2 in running.status().versions, "it is noticed")
        running.process.send_signal(signal.SIGTERM)
        running.process.wait(30)
    with server(bundles) as running:
        wait_until(lambda: running.serves(stable=1), "stable is served")
        assert running.status().versions[2].state is State.END
