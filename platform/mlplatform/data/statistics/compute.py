"""Statistics of data sets, as tensorflow-metadata protos that TFDV's tools read.

Enters: named data sets of files.  Leaves: for each of them, and each of their slices, what is known
of every feature.  One Beam pipeline: pieces of files are read as Arrow record batches, every column
of a batch becomes an accumulator, accumulators of one feature are merged in whatever order they
arrive.

Importing this module imports Beam, which takes about a second: import it inside the command
that needs it.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from tensorflow_metadata.proto.v0 import statistics_pb2

from mlplatform.data.files.shards import Shards
from mlplatform.data.statistics.accumulators import Examples, FeatureAccumulator
from mlplatform.data.statistics.pieces import combine_over_pieces
from mlplatform.data.statistics.slices import require_few, require_slicing
from mlplatform.data.statistics.summaries import Key, merge, summarise
from mlplatform.data.statistics.weights import from_units, require_weight_column
from mlplatform.errors import Unavailable


def compute_statistics(
    datasets: Mapping[str, Sequence[Path]],
    *,
    weight: str | None = None,
    slice_by: Sequence[str] = (),
    beam_options: Sequence[str] | None = None,
) -> statistics_pb2.DatasetFeatureStatisticsList:
    """Describe every data set in one pass over its files.

    A file may lack a column of its data set: its rows then count as missing.  Counts, moments,
    minimum and maximum are exact; so are quantiles and histograms up to 32,768 values, number and
    counts of strings up to 10,000 distinct ones.  Beyond that `RowSample` and `ValueCounts` state
    the error.  The result does not depend on the order of the files, on the runner or on the number
    of workers; how rows are spread over files may change the rounding of moments and weights.

    Args:
        datasets: the files of each data set, by the name it gets in the result; their endings say
            what they are: `shards.FORMATS`.
        weight: the column that says how much a row counts, 0 to 2**24.  With it, weighted
            statistics stand beside the plain ones.
        slice_by: columns of strings or integers.  After each data set follow its slices,
            `DATASET/COLUMN=VALUE`, column by column and by value; see `slices`.
        beam_options: the options of any Beam runner; a local one by default.  A runner on
            other machines needs a `--temp_location` that they share with this one.

    Raises:
        NotFound: a file does not exist.
        DataCorrupt: a file cannot be read or has a column twice.
        InvalidArgument: a data set without files, columns that cannot be described, a weight that
            is missing or out of range, too many slices.
        Unavailable: the runner lost results.
    """
    shards = [Shards.open(name, paths) for name, paths in datasets.items()]
    for one in shards:
        require_slicing(one.dataset, one.kinds, slice_by)
        require_weight_column(one.dataset, one.kinds, weight)
    pieces = [piece for one in shards for piece in one.pieces]
    encoded = combine_over_pieces(
        pieces, partial(summarise, weight, tuple(slice_by)), merge, _describe, beam_options
    )
    found: dict[str, statistics_pb2.DatasetFeatureStatistics] = {}
    for fragment in statistics_pb2.DatasetFeatureStatisticsList.FromString(encoded).datasets:
        found.setdefault(fragment.name, statistics_pb2.DatasetFeatureStatistics()).MergeFrom(
            fragment
        )
    result = statistics_pb2.DatasetFeatureStatisticsList()
    for one in shards:
        whole = found.get(one.dataset, statistics_pb2.DatasetFeatureStatistics())
        _require_complete(one, whole)
        names = [one.dataset]
        for column in slice_by:
            prefix = f"{one.dataset}/{column}="
            names += sorted(name for name in found if name.startswith(prefix))
        require_few(one.dataset, len(names) - 1)
        for name in names:
            described = found.get(name, whole)
            result.datasets.append(_complete(one, name, described, weighted=weight is not None))
    return result


def _complete(
    shards: Shards, name: str, found: statistics_pb2.DatasetFeatureStatistics, *, weighted: bool
) -> statistics_pb2.DatasetFeatureStatistics:
    """What was found, every feature in the place of its column, and how often it is missing."""
    features = {feature.path.step[0]: feature for feature in found.features}
    completed = statistics_pb2.DatasetFeatureStatistics(
        name=name,
        num_examples=found.num_examples,
        weighted_num_examples=found.weighted_num_examples,
    )
    for feature, kind in shards.kinds.items():
        added = completed.features.add()
        added.CopyFrom(
            features.get(feature) or FeatureAccumulator.empty(kind, weighted=weighted).describe()
        )
        added.type = statistics_pb2.FeatureNameStatistics.Type.Value(kind)
        added.path.step[:] = [feature]
        common = getattr(added, added.WhichOneof("stats")).common_stats
        common.num_missing = found.num_examples - common.num_non_missing
        if weighted:
            weights = common.weighted_common_stats
            # Rounding must not make it less than nothing.
            weights.num_missing = max(found.weighted_num_examples - weights.num_non_missing, 0.0)
    return completed


def _require_complete(shards: Shards, found: statistics_pb2.DatasetFeatureStatistics) -> None:
    """A runner that loses results must not make a column look empty."""
    described = {feature.path.step[0] for feature in found.features}
    lost = [name for name in shards.kinds if name in shards.filled and name not in described]
    if lost or found.num_examples != shards.num_rows:
        raise Unavailable(
            f"the Beam runner lost statistics of data set {shards.dataset!r}: expected "
            f"{shards.num_rows:,} rows, got {found.num_examples:,}, and none of the columns "
            f"{', '.join(lost[:5]) or '(none)'}; run the command again, or name another runner"
        )


def _describe(key: Key, summary: Examples | FeatureAccumulator) -> bytes:
    """A list of one data set with one feature, or with its number of rows.

    Such lists, laid end to end, parse as one list.
    """
    name, feature = key
    fragment = statistics_pb2.DatasetFeatureStatisticsList()
    if isinstance(summary, Examples):
        weight = 0.0 if summary.weight is None else from_units(summary.weight)
        fragment.datasets.add(name=name, num_examples=summary.rows, weighted_num_examples=weight)
    else:
        described = summary.describe()
        described.path.step.append(feature)
        fragment.datasets.add(name=name, features=[described])
    return fragment.SerializeToString(deterministic=True)
