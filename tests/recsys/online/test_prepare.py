"""A bundle whose serving form differs from its exported model is not let through."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from mlplatform.data.files.spans import read_parquet, write_parquet
from mlplatform.errors import DataCorrupt
from mlplatform.training.runtime import tensorflow
from mlplatform.transform.transform import Transform
from recsys import features
from recsys.apps import AppTable
from recsys.online.bundle import CATALOGUE, MAPPED_CATALOGUE, QUERY_TOWER, RANKER, TRANSFORM
from recsys.online.prepare import prepare

tensorflow()

from recsys.models.ranking import Ranker, RankerSettings  # noqa: E402
from recsys.models.retrieval import TowerSettings, TwoTower  # noqa: E402
from recsys.models.serving.files import SERVED  # noqa: E402


@pytest.fixture
def bundle(transform: Transform, catalogue: pa.Table, tmp_path: Path) -> Path:
    """The parts that are looked at."""
    apps = AppTable.of(catalogue, transform)
    transform.save(tmp_path / TRANSFORM)
    apps.save(tmp_path)
    write_parquet(catalogue, tmp_path / CATALOGUE)
    towers = TowerSettings(dim=4, field_dim=2, hidden=8)
    TwoTower(transform, apps, towers).export(tmp_path / QUERY_TOWER)
    wanted = RankerSettings(field_dim=2, hidden=(8, 4), product=4, wide_buckets=1024)
    Ranker(transform, apps, wanted).export(tmp_path / RANKER)
    return tmp_path


def test_the_catalogue_is_mapped_as_it_is_stored(bundle: Path) -> None:
    prepare(bundle)
    mapped = pa.ipc.open_file(pa.memory_map(str(bundle / MAPPED_CATALOGUE))).read_all()
    assert mapped.to_pylist() == read_parquet(bundle / CATALOGUE).to_pylist()
    assert mapped["min_os"].num_chunks == 1


@pytest.mark.parametrize(
    ("model", "part"),
    [
        (QUERY_TOWER, "bias.npy"),
        (QUERY_TOWER, "user/history_kernel.npy"),
        (RANKER, "0.ServedWide/own.npy"),
        (RANKER, "1.ServedDeep/out.npy"),
    ],
)
def test_an_array_that_is_not_the_exported_models_is_refused_and_the_model_is_named(
    bundle: Path, model: str, part: str
) -> None:
    path = bundle / model / SERVED / part
    np.save(path, np.load(path) + np.float32(0.01))
    with pytest.raises(DataCorrupt, match=rf"{model}: what serves differs from what was exported"):
        prepare(bundle)


def test_a_model_that_says_what_is_no_number_is_left_to_the_gate(bundle: Path) -> None:
    transform = Transform.load(bundle / TRANSFORM, features.ALL)
    apps = AppTable.load(bundle)
    model = Ranker(transform, apps, RankerSettings(kind="linear", wide_buckets=1024))
    model.bias.assign(np.float32("nan"))
    shutil.rmtree(bundle / RANKER)
    model.export(bundle / RANKER)
    prepare(bundle)
    assert (bundle / MAPPED_CATALOGUE).exists()
