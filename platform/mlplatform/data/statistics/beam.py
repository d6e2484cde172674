"""Apache Beam as this platform uses it: imported without noise, with options that download nothing.

Importing this module imports Beam, which takes about a second: import it, and whatever imports it,
inside the command that needs it.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any


@contextmanager
def _without_apitools_warning() -> Iterator[None]:
    """Drop the warning that Google's API tools, which nothing here uses, are not installed."""

    def is_welcome(record: logging.LogRecord) -> bool:
        return "apitools not found" not in record.getMessage()

    root = logging.getLogger()
    root.addFilter(is_welcome)
    try:
        yield
    finally:
        root.removeFilter(is_welcome)


with _without_apitools_warning():
    import apache_beam
    import apache_beam.io.filesystems
    import apache_beam.options.pipeline_options

# Beam says that it is typed, but most of its functions are not.
beam: Any = apache_beam
FileSystems: Any = apache_beam.io.filesystems.FileSystems

# The plain DirectRunner may fetch a runner binary from the network; this one never does.  In its
# multi-threaded mode it was seen to lose elements on a busy machine, and it is no faster: what
# takes time here is Arrow and numpy.
LOCAL_OPTIONS = ("--runner=FnApiRunner", "--direct_running_mode=in_memory")


def pipeline_options(beam_options: Sequence[str] | None) -> Any:
    """Any runner's options, unchanged; the local ones when there are none."""
    flags = list(LOCAL_OPTIONS if beam_options is None else beam_options)
    return beam.options.pipeline_options.PipelineOptions(flags)
