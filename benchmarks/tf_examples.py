"""Rows as tf.train.Examples in TFRecord files, and tf.data's ways to parse them.

Enters: arrays as `raw_arrays` makes them.  Leaves: files, and datasets of batches of the same.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.raw_arrays import Arrays, is_missing, missing_marker
from mlplatform.training.runtime import tensorflow
from mlplatform.transform.feature import Feature

SINGLE, BATCHED = "parse_single_example", "parse_example"


def write_examples(whole: Arrays, path: Path, files: int) -> list[str]:
    """TFRecord files of a tf.train.Example a row, in which a missing scalar has no value."""
    tf = tensorflow()
    lists = {
        "i": lambda values: tf.train.Feature(int64_list=tf.train.Int64List(value=values)),
        "f": lambda values: tf.train.Feature(float_list=tf.train.FloatList(value=values)),
        "O": lambda values: tf.train.Feature(bytes_list=tf.train.BytesList(value=values)),
    }
    makers = {name: lists[array.dtype.kind] for name, array in whole.items()}
    rows = len(next(iter(whole.values())))
    names = [f"{path}-{number}.tfrecord" for number in range(files)]
    for number, name in enumerate(names):
        with tf.io.TFRecordWriter(name) as writer:
            for row in range(number * rows // files, (number + 1) * rows // files):
                values = {key: np.atleast_1d(array[row]) for key, array in whole.items()}
                feature = {
                    key: makers[key](value)
                    for key, value in values.items()
                    if len(value) > 1 or not is_missing(value[0])
                }
                example = tf.train.Example(features=tf.train.Features(feature=feature))
                writer.write(example.SerializeToString())
    return names


def pipelines(
    files: list[str], declared: Sequence[Feature], batch: int
) -> dict[str, dict[str, Any]]:
    """parse function -> way to read -> tf.data.Dataset of batches."""
    tf = tensorflow()
    specification = _specification(declared)
    auto: dict[str, Any] = {"num_parallel_calls": tf.data.AUTOTUNE, "deterministic": False}

    def one_by_one(records: Any) -> Any:
        parsed = records.map(lambda e: tf.io.parse_single_example(e, specification), **auto)
        return parsed.batch(batch)

    def in_batches(records: Any) -> Any:
        return records.batch(batch).map(lambda e: tf.io.parse_example(e, specification), **auto)

    def ways(parse: Callable[[Any], Any]) -> dict[str, Any]:
        by_file = tf.data.Dataset.from_tensor_slices(files).interleave(
            lambda file: parse(tf.data.TFRecordDataset(file)), cycle_length=len(files), **auto
        )
        in_turn = parse(tf.data.TFRecordDataset(files))
        return {
            "one reader": in_turn.prefetch(tf.data.AUTOTUNE),
            "a reader a file": by_file.prefetch(tf.data.AUTOTUNE),
        }

    return {SINGLE: ways(one_by_one), BATCHED: ways(in_batches)}


def count(dataset: Any) -> int:
    """Go through all batches without leaving the graph; return how many rows they had."""
    tf = tensorflow()

    def add(rows: Any, batch: Mapping[str, Any]) -> Any:
        return rows + tf.shape(next(iter(batch.values())), out_type=tf.int64)[0]

    return int(dataset.reduce(tf.constant(0, tf.int64), add))


def _specification(declared: Sequence[Feature]) -> dict[str, Any]:
    tf = tensorflow()
    dtypes = {"int64": tf.int64, "float32": tf.float32, "string": tf.string}
    return {
        feature.column: tf.io.FixedLenFeature(
            [] if feature.width == 1 else [feature.width],
            dtypes[feature.dtype],
            None if feature.width > 1 else missing_marker(feature),
        )
        for feature in declared
    }
