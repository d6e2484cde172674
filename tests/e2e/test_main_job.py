"""The main job at tiny scale, as a user runs it."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import grpc
import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from google.protobuf import json_format

from mlplatform.serving.record_frames import read_records
from recsys.online import recommendations_pb2 as messages
from recsys.online.request_log import read_requests

ROOT = Path(__file__).parents[2]
STAGES = 18


@pytest.fixture(scope="module")
def summary(command, finished):
    """What a second run of the same job says of the finished workspace."""
    done = command("run", "--config", "tiny", "--workspace", str(finished), "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_second_run_does_no_work(summary):
    assert len(summary["stages"]) == STAGES
    assert all(stage["reused"] for stage in summary["stages"].values())


def test_every_stage_says_its_rows_seconds_and_memory(summary):
    for stage in summary["stages"].values():
        assert stage["figures"]["rows"] > 0
        assert stage["seconds"] >= 0
        assert stage["peak_mb"] > 100


def test_answers_have_titles_categories_and_falling_scores(summary):
    assert len(summary["answers"]) == 4
    for one in summary["answers"]:
        apps = one["answer"]["apps"]
        assert len(apps) == one["request"]["k"]
        assert all(app["title"] and app["category"] for app in apps)
        scores = [app["score"] for app in apps]
        assert scores == sorted(scores, reverse=True)
        assert 0 < scores[-1] < scores[0] < 1


def test_the_closing_table_names_every_stage_and_the_report(finished):
    text = (finished.parent / "stdout.txt").read_text()
    for stage in ("generate_world", "train_ranker", "serve"):
        assert stage in text
    assert "bundle version 1" in text
    page = (finished / "report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "index recall@100" in page


def test_the_version_is_listed_and_verified(command, finished):
    listed = json.loads(command("list", "--workspace", str(finished), "--json").stdout)
    assert [(row["version"], row["labels"]) for row in listed] == [(1, ["stable"])]
    verified = command("verify", "--workspace", str(finished))
    assert verified.returncode == 0
    assert "all as pushed" in verified.stdout


def test_recommend_answers_as_the_server_did(command, finished, summary):
    served = summary["answers"][0]
    user = served["request"]["user_id"]
    visit = ("--k", "5", "--hour", "20", "--network", "wifi")
    done = command("recommend", str(user), *visit, "--workspace", str(finished), "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["apps"]
    expected = served["answer"]["apps"]
    assert [app["app_id"] for app in found] == [app["app_id"] for app in expected]
    scores = [app["score"] for app in found]
    assert scores == pytest.approx([app["score"] for app in expected], abs=1e-6)


def test_a_killed_stage_is_done_again_to_the_same_bytes(finished, tmp_path):
    from benchmarks.resume import kill_and_resume

    for stage in ("join_examples", "train_retrieval"):
        assert kill_and_resume(finished, stage, tmp_path / "copy") == []


def test_a_damaged_file_is_named_and_nothing_else_is_lost(command, finished, tmp_path):
    workspace = tmp_path / "workspace"
    shutil.copytree(finished, workspace)
    (spans,) = (workspace / "artifacts" / "join_examples").glob("*/spans")
    damaged = spans / "requests" / "day=004" / "part-0.parquet"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 0xFF
    damaged.write_bytes(content)
    (statistics,) = (workspace / "artifacts" / "compute_statistics").iterdir()
    shutil.rmtree(statistics)
    done = command("run", "--config", "tiny", "--workspace", str(workspace))
    assert done.returncode == 2
    assert str(damaged) in done.stderr
    assert "Traceback" not in done.stderr
    kept = {path.name for path in (workspace / "artifacts").iterdir()}
    assert len(kept) == STAGES


def plant(workspace, day, name, change):
    """Alter a column of a day's requests, and forget what was made of them."""
    (spans,) = (workspace / "artifacts" / "join_examples").glob("*/spans")
    path = spans / "requests" / f"day={day:03d}" / "part-0.parquet"
    table = pq.read_table(path)
    column = change(table[name].combine_chunks())
    path.unlink()  # a hard link: the finished workspace keeps its own
    pq.write_table(table.set_column(table.schema.get_field_index(name), name, column), path)
    for stage in ("compute_statistics", "validate"):
        shutil.rmtree(workspace / "artifacts" / stage)
    return path


def nan_in_row_17(column):
    values = column.to_numpy(zero_copy_only=False).copy()
    values[17] = np.nan
    return pa.array(values)


@pytest.mark.parametrize(
    ("name", "change", "named"),
    [
        ("ram_gb", nan_in_row_17, ["Expected no NaN, got 1", "ram_gb = nan in row 17 of {path}"]),
        (
            "country",
            lambda column: pa.array(["US"] * len(column)),
            ["Jensen-Shannon", "country"],
        ),
    ],
)
def test_a_fault_in_a_span_stops_the_run_and_is_named(
    command, finished, tmp_path, name, change, named
):
    workspace = tmp_path / "workspace"
    shutil.copytree(finished, workspace, copy_function=os.link)
    path = plant(workspace, 4, name, change)
    done = command("run", "--config", "tiny", "--workspace", str(workspace))
    assert done.returncode == 1
    assert "span requests/4" in done.stderr
    for text in named:
        assert text.format(path=path) in done.stderr
    assert "Traceback" not in done.stderr


def test_serve_answers_as_the_main_job_did_and_stops_when_asked(finished, tmp_path):
    (answers,) = (finished / "artifacts" / "serve").glob("*/answers.json")
    exchanges = json.loads(answers.read_text())
    options = ("--exploration", "0", "--models", "--workers", "2")
    with server(finished, tmp_path, *options) as (url, grpc_address):
        for asked in exchanges:
            answer = httpx.post(f"{url}/v1/recommendations", json=asked["request"], timeout=30)
            assert answer.json() | {"request_id": "0"} == asked["answer"]
        with grpc.insecure_channel(grpc_address) as channel:
            recommend = channel.unary_unary(
                "/storeloop.v1.Recommendations/Recommend",
                messages.RecommendRequest.SerializeToString,
                messages.RecommendResponse.FromString,
            )
            for asked in exchanges:
                request = json_format.ParseDict(asked["request"], messages.RecommendRequest())
                apps = recommend(request, timeout=30).apps
                expected = asked["answer"]["apps"]
                assert [app.app_id for app in apps] == [app["app_id"] for app in expected]
        metadata = httpx.get(f"{url}/v1/models/ranker/labels/stable/metadata", timeout=30).json()
        assert metadata["model_spec"] == {"name": "ranker", "signature_name": "", "version": "1"}
        assert 'route="/v1/recommendations",status="200"' in httpx.get(f"{url}/metrics").text
    logs = (tmp_path / "state" / "log").glob("requests-*.log")
    records = [record for path in logs for record in read_records(path)]
    assert read_requests(records).requests["bundle_version"].to_pylist() == [1] * 2 * len(exchanges)


@contextlib.contextmanager
def server(workspace, tmp_path, *options):
    """A server of the workspace; gives its URL and its gRPC address."""
    said = tmp_path / "said"
    with said.open("wb") as stream:
        process = subprocess.Popen(
            [
                sys.executable, "-m", "recsys.cli", "serve", "--port", "0", "--grpc-port", "0",
                "--workspace", str(workspace), "--state", str(tmp_path / "state"), *options,
            ],
            stdout=stream,
            stderr=stream,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 180
        addresses = None
        while time.monotonic() < deadline and process.poll() is None:
            addresses = re.search(r"(http://\S+) .*gRPC ([^\s;,]+)", said.read_text())
            with contextlib.suppress(httpx.TransportError):
                if addresses and httpx.get(f"{addresses[1]}/readyz").status_code == 200:
                    break
            time.sleep(0.1)
        assert addresses, said.read_text()
        yield addresses[1], addresses[2]
    finally:
        process.terminate()
        process.wait(timeout=30)
    assert process.returncode == 0
    assert "Traceback" not in said.read_text()


def test_an_altered_bundle_is_not_served(command, finished, tmp_path):
    registry = tmp_path / "registry"
    shutil.copytree(finished / "registry", registry)
    vectors = registry / "versions" / "1" / "app_vectors.npy"
    content = bytearray(vectors.read_bytes())
    content[-1] ^= 1
    vectors.write_bytes(content)
    done = command("serve", "--registry", str(registry), "--workspace", str(finished))
    assert done.returncode == 2
    assert str(vectors) in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("world: {initial_appz: 5}", "world.initial_appz"),
        ("world: {initial_apps: many}", "world.initial_apps"),
        ("world: {}\nranking: {kind: transformer}", "ranking.kind"),
        ("world: [", "expected YAML"),
        ("", "the file"),
    ],
)
def test_a_faulty_configuration_is_one_clear_line(command, tmp_path, content, named):
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    done = command("run", "--config", str(path), "--workspace", str(tmp_path / "w"))
    assert done.returncode == 2
    assert named in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "w").exists()


def test_an_unknown_configuration_lists_the_known_ones(command, tmp_path):
    done = command("run", "--config", "huge", "--workspace", str(tmp_path / "w"))
    assert done.returncode == 2
    assert "full, small, tiny" in done.stderr


def test_a_workspace_of_another_format_is_left_alone(command, tmp_path):
    (tmp_path / "workspace.json").write_text('{"format": 99}')
    done = command("run", "--config", "tiny", "--workspace", str(tmp_path))
    assert done.returncode == 2
    assert "format 99" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["workspace.json"]


def test_help_imports_nothing_heavy():
    heavy = ("tensorflow", "apache_beam", "pyarrow", "fastapi")
    probe = f"import sys, recsys.cli; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"
