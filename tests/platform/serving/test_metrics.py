"""What is counted, by one process and by several, as Prometheus' own parser reads it."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mlplatform.errors import FailedPrecondition
from mlplatform.serving.batching import Ran
from mlplatform.serving.metrics import Metrics

ROOT = Path(__file__).parents[3]
Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]
_WORKER = """
import json, sys
from pathlib import Path
from mlplatform.serving.batching import Ran
from mlplatform.serving.metrics import Metrics
metrics = Metrics(Path(sys.argv[1]), {"fallbacks": ("Answers.", "kind")})
print("ready", flush=True)
for line in sys.stdin:
    call, *rest = json.loads(line)
    if call == "ran":
        rest = [Ran(*rest)]
    found = getattr(metrics, call)(*rest)
    print(json.dumps(found[0].decode() if found else None), flush=True)
"""


def series(text: str) -> Series:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(text: str, name: str, **labels: str) -> float | None:
    return series(text).get((name, tuple(sorted(labels.items()))))


def rendered(metrics: Metrics) -> str:
    text, kind = metrics.render()
    assert kind.startswith("text/plain; version=")
    return text.decode()


class Worker:
    """A process that counts in a directory, and is told what."""

    def __init__(self, directory: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _WORKER, str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT / "platform")},
        )
        assert self.process.stdout is not None and self.process.stdout.readline() == "ready\n"

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def __call__(self, *call: object) -> str:
        assert self.process.stdin is not None and self.process.stdout is not None
        print(json.dumps(call), file=self.process.stdin, flush=True)
        return str(json.loads(self.process.stdout.readline()))


def test_requests_are_counted_by_route_and_status_in_seconds() -> None:
    metrics = Metrics(None)
    for seconds in (0.0015, 0.004, 0.02):
        metrics.answered("/a", 200, seconds)
    metrics.answered("/a", 429, 0.0005)
    metrics.answered("/v1.Service/Ask", "UNAVAILABLE", 3.0)
    text = rendered(metrics)
    name, labels = "mlplatform_request_seconds", {"route": "/a", "status": "200"}
    assert value(text, f"{name}_count", **labels) == 3
    assert value(text, f"{name}_sum", **labels) == pytest.approx(0.0255)
    # Buckets hold what is at most their bound, each with all the smaller ones.
    found = {
        le: value(text, f"{name}_bucket", le=le, **labels) for le in ("0.001", "0.005", "0.02")
    }
    assert found == {"0.001": 0, "0.005": 2, "0.02": 3}
    assert value(text, f"{name}_count", route="/a", status="429") == 1
    assert value(text, f"{name}_count", route="/v1.Service/Ask", status="UNAVAILABLE") == 1


def test_a_turn_of_the_queue_is_counted_as_a_batch_its_longest_wait_and_who_was_late() -> None:
    metrics = Metrics(None)
    metrics.ran(Ran([0.03, 0.02, 0.01], 0.004, 2))
    metrics.ran(Ran([0.001], 0.002, 0))
    metrics.ran(Ran([], 0.0, 1))  # all of it was late: no batch
    text = rendered(metrics)
    sums = {
        "items": 4.0,
        "wait_seconds": 0.031,
        "seconds": 0.006,
    }
    for name, total in sums.items():
        assert value(text, f"mlplatform_batch_{name}_sum") == pytest.approx(total)
        assert value(text, f"mlplatform_batch_{name}_count") == 2
    assert value(text, "mlplatform_expired_total") == 3


def test_stages_and_an_applications_counters_add_up_by_label() -> None:
    metrics = Metrics(None, {"fallbacks": ("Answers.", "kind"), "turns": ("Turns.", "")})
    for seconds in (0.25, 0.5):
        metrics.stages({"rank": seconds, "retrieve": 2 * seconds})
    metrics.count("fallbacks", "popular")
    metrics.count("fallbacks", "retrieval", 3)
    metrics.count("fallbacks", "popular")
    metrics.count("turns", n=4)
    text = rendered(metrics)
    assert value(text, "mlplatform_stage_seconds_total", stage="rank") == 0.75
    assert value(text, "mlplatform_stage_seconds_total", stage="retrieve") == 1.5
    assert value(text, "fallbacks_total", kind="popular") == 2
    assert value(text, "fallbacks_total", kind="retrieval") == 3
    assert value(text, "turns_total") == 4
    with pytest.raises(KeyError, match="unknown"):
        metrics.count("unknown")


def test_labels_without_end_are_counted_as_other() -> None:
    metrics = Metrics(None, {"c": ("Words.", "word")})
    for n in range(1000):
        metrics.answered(f"/{n}", 200, 0.001)
        metrics.count("c", f"{n}")
    found = series(rendered(metrics))
    for name in ("mlplatform_request_seconds_count", "c_total"):
        of_name = {labels: value for (sample, labels), value in found.items() if sample == name}
        assert len(of_name) <= 201 and sum(of_name.values()) == 1000
        (other,) = [value for labels, value in of_name.items() if "other" in dict(labels).values()]
        assert other == 800


def test_every_worker_tells_what_all_of_them_counted_those_that_died_too(tmp_path: Path) -> None:
    calls = [["answered", "/a", 200, 0.25], ["ran", [0.5, 0.25], 0.125, 1]]
    calls += [["count", "fallbacks", "popular", 2], ["stages", {"rank": 0.5}]]
    expected: Mapping[tuple[str, str, str], float] = {
        ("mlplatform_request_seconds_sum", "", ""): 0.25,
        ("mlplatform_batch_items_sum", "", ""): 2,
        ("mlplatform_batch_wait_seconds_sum", "", ""): 0.5,
        ("mlplatform_expired_total", "", ""): 1,
        ("fallbacks_total", "kind", "popular"): 2,
        ("mlplatform_stage_seconds_total", "stage", "rank"): 0.5,
    }

    def check(text: str, workers: int) -> None:
        for (name, label, of), each in expected.items():
            labels = {label: of} if label else {}
            if name.startswith("mlplatform_request"):
                labels = {"route": "/a", "status": "200"}
            assert value(text, name, **labels) == workers * each, name

    with Worker(tmp_path) as first, Worker(tmp_path) as second:
        for worker in (first, second):
            for call in calls:
                worker(*call)
        check(first("render"), 2)
        check(second("render"), 2)
        first("close")
        second.process.kill()  # which closes nothing
        second.process.wait()
        with Worker(tmp_path) as third:
            for call in calls:
                third(*call)
            check(third("render"), 3)


def test_a_directory_that_comes_too_late_is_an_error(tmp_path: Path) -> None:
    Metrics(None)
    with pytest.raises(FailedPrecondition, match="before prometheus_client is imported"):
        Metrics(tmp_path)
