"""Statistics of data sets, as tensorflow-metadata protos that TFDV's tools read.

Enters: named data sets of Parquet files.  Leaves: for each of them what is known of every feature.
One Beam pipeline: pieces of files are read as Arrow record batches, every column of a batch becomes
an accumulator, accumulators of one feature are merged in whatever order they arrive.

Importing this module imports Beam, which takes about a second: import it inside the command
that needs it.
"""

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from tensorflow_metadata.proto.v0 import statistics_pb2

from mlplatform.data.accumulators import FeatureAccumulator
from mlplatform.data.beam import FileSystems, beam, pipeline_options
from mlplatform.data.shards import Piece, Shards, read_batches
from mlplatform.errors import DataCorrupt

FeatureKey = tuple[str, str]  # data set, feature

_FEATURES, _UNREADABLE = "features", "unreadable"


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
        beam_options: the options of any Beam runner; two local threads by default.  A runner on
            other machines needs a `--temp_location` that they share with this one.

    Raises:
        NotFound: a file does not exist.
        DataCorrupt: a file cannot be read or has a column twice.
        InvalidArgument: a data set without files, or columns that cannot be described.
    """
    shards = [Shards.open(name, paths) for name, paths in datasets.items()]
    pieces = [piece for one in shards for piece in one.pieces]
    described = _run(pieces, beam_options)
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


def _run(
    pieces: Sequence[Piece], beam_options: Sequence[str] | None
) -> dict[FeatureKey, statistics_pb2.FeatureNameStatistics]:
    """Run the pipeline; its results come back through files, as they must on any runner."""
    options = pipeline_options(beam_options)
    location = options.get_all_options().get("temp_location") or tempfile.gettempdir()
    folder = FileSystems.join(location, f"statistics-{uuid4().hex}")
    FileSystems.mkdirs(folder)
    try:
        with beam.Pipeline(options=options) as pipeline:
            read = (
                pipeline
                | "Pieces" >> beam.Create(pieces)
                | "Spread" >> beam.Reshuffle()
                | "Summarise" >> beam.FlatMap(_summarise).with_outputs(_UNREADABLE, main=_FEATURES)
            )
            features = (
                read[_FEATURES]
                | "Merge" >> beam.CombinePerKey(FeatureAccumulator.merge)
                | "Describe" >> beam.MapTuple(_describe)
            )
            _ = (
                (features, read[_UNREADABLE])
                | "All" >> beam.Flatten()
                | "Gather" >> beam.GroupByKey()
                | "Write" >> beam.Map(_write, folder)
            )
        if unreadable := _read(folder, _UNREADABLE):
            raise DataCorrupt(min(unreadable.decode().splitlines()))
        fragments = statistics_pb2.DatasetFeatureStatisticsList.FromString(_read(folder, _FEATURES))
        return {
            (fragment.name, feature.path.step[0]): feature
            for fragment in fragments.datasets
            for feature in fragment.features
        }
    finally:
        FileSystems.delete([folder])


def _summarise(piece: Piece) -> Iterator[Any]:
    """Yield ((data set, feature), accumulator) for every column of a piece.

    A damaged file is a result, not an exception: runners wrap and repeat exceptions, and one clear
    line has to reach the caller.
    """
    summaries: dict[str, FeatureAccumulator] = {}
    try:
        for first_row, batch in read_batches(piece):
            place = (piece.ordinal << 40) + first_row
            for feature, column in zip(batch.schema.names, batch.columns, strict=True):
                new = FeatureAccumulator.of(column, piece.kinds[feature], seed=place)
                old = summaries.get(feature)
                summaries[feature] = FeatureAccumulator.merge([old, new]) if old else new
    except DataCorrupt as error:
        line = str(error).replace("\n", " ") + "\n"
        yield beam.pvalue.TaggedOutput(_UNREADABLE, (_UNREADABLE, line.encode()))
    else:
        for feature, summary in summaries.items():
            yield (piece.dataset, feature), summary


def _describe(key: FeatureKey, accumulator: FeatureAccumulator) -> tuple[str, bytes]:
    """A list of one data set with one feature: such lists, laid end to end, parse as one list."""
    dataset, feature = key
    described = accumulator.describe()
    described.path.step.append(feature)
    fragment = statistics_pb2.DatasetFeatureStatisticsList()
    fragment.datasets.add(name=dataset, features=[described])
    return _FEATURES, fragment.SerializeToString(deterministic=True)


def _write(named_parts: tuple[str, Iterable[bytes]], folder: str) -> None:
    name, parts = named_parts
    with FileSystems.create(FileSystems.join(folder, name)) as stream:
        stream.write(b"".join(parts))


def _read(folder: str, name: str) -> bytes:
    """The content of a result file; nothing when no worker had anything to write."""
    path = FileSystems.join(folder, name)
    if not FileSystems.exists(path):
        return b""
    with FileSystems.open(path) as stream:
        content: bytes = stream.read()
        return content
