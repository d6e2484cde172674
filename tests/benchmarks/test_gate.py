"""The benchmark of the gate, on bundles of a store of five hundred apps."""

from pathlib import Path

import pytest

from benchmarks import gate
from benchmarks.gate import House
from benchmarks.result import Result
from mlplatform.evaluation.gate import Threshold
from mlplatform.registry.registry import Registry
from recsys.config import RunConfig

LENIENT = (Threshold("AUC: system", "so small a world", evaluation="ranking", above=0.3),)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    small = gate.configuration().model_dump()
    small["world"] |= {"initial_apps": 990, "initial_users": 3000, "new_users_per_day": 20}
    small["days"] |= {"warm_up": 2, "training": 2}
    small["retrieval"] |= {"batch_size": 64, "negatives": 32, "epochs": 1}
    small["ranking"] |= {"batch_requests": 64, "wide_buckets": 4096}
    small["evaluation"] |= {"installs": 300, "queries": 60, "requests": 1000}
    small["loop"] |= {"requests": 1000}
    small["gate"] = {"thresholds": LENIENT}
    return House.build(RunConfig.model_validate(small), tmp_path_factory.mktemp("house"))


def test_a_good_bundle_becomes_the_next_version_and_the_next_one_meets_the_same(
    house: House,
) -> None:
    assert house.apply("good", seed=5) == ""
    registry = Registry(house.registry)
    assert [version.number for version in registry.list()] == [1, 2]
    assert registry.labels() == {"stable": 1}


def test_a_bad_bundle_does_not(house: House) -> None:
    before = Registry(house.registry).list()
    said = house.apply("bad", seed=6, fault="flipped bit")
    assert "the gate blessed other files than these" in said
    assert Registry(house.registry).list() == before


def test_every_fault_is_planted_before_a_step_that_there_is() -> None:
    assert len(gate.FAULTS) == 10
    assert all(step in gate.STEPS for fault in gate.FAULTS.values() for step in fault)


def test_one_bad_bundle_that_serves_is_a_must_missed() -> None:
    result = Result(settings={})
    result.figures = {"good, seed 1: refused": 0.0, "NaN, seed 2: served": 1.0}
    gate.summarise(result)
    assert result.figures["bad bundles served"] == 1
    assert result.met("good bundles refused") and not result.all_met


def test_the_flipped_bit_is_one(tmp_path: Path) -> None:
    content = bytes(range(10))
    flipped = gate.flip_bit(content)
    differing = [a ^ b for a, b in zip(content, flipped, strict=True)]
    assert sum(differing) == 1
