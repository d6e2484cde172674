"""The same statistics and anomalies from every runner, Flink among them, however many workers.

Runners differ in what matters to a summary: which worker sees which piece, in which order they are
merged, in how many steps.  So the data are larger than what summaries keep exactly.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import get_ident
from typing import Any

import apache_beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.options.pipeline_options import FlinkRunnerOptions
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2

from mlplatform.data.statistics import compute as statistics
from mlplatform.data.statistics.compute import compute_statistics
from mlplatform.data.validation.validate import validate

FILES, ROWS = 12, 5_000
ROOT = Path(__file__).parents[3]

# Loopback: workers are started by the process that submits the job, each a process of its own.
LOOPBACK = ("--environment_type=LOOPBACK", "--experiments=use_loopback_process_worker")

# Java 17 closed these to the serializers that Flink still uses.
OPENED = ("lang", "lang.invoke", "math", "net", "nio", "text", "time", "util", "util.concurrent")

SCHEMA = """
    feature { name: "price" type: FLOAT presence { min_fraction: 1 } }
    feature { name: "clicks" type: INT int_domain { min: 0 max: 5 } }
    feature { name: "key" type: BYTES presence { min_count: 1 } }
    feature { name: "country" type: BYTES string_domain { value: "BR" value: "IN" value: "JP" } }
    feature { name: "gone" type: INT presence { min_count: 1 } }
"""


def write_day(folder: Path, seed: int) -> list[Path]:
    """Files whose columns differ in distribution, one of them without one of the columns."""
    folder.mkdir()
    paths = [folder / f"{number:02d}.parquet" for number in range(FILES)]
    for number, path in enumerate(paths):
        generator = np.random.default_rng([seed, number])
        price = generator.lognormal(mean=number / 4, sigma=2, size=ROWS)
        table = pa.table(
            {
                "price": pa.array(price, mask=generator.random(ROWS) < 0.1),
                "clicks": generator.poisson(2, ROWS),
                "key": generator.zipf(1.2, ROWS).astype(str),
                "country": generator.choice(["BR", "IN", "JP", "US"], ROWS),
                "tags": pa.ListArray.from_arrays(np.arange(ROWS + 1), np.arange(ROWS) % 7),
                "weight": generator.random(ROWS),
            }
        )
        pq.write_table(table.drop_columns("tags") if number == 3 else table, path)
    return paths


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    folder = tmp_path_factory.mktemp("days")
    return {name: write_day(folder / name, seed) for seed, name in enumerate(("day 1", "day 2"))}


def describe(
    data: dict[str, list[Path]], beam_options: list[str] | None
) -> statistics_pb2.DatasetFeatureStatisticsList:
    return compute_statistics(
        data, weight="weight", slice_by=["country"], beam_options=beam_options
    )


def judge(every: statistics_pb2.DatasetFeatureStatisticsList) -> list[anomalies_pb2.Anomalies]:
    schema = text_format.Parse(SCHEMA, schema_pb2.Schema())
    return [validate(one, schema) for one in every.datasets]


@pytest.fixture(scope="module")
def locally(data: dict[str, list[Path]]) -> statistics_pb2.DatasetFeatureStatisticsList:
    return describe(data, None)


@pytest.fixture
def meeting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let no worker summarise a piece until two hold one; each leaves its name in this folder."""
    folder = tmp_path / "meeting"
    folder.mkdir()
    monkeypatch.setattr(statistics, "summarise", meet_before(statistics.summarise, folder))
    # Beam starts loopback workers as `python`, and they import the platform.
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "platform"), prepend=os.pathsep)
    return folder


def meet_before(summarise: Callable[..., Any], folder: Path) -> Callable[..., Any]:
    # A function inside a function goes to the workers as code: they need not import this module.
    def meet(*arguments: Any) -> Any:
        name = folder / f"{os.getpid()}-{get_ident()}"
        name.touch()
        patience = time.monotonic() + 30
        while len(list(folder.iterdir())) < 2:
            if time.monotonic() > patience:
                name.unlink()  # a second attempt must not meet the first
                raise TimeoutError("expected a second worker at work, met none")
            time.sleep(0.01)
        return summarise(*arguments)

    return meet


def require_same(
    found: statistics_pb2.DatasetFeatureStatisticsList,
    locally: statistics_pb2.DatasetFeatureStatisticsList,
) -> None:
    assert [one.name for one in found.datasets] == [one.name for one in locally.datasets]
    for one, other in zip(found.datasets, locally.datasets, strict=True):
        for feature, expected in zip(one.features, other.features, strict=True):
            assert feature == expected, f"{one.name}: {expected.path.step}"
        assert one == other
    assert judge(found) == judge(locally)


def test_the_compared_data_have_slices_anomalies_and_more_values_than_are_kept(
    locally: statistics_pb2.DatasetFeatureStatisticsList,
) -> None:
    assert [one.name for one in locally.datasets] == [
        f"{day}{part}"
        for day in ("day 1", "day 2")
        for part in ("", *(f"/country={value}" for value in ("BR", "IN", "JP", "US")))
    ]
    whole = locally.datasets[0]
    assert whole.num_examples == FILES * ROWS
    features = {feature.path.step[0]: feature for feature in whole.features}
    assert features["price"].num_stats.common_stats.num_non_missing > 32_768
    assert features["key"].string_stats.unique > 10_000
    assert features["tags"].num_stats.common_stats.num_missing == ROWS
    assert set(judge(locally)[0].anomaly_info) == {
        *("price", "clicks", "country"),  # missing in places, out of range, US
        *("gone", "tags", "weight"),  # only in the schema, only in the data
    }


def test_two_worker_processes_find_the_same(
    data: dict[str, list[Path]],
    locally: statistics_pb2.DatasetFeatureStatisticsList,
    meeting: Path,
    tmp_path: Path,
) -> None:
    options = ["--runner=FnApiRunner", "--direct_running_mode=multi_processing"]
    options += ["--direct_num_workers=2", f"--temp_location={tmp_path / 'shared'}"]
    require_same(describe(data, options), locally)
    processes = {name.name.split("-")[0] for name in meeting.iterdir()}
    assert len(processes - {str(os.getpid())}) == 2


def find_job_server(folder: Path) -> Path:
    """The jar of Flink with Beam's job server, as the Maven client brings it; skips without."""
    for program in ("java", "mvn"):
        if shutil.which(program) is None:
            pytest.skip(f"Flink's job server needs the program {program!r}, which is not installed")
    flink, version = FlinkRunnerOptions.PUBLISHED_FLINK_VERSIONS[-1], apache_beam.__version__
    artifact = f"org.apache.beam:beam-runners-flink-{flink}-job-server:{version}"
    command = ["mvn", "-B", "dependency:copy", f"-Dartifact={artifact}"]
    try:
        done = subprocess.run(
            [*command, f"-DoutputDirectory={folder}"],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"{artifact} cannot be had: the Maven client did not bring it within 300 s")
    if done.returncode:
        errors = [line for line in done.stdout.splitlines() if line.startswith("[ERROR]")]
        reason = errors[0].split("standalone-pom: ")[-1] if errors else done.stderr
        reason = reason.split(" in http")[0][:200]  # the address says nothing more
        pytest.skip(f"{artifact} cannot be had: the Maven client says {reason!r}")
    (jar,) = folder.glob("*.jar")
    return jar


@pytest.fixture
def job_endpoint(tmp_path: Path) -> Iterator[str]:
    """A job server with a Flink cluster inside, both stopped after the test."""
    jar = find_job_server(tmp_path / "jar")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    opened = [f"--add-opens=java.base/java.{package}=ALL-UNNAMED" for package in OPENED]
    own = ["--flink-master=[local]", f"--artifacts-dir={tmp_path / 'artifacts'}"]
    # Port 0: any that is free.
    ports = [f"--job-port={port}", "--artifact-port=0", "--expansion-port=0"]
    command = ["java", "-Xmx2g", *opened, "-jar", str(jar), *own, *ports]
    with (
        (tmp_path / "job-server.log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as server,
    ):
        try:
            yield f"localhost:{port}"
        finally:
            server.kill()
            jar.unlink()  # hundreds of megabytes


def test_flink_with_two_workers_finds_the_same(
    data: dict[str, list[Path]],
    locally: statistics_pb2.DatasetFeatureStatisticsList,
    job_endpoint: str,
    meeting: Path,
    tmp_path: Path,
) -> None:
    options = ["--runner=FlinkRunner", f"--job_endpoint={job_endpoint}"]
    options += ["--parallelism=2", "--sdk_worker_parallelism=2", *LOOPBACK]
    require_same(describe(data, [*options, f"--temp_location={tmp_path / 'shared'}"]), locally)
    # Two at once: subtasks of one worker process, or of two.
    assert len(list(meeting.iterdir())) >= 2
