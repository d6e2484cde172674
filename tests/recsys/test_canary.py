"""A real bundle behind the real service: sound it passes, and with a part planted it does not."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mlplatform.artifacts import link_tree, read_json, to_json
from mlplatform.errors import DataCorrupt, InvalidArgument, NotFound
from mlplatform.evaluation.canary import Limits, Report
from mlplatform.pipeline import Workspace
from mlplatform.training.runtime import tensorflow
from recsys.models.index import FILES, AppIndex, IndexSettings
from recsys.online.bundle import RANKER, VECTORS, Bundle
from recsys.online.canary import GOLDEN, REQUESTS, examine_bundle, golden
from recsys.online.feature_store import FeatureStore
from recsys.online.recommender import Recommender
from recsys.serving_log import Visits, requests_of

PUSHED = "registry/versions/1"
# Time enough for a machine that does other things; what is planted as slow takes longer.
LIMITS = Limits(budget_ms=3000, memory_mb=4096, ready_s=120, answer_s=60, rounds=2)


@pytest.fixture(scope="module")
def feature_store(finished: Path) -> Path:
    directory = Workspace(finished).latest("build_feature_store")
    assert directory is not None
    return directory


@pytest.fixture(scope="module")
def made(finished: Path, feature_store: Path) -> tuple[pa.Table, dict[str, Any], list[Any]]:
    """Requests of the log, the golden answers to them, and the recommender's own, batched."""
    with FeatureStore(feature_store) as store:
        recommender = Recommender(Bundle.load(finished / PUSHED), store)
        users = np.array(list(store.user_ids()))[:50]
        networks = ["wifi", None] * 25
        visits = Visits(users + 1000, users, np.arange(50) * 24 / 50, networks)
        requests = requests_of(store, visits)
        logged = requests.append_column("user_id", [users.tolist()])
        answers = golden(recommender, logged)
        return requests, answers, recommender.recommend(requests, 10).app_ids.tolist()


@pytest.fixture
def bundle(finished: Path, made: Any, tmp_path: Path) -> Path:
    """A copy of the finished run's bundle, with golden answers, to plant faults in."""
    path = tmp_path / "bundle"
    link_tree(finished / PUSHED, path)
    write_golden(path, made[1])
    return path


def write_golden(bundle: Path, content: Any) -> None:
    (bundle / GOLDEN).unlink()  # a link to the version's, which stays as it was
    (bundle / GOLDEN).write_bytes(to_json(content))


def plant_ranker(bundle: Path, spoil: Callable[[Any], Any]) -> None:
    """Put a function behind the ranker's logits."""
    tf = tensorflow()
    model = tf.saved_model.load(str(bundle / RANKER))
    codes = model.signatures["codes"]
    specs = codes.structured_input_signature[1]

    @tf.function(input_signature=[specs[n] for n in ("request", "history", "app", "impression")])
    def spoiled(request: Any, history: Any, app: Any, impression: Any) -> dict[str, Any]:
        inputs = {"request": request, "history": history, "app": app, "impression": impression}
        return {"logit": spoil(codes(**inputs)["logit"])}

    shutil.rmtree(bundle / RANKER)  # its files are links to those of the version
    planted = tf.Module()
    planted.model, planted.codes = model, spoiled
    tf.saved_model.save(planted, str(bundle / RANKER), signatures={"codes": spoiled})


def refusal(report: Report) -> str:
    assert not report.passed
    return report.reason


class TestGolden:
    def test_requests_are_a_bounded_and_even_choice_of_the_log_and_name_no_user(
        self, made: Any
    ) -> None:
        requests, content, _ = made
        asked = [exchange["request"] for exchange in content["exchanges"]]
        assert len(asked) == REQUESTS == 32
        assert asked[0]["profile"]["history"] == requests["history"][0].as_py()
        assert asked[-1]["profile"]["history"] == requests["history"][49].as_py()
        assert {one["context"]["hour_of_day"] for one in asked} == set(range(24))
        assert {one["context"]["network"] for one in asked} == {"wifi", None}
        for one in asked:
            assert one.keys() == {"profile", "context", "explain"}
            assert not {"user_id", "hour_of_day", "network"} & one["profile"].keys()

    def test_answers_are_the_recommenders_own(self, made: Any) -> None:
        _, content, shown = made
        rows = [round(49 * i / 31) for i in range(32)]
        answers = [exchange["answer"] for exchange in content["exchanges"]]
        assert [[app["app_id"] for app in a["apps"]] for a in answers] == [shown[r] for r in rows]
        assert len({json.dumps(answer) for answer in answers}) > 20

    def test_rows_that_are_no_request_are_refused_and_the_fault_is_named(
        self, finished: Path, made: Any
    ) -> None:
        requests = made[0]
        for table, said in (
            (requests.slice(0, 0), "got none"),
            (
                requests.set_column(
                    requests.column_names.index("ram_gb"), "ram_gb", pa.array([-1.0] * 50)
                ),
                r"profile\.ram_gb: input should be greater than or equal to 0",
            ),
        ):
            with pytest.raises(InvalidArgument, match=said):
                golden(None, table)  # type: ignore[arg-type]


class TestBundles:
    def test_a_sound_bundle_passes(self, bundle: Path, feature_store: Path) -> None:
        report = examine_bundle(bundle, feature_store, LIMITS)
        assert report.passed, report.reason
        assert report.figures["answers"] == 2 * REQUESTS

    def test_a_ranker_that_says_nan_is_refused(self, bundle: Path, feature_store: Path) -> None:
        plant_ranker(bundle, lambda logit: logit * np.float32("nan"))
        reason = refusal(examine_bundle(bundle, feature_store, LIMITS))
        # The service falls back to another order, and says so.
        assert reason == 'request 1 of 32: expected no key "fallback", got one'

    def test_an_index_of_another_size_is_refused_by_the_code_that_loads(self, bundle: Path) -> None:
        shutil.rmtree(bundle / FILES)
        vectors = np.random.default_rng(0).standard_normal((1000, 16), dtype=np.float32)
        AppIndex.build(vectors, IndexSettings(leaves=10, leaves_to_search=5), k=10).save(bundle)
        with pytest.raises(DataCorrupt, match=r"parts of different versions: .* 1000 in the index"):
            Bundle.load(bundle)

    def test_a_part_that_no_library_can_read_is_told_in_one_line(
        self, bundle: Path, feature_store: Path
    ) -> None:
        (bundle / VECTORS).unlink()
        (bundle / VECTORS).write_bytes(b"")
        reason = refusal(examine_bundle(bundle, feature_store, LIMITS))
        assert reason.startswith(f"the server ended with code 1: {bundle}: cannot be served: ")

    def test_golden_answers_of_another_day_than_the_feature_stores_are_told(
        self, bundle: Path, feature_store: Path
    ) -> None:
        content = read_json(bundle / GOLDEN)
        write_golden(bundle, content | {"day": 99})
        reason = refusal(examine_bundle(bundle, feature_store, LIMITS))
        assert reason.startswith("the server ended with code 1: ")
        assert "expected the feature store of day 99" in reason
        assert reason.endswith(f"got one of day {content['day']}")

    def test_golden_answers_that_are_absent_or_others_are_named(self, tmp_path: Path) -> None:
        with pytest.raises(NotFound, match=r"golden\.json: the bundle has no golden answers"):
            examine_bundle(tmp_path, tmp_path)
        (tmp_path / GOLDEN).write_text("[]")
        with pytest.raises(DataCorrupt, match=r"golden\.json: expected a day and exchanges"):
            examine_bundle(tmp_path, tmp_path)


def test_the_service_under_test_ends_when_its_input_does(
    feature_store: Path, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / GOLDEN)  # whoever reads it waits for ever
    with subprocess.Popen(
        [sys.executable, "-m", "recsys.online.canary", str(tmp_path), str(feature_store)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as service:
        try:
            assert service.stdout is not None
            assert 0 < int(service.stdout.readline()) < 1 << 16
            assert service.poll() is None
            service.communicate(timeout=60)  # closes the input
            assert service.returncode == 1
        finally:
            service.kill()
