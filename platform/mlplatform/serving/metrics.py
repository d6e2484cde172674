"""Metrics, as Prometheus reads them: what one worker counts, and all workers of a server together.

Enters: what was answered, and what the batches did, call by call.  Leaves: the text that any worker
may be asked for, about all of them.  Each worker keeps its counts in files of its own that are
mapped into memory (prometheus_client's multiprocess mode), so counting asks nobody, and what a
worker counted outlives it: totals never fall.

Every series costs memory for good, in every worker and in what reads them.  So labels have few
values: a route that is one too many counts as "other".
"""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mlplatform.errors import FailedPrecondition
from mlplatform.serving.batching import Ran

if TYPE_CHECKING:
    from prometheus_client import Counter

OTHER = "other"
_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_MOST_SERIES = 200  # of one name, in one process; a series of seconds is 20 numbers
_SECONDS = (
    *(0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05),
    *(0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 10.0),
)
_ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """This process's counts; to be used from one thread.

        mlplatform_request_seconds{route, status}   histogram, of each request
        mlplatform_batch_items                      histogram, of each batch
        mlplatform_batch_wait_seconds               histogram, how long the first of a batch waited
        mlplatform_batch_seconds                    histogram, how long it was computed
        mlplatform_expired_total                    items that were too late to be computed
        mlplatform_stage_seconds_total{stage}       spent in each part of the computation

    and an application's own counters.
    """

    def __init__(
        self, directory: Path | None, counters: Mapping[str, tuple[str, str]] | None = None
    ) -> None:
        """
        Args:
            directory: that all workers of a server share, and that exists; None for a process
                that counts for itself.
            counters: an application's, by name: what is counted, and the name of its label, ""
                for one without.  Its text has them as NAME_total.

        Raises:
            FailedPrecondition: another directory was chosen in this process, or none was and the
                library is loaded already.
        """
        _choose(directory)
        from prometheus_client import CollectorRegistry, Counter, Histogram

        self._directory = directory
        self._registry = CollectorRegistry()
        register = self._registry
        self._requests = Histogram(
            "mlplatform_request_seconds",
            "From a request's first byte to its answer.",
            ["route", "status"],
            buckets=_SECONDS,
            registry=register,
        )
        self._items = Histogram(
            "mlplatform_batch_items", "Computed at once.", buckets=_ITEMS, registry=register
        )
        self._wait = Histogram(
            "mlplatform_batch_wait_seconds",
            "That the first item of a batch waited.",
            buckets=_SECONDS,
            registry=register,
        )
        self._batch = Histogram(
            "mlplatform_batch_seconds",
            "That a batch took to compute.",
            buckets=_SECONDS,
            registry=register,
        )
        self._expired = Counter(
            "mlplatform_expired", "Items past their deadline, not computed.", registry=register
        )
        self._stages = _Counts(
            Counter(
                "mlplatform_stage_seconds",
                "Spent in each stage of the computation.",
                ["stage"],
                registry=register,
            )
        )
        self._counts = {
            name: _Counts(Counter(name, told, [label] if label else [], registry=register), label)
            for name, (told, label) in (counters or {}).items()
        }
        self._observe: dict[tuple[str, int | str], Callable[[float], None]] = {}

    def answered(self, route: str, status: int | str, seconds: float) -> None:
        """One request has its answer; a status is HTTP's number or gRPC's name."""
        observe = self._observe.get((route, status))
        if observe is None:
            if len(self._observe) >= _MOST_SERIES:
                route = OTHER
            observe = self._requests.labels(route, str(status)).observe
            if len(self._observe) < 2 * _MOST_SERIES:
                self._observe[route, status] = observe
        observe(seconds)

    def ran(self, ran: Ran) -> None:
        """The queue had a turn."""
        if ran.waits:
            self._items.observe(len(ran.waits))
            self._wait.observe(ran.waits[0])
            self._batch.observe(ran.seconds)
        if ran.expired:
            self._expired.inc(ran.expired)

    def stages(self, seconds: Mapping[str, float]) -> None:
        """What a computation spent, by stage."""
        for stage, spent in seconds.items():
            self._stages.add(stage, spent)

    def count(self, name: str, label: str = "", n: int = 1) -> None:
        """Count `n` of an application's.

        Raises:
            KeyError: no such counter was registered.
        """
        self._counts[name].add(label, n)

    def render(self) -> tuple[bytes, str]:
        """The text and its content type: of all workers that ever shared the directory."""
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
        from prometheus_client.multiprocess import MultiProcessCollector

        registry: CollectorRegistry = self._registry
        if self._directory is not None:
            registry = CollectorRegistry()
            MultiProcessCollector(registry, str(self._directory))  # type: ignore[no-untyped-call]
        return generate_latest(registry), CONTENT_TYPE_LATEST

    def close(self) -> None:
        """This process counts no more; what it counted stays."""
        if self._directory is not None:
            from prometheus_client.multiprocess import mark_process_dead

            mark_process_dead(os.getpid(), str(self._directory))  # type: ignore[no-untyped-call]


class _Counts:
    """A counter's series, found by label once and kept."""

    def __init__(self, counter: "Counter", label: str = "label") -> None:
        self._counter = counter
        self._add: dict[str, Callable[[float], None]] = {} if label else {"": counter.inc}

    def add(self, label: str, n: float) -> None:
        add = self._add.get(label)
        if add is None:
            full = len(self._add) >= _MOST_SERIES
            add = self._counter.labels(OTHER if full else label).inc
            if not full:
                self._add[label] = add
        add(n)


def _choose(directory: Path | None) -> None:
    """Have the library count in this directory, which it decides once, when it is loaded."""
    loaded = "prometheus_client" in sys.modules
    chosen = os.environ.get(_VARIABLE)
    if directory is None or chosen == str(directory):
        return
    if loaded or chosen is not None:
        raise FailedPrecondition(
            f"metrics: expected to count in {directory}, but this process counts "
            f"{'by itself' if chosen is None else f'in {chosen}'}; make its Metrics before "
            f"prometheus_client is imported, and leave {_VARIABLE} unset"
        )
    os.environ[_VARIABLE] = str(directory)
