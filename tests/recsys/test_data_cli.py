"""The verbs about data, as a user types them, on listings as messy as real ones."""

import csv
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer

from recsys import cli

HEADER = [
    "App", "Category", "Rating", "Reviews", "Size", "Installs", "Type", "Price", "Content Rating",
    "Genres", "Last Updated", "Current Ver", "Android Ver",
]  # fmt: skip
ROWS = 300
# The category is lost, and everything after it stands one column too far left.
SHIFTED = [
    "Photo Frame Deluxe", "1.9", "19", "3.0M", "1,000+", "Free", "0", "Everyone", "",
    "February 11, 2018", "1.0.19", "4.0 and up", "",
]  # fmt: skip

Run = Callable[..., tuple[int, str, str]]


def listing(number: int, rng: random.Random) -> list[str]:
    is_paid = rng.random() < 0.1
    return [
        rng.choice([f"App, the {number}th", f'"Zen" {number}', f"Café {number}"]),
        rng.choice(["TOOLS", "GAME", "FAMILY"]),
        "" if rng.random() < 0.13 else f"{rng.uniform(1, 5):.1f}",
        str(int(10 ** rng.uniform(0, 7))),
        rng.choice(["19M", "201k", "Varies with device"]),
        rng.choice(["1,000+", "10,000+", "5,000,000+"]),
        "Paid" if is_paid else "Free",
        "$4.99" if is_paid else "0",
        rng.choice(["Everyone", "Teen"]),
        rng.choice(["Tools", "Arcade;Action"]),
        "January 7, 2018",
        rng.choice(["1.0", "Varies with device"]),
        "4.0 and up",
    ]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """clean.csv, shifted.csv (row 200 is the shifted one) and short.csv (it lacks a field, too)."""
    folder, rng = tmp_path_factory.mktemp("listings"), random.Random(5)
    clean = [listing(number, rng) for number in range(ROWS)]
    for name, rows in (
        ("clean", clean),
        ("shifted", [*clean[:200], SHIFTED, *clean[200:]]),
        ("short", [*clean[:200], SHIFTED[:-1], *clean[200:]]),
    ):
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([HEADER, *rows])
    return folder


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `storeloop ARGUMENTS`; returns (exit code, stdout, stderr)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["storeloop", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return code, printed.out, printed.err

    return call


@pytest.fixture
def schema(run: Run, files: Path, tmp_path: Path) -> Path:
    path = tmp_path / "schema.pbtxt"
    code, said, _ = run("schema", "infer", files / "clean.csv", "--out", path)
    assert (code, said) == (0, f"{path}: 13 features of {ROWS} rows\n")
    return path


def results(run: Run, *arguments: object) -> tuple[int, dict[str, Any]]:
    code, said, _ = run("validate", *arguments, "--json")
    return code, json.loads(said)["results"][0]


def test_clean_listings_satisfy_the_schema_that_was_inferred_from_them(
    run: Run, files: Path, schema: Path
) -> None:
    code, result = results(run, files / "clean.csv", "--schema", schema)
    assert code == 0
    assert (result["rows"], result["anomalies"]) == (ROWS, [])


def test_nothing_is_coerced(schema: Path) -> None:
    text = schema.read_text(encoding="utf-8")
    for kept in ('"19M"', '"Varies with device"', '"$4.99"', '"5,000,000+"'):
        assert kept in text
    assert text.count("type: FLOAT") == 1  # Rating
    assert text.count("type: INT") == 1  # Reviews


def test_a_shifted_row_is_reported_with_feature_value_and_row(
    run: Run, files: Path, schema: Path
) -> None:
    path = files / "shifted.csv"
    code, result = results(run, path, "--schema", schema)
    assert code == 1
    found = {one["feature"]: one for one in result["anomalies"]}
    # Its rating, 19, is a number, and no range of numbers was promised.
    expected = {
        "Category": "'1.9'", "Reviews": "'3.0M'", "Size": "'1,000+'", "Installs": "'Free'",
        "Type": "'0'", "Price": "'Everyone'", "Content Rating": "missing",
        "Genres": "'February 11, 2018'", "Last Updated": "'1.0.19'", "Current Ver": "'4.0 and up'",
        "Android Ver": "missing",
    }  # fmt: skip
    assert found.keys() == expected.keys()
    for feature, value in expected.items():
        assert f"{feature} = {value} in row 200 of {path}" in found[feature]["rows"]


def test_a_row_that_is_too_short_is_reported_with_its_line_and_every_field(
    run: Run, files: Path, schema: Path
) -> None:
    code, _, said = run("validate", files / "short.csv", "--schema", schema)
    assert code == 2
    assert "expected 13 fields" in said and "got 12 in line 202" in said
    fields = [f"{name} = {value!r}" for name, value in zip(HEADER, SHIFTED, strict=True)]
    assert ", ".join([*fields[:-1], "Android Ver = '(none)'"]) in said


def test_the_page_shows_what_the_terminal_says(
    run: Run, files: Path, schema: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    code, said, _ = run(
        "validate", files / "shifted.csv", "--schema", schema, "--html", page,
        "--previous", files / "clean.csv",
    )  # fmt: skip
    assert code == 1
    html = page.read_text(encoding="utf-8")
    assert "11 anomalies" in said and said.endswith(f"page: {page}\n")
    assert 'to accept it  +   value: "1.9"' in said
    assert "11 things contradict the schema." in html
    assert "the previous data" in html
    assert "Category = &#39;1.9&#39; in row 200" in html


def test_without_a_schema_the_span_before_is_the_measure(run: Run, files: Path) -> None:
    code, said, _ = run(
        "validate", files / "shifted.csv", "--previous", files / "clean.csv", "--json"
    )
    assert code == 1
    assert json.loads(said)["schema"] == f"a schema inferred from {files / 'clean.csv'}"


def test_slices_are_judged_apart(run: Run, files: Path, schema: Path) -> None:
    code, said, _ = run(
        "validate", files / "shifted.csv", "--schema", schema, "--slice", "Category", "--json"
    )
    assert code == 1
    at_fault = {
        result["data"]: {one["feature"] for one in result["anomalies"]}
        for result in json.loads(said)["results"]
    }
    assert at_fault["data/Category=1.9"] >= {"Category", "Price", "Genres"}
    # A column has one type in the whole file.
    assert at_fault["data/Category=TOOLS"] == at_fault["data/Category=GAME"] == {"Reviews"}


def test_drift_and_skew_are_measured_where_the_schema_asks_for_it(run: Run, tmp_path: Path) -> None:
    even, odd = tmp_path / "even.parquet", tmp_path / "odd.parquet"
    pq.write_table(pa.table({"x": ["a"] * 50 + ["b"] * 50}), even)
    pq.write_table(pa.table({"x": ["a"] * 80 + ["b"] * 20}), odd)
    schema = tmp_path / "schema.pbtxt"
    schema.write_text(
        'feature { name: "x" type: BYTES'
        " drift_comparator { infinity_norm { threshold: 0.31 } }"
        " skew_comparator { infinity_norm { threshold: 0.29 } } }"
    )
    code, result = results(run, odd, "--schema", schema, "--previous", even)
    assert code == 0
    assert result["not_compared"] == ["x (skew)"]
    assert [d["value"] for d in result["distances"]] == [pytest.approx(0.3)]
    code, result = results(run, odd, "--schema", schema, "--serving", even)
    assert code == 1
    assert result["not_compared"] == ["x (drift)"]
    assert result["anomalies"][0]["types"] == ["COMPARATOR_L_INFTY_HIGH"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["validate", "absent.csv"], "absent.csv"),
        (["validate", "notes.txt"], "notes.txt"),
        (["validate", "clean.csv", "--schema", "absent.pbtxt"], "absent.pbtxt"),
        (["validate", "clean.csv", "--environment", "MARS"], "MARS"),
        (["validate", "clean.csv", "--weight", "App"], "App"),
        (["validate", "clean.csv", "--slice", "Colour"], "Colour"),
        (["schema", "infer", "clean.csv", "--out", "notes.txt"], "notes.txt"),
        (["schema", "diff", "absent.pbtxt", "absent.pbtxt"], "absent.pbtxt"),
        (["skew", "absent.parquet", "absent.parquet", "--key", "id"], "absent.parquet"),
    ],
)
def test_a_users_mistake_is_one_line_that_names_it(
    run: Run,
    files: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    named: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("kept")
    (tmp_path / "clean.csv").write_bytes((files / "clean.csv").read_bytes())
    code, _, said = run(*arguments)
    assert code == 2
    assert said.startswith("storeloop: ") and said.count("\n") == 1
    assert named in said
    assert (tmp_path / "notes.txt").read_text() == "kept"


# --- Review -----------------------------------------------------------------------------------


def answer(monkeypatch: pytest.MonkeyPatch, *answers: str) -> list[str]:
    left = list(answers)
    monkeypatch.setattr("typer.prompt", lambda *_, **__: left.pop(0))
    return left


def test_a_person_accepts_refuses_and_skips_and_the_journal_says_who_and_why(
    run: Run, files: Path, schema: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = schema.read_text(encoding="utf-8")
    left = answer(monkeypatch, "a", "new category", "x", "r", " ", "a mistake", "s", "q")
    code, said, _ = run(
        "schema", "review", files / "shifted.csv", "--schema", schema, "--by", "Ada"
    )
    assert (code, left) == (0, [])
    assert "1 accepted, 1 refused, by Ada" in said
    lines = schema.with_name("schema.journal.jsonl").read_text(encoding="utf-8").splitlines()
    entries = [json.loads(line) for line in lines]
    assert [(e["who"], e["accepted"], e["why"]) for e in entries] == [
        ("Ada", True, "new category"),
        ("Ada", False, "a mistake"),
    ]
    old = schema.with_name("old.pbtxt")
    old.write_text(before, encoding="utf-8")
    code, said, _ = run("schema", "diff", old, schema)
    assert code == 1
    assert said.splitlines() == list(entries[0]["changes"])
    assert run("schema", "diff", schema, schema)[:2] == (0, "")


def test_what_was_decided_before_a_person_left_is_kept(
    run: Run, files: Path, schema: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = ["a", "new category"]

    def prompt(*_: Any, **__: Any) -> str:
        if not left:
            raise typer.Abort
        return left.pop(0)

    monkeypatch.setattr("typer.prompt", prompt)
    code, said, _ = run("schema", "review", files / "shifted.csv", "--schema", schema)
    assert code == 0
    assert "stopped here; what was decided is kept" in said
    assert 'value: "1.9"' in schema.read_text(encoding="utf-8")


def test_what_was_accepted_is_not_proposed_again(
    run: Run, files: Path, schema: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, *["a", "so be it"] * 50)
    run("schema", "review", files / "shifted.csv", "--schema", schema)
    code, said, _ = run("schema", "review", files / "shifted.csv", "--schema", schema)
    assert (code, said) == (0, "nothing to review: no change of the schema is proposed\n")
    assert run("validate", files / "shifted.csv", "--schema", schema)[0] == 0


# --- Key-joined skew ----------------------------------------------------------------------------


def test_rows_as_served_are_compared_with_rows_as_trained_on(run: Run, tmp_path: Path) -> None:
    trained, served = tmp_path / "trained.parquet", tmp_path / "served.parquet"
    pq.write_table(
        pa.table({"id": [1, 2, 3], "mb": [10.0, 20.0, 30.0], "tier": ["a"] * 3}), trained
    )
    pq.write_table(pa.table({"id": [3, 2, 9], "mb": [30.0, 0.02, 1.0], "tier": ["a"] * 3}), served)
    code, said, _ = run("skew", trained, served, "--key", "id")
    assert code == 1
    assert said.splitlines() == [
        "2 rows matched; 1 only in training, 1 only in serving; keys more than once: 0 and 0",
        "  mb: 1 match, 1 do not, 0 only in training, 0 only in serving",
        "      (2,): trained on 20.0, served 0.02",
        "  1 features agree in every row",
    ]
    code, said, _ = run("skew", trained, served, "--key", "id", "--ignore", "mb", "--json")
    assert code == 0
    assert [one["name"] for one in json.loads(said)["features"]] == ["tier"]


def test_sides_without_a_row_in_common_are_refused(run: Run, tmp_path: Path) -> None:
    for name, ids in (("trained", [1]), ("served", [2])):
        pq.write_table(pa.table({"id": ids}), tmp_path / f"{name}.parquet")
    code, _, said = run(
        "skew", tmp_path / "trained.parquet", tmp_path / "served.parquet", "--key", "id"
    )
    assert code == 2
    assert "check the keys" in said
