"""Statistics of data sets, as tensorflow-metadata protos that TFDV's tools read.

Enters: named data sets of Parquet files.  Leaves: for each of them what is known of every feature.
One Beam pipeline: pieces of files are read as Arrow record batches, every column of a batch becomes
an accumulator, accumulators of one feature are merged in whatever order they arrive.

Importing this module imports Beam, which takes about a second: import it inside the command
that needs it.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tensorflow_metadata.proto.v0 import statistics_pb2

from mlplatform.data.accumulators import FeatureAccumulator
from mlplatform.data.pieces import combine_over_pieces
from mlplatform.data.shards import Piece, Shards, read_batches
from mlplatform.errors import Unavailable

FeatureKey = tuple[str, str]  # data set, feature


def compute_statistics(
    datasets: Mapping[str, Sequence[Path]], *, beam_options: Sequence[str] | None = None
) -> statistics_pb2.DatasetFeatureStatisticsList:
    """Describe every data set in one pass over its files.

    A file may lack a column of its data set: its rows then count as missing.  Counts, moments,
    minimum and maximum are exact; so are quantiles and histograms up to 32,768 values, number and
    counts of strings up to 10,000 distinct ones.  Beyond that `RowSample` and `ValueCounts` state
    the error.  The result does not depend on the order of the files, moments up to rounding.

    Args:
        datasets: the Parquet files of each data set, by the name it gets in the result.
        beam_options: the options of any Beam runner; a local one by default.  A runner on
            other machines needs a `--temp_location` that they share with this one.

    Raises:
        NotFound: a file does not exist.
        DataCorrupt: a file cannot be read or has a column twice.
        InvalidArgument: a data set without files, or columns that cannot be described.
        Unavailable: the runner lost results.
    """
    shards = [Shards.open(name, paths) for name, paths in datasets.items()]
    pieces = [piece for one in shards for piece in one.pieces]
    encoded = combine_over_pieces(
        pieces, _summarise, FeatureAccumulator.merge, _describe, beam_options
    )
    fragments = statistics_pb2.DatasetFeatureStatisticsList.FromString(encoded)
    described = {
        (fragment.name, feature.path.step[0]): feature
        for fragment in fragments.datasets
        for feature in fragment.features
    }
    _require_complete(shards, described)
    result = statistics_pb2.DatasetFeatureStatisticsList()
    for one in shards:
        statistics = result.datasets.add(name=one.dataset, num_examples=one.num_rows)
        for feature, kind in one.kinds.items():
            added = statistics.features.add()
            added.CopyFrom(
                described.get((one.dataset, feature)) or FeatureAccumulator.empty(kind).describe()
            )
            added.type = statistics_pb2.FeatureNameStatistics.Type.Value(kind)
            added.path.step[:] = [feature]
            common = getattr(added, added.WhichOneof("stats")).common_stats
            common.num_missing = one.num_rows - common.num_non_missing
    return result


def _require_complete(shards: Sequence[Shards], described: Mapping[FeatureKey, object]) -> None:
    """A runner that loses results must not make a column look empty."""
    lost = [
        f"{one.dataset}.{feature}"
        for one in shards
        for feature in one.kinds
        if one.num_rows and (one.dataset, feature) not in described
    ]
    if lost:
        raise Unavailable(
            f"the Beam runner lost the statistics of {', '.join(lost[:5])} ({len(lost)} in all); "
            "run the command again, or name another runner"
        )


def _summarise(piece: Piece) -> Iterator[tuple[FeatureKey, FeatureAccumulator]]:
    """Yield ((data set, feature), accumulator) for every column of a piece."""
    summaries: dict[str, FeatureAccumulator] = {}
    for first_row, batch in read_batches(piece):
        place = (piece.ordinal << 40) + first_row
        for feature, column in zip(batch.schema.names, batch.columns, strict=True):
            new = FeatureAccumulator.of(column, piece.kinds[feature], seed=place)
            old = summaries.get(feature)
            summaries[feature] = FeatureAccumulator.merge([old, new]) if old else new
    for feature, summary in summaries.items():
        yield (piece.dataset, feature), summary


def _describe(key: FeatureKey, accumulator: FeatureAccumulator) -> bytes:
    """A list of one data set with one feature: such lists, laid end to end, parse as one list."""
    dataset, feature = key
    described = accumulator.describe()
    described.path.step.append(feature)
    fragment = statistics_pb2.DatasetFeatureStatisticsList()
    fragment.datasets.add(name=dataset, features=[described])
    return fragment.SerializeToString(deterministic=True)
