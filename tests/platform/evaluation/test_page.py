"""The page shows every figure, needs nothing else, and takes names as names."""

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

from mlplatform.evaluation.figures import CalibrationBin, Evaluation, Slice, WorstSlice
from mlplatform.evaluation.metrics import Interval
from mlplatform.evaluation.page import SIDE, WIDTH, render, write_page

NAN = float("nan")
WHERE = (("country", "<b>BR"),)
FIGURES = {
    "AUC: new": Interval(0.71234, 0.7, 0.72),
    "AUC: old": Interval(0.65, 0.64, 0.66),
    "mean label": Interval(0.2, 0.19, 0.21),
    "AUC: new - old": Interval(0.06234, 0.05, 0.07),
}
NOTHING = dict.fromkeys(FIGURES, Interval(NAN, NAN, NAN))
EVALUATION = Evaluation(
    models=("new", "old"),
    overall=Slice((), 12_000, 700, FIGURES),
    slices={
        "country=<b>BR": Slice(WHERE, 9_000, 500, FIGURES),
        "country=DE": Slice((("country", "DE"),), 3_000, 12, NOTHING),
    },
    dropped=7,
    worst=(WorstSlice(WHERE, "old", 9_000, Interval(0.0123, 0.01, 0.02), 0.0004),),
    roc={"new": ((0.0, 0.0), (0.25, 0.75), (1.0, 1.0))},
    calibration={
        "new": (
            CalibrationBin(0.001, Interval(0.0, 0.0, 0.0), 3),
            CalibrationBin(0.5, Interval(0.5, 0.4, 0.6), 900),
        )
    },
)


def test_the_page_shows_figures_and_asks_for_nothing_from_elsewhere() -> None:
    page = render(EVALUATION, "Later day")
    for text in (
        "<h1>Later day</h1>", "12,000 rows of 700 users", "7 more too small", "0.7123",
        "0.7000 to 0.7200", "0.0623", "mean label", "0.0123", "0.0004", "75.0 %", "none",
    ):  # fmt: skip
        assert text in page, text
    assert not re.search(r"https?:|src=|<script|@import|url\(", page)
    assert "prefers-color-scheme: dark" in page


def test_a_value_is_never_markup() -> None:
    page = render(EVALUATION, "a < b")
    assert "<b>BR" not in page and page.count("country=&lt;b&gt;BR") == 2
    assert "<h1>a &lt; b</h1>" in page


def test_figures_are_drawn_to_scale() -> None:
    page = render(EVALUATION, "x")
    drawings = [ElementTree.fromstring(one) for one in re.findall(r"<svg.*?</svg>", page, re.S)]
    calibration, roc, worst, overall, difference, *_ = drawings
    (line,) = roc.iter("polyline")
    assert line.get("points") == f"0.0,{SIDE:.1f} {SIDE / 4:.1f},{SIDE / 4:.1f} {SIDE:.1f},0.0"
    (line,) = calibration.iter("polyline")  # the bin in which nothing came true has no place
    assert line.get("points") == f"{SIDE / 2:.1f},{SIDE / 2:.1f}"
    (dot,) = overall.iter("circle")
    assert float(dot.get("cx", "")) == round(6 + (WIDTH - 12) * 0.01234 / 0.02, 1)
    assert dot.get("class") is None  # all rows do not differ from themselves
    (dot,) = difference.iter("circle")
    assert dot.get("class") == "sure"
    (dot,) = worst.iter("circle")
    assert float(dot.get("cx", "")) == round(6 + (WIDTH - 12) * 0.0123 / 0.02, 1)


def test_a_page_of_next_to_nothing_is_a_page(tmp_path: Path) -> None:
    bare = replace(
        EVALUATION, slices={}, worst=(), roc={}, calibration={}, dropped=0, models=("new",),
        overall=Slice((), 0, 0, NOTHING),
    )  # fmt: skip
    write_page(bare, tmp_path / "page.html", "Nothing")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "0 rows of 0 users" in page and "<h2>Slices" not in page and "<svg" not in page
