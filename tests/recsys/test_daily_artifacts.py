"""Artifacts of days: who reads which, and what a branch keeps to itself."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mlplatform.pipeline import Context, Progress, Record, Workspace
from recsys.config import RunConfig, load_config
from recsys.daily_artifacts import DailyArtifacts


class Silent:
    def started(self, stage: str) -> Progress:
        return self  # type: ignore[return-value]

    def finished(self, record: Record) -> None:
        pass


def simulate_days(word: str, context: Context) -> Mapping[str, Any]:
    return note(word, context)


def answer_day(word: str, context: Context) -> Mapping[str, Any]:
    return note(word, context)


def note(word: str, context: Context) -> Mapping[str, Any]:
    """Write what was read, and a word behind it."""
    read = [(path / "said").read_text() for path in context.inputs.values()]
    (context.output / "said").write_text("+".join([*read, word]))
    return {"rows": 1}


@pytest.fixture
def days(tmp_path: Path) -> DailyArtifacts:
    return DailyArtifacts(Workspace(tmp_path), Silent(), {})


def config() -> RunConfig:
    return load_config("tiny")


def said(days: DailyArtifacts, kind: str) -> str:
    return (days.path(kind) / "said").read_text()


def test_a_day_takes_the_place_of_what_it_follows(days: DailyArtifacts) -> None:
    days.make(1, config(), partial(simulate_days, "log"), ())
    for number in (2, 3):
        days.make(number, config(), partial(answer_day, f"day {number}"), ("simulate_days",))
    assert said(days, "simulate_days") == said(days, "answer_day") == "log+day 2+day 3"
    assert days.path("answer_day").parent.name == "answer_day@3"


def test_a_branch_goes_on_from_what_was_and_touches_nobody_else(days: DailyArtifacts) -> None:
    days.make(1, config(), partial(simulate_days, "log"), ())
    one, other = days.branch("one"), days.branch("other")
    one.make(2, config(), partial(answer_day, "one"), ("simulate_days",))
    other.make(2, config(), partial(answer_day, "other"), ("simulate_days",))
    one.make(3, config(), partial(answer_day, "more"), ("simulate_days",))
    assert said(one, "simulate_days") == "log+one+more"
    assert said(other, "simulate_days") == "log+other"
    assert said(days, "simulate_days") == "log"
    assert one.path("answer_day").parent.name == "answer_day@3.one"
