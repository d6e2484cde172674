"""Our batches as the plain scripts take them: codes by feature, all that can be done ahead done.

Enters: a task and one of its batches.  Leaves: arrays, nested as `plain_keras` names them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.training_tasks import Task
from mlplatform.training.batches import Batch
from mlplatform.transform.feature import Feature
from mlplatform.transform.hashing import hash_numpy
from mlplatform.transform.transform import Transform
from recsys import features
from recsys.columns import Columns

Codes = NDArray[np.int32]


def table_sizes(task: Task) -> dict[str, dict[str, int]]:
    """How many codes each feature of each group has."""
    transform = task.model.transform
    groups = {
        "request": features.REQUEST,
        "app": features.APP,
        "impression": [f for f in features.IMPRESSION if not f.training_only],
        "place": [f for f in features.IMPRESSION if f.training_only],
    }
    sizes = {
        group: {feature.name: transform.cardinality(feature.name) for feature in declared}
        for group, declared in groups.items()
    }
    return sizes | {"history": {name: sizes["app"][name] for name in features.HISTORY_VIEW}}


def tower_inputs(task: Task, batch: Batch) -> Mapping[str, Any]:
    """A batch of ours as `plain_keras.TwoTower` takes it."""
    transform = task.model.transform
    candidates = np.concatenate([batch["app"], batch["negatives"]])
    return {
        "request": _by_feature(transform, features.REQUEST, batch["request"]),
        "history": _history(task, batch["history"]),
        "app": _by_feature(transform, features.APP, task.apps.codes[candidates]),
        "probability": batch["probability"],
        "id": candidates,
    }


def ranker_inputs(task: Task, batch: Batch, *, by_slate: bool) -> tuple[Any, NDArray[np.float32]]:
    """A batch of ours as `plain_keras.wide_and_deep` takes it: inputs and labels."""
    transform = task.model.transform
    app = task.apps.codes[batch["app"]]
    row, present = _crosses(task, batch, app)
    times = 1 if by_slate else task.rows_an_example
    request = np.repeat(batch["request"], times, axis=0)
    deep = {
        "request": _by_feature(transform, features.REQUEST, request),
        "history": _history(task, np.repeat(batch["history"], times, axis=0)),
        "app": _by_feature(transform, features.APP, _flat(app)),
        "impression": _by_feature(transform, features.IMPRESSION, _flat(batch["impression"])),
    }
    label = batch["label"].reshape(-1, 1).astype(np.float32)
    return ({"row": _flat(row), "present": _flat(present)}, deep), label


def _crosses(task: Task, batch: Batch, app: Codes) -> tuple[Codes, NDArray[np.float32]]:
    """Rows of the wide part's table and 1 for those that count, `[b, k, weights]` both."""
    from recsys.models.layers import salt_of

    buckets = task.model.settings.wide_buckets
    request = _stable_ids(task, features.REQUEST, batch["request"])
    own = _stable_ids(task, features.APP, app)
    shown = own | _stable_ids(task, features.IMPRESSION, batch["impression"])
    last = batch["history"][:, : features.CROSS_HISTORY]
    past = _stable_ids(task, features.APP, task.apps.codes[last])
    rows, present = [], []
    for name, ids in shown.items():
        salts = np.array([salt_of(f"{name}[{place}]") for place in range(ids.shape[2])])
        rows.append(hash_numpy(buckets, 0, salts, ids))
        present.append(np.ones(ids.shape, dtype=np.float32))
    for left, right in features.CROSSES:
        if left.startswith("history:"):
            ids, counts = past[left.removeprefix("history:")][:, :, 0], last > 0
        else:
            ids = request[left]
            counts = ids != 0 if ids.shape[1] > 1 else np.ones_like(ids, dtype=bool)
        salt = salt_of(f"{left} x {right}")
        rows.append(hash_numpy(buckets, salt, ids[:, None, :], own[right][:, :, :1]))
        present.append(np.broadcast_to(counts[:, None, :], rows[-1].shape).astype(np.float32))
    return np.concatenate(rows, axis=2), np.concatenate(present, axis=2)


def _stable_ids(
    task: Task, declared: Sequence[Feature], matrix: Codes
) -> dict[str, NDArray[np.int64]]:
    by_feature = _by_feature(task.model.transform, declared, matrix)
    return {name: task.stable_ids[name][codes] for name, codes in by_feature.items()}


def _history(task: Task, rows: Codes) -> dict[str, Codes]:
    codes = _by_feature(task.model.transform, features.APP, task.apps.codes[rows])
    return {name: codes[name] for name in features.HISTORY_VIEW}


def _by_feature(
    transform: Transform, declared: Sequence[Feature], matrix: Codes
) -> dict[str, Codes]:
    slices = Columns.of(transform, declared).slices
    return {name: matrix[..., columns] for name, columns in slices.items()}


def _flat(places: NDArray[Any]) -> NDArray[Any]:
    return places.reshape(-1, places.shape[-1])
