"""A version's parts belong together, and to the transform that it was pushed with."""

from dataclasses import replace
from pathlib import Path

import pytest

from mlplatform.errors import DataCorrupt
from mlplatform.registry.registry import Registry, Version
from mlplatform.training.state import TrainingState
from recsys.online.bundle import STATES, Bundle, require_transform


@pytest.fixture(scope="module")
def version(finished: Path) -> Version:
    return Registry(finished / "registry").labelled("stable")


def test_every_part_of_a_version_speaks_of_one_transform(version: Version) -> None:
    bundle = Bundle.of_version(version)
    assert bundle.transform.fingerprint == version.manifest["transform"]
    for model in ("query_tower", "ranker"):
        state = TrainingState.load(version.path / STATES / model)
        require_transform(version, state.rows["transform"], f"{STATES}/{model}")


def test_a_version_with_another_transform_is_refused_and_named(version: Version) -> None:
    other = replace(version, manifest={**version.manifest, "transform": "0" * 64})
    with pytest.raises(DataCorrupt, match=r"transform\.json: made with another transform than"):
        Bundle.of_version(other)
