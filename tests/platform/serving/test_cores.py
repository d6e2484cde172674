"""Who runs where: by the rule, and as the kernel says."""

import os
import subprocess

from mlplatform.serving.cores import confine, cores_of

CORES = frozenset({0, 1, 5})


def of(
    worker: int, workers: int = 3, beside: bool = False, something_loads: bool = False
) -> set[int]:
    found = cores_of(worker, CORES, workers, beside=beside, something_loads=something_loads)
    return set(found)


def test_as_a_rule_everybody_may_run_anywhere() -> None:
    assert [of(worker) for worker in range(3)] == [CORES] * 3


def test_while_something_loads_each_has_a_core_and_who_loads_beside_them_the_last_one() -> None:
    assert [of(worker, something_loads=True) for worker in range(3)] == [{0}, {1}, {5}]
    assert [of(worker, beside=True) for worker in range(3)] == [{5}] * 3


def test_where_there_are_more_or_fewer_cores_nobody_is_bound() -> None:
    for workers in (2, 4):
        assert of(0, workers, something_loads=True) == of(0, workers, beside=True) == CORES


def test_a_process_is_confined_and_one_that_has_ended_is_left() -> None:
    all_cores = frozenset(os.sched_getaffinity(0))
    with subprocess.Popen(["sleep", "60"]) as process:
        confine(process.pid, frozenset({min(all_cores)}))
        assert os.sched_getaffinity(process.pid) == {min(all_cores)}
        confine(process.pid, all_cores)
        assert os.sched_getaffinity(process.pid) == all_cores
        process.kill()
    confine(process.pid, all_cores)
