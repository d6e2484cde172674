"""The gate: what it refuses, what it lets through, and what its record says of both."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.errors import GateRefused, InvalidArgument
from mlplatform.evaluation.gate import (
    ALL_ROWS,
    FAILED,
    NOT_COMPARED,
    PASSED,
    TOO_SMALL,
    EverySlice,
    Threshold,
    Where,
    judge,
    require_blessed,
    with_check,
)
from mlplatform.evaluation.metrics import Interval


@dataclass(frozen=True)
class Rows:
    """Some rows as an evaluation tells of them."""

    figures: Mapping[str, Interval]
    users: int = 1000
    where: Where = ALL_ROWS


FILES = {"weights": "ab12"}
AUC, LOSS = Interval(0.7, 0.65, 0.75), Interval(0.4, 0.3, 0.5)
NAN = Interval(math.nan, math.nan, math.nan)
ABSOLUTE = Threshold("auc", "better than chance", evaluation="ranking", above=0.5)
GAIN = Threshold("auc: a - baseline", "no step back", evaluation="ranking", above=-0.01)
BY_COUNTRY = EverySlice(("country",), least_users=100)


def on_auc(**of_threshold: Any) -> Threshold:
    return Threshold("auc", "r", evaluation="ranking", **of_threshold)


def ranking(*slices: Rows, **figures: Interval) -> dict[str, list[Rows]]:
    """An evaluation of all rows, and of more slices."""
    return {"ranking": [Rows({"auc": AUC, "loss": LOSS} | figures, 5000), *slices]}


def by_country(
    intervals: Mapping[str, Interval], users: Mapping[str, int] | None = None
) -> dict[str, list[Rows]]:
    """All rows, and the AUC of some countries."""
    return ranking(
        *(
            Rows({"auc": auc}, (users or {}).get(country, 1000), (("country", country),))
            for country, auc in intervals.items()
        )
    )


def refusal(record: Mapping[str, Any]) -> list[str]:
    """The lines below the first one of what stops a record's bundle."""
    with pytest.raises(GateRefused) as caught:
        require_blessed(record)
    first, *lines = str(caught.value).splitlines()
    assert first == "the gate refused the bundle, the version in service stays:"
    return lines


def test_the_record_of_a_blessed_bundle_says_what_was_checked() -> None:
    record = judge(ranking(), [ABSOLUTE], FILES, baseline="version 3")
    all_rows = {
        "where": "all rows",
        "value": 0.7,
        "low": 0.65,
        "high": 0.75,
        "users": 5000,
        "passed": True,
    }
    assert record == {
        "blessed": True,
        "baseline": "version 3",
        "checks": [
            {
                "evaluation": "ranking",
                "figure": "auc",
                "above": 0.5,
                "below": None,
                "why": "better than chance",
                "where": "all rows",
                "outcome": PASSED,
                "slices": [all_rows],
                "skipped": 0,
            }
        ],
        "parts": [],
        "files": FILES,
    }
    require_blessed(record)


@pytest.mark.parametrize(
    ("bounds", "passes"),
    [
        ({"above": 0.64}, True),
        ({"above": 0.65}, False),  # the low end itself
        ({"above": 0.68}, False),  # below the value, above the low end
        ({"below": 0.76}, True),
        ({"below": 0.75}, False),  # the high end itself
        ({"below": 0.72}, False),  # above the value, below the high end
        ({"above": 0.64, "below": 0.76}, True),
        ({"above": 0.64, "below": 0.72}, False),
        ({"above": 0.68, "below": 0.76}, False),
    ],
)
def test_the_ends_of_the_interval_decide_and_not_the_value(
    bounds: dict[str, float], passes: bool
) -> None:
    record = judge(ranking(), [ABSOLUTE, on_auc(**bounds)], FILES, None)
    assert record["blessed"] is passes
    assert [check["outcome"] for check in record["checks"]] == [
        PASSED,
        PASSED if passes else FAILED,
    ]


HUNDREDTHS = st.integers(-200, 200).map(lambda n: n / 100)


@st.composite
def inside(draw: st.DrawFn) -> tuple[Interval, dict[str, float]]:
    """An interval, and one bound or two that it lies inside of."""
    low, value, high = sorted(draw(st.tuples(HUNDREDTHS, HUNDREDTHS, HUNDREDTHS)))
    room = st.integers(1, 100).map(lambda n: n / 100)
    bounds = {"above": low - draw(room), "below": high + draw(room)}
    kept = draw(st.sampled_from([["above"], ["below"], ["above", "below"]]))
    return Interval(value, low, high), {name: bounds[name] for name in kept}


@settings(deadline=None, max_examples=100)
@given(st.lists(inside(), min_size=1, max_size=4), st.data())
def test_a_model_inside_every_bound_is_blessed_and_one_bound_moved_across_refuses_by_its_name(
    cases: list[tuple[Interval, dict[str, float]]], data: st.DataObject
) -> None:
    evaluations = {f"e{i}": [Rows({f"f{i}": interval})] for i, (interval, _) in enumerate(cases)}
    thresholds = [
        Threshold(f"f{i}", f"why {i}", evaluation=f"e{i}", **bounds)
        for i, (_, bounds) in enumerate(cases)
    ]
    assert judge(evaluations, thresholds, FILES, None)["blessed"]
    for i, (interval, bounds) in enumerate(cases):
        for name in bounds:
            across = data.draw(st.sampled_from([interval.low, interval.value, interval.high]))
            moved = [*thresholds]
            moved[i] = replace(moved[i], **{name: across})
            record = judge(evaluations, moved, FILES, None)
            assert not record["blessed"]
            (line,) = refusal(record)
            assert line.startswith(f"  e{i}, f{i}, all rows: ") and line.endswith(f": why {i}")


@settings(deadline=None)
@given(
    st.lists(HUNDREDTHS, min_size=4, max_size=4).map(sorted),
    st.lists(HUNDREDTHS, min_size=2, max_size=2, unique=True).map(sorted),
    st.sampled_from([["above"], ["below"], ["above", "below"]]),
)
def test_knowing_less_never_helps(ends: list[float], bounds: list[float], names: list[str]) -> None:
    outer, inner = Interval(ends[1], ends[0], ends[3]), Interval(ends[1], ends[1], ends[2])
    threshold = on_auc(
        **{name: x for name, x in zip(("above", "below"), bounds, strict=True) if name in names}
    )
    wide, narrow = (
        judge(ranking(auc=interval), [threshold], FILES, None)["blessed"]
        for interval in (outer, inner)
    )
    assert narrow or not wide


def test_a_leak_alarm_goes_off_when_a_leak_cannot_be_excluded() -> None:
    alarm = replace(GAIN, why="look for a leaked label", above=None, below=0.1)
    for gain, blessed in (
        (Interval(0.02, 0.01, 0.03), True),
        (Interval(0.30, 0.28, 0.32), False),
        (Interval(0.06, -0.1, 0.22), False),  # few rows: it could be 0.2
    ):
        found = ranking(**{GAIN.figure: gain})
        assert judge(found, [ABSOLUTE, alarm], FILES, "version 3")["blessed"] is blessed


@pytest.mark.parametrize("bounds", [{"above": -1e300}, {"below": 1e300}])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("end", ["value", "low", "high"])
def test_what_is_not_a_finite_number_is_refused_and_its_record_is_still_json(
    bounds: dict[str, float], bad: float, end: str
) -> None:
    figures = ranking(auc=replace(AUC, **{end: bad}))
    record = judge(figures, [on_auc(**bounds)], FILES, None)
    assert not record["blessed"]
    stored = json.loads(json.dumps(record, allow_nan=False))
    assert stored == record and stored["checks"][0]["slices"][0][end] is None
    (line,) = refusal(stored)
    assert "auc, all rows: not a number, must be " in line


def test_an_interval_that_ends_before_it_begins_is_refused() -> None:
    figures = ranking(auc=Interval(0.7, 0.75, 0.65))
    assert not judge(figures, [on_auc(above=0.1, below=0.9)], FILES, None)["blessed"]


def test_numbers_of_numpy_are_stored_as_json_has_them() -> None:
    auc = Interval(*np.array([0.5, 0.25, 0.75], np.float32))
    figures = {"ranking": [Rows({"auc": auc}, np.int64(7))]}  # type: ignore[arg-type]
    record = judge(figures, [on_auc(above=0.1)], FILES, None)
    (kept,) = json.loads(json.dumps(record))["checks"][0]["slices"]
    expected = {"value": 0.5, "low": 0.25, "high": 0.75, "users": 7, "passed": True}
    assert kept == {"where": "all rows"} | expected


def test_a_first_model_is_compared_with_nothing_and_the_record_says_so() -> None:
    record = judge(ranking(), [ABSOLUTE, GAIN], FILES, baseline=None)
    assert record["blessed"] and record["baseline"] is None
    _, compared = record["checks"]
    assert compared["outcome"] == NOT_COMPARED == "not compared: no baseline"
    assert compared["slices"] == []


def test_without_a_baseline_the_other_thresholds_still_bind() -> None:
    record = judge(ranking(), [GAIN, replace(ABSOLUTE, above=0.7)], FILES, baseline=None)
    assert refusal(record) == [
        "  ranking, auc, all rows: 0.7000 [0.6500, 0.7500], must be above 0.7: better than chance"
    ]


def test_with_a_baseline_a_comparison_binds_and_has_to_be_there() -> None:
    worse = ranking(**{GAIN.figure: Interval(0.0, -0.02, 0.02)})
    assert refusal(judge(worse, [ABSOLUTE, GAIN], FILES, "version 3")) == [
        "  ranking, auc: a - baseline, all rows: 0.0000 [-0.0200, 0.0200], "
        "must be above -0.01: no step back"
    ]
    with pytest.raises(InvalidArgument, match=r"'auc: a - baseline' of evaluation 'ranking'.*meas"):
        judge(ranking(), [ABSOLUTE, GAIN], FILES, "version 3")


def test_comparisons_without_a_baseline_are_an_error_and_not_let_through() -> None:
    compared = ranking(**{GAIN.figure: Interval(-0.5, -0.6, -0.4)})
    with pytest.raises(InvalidArgument, match=r"got 'auc: a - baseline' of evaluation 'ranking'"):
        judge(compared, [ABSOLUTE, GAIN], FILES, baseline=None)


@pytest.mark.parametrize("baseline", [None, "version 3"])
@pytest.mark.parametrize("thresholds", [[], [GAIN], [replace(ABSOLUTE, where=BY_COUNTRY), GAIN]])
def test_a_gate_that_could_not_refuse_a_first_model_is_an_error(
    thresholds: list[Threshold], baseline: str | None
) -> None:
    figures = by_country({"BR": AUC}, users={"BR": 99})  # too small to be judged
    if baseline:
        figures["ranking"][0] = Rows({GAIN.figure: Interval(0.1, 0.0, 0.2)})
    with pytest.raises(InvalidArgument, match=f"alone, got none among {len(thresholds)}; add one"):
        judge(figures, thresholds, FILES, baseline)


def test_slices_with_too_few_users_are_counted_and_not_judged() -> None:
    intervals = {"BR": AUC, "DE": AUC, "IS": NAN, "MT": Interval(0.1, 0.0, 0.2)}
    figures = by_country(intervals, users={"BR": 100, "DE": 101, "IS": 99, "MT": 0})
    record = judge(figures, [ABSOLUTE, on_auc(above=0.6, where=BY_COUNTRY)], FILES, None)
    check = record["checks"][1]
    assert record["blessed"] and check["outcome"] == PASSED and check["skipped"] == 2
    assert check["where"] == "every slice by country with 100 users or more"
    assert [(one["where"], one["users"]) for one in check["slices"]] == [
        ("country=BR", 100),
        ("country=DE", 101),
    ]


def test_a_threshold_whose_slices_are_all_too_small_did_not_pass() -> None:
    figures = by_country({"BR": NAN, "DE": NAN}, users={"BR": 9, "DE": 9})
    record = judge(figures, [ABSOLUTE, on_auc(above=0.6, where=BY_COUNTRY)], FILES, None)
    assert record["blessed"]
    assert record["checks"][1]["outcome"] == TOO_SMALL and record["checks"][1]["skipped"] == 2


def test_one_bad_slice_of_many_refuses_and_is_named() -> None:
    figures = by_country({"BR": AUC, "DE": Interval(0.55, 0.5, 0.6), "FR": AUC})
    record = judge(figures, [ABSOLUTE, on_auc(above=0.6, where=BY_COUNTRY)], FILES, None)
    assert refusal(record) == [
        "  ranking, auc, country=DE: 0.5500 [0.5000, 0.6000], must be above 0.6: r"
    ]


def test_every_slice_by_some_columns_leaves_parents_and_crosses_alone() -> None:
    bad, good = {"auc": Interval(0.1, 0.0, 0.2)}, {"auc": AUC}
    country, device, system = ("country", "BR"), ("device", "phone"), ("os", "14")
    figures = ranking(
        Rows(bad, where=(country,)),
        Rows(bad, where=(device,)),
        Rows(good, where=(country, device)),
        Rows(bad, where=(country, device, system)),
    )
    both = on_auc(above=0.6, where=EverySlice(("device", "country"), least_users=1))
    record = judge(figures, [both], FILES, None)
    assert record["blessed"]
    (judged,) = record["checks"][0]["slices"]
    assert judged["where"] == "country=BR, device=phone"


@pytest.mark.parametrize(("country", "blessed"), [("BR", True), ("DE", False)])
def test_a_threshold_on_one_slice_binds_it_alone_however_small(country: str, blessed: bool) -> None:
    figures = by_country({"BR": AUC, "DE": Interval(0.1, 0.0, 0.2)}, users={"BR": 1, "DE": 1})
    only = on_auc(above=0.6, where=(("country", country),))
    record = judge(figures, [only], FILES, None)
    assert record["blessed"] is blessed and record["checks"][0]["where"] == f"country={country}"


def test_a_cross_is_the_same_slice_in_whatever_order_its_columns_are_named() -> None:
    key = (("country", "BR"), ("device", "phone"))
    figures = ranking(Rows({"auc": LOSS}, where=key))
    for where in (key, key[::-1]):
        thresholds = [ABSOLUTE, on_auc(above=0.6, where=where)]
        assert not judge(figures, thresholds, FILES, None)["blessed"]


@pytest.mark.parametrize(
    ("threshold", "message"),
    [
        (replace(ABSOLUTE, evaluation="rankin"), "'rankin': expected one .* 'ranking'"),
        (replace(ABSOLUTE, figure="recall"), "'recall' .*all rows, got only 'auc', 'loss'"),
        (
            replace(ABSOLUTE, figure="loss", where=BY_COUNTRY),
            "'loss' .*measured on country=BR, got only 'auc'",
        ),
        (
            replace(ABSOLUTE, where=EverySlice(("device",), 1)),
            "every slice by device with 1 users or more, got one of 'all rows', 'country'",
        ),
        (
            replace(GAIN, where=EverySlice(("device",), 1)),  # found out before there is a baseline
            "every slice by device with 1 users or more, got one of 'all rows', 'country'",
        ),
        (
            replace(ABSOLUTE, where=(("country", "XX"),)),
            "country=XX, got one of 'all rows', 'country'",
        ),
    ],
)
def test_a_threshold_on_what_was_not_measured_is_named(threshold: Threshold, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message) as caught:
        judge(by_country({"BR": AUC}), [ABSOLUTE, threshold], FILES, None)
    assert len(str(caught.value).splitlines()) == 1


def test_a_small_slice_may_lack_the_figure_that_it_is_not_judged_by() -> None:
    figures = by_country({"BR": AUC})
    figures["ranking"].append(Rows({}, 3, (("country", "IS"),)))
    judge(figures, [on_auc(above=0.6, where=BY_COUNTRY)], FILES, None)


def test_of_many_failing_slices_a_refusal_names_the_worst_and_counts_the_others() -> None:
    ends = {"A": 0.55, "B": 0.2, "C": math.nan, "D": 0.5, "E": 0.3, "F": 0.4, "G": 0.59, "H": 0.61}
    intervals = {name: Interval(low + 0.1, low, low + 0.2) for name, low in ends.items()}
    threshold = on_auc(above=0.6, where=BY_COUNTRY)
    *worst, rest = refusal(judge(by_country(intervals), [threshold], FILES, None))
    assert [line[len("  ranking, auc, country=")] for line in worst] == ["C", "B", "E", "F", "D"]
    assert rest == (
        "  ranking, auc: and 2 more of 8 slices, every slice by country with 100 users or more"
    )


def test_five_failing_slices_are_all_named() -> None:
    bad = dict.fromkeys("ABCDE", LOSS)
    record = judge(by_country(bad), [on_auc(above=0.6, where=BY_COUNTRY)], FILES, None)
    named = [line.split(", ")[2].split(":")[0] for line in refusal(record)]
    assert named == [f"country={name}" for name in "ABCDE"]


def test_a_slice_above_one_bound_is_as_bad_as_one_as_far_below_the_other() -> None:
    between = on_auc(above=0.5, below=0.75, where=BY_COUNTRY)
    intervals = {
        "fine": Interval(0.6, 0.55, 0.65),
        "high": Interval(0.9, 0.75, 1.0),  # by 0.25
        "low": Interval(0.5, 0.375, 0.6),  # by 0.125
    }
    record = judge(by_country(intervals), [between], FILES, None)
    kept = [(one["where"], one["passed"]) for one in record["checks"][0]["slices"]]
    assert kept == [("country=high", False), ("country=low", False), ("country=fine", True)]


@settings(deadline=None, max_examples=50)
@given(st.permutations(["A", "B", "C", "D", "E"]))
def test_the_record_does_not_depend_on_the_order_of_slices(order: list[str]) -> None:
    intervals = {name: LOSS if name in "BD" else AUC for name in order}
    record = judge(by_country(intervals), [on_auc(above=0.6, where=BY_COUNTRY)], FILES, None)
    assert [one["where"] for one in record["checks"][0]["slices"]] == [
        f"country={name}" for name in "BDACE"
    ]


def test_other_checks_are_part_of_the_blessing() -> None:
    judged = judge(ranking(), [ABSOLUTE], FILES, None)
    tried = with_check(judged, "canary", True, "20 requests")
    assert tried["blessed"] and judged["parts"] == []
    assert tried["parts"] == [{"name": "canary", "passed": True, "reason": "20 requests"}]
    require_blessed(tried)
    refused = with_check(tried, "parts agree", False, "the index is of another tower")
    assert not refused["blessed"] and refused["files"] == FILES
    assert [part["name"] for part in refused["parts"]] == ["canary", "parts agree"]
    assert refusal(refused) == ["  parts agree: the index is of another tower"]


def test_no_part_that_passes_blesses_what_was_refused() -> None:
    refused = judge(ranking(), [replace(ABSOLUTE, above=0.9)], FILES, None)
    assert not with_check(refused, "canary", True, "20 requests")["blessed"]
    assert not with_check(
        with_check(judge(ranking(), [ABSOLUTE], FILES, None), "canary", False, "died"),
        "canary", True, "lived at last",
    )["blessed"]  # fmt: skip


def test_a_refusal_has_a_line_for_every_failed_check_and_none_for_others() -> None:
    thresholds = [
        replace(ABSOLUTE, above=0.9, why="worth its cost"),
        Threshold("loss", "calibrated", evaluation="ranking", above=0.1, below=0.45),
        ABSOLUTE,
        replace(ABSOLUTE, above=None, below=0.7, why="look for a leak"),
    ]
    record = with_check(judge(ranking(), thresholds, FILES, None), "canary", False, "died")
    assert refusal(record) == [
        "  ranking, auc, all rows: 0.7000 [0.6500, 0.7500], must be above 0.9: worth its cost",
        "  ranking, loss, all rows: 0.4000 [0.3000, 0.5000], "
        "must be above 0.1 and below 0.45: calibrated",
        "  ranking, auc, all rows: 0.7000 [0.6500, 0.7500], must be below 0.7: look for a leak",
        "  canary: died",
    ]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({}, "got above None and below None"),
        ({"above": math.nan}, "got above nan"),
        ({"below": math.inf}, "below inf"),
        ({"above": 0.1, "below": math.nan}, "below nan"),
        ({"above": 0.5, "below": 0.5}, "got above 0.5 and below 0.5"),
        ({"above": 0.6, "below": 0.5}, "got above 0.6 and below 0.5"),
        ({"above": 0.5, "why": " "}, "expected a reason in `why`"),
    ],
)
def test_a_threshold_that_cannot_be_meant_is_refused_when_it_is_made(
    fault: dict[str, Any], message: str
) -> None:
    expected = f"threshold for 'auc' of evaluation 'ranking': .*{re.escape(message)}"
    with pytest.raises(InvalidArgument, match=expected) as caught:
        Threshold("auc", **({"why": "r", "evaluation": "ranking"} | fault))
    assert len(str(caught.value).splitlines()) == 1
