"""What a run shows: progress while it goes, a table when it ends, a page that stays.

Enters: the stages' records and figures.  Leaves: text on the terminal, JSON for scripts, and
`report.html`, one file that needs nothing else.
"""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import jinja2
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table

from mlplatform import artifacts
from mlplatform.evaluation.metrics import Interval
from mlplatform.pipeline import Progress, Record, Workspace

if TYPE_CHECKING:
    from recsys.loop import Day

PAGE, LOOP = "report.html", "loop.json"
_PLAIN_SECONDS = 10.0


class Terminal:
    """Shows a run: bars on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bars = Bars(
            TextColumn("{task.description:<22}"),
            BarColumn(),
            TextColumn("{task.completed:,.0f}"),
            TimeElapsedColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
            transient=True,
        )

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def started(self, stage: str) -> Progress:
        if not self._console.is_terminal:
            return _PlainProgress(stage)
        return _BarProgress(self._bars, stage)

    def finished(self, record: Record) -> None:
        for task in self._bars.tasks:
            self._bars.remove_task(task.id)
        size = f"{record.figures.get('rows', 0):>13,} rows"
        how = "kept from before" if record.reused else f"{record.seconds:7.1f} s"
        line = f"{record.stage:<22}{size}  {how}"
        if self._console.is_terminal:
            self._bars.console.print(line, highlight=False)
        else:
            print(line, file=sys.stderr, flush=True)


class _BarProgress:
    def __init__(self, bars: Bars, stage: str) -> None:
        self._bars, self._task = bars, bars.add_task(stage, total=None)

    def expect(self, rows: int) -> None:
        self._bars.update(self._task, total=rows)

    def advance(self, rows: int) -> None:
        self._bars.advance(self._task, rows)


class _PlainProgress:
    def __init__(self, stage: str) -> None:
        self._stage, self._total, self._done = stage, 0, 0
        self._spoken = time.monotonic()

    def expect(self, rows: int) -> None:
        self._total = rows

    def advance(self, rows: int) -> None:
        self._done += rows
        if time.monotonic() - self._spoken > _PLAIN_SECONDS:
            self._spoken = time.monotonic()
            percent = 100 * self._done / max(self._total, 1)
            print(f"{self._stage:<22}{percent:5.0f} %", file=sys.stderr, flush=True)


def show(workspace: Workspace, records: Mapping[str, Record], *, as_json: bool) -> None:
    """Print what a run came to."""
    figures, answers = _results(workspace, records)
    page = workspace.root / PAGE
    version = records["push"].figures["version"]
    if as_json:
        content = {
            "version": version,
            "report": str(page),
            "stages": {name: vars(record) for name, record in records.items()},
            "figures": {name: vars(figure) for name, figure in figures.items()},
            "answers": answers,
        }
        print(json.dumps(content, indent=1))
        return
    console = Console(width=None if sys.stdout.isatty() else 110)
    for one in answers:
        console.print(f"\n[bold]POST /v1/recommendations[/] {json.dumps(one['request'])}")
        show_answer(one["answer"], as_json=False)
    table = Table("figure", "value", "95 % interval", title="On the later day, and in the world")
    for name, figure in figures.items():
        same = figure.low == figure.high
        interval = "" if same else f"{figure.low:.4f} to {figure.high:.4f}"
        whole = same and figure.value == round(figure.value)
        table.add_row(name, f"{figure.value:,.0f}" if whole else f"{figure.value:.4f}", interval)
    console.print(table)
    table = Table("stage", title="Stages")
    for column in ("rows", "seconds", "peak memory, MB"):
        table.add_column(column, justify="right")
    for record in records.values():
        seconds = "kept" if record.reused else f"{record.seconds:.1f}"
        rows = f"{record.figures.get('rows', 0):,}"
        table.add_row(record.stage, rows, seconds, f"{record.peak_mb:,.0f}")
    console.print(table)
    worked = sum(record.seconds for record in records.values() if not record.reused)
    peak = max(record.peak_mb for record in records.values())
    console.print(
        f"bundle version {version}, {worked:.0f} s of work, peak {peak:,.0f} MB\nreport: {page}",
        highlight=False,
    )


def show_days(workspace: Workspace, days: Sequence["Day"], *, as_json: bool) -> None:
    """Print what came of each day of the loop, and keep it as `loop.json`."""
    content = [asdict(day) for day in days]
    artifacts.write_file_atomically(workspace.root / LOOP, artifacts.to_json(content))
    if as_json:
        print(json.dumps(content, indent=1))
        return
    table = Table(title="Days of the loop")
    for column in (
        "day", "rows", "anomalies", "training, s", "AUC", "of current", "recall@100",
        "of current", "gate", "version", "installs/request",
    ):  # fmt: skip
        table.add_column(column, justify="right")
    for day in days:
        gate = "refused" if day.refused else "passed" if day.learned_from else ""
        metrics = [
            f"{day.figures[name]:.4f}" if name in day.figures else ""
            for name in ("AUC: system", "AUC: baseline", "recall@100 of all apps: system",
                         "recall@100 of all apps: baseline")
        ]  # fmt: skip
        table.add_row(
            str(day.day), f"{day.rows:,}", str(day.anomalies), f"{day.training_seconds:.1f}",
            *metrics, gate, str(day.version), f"{day.installs_per_request:.4f}",
        )  # fmt: skip
    console = Console(width=None if sys.stdout.isatty() else 130)
    console.print(table)
    for day in days:
        for line in day.refused:
            console.print(f"day {day.day}: {line}", highlight=False, markup=False)


def show_answer(answer: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(answer, indent=1))
        return
    if "error" in answer:
        print(f"error: {answer['error']}")
        return
    for place, app in enumerate(answer["apps"], start=1):
        score = f"{app['score']:.4f}" if "score" in app else f"{'':6}"
        print(f"{place:4} {score}  {app['title']:<32} {app['category']}")


def write_html(workspace: Workspace, records: Mapping[str, Record]) -> None:
    """Write `report.html` into the workspace."""
    figures, answers = _results(workspace, records)
    page = render(
        "report.html.j2",
        figures=figures,
        answers=answers,
        records=list(records.values()),
        version=records["push"].figures["version"],
        skew=_read_skew(workspace, records),
        blessing=artifacts.read_json(_artifact(workspace, records, "gate") / "blessing.json"),
    )
    artifacts.write_file_atomically(workspace.root / PAGE, page.encode())


def render(template: str, **values: Any) -> str:
    """A page from a template beside this file, which has to be given all that it names."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("recsys", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(template).render(**values)


def _results(
    workspace: Workspace, records: Mapping[str, Record]
) -> tuple[dict[str, Interval], list[dict[str, Any]]]:
    figures: dict[str, Interval] = {}
    for stage, name in (("evaluate", "figures.json"), ("measure_in_world", "world.json")):
        content = artifacts.read_json(_artifact(workspace, records, stage) / name)
        figures |= {key: Interval(**value) for key, value in content.items()}
    cost = _read_skew(workspace, records)["cost"]
    figures["log loss of impressions: as trained on"] = Interval(**cost["log_loss"])
    figures["log loss of impressions: as served - as trained on"] = Interval(
        **cost["together"]["log_loss"]
    )
    answers = artifacts.read_json(_artifact(workspace, records, "serve") / "answers.json")
    return figures, answers


def _read_skew(workspace: Workspace, records: Mapping[str, Record]) -> Any:
    return artifacts.read_json(_artifact(workspace, records, "compare_serving") / "skew.json")


def _artifact(workspace: Workspace, records: Mapping[str, Record], stage: str) -> Path:
    return workspace.artifact(stage, records[stage].fingerprint)
