"""The checks of a data set as a whole: how many rows it has, and against other data sets.

Enters: the schema and the statistics.  Leaves: findings.  Thresholds are strict.
"""

from collections.abc import Iterator
from math import inf

from tensorflow_metadata.proto.v0 import schema_pb2

from mlplatform.data.validation.facts import Dataset
from mlplatform.data.validation.findings import Finding, Types, clearing, setting


def check_dataset(
    schema: schema_pb2.Schema,
    statistics: Dataset,
    previous: Dataset | None,
    previous_version: Dataset | None,
) -> Iterator[Finding]:
    """The data set has rows, and as many as the schema asks for.

    Args:
        previous: the span before.
        previous_version: an earlier version of this span.
    """
    yield from check_num_examples(schema, statistics)
    if not statistics.num_examples:
        return
    for other, comparator, name in (
        (previous, "num_examples_drift_comparator", "span before"),
        (previous_version, "num_examples_version_comparator", "version before"),
    ):
        if other is not None:
            yield from compare_num_examples(schema, statistics, other, comparator, name)


def check_num_examples(schema: schema_pb2.Schema, statistics: Dataset) -> Iterator[Finding]:
    """The data set has as many rows as the schema asks for, and any at all."""
    constraints, rows = schema.dataset_constraints, statistics.num_examples
    if not rows:
        yield Finding(None, Types.NO_DATA_IN_SPAN, "No data", "Expected rows, got none", None)
    if constraints.HasField("min_examples_count") and rows < constraints.min_examples_count:
        yield Finding(
            None,
            Types.DATASET_LOW_NUM_EXAMPLES,
            "Too few rows",
            f"Expected at least {constraints.min_examples_count} rows, got {rows}",
            setting("dataset_constraints.min_examples_count", rows),
        )
    if constraints.HasField("max_examples_count") and rows > constraints.max_examples_count:
        yield Finding(
            None,
            Types.DATASET_HIGH_NUM_EXAMPLES,
            "Too many rows",
            f"Expected at most {constraints.max_examples_count} rows, got {rows}",
            setting("dataset_constraints.max_examples_count", rows),
        )


def compare_num_examples(
    schema: schema_pb2.Schema, statistics: Dataset, other: Dataset, comparator: str, name: str
) -> Iterator[Finding]:
    """The number of rows, as a share of another data set's, lies within a comparator's limits.

    Of a data set without rows any number is more than any share.

    Args:
        comparator: the field of the schema's dataset_constraints.
        name: of the other data set in descriptions.
    """
    limits = getattr(schema.dataset_constraints, comparator)
    rows, base = _count(statistics, other)
    share = rows / base if base else inf
    path = f"dataset_constraints.{comparator}"
    if limits.HasField("min_fraction_threshold") and share < limits.min_fraction_threshold:
        least = limits.min_fraction_threshold
        yield Finding(
            None,
            Types.COMPARATOR_LOW_NUM_EXAMPLES,
            f"Too few rows against the {name}",
            f"Expected at least {least:g} of the {base:.12g} rows of the {name}, got {rows:.12g}",
            setting(f"{path}.min_fraction_threshold", share),
        )
    if limits.HasField("max_fraction_threshold") and share > limits.max_fraction_threshold:
        path += ".max_fraction_threshold"
        most = limits.max_fraction_threshold
        yield Finding(
            None,
            Types.COMPARATOR_HIGH_NUM_EXAMPLES,
            f"Too many rows against the {name}",
            f"Expected at most {most:g} of the {base:.12g} rows of the {name}, got {rows:.12g}",
            setting(path, share) if base else clearing(path),
        )


def _count(statistics: Dataset, other: Dataset) -> tuple[float, float]:
    """The rows of both, or their weights where both are weighted."""
    if statistics.weighted_num_examples and other.weighted_num_examples:
        return statistics.weighted_num_examples, other.weighted_num_examples
    return statistics.num_examples, other.num_examples
