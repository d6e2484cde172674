"""Training input: our spans, beside tf.Examples of the same rows parsed one by one and in batches.

Two datasets of the store, with the features that the models read of them and the rows' keys.

Ours goes from Parquet (Zstandard, page checksums verified) over Arrow to numpy: once to dense raw
arrays, once to the codes of the transform.  TensorFlow is given the best that can be done for it:
records not compressed, one file a core, lists padded ahead so that every feature is of fixed
length, parsing in parallel without keeping the order (AUTOTUNE), prefetching, batches that are
counted in the graph and never reach Python; and of two ways to read, one reader and a reader a
file, the one that was faster in the round (`num_parallel_reads`, which interleaves single records,
is several times slower than either).  Before the clock starts all must have given equal values.

Must: 5 times the rows a second of `parse_single_example`; hoped for: 50.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.raw_arrays import Arrays, raw_arrays
from benchmarks.result import Result
from benchmarks.rounds import Rounds
from benchmarks.store import Store, million_apps
from benchmarks.tf_examples import SINGLE, count, pipelines, write_examples
from mlplatform.data.files.spans import read_span
from mlplatform.transform.feature import Feature
from mlplatform.transform.transform import Transform
from recsys import features
from recsys.columns import Columns

BATCH = 1024
ROUNDS = 5
AT_LEAST_SECONDS = 0.5
MUST = 5.0
ARRAYS, CODES = "our arrays", "our codes"

_REQUEST_ID = Feature("request_id", "int64", "Which request.")
_APP_ID = Feature("app_id", "int64", "The app that was shown.")


@dataclass(frozen=True)
class Dataset:
    """keys: what tells its rows apart.  coded: the features that the transform knows."""

    name: str
    coded: tuple[Feature, ...]
    plain: tuple[Feature, ...]
    keys: tuple[str, ...]

    @property
    def declared(self) -> tuple[Feature, ...]:
        return (*self.coded, *self.plain)

    @property
    def columns(self) -> list[str]:
        return [feature.column for feature in self.declared]


DATASETS = (
    Dataset("requests", features.REQUEST, (_REQUEST_ID, features.HISTORY), ("request_id",)),
    Dataset(
        "impressions",
        features.IMPRESSION,
        (_REQUEST_ID, _APP_ID, features.LABEL),
        ("request_id", "position"),
    ),
)


def measure() -> Result:
    config = million_apps(users=20_000)
    result = Result(
        settings={
            "batch size": BATCH,
            "rounds, median of": ROUNDS,
            "tf.data": "AUTOTUNE, order not kept, prefetch; the better of two ways to read",
            "world": config.world.model_dump(mode="json"),
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        store = Store.make(config, Path(folder) / "store")
        for dataset in DATASETS:
            measure_dataset(result, dataset, store, Path(folder), rounds=ROUNDS)
    return result


def measure_dataset(
    result: Result, dataset: Dataset, store: Store, folder: Path, *, rounds: int
) -> None:
    """Add a data set's figures and its limits; `folder` is for the examples."""
    transform, days = store.transform(), list(store.config.days.train)
    read = partial(read_span, store.spans, dataset.name, days, dataset.columns)
    ours = raw_arrays(read(), dataset.declared)
    files = write_examples(ours, folder / dataset.name, os.cpu_count() or 1)
    parsed = pipelines(files, dataset.declared, BATCH)
    require_equal(dataset, ours, [one for ways in parsed.values() for one in ways.values()])

    contestants: dict[str, Callable[[], int]] = {
        f"{parser}, {way}": partial(count, one)
        for parser, ways in parsed.items()
        for way, one in ways.items()
    }
    contestants[ARRAYS] = lambda: take_batches(raw_arrays(read(), dataset.declared))
    contestants[CODES] = lambda: take_batches(codes(read(), dataset, transform))
    rows = len(ours["request_id"])
    speeds = Rounds.run(
        rounds, {name: partial(_speed, rows, one) for name, one in contestants.items()}
    )
    result.figures[f"{dataset.name}: rows"] = rows
    for name in contestants:
        result.figures[f"{dataset.name}: rows a second, {name}"] = speeds.median(name)
    for name in (ARRAYS, CODES):
        for parser, ways in parsed.items():
            ratio = speeds.ratio(name, to=[f"{parser}, {way}" for way in ways])
            result.figures[f"{dataset.name}: {name}, times {parser}"] = ratio
        result.limits[f"{dataset.name}: {name}, times {SINGLE}"] = ("least", MUST)


def codes(table: pa.Table, dataset: Dataset, transform: Transform) -> Arrays:
    """One matrix of the transform's codes, and dense raw values of what has none."""
    matrix = Columns.of(transform, dataset.coded).matrix(transform, table)
    return {"codes": matrix, **raw_arrays(table, dataset.plain)}


def take_batches(whole: Arrays) -> int:
    """Go through all batches; return how many rows they had."""
    rows = len(next(iter(whole.values())))
    taken = 0
    for start in range(0, rows, BATCH):
        batch = {name: array[start : start + BATCH] for name, array in whole.items()}
        taken += len(next(iter(batch.values())))
    return taken


def require_equal(dataset: Dataset, ours: Arrays, parsed: Iterable[Any]) -> None:
    """Raise AssertionError, which names the column, where a way to read differs in a value."""
    expected = _sorted(ours, dataset.keys)
    for one in parsed:
        batches = list(one.as_numpy_iterator())
        joined = {name: np.concatenate([batch[name] for batch in batches]) for name in ours}
        for name, array in _sorted(joined, dataset.keys).items():
            np.testing.assert_array_equal(
                array, expected[name], f"{dataset.name}/{name}", strict=True
            )


def _speed(rows: int, contestant: Callable[[], int]) -> float:
    """Rows a second, over as many passes as take `AT_LEAST_SECONDS`."""
    started = time.perf_counter()
    passes = 0
    while passes == 0 or time.perf_counter() - started < AT_LEAST_SECONDS:
        read = contestant()
        assert read == rows, f"expected {rows} rows, got {read}"
        passes += 1
    return passes * rows / (time.perf_counter() - started)


def _sorted(whole: Arrays, keys: Sequence[str]) -> Arrays:
    order = np.lexsort([whole[key] for key in reversed(keys)])
    return {name: array[order] for name, array in whole.items()}
