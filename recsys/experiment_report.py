"""What an experiment shows: a table when it ends, JSON for scripts, a page that stays.

Enters: figures by seed.  Leaves: text on the terminal, `experiment.json`, and `experiment.html`,
one file that needs nothing else.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mlplatform.artifacts import to_json, write_file_atomically
from mlplatform.evaluation.metrics import Interval
from recsys import experiment_pictures as pictures
from recsys.config import RunConfig
from recsys.experiment import AS_LOGGED, FAULT, FIXED, SEVERITIES, SKEWED
from recsys.experiment_figures import AA, Compared, Figures, over_seeds
from recsys.report import render

JSON, PAGE = "experiment.json", "experiment.html"
HEADLINE = (FIXED, AS_LOGGED, AA)
_UNIT = "installs per request, % of the arm with the skew"


def content_of(config: RunConfig, runs: Mapping[int, Figures]) -> dict[str, Any]:
    """All of an experiment, as JSON has it; every seed that was run is in it."""

    def over(name: str, way: str) -> dict[str, float]:
        effects = [getattr(run.compared[name], way).relative.value for run in runs.values()]
        return asdict(over_seeds(effects))

    ways = ("paired", "unpaired")
    several = HEADLINE if len(runs) > 1 else ()
    headline = {name: {way: over(name, way) for way in ways} for name in several}
    return {
        "world": config.world.model_dump(mode="json"),
        "seeds": list(runs),
        "headline over seeds": headline,
        "runs": {str(seed): asdict(run) for seed, run in runs.items()},
    }


def show(
    root: Path,
    config: RunConfig,
    runs: Mapping[int, Figures],
    drills: Mapping[str, Any] | None,
    *,
    as_json: bool,
) -> None:
    """Print what an experiment came to, and keep it as `experiment.json` and as a page.

    drills: what `storeloop drill` left, for the page.
    """
    content = content_of(config, runs)
    write_file_atomically(root / JSON, to_json(content))
    write_file_atomically(root / PAGE, _page(content, runs, drills).encode())
    if as_json:
        print(json.dumps(content, indent=1))
        return
    console = Console(width=None if sys.stdout.isatty() else 140)
    for seed, run in runs.items():
        for table in (_skews(seed, run), _effects(seed, run), _controls(seed, run)):
            console.print(table)
    if len(runs) > 1:
        console.print(_over_seeds(content))
    console.print(f"figures: {root / JSON}\nreport: {root / PAGE}", highlight=False)


def _over_seeds(content: Mapping[str, Any]) -> Table:
    seeds = len(content["seeds"])
    table = Table(title=f"Over {seeds} seeds, by Student's t: installs per request, relative")
    for column in ("arm against the skewed", "paired", "unpaired"):
        table.add_column(column)
    for name, ways in content["headline over seeds"].items():
        table.add_row(name, *(in_percent(Interval(**ways[way])) for way in ("paired", "unpaired")))
    return table


def _page(
    content: Mapping[str, Any], runs: Mapping[int, Figures], drills: Mapping[str, Any] | None
) -> str:
    seed, *_ = runs
    first = runs[seed]
    effects = {name: _ways(one) for name, one in first.compared.items() if name in HEADLINE}
    return render(
        "experiment.html.j2",
        first=content["runs"][str(seed)],
        headline=_headline(content, first),
        seeds=content["seeds"],
        world=content["world"],
        rates=pictures.bars(
            {name: one["installs per request"] for name, one in first.rates.items()},
            "installs per request",
        ),
        effects=pictures.forest(list(effects.items()), _UNIT),
        drills=drills,
        by_seed=_by_seed(content, runs) if len(runs) > 1 else "",
        sweep=_sweep(first) if f"{FAULT}-{SEVERITIES[0]}" in first.compared else "",
    )


def _headline(content: Mapping[str, Any], first: Figures) -> dict[str, Any]:
    """Over seeds, or of a single one over its users."""
    if len(content["seeds"]) > 1:
        found: dict[str, Any] = content["headline over seeds"]
        return found
    return {FIXED: {"paired": asdict(first.compared[FIXED].paired.relative)}}


def _by_seed(content: Mapping[str, Any], runs: Mapping[int, Figures]) -> str:
    rows = [(f"seed {seed}", _ways(run.compared[FIXED])) for seed, run in runs.items()]
    over = content["headline over seeds"][FIXED]
    mean = {way: _scaled(Interval(**one)) for way, one in over.items()}
    return pictures.forest([*rows, ("mean", mean)], _UNIT)


def _sweep(first: Figures) -> str:
    """What it is worth to remove the fault, and what the log says of it, by its severity."""
    names = (*(f"{FAULT}-{one}" for one in SEVERITIES), SKEWED)
    by_chance = [first.skews[name]["apps lost"]["by chance"] for name in names]
    return pictures.sweep(
        (*SEVERITIES, 1.0),
        {
            "installs per request, % more without it": [
                _scaled(first.removed[name].paired.relative) for name in names
            ],
            "predicted log loss, nats": [
                Interval(**first.skews[name]["together"]) for name in names
            ],
            "% of rows shown by chance that differ": [
                _scaled(Interval(share, share, share)) for share in by_chance
            ],
        },
    )


def _ways(one: Compared) -> dict[str, Interval]:
    return {
        "paired": _scaled(one.paired.relative),
        "unpaired": _scaled(one.unpaired.relative),
    }


def _scaled(one: Interval) -> Interval:
    return Interval(100 * one.value, 100 * one.low, 100 * one.high)


def _skews(seed: int, run: Figures) -> Table:
    """What the log of the day with the fault shows."""
    table = Table(title=f"Seed {seed}: the log of a day with the fault")
    for column in (
        "feature", "rows that differ", "by chance", "predicted change of log loss", "distribution",
    ):  # fmt: skip
        table.add_column(column)
    skew = run.skews[SKEWED]
    for one in skew["features"]:
        differs = "differs" if one["name"] in skew["marginal"] else ""
        chance = "" if one["by chance"] is None else f"{one['by chance']:.1%}"
        table.add_row(one["name"], f"{one['share']:.1%}", chance, _nats(one["cost"]), differs)
    table.add_row("all together", "", "", _nats(skew["together"]), "")
    return table


def _effects(seed: int, run: Figures) -> Table:
    table = Table(title=f"Seed {seed}: installs per request against the arm with the fault")
    columns = ("arm", "installs/request", "of the gap", "paired", "unpaired", "detectable")
    for column in columns:
        table.add_column(column)
    for name, one in run.compared.items():
        share = run.share_of_gap.get(f"share {name}")
        table.add_row(
            name, f"{one.paired.treatment:.4f}", f"{share.value:.3f}" if share else "",
            in_percent(one.paired.relative), in_percent(one.unpaired.relative),
            f"{one.detectable:.1%}",
        )  # fmt: skip
    return table


def _controls(seed: int, run: Figures) -> Table:
    """Of each fault: what the log says, and what it is worth to remove it."""
    table = Table(
        title=f"Seed {seed}: faults removed, installs per request against the arm with it"
    )
    for column in (
        "fault", "distributions differ", "apps' rows", "by chance", "predicted log loss",
        "paired", "unpaired",
    ):  # fmt: skip
        table.add_column(column)
    for name, one in run.removed.items():
        skew = run.skews[name]
        table.add_row(
            name, ", ".join(skew["marginal"]) or "none",
            *(f"{skew['apps lost'][rows]:.1%}" for rows in ("shown", "by chance")),
            _nats(skew["together"]),
            in_percent(one.paired.relative), in_percent(one.unpaired.relative),
        )  # fmt: skip
    return table


def _nats(cost: Mapping[str, float]) -> str:
    return f"{cost['value']:+.5f} [{cost['low']:+.5f}, {cost['high']:+.5f}]"


def in_percent(one: Interval) -> str:
    return f"{100 * one.value:+.2f} % [{100 * one.low:+.2f}, {100 * one.high:+.2f}]"
