"""A version's parts belong together, and to the transform that it was pushed with."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from mlplatform.artifacts import to_json
from mlplatform.errors import DataCorrupt
from mlplatform.registry.registry import Registry, Version
from mlplatform.training.state import TrainingState
from mlplatform.transform.transform import Transform
from recsys import features
from recsys.online.bundle import (
    INDEX_OF,
    STATES,
    TRANSFORM,
    VECTORS,
    Bundle,
    require_transform,
)


@pytest.fixture(scope="module")
def version(finished: Path) -> Version:
    return Registry(finished / "registry").labelled("stable")


def test_every_part_of_a_version_speaks_of_one_transform(version: Version) -> None:
    bundle = Bundle.of_version(version)
    assert bundle.transform.fingerprint == version.manifest["transform"]
    for model in ("query_tower", "ranker"):
        state = TrainingState.load(version.path / STATES / model)
        require_transform(version, state.rows["transform"], f"{STATES}/{model}")


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (TRANSFORM, "query_tower learned the codes of another transform"),
        (INDEX_OF, "the index was built from other vectors than app_vectors.npy"),
    ],
)
def test_parts_of_two_versions_are_refused(
    version: Version, tmp_path: Path, part: str, said: str
) -> None:
    shutil.copytree(version.path, tmp_path / "bundle")
    path = tmp_path / "bundle" / part
    if part == TRANSFORM:
        transform = Transform.load(path, features.ALL)
        countries = transform.vocabularies["country"][::-1]
        vocabularies = {**transform.vocabularies, "country": countries}
        replace(transform, vocabularies=vocabularies).save(path)
    else:
        path.write_bytes(to_json({VECTORS: "0" * 64}))
    with pytest.raises(DataCorrupt, match=said):
        Bundle.load(tmp_path / "bundle")


def test_a_version_with_another_transform_is_refused_and_named(version: Version) -> None:
    other = replace(version, manifest={**version.manifest, "transform": "0" * 64})
    with pytest.raises(DataCorrupt, match=r"transform\.json: made with another transform than"):
        Bundle.of_version(other)
