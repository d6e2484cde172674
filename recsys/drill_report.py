"""What drills show: the price of each guard, as a table, as JSON and as a part of the page.

Enters: artifacts and what the guards said.  Leaves: text on the terminal and `drills.json`.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from mlplatform.artifacts import to_json, write_file_atomically
from mlplatform.evaluation.ab_test import Outcomes, paired
from mlplatform.evaluation.metrics import Interval
from recsys.config import RunConfig
from recsys.drills import (
    AGE,
    GATE,
    LOADER,
    LOG,
    READING,
    SOUND,
    TRAINING,
    VALIDATION,
    Drill,
    Drills,
)
from recsys.experiment_report import in_percent
from recsys.stages.arms import read_outcomes

JSON = "drills.json"
# How long a fault is there before a guard speaks, by guard.
WHEN = {
    VALIDATION: "before it is learned",
    TRAINING: "before it serves",
    GATE: "before it serves",
    LOADER: "before it serves",
    READING: "when it is served first",
    LOG: "after a day of serving",
    AGE: "on the second morning",
}
NOTHING = Interval(0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Price:
    """One fault: changes of installs per request, relative to the sound arm, paired by user.

    caught: the guards that spoke, the first one first.  when: it did.
    without: each day without a guard; None where nothing would have come to serve.
    guarded: of the arm that serves instead; where the guard speaks a day late it is that day.
    worth: what the guard gains a day, from when it has spoken, as a share of the sound arm's.
    """

    name: str
    caught: Sequence[str]
    when: str
    said: Sequence[str]
    without: Interval | None
    guarded: Interval
    worth: Interval | None


def prices_of(found: Drills) -> list[Price]:
    outcomes = {name: _outcomes(path) for name, path in found.arms.items()}
    return [_price(drill, outcomes) for drill in found.drills]


def show(root: Path, config: RunConfig, found: Drills, *, as_json: bool) -> None:
    """Print what the drills came to, and keep it as `drills.json`."""
    prices = prices_of(found)
    content = {
        "world": config.world.model_dump(mode="json"),
        "seed": config.seed,
        "day": found.day,
        "without a fault": found.quiet,
        "drills": [asdict(price) for price in prices],
    }
    write_file_atomically(root / JSON, to_json(content))
    if as_json:
        print(json.dumps(content, indent=1))
        return
    console = Console(width=None if sys.stdout.isatty() else 150)
    console.print(_table(prices))
    for guard, lines in found.quiet.items():
        said = "; ".join(lines) or "nothing"
        console.print(f"without a fault, {guard} says: {said}", highlight=False, markup=False)
    console.print(f"figures: {root / JSON}", highlight=False)


def _outcomes(path: Path) -> Outcomes:
    arrays = read_outcomes(path)
    came = np.flatnonzero(arrays["requests"])
    return Outcomes(arrays["installs"][came], arrays["requests"][came])


def _price(drill: Drill, arms: Mapping[str, Outcomes]) -> Price:
    sound = arms[SOUND]
    faulty = None if drill.answered is None else _outcomes(drill.answered)
    without = None if faulty is None else paired(faulty, sound).relative
    after = arms[drill.guarded or SOUND]
    guarded = NOTHING if drill.guarded == SOUND else paired(after, sound).relative
    if drill.guarded is None and without is not None:
        guarded = without
    caught = [guard for guard, lines in drill.said.items() if lines]
    return Price(
        drill.name,
        caught,
        WHEN[caught[0]] if caught else "",
        [f"{guard}: {line}" for guard, lines in drill.said.items() for line in lines],
        without,
        guarded,
        None if faulty is None else _gain(after, faulty, sound),
    )


def _gain(after: Outcomes, faulty: Outcomes, sound: Outcomes) -> Interval:
    """Of one arm over another, as a share of a third one's installs per request."""
    gained = paired(after, faulty).difference
    return Interval(*(one / sound.ratio for one in (gained.value, gained.low, gained.high)))


def _table(prices: Sequence[Price]) -> Table:
    table = Table(title="Drills: installs per request against the day without a fault, paired")
    for column in (
        "drill", "caught by", "when", "a day without the guard", "with it",
        "the guard is worth",
    ):  # fmt: skip
        table.add_column(column)
    for price in prices:
        table.add_row(
            price.name, ", ".join(price.caught) or "nothing", price.when,
            _percent(price.without), _percent(price.guarded), _percent(price.worth),
        )  # fmt: skip
    return table


def _percent(one: Interval | None) -> str:
    if one is None:
        return "does not serve"
    if one == NOTHING:
        return "0"
    return in_percent(one)


def read_prices(root: Path) -> dict[str, Any] | None:
    """What was kept of the last drills; None where there were none."""
    path = root / JSON
    return json.loads(path.read_bytes()) if path.exists() else None
