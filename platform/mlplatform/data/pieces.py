"""One Beam pass over the pieces of some data sets: summarise, merge by key, encode.

Enters: pieces of files, and three functions that say what is wanted of them.  Leaves: the encoded
results, laid end to end.  Importing this module imports Beam.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any
from uuid import uuid4

from mlplatform.data.beam import FileSystems, beam, pipeline_options
from mlplatform.data.shards import Piece
from mlplatform.errors import DataCorrupt

Keyed = tuple[Any, Any]  # key, summary
_RESULTS, _UNREADABLE = "results", "unreadable"


def combine_over_pieces(
    pieces: Sequence[Piece],
    summarise: Callable[[Piece], Iterator[Keyed]],
    merge: Callable[[Iterable[Any]], Any],
    encode: Callable[[Any, Any], bytes],
    beam_options: Sequence[str] | None,
) -> bytes:
    """Run `summarise` on every piece, `merge` on each key's summaries, `encode` on (key, merged).

    Results come back through files, as they must on any runner.

    Raises:
        DataCorrupt: a piece cannot be read; one line, whatever the runner.
    """
    options = pipeline_options(beam_options)
    location = options.get_all_options().get("temp_location") or tempfile.gettempdir()
    folder = FileSystems.join(location, f"pieces-{uuid4().hex}")
    FileSystems.mkdirs(folder)

    def readable(piece: Piece) -> Iterator[Any]:
        # A damaged file is a result, not an exception: runners wrap and repeat exceptions, and
        # one clear line has to reach the caller.
        try:
            summaries = list(summarise(piece))
        except DataCorrupt as error:
            line = str(error).replace("\n", " ") + "\n"
            yield beam.pvalue.TaggedOutput(_UNREADABLE, (_UNREADABLE, line.encode()))
        else:
            yield from summaries

    try:
        with beam.Pipeline(options=options) as pipeline:
            read = (
                pipeline
                | "Pieces" >> beam.Create(pieces)
                | "Spread" >> beam.Reshuffle()
                | "Summarise" >> beam.FlatMap(readable).with_outputs(_UNREADABLE, main=_RESULTS)
            )
            results = (
                read[_RESULTS]
                | "Merge" >> beam.CombinePerKey(merge)
                | "Encode"
                >> beam.MapTuple(
                    lambda key, merged: (_RESULTS, encode(key, merged))
                ).with_output_types(tuple[str, bytes])
            )
            _ = (
                (results, read[_UNREADABLE])
                | "All" >> beam.Flatten()
                | "Gather" >> beam.GroupByKey()
                | "Write" >> beam.Map(_write, folder)
            )
        if unreadable := _read(folder, _UNREADABLE):
            raise DataCorrupt(min(unreadable.decode().splitlines()))
        return _read(folder, _RESULTS)
    finally:
        FileSystems.delete([folder])


def _write(named_parts: tuple[str, Iterable[bytes]], folder: str) -> None:
    name, parts = named_parts
    with FileSystems.create(FileSystems.join(folder, name)) as stream:
        # Sorted: a runner hands the parts over in any order, the file is always the same.
        stream.write(b"".join(sorted(parts)))


def _read(folder: str, name: str) -> bytes:
    """The content of a result file; nothing when no worker had anything to write."""
    path = FileSystems.join(folder, name)
    if not FileSystems.exists(path):
        return b""
    with FileSystems.open(path) as stream:
        content: bytes = stream.read()
        return content
