"""One Beam pass over the pieces of some data sets: summarise, merge by key, encode.

Enters: pieces of files, and three functions that say what is wanted of them.  Leaves: the encoded
results, laid end to end.  Importing this module imports Beam.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any
from uuid import uuid4

from mlplatform import errors
from mlplatform.data.files.shards import Piece
from mlplatform.data.statistics.beam import FileSystems, beam, pipeline_options

Keyed = tuple[Any, Any]  # key, summary
_RESULTS, _REFUSED = "results", "refused"


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
        PlatformError: what `summarise` raised of this tree; one line, whatever the runner.
    """
    options = pipeline_options(beam_options)
    location = options.get_all_options().get("temp_location") or tempfile.gettempdir()
    folder = FileSystems.join(location, f"pieces-{uuid4().hex}")
    FileSystems.mkdirs(folder)

    def checked(piece: Piece) -> Iterator[Any]:
        # That a piece is refused is a result, not an exception: runners wrap and repeat exceptions,
        # and one clear line has to reach the caller.
        try:
            summaries = list(summarise(piece))
        except errors.PlatformError as error:
            line = f"{type(error).__name__} {error}".replace("\n", " ") + "\n"
            yield beam.pvalue.TaggedOutput(_REFUSED, (_REFUSED, line.encode()))
        else:
            yield from summaries

    try:
        with beam.Pipeline(options=options) as pipeline:
            read = (
                pipeline
                | "Pieces" >> beam.Create(pieces)
                | "Spread" >> beam.Reshuffle()
                | "Summarise" >> beam.FlatMap(checked).with_outputs(_REFUSED, main=_RESULTS)
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
                (results, read[_REFUSED])
                | "All" >> beam.Flatten()
                | "Gather" >> beam.GroupByKey()
                | "Write" >> beam.Map(_write, folder)
            )
        if refused := _read(folder, _REFUSED):
            name, line = min(refused.decode().splitlines()).split(" ", 1)
            raise getattr(errors, name)(line)
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
