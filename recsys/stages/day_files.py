"""The files that a served day leaves in an artifact: its events by day, its log.

events/day=NNN/{requests,impressions,installs}.parquet   of this day and all before it
log/{requests,impressions}.parquet                       features as served, of this day
"""

from pathlib import Path

import pyarrow as pa

from data_gen.memory import Memory
from data_gen.sessions import Day
from mlplatform.artifacts import link_tree
from mlplatform.data.files.spans import read_parquet, write_parquet
from mlplatform.pipeline import Context
from recsys import examples
from recsys.serving_log import Served
from recsys.stages.data import EVENTS, LOGGED, TRUTH

LOG = "log"


def events_of(artifact: Path, day: int) -> Path:
    """Where an artifact keeps a day's events."""
    return artifact / EVENTS / f"day={day:03d}"


def write_events(output: Path, day: int, played: Day) -> None:
    folder = events_of(output, day)
    folder.mkdir(parents=True)
    for name in examples.EVENT_TABLES:
        write_parquet(getattr(played, name), folder / f"{name}.parquet")


def write_end(context: Context, day: int, played: Day, memory: Memory) -> None:
    """A whole day's events, behind those of the days before, and the world as it is afterwards."""
    for before in range(day):
        known = events_of(context.inputs["simulate_days"], before)
        link_tree(known, events_of(context.output, before))
    write_events(context.output, day, played)
    (context.output / TRUTH).mkdir()
    memory.save(context.output / TRUTH)


def write_log(output: Path, served: Served, before: Path | None = None) -> None:
    """The log of some hours, behind that of an artifact of the hours before."""
    (output / LOG).mkdir()
    for name in LOGGED:
        tables = [getattr(served, name)]
        if before is not None:
            tables.insert(0, read_parquet(before / LOG / f"{name}.parquet"))
        write_parquet(pa.concat_tables(tables), output / LOG / f"{name}.parquet")
