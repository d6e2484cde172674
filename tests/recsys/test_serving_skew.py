"""Rows as trained on and as served, on a finished tiny workspace, sound and with planted faults."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mlplatform.data.files.spans import write_parquet
from mlplatform.data.skew.compare import FeatureSkew, SkewReport
from mlplatform.data.skew.join import KeyCounts
from mlplatform.evaluation.skew_cost import SkewCost
from mlplatform.pipeline import Workspace
from recsys import features, serving_skew
from recsys.config import load_config
from recsys.online.bundle import Bundle
from recsys.online.feature_store import FeatureStore, Profile

CONFIG = load_config("tiny")
DAY = CONFIG.days.evaluate
# What users did since the morning that the store speaks of; recent categories also grow old.
STALE = {"history", "history_count", "recent_categories"}


def artifact(finished: Path, stage: str) -> Path:
    found = Workspace(finished).latest(stage)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def bundle(finished: Path) -> Bundle:
    return Bundle.load(artifact(finished, "evaluate") / "bundle")


def test_what_chance_alone_showed_is_compared_by_itself(tmp_path: Path) -> None:
    """Of apps 1 and 2 the counter of 2 is lost, so 1 is listed and 2 is shown by chance alone."""
    request = np.repeat(np.arange(10), 2)
    columns = {"request_id": request, "app_id": np.tile([1, 2], 10)}
    impressions = pa.table(columns | {"recent_installs": np.tile([7, 8], 10), "installed": request})
    placed = {"position": np.tile([0, 1], 10), "propensity": np.tile([0.9, 0.01], 10)}
    # In request 0 the place of app 2 was not explored: it has a score.
    score = pa.array([None if row % 2 and row > 1 else 0.5 for row in range(20)])
    logged = columns | placed | {"score": score, "recent_installs": np.tile([7, 0], 10)}
    write_parquet(pa.table(logged), tmp_path / "impressions.parquet")
    report = serving_skew.compare_shown_by_chance(impressions, tmp_path)
    (counter,) = report.features
    assert (counter.name, counter.differing, report.counts.matched) == ("recent_installs", 9, 9)


def test_a_feature_is_told_once_and_by_all_rows_if_they_show_it() -> None:
    def report(**differing: int) -> SkewReport:
        found = (
            FeatureSkew(name, 100 - n, n, 0, 0, 0, None, None, (), ())
            for name, n in differing.items()
        )
        return SkewReport(("request_id",), KeyCounts(100, 0, 0, 0, 0, 0, 0), tuple(found))

    told = serving_skew.served_otherwise(
        report(ram_gb=30, recent_installs=1, history_count=40),
        report(ram_gb=50, recent_installs=25),
        most=0.02,
        most_moving=0.5,
    )
    assert told == [
        "ram_gb: served otherwise in 30.0% of the rows",
        "recent_installs: served otherwise in 25.0% of the rows shown by chance",
    ]


class Altering(FeatureStore):
    """A store whose profiles can be altered on the way out."""

    alterations: Mapping[str, Any] = MappingProxyType({})

    def profiles(self, users: Sequence[int]) -> list[Profile]:
        return [
            profile | {name: alter(profile[name]) for name, alter in self.alterations.items()}
            for profile in super().profiles(users)
        ]


@pytest.fixture(scope="module")
def opened(finished: Path) -> Iterator[Altering]:
    with Altering(artifact(finished, "build_feature_store")) as store:
        yield store


@pytest.fixture
def store(opened: Altering) -> Altering:
    opened.alterations = {}
    return opened


def measure(finished: Path, bundle: Bundle, store: FeatureStore) -> tuple[SkewReport, SkewCost]:
    root = artifact(finished, "join_examples") / "spans"
    trained = serving_skew.trained_rows(root, DAY, requests=300, seed=1)
    return serving_skew.measure_skew(
        bundle, trained, serving_skew.served_rows(trained, store), seed=1
    )


def test_serving_reads_what_training_read_but_for_what_happened_since_the_morning(
    finished: Path, bundle: Bundle, store: Altering
) -> None:
    report, cost = measure(finished, bundle, store)
    served = {f.name for f in (*features.REQUEST, features.HISTORY, *features.IMPRESSION)}
    assert {one.name for one in report.features} == served - {"position"}
    assert {one.name for one in report.features if one.differing} <= STALE
    assert report.counts.matched == cost.rows > 2_000
    assert report.counts.only_in_training == report.counts.only_in_serving == 0
    for one in report.features:
        assert one.training_only == 0 or one.name in STALE


FAULTS: dict[str, Any] = {
    "free_storage_mb": lambda value: value / 1024,  # a change of unit
    "os_version": lambda value: None,  # a feature missing from serving
    "device_tier": str.upper,  # another spelling
    "history": lambda value: [],  # a list that is never filled
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found_by_its_name(
    finished: Path, bundle: Bundle, store: Altering, name: str
) -> None:
    store.alterations = {name: FAULTS[name]}
    report, cost = measure(finished, bundle, store)
    differing = {one.name: one for one in report.features if one.differing}
    assert differing.keys() <= STALE | {name}
    found = differing[name]
    if name == "os_version":
        assert found.training_only == cost.rows and found.mismatch == 0
    elif name == "free_storage_mb":
        assert found.mismatch == cost.rows
        sample = found.samples[0]
        assert sample.serving == pytest.approx(sample.training / 1024, rel=1e-6)  # type: ignore[operator]
    elif name == "device_tier":
        assert {(c.training, c.serving) for c in found.confusions} == {
            (tier, tier.upper()) for tier in ("low", "mid", "high")
        }
    assert name in {c.features[0] for c in cost.features}


def test_losing_all_histories_costs_more_than_their_being_a_morning_old(
    finished: Path, bundle: Bundle, store: Altering
) -> None:
    _, stale = measure(finished, bundle, store)
    store.alterations = {"history": FAULTS["history"], "recent_categories": FAULTS["history"]}
    _, lost = measure(finished, bundle, store)
    assert lost.log_loss == stale.log_loss  # of the same rows as trained on
    assert lost.together.log_loss.value > abs(stale.together.log_loss.value)


def test_the_scores_are_the_rankers_own(finished: Path, bundle: Bundle) -> None:
    """Against the exported model's other signature, which transforms raw values itself."""
    rows = serving_skew.trained_rows(
        artifact(finished, "join_examples") / "spans", DAY, requests=50, seed=2
    )
    scores = serving_skew.scorer(bundle)(rows)
    assert scores.shape == (len(rows),) and ((scores > 0) & (scores < 1)).all()
    shuffled = np.random.default_rng(0).permutation(len(rows))
    again = serving_skew.scorer(bundle)(rows.take(shuffled))
    np.testing.assert_allclose(again, scores[shuffled], rtol=1e-5)
