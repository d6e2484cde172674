"""A review: proposals in order, decisions, the schema after them and the journal."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mlplatform.data.schemas.review import (
    Decision,
    decide,
    journal_path,
    propose,
    read_journal,
    record,
)
from mlplatform.data.schemas.schema import load_schema, save_schema
from mlplatform.data.validation.inspection import inspect
from mlplatform.data.validation.validate import validate
from mlplatform.errors import DataCorrupt, InvalidArgument
from tests.platform.data.validation.described import schema_of, statistics_of

WHEN = datetime(2024, 5, 6, 7, 8, tzinfo=UTC)
SCHEMA = """feature { name: "b" type: INT int_domain { min: 1 max: 3 } }
            feature { name: "a" type: BYTES string_domain { value: "x" } }
            dataset_constraints { min_examples_count: 9 }"""


def statistics() -> Any:
    return statistics_of(new=[1, 2], a=["x", "y"], b=[0, 4])


def proposals(schema: Any) -> Any:
    return propose(inspect(statistics(), schema).findings, schema)


def test_proposals_are_in_the_schemas_order_and_show_their_changes() -> None:
    got = [(one.subject, one.seen, one.changes) for one in proposals(schema_of(SCHEMA))]
    assert got == [
        (
            "data set",
            "Expected at least 9 rows, got 2",
            ("schema: dataset_constraints.min_examples_count 9 -> 2",),
        ),
        ("b", "Expected values of at least 1, got 0", ("feature 'b': int_domain.min 1 -> 0",)),
        ("b", "Expected values of at most 3, got 4", ("feature 'b': int_domain.max 3 -> 4",)),
        (
            "a",
            "Expected values of the feature's domain in a share of at least 1, got 0.5, with "
            "values outside of it: 'y' (50.00%)",
            ("feature 'a': string_domain.value added 'y'",),
        ),
        (
            "new",
            "The column is in the data but not in the schema",
            (
                "feature 'new': added with { name: \"new\" type: INT presence { min_fraction: 1.0 "
                "min_count: 1 } shape { dim { size: 1 } } }",
            ),
        ),
    ]


def test_what_no_change_accepts_is_no_proposal() -> None:
    schema = schema_of('feature { name: "f" type: INT }')
    empty = statistics_of(f=[1])
    empty.num_examples = 0
    findings = inspect(empty, schema).findings
    assert len(findings) == 1
    assert propose(findings, schema) == []


def test_each_change_is_accepted_or_rejected_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "schema.pbtxt"
    schema = schema_of(SCHEMA)
    save_schema(schema, path)
    every = proposals(schema)
    answers = [True, False, True, False, True]
    decisions = [
        Decision(proposal, answer, "Ada", WHEN, "checked with the source")
        for proposal, answer in zip(every, answers, strict=True)
    ]
    record(decisions[:2], schema, path)
    record(decisions[2:], load_schema(path), path)
    stored = load_schema(path)
    assert stored == decide(schema, decisions)
    anomalies = validate(statistics(), stored)
    assert {
        name: [reason.description for reason in info.reason]
        for name, info in anomalies.anomaly_info.items()
    } == {"b": [every[1].seen], "a": [every[3].seen]}
    assert not anomalies.HasField("dataset_anomaly_info")
    journal = read_journal(path)
    assert [entry.accepted for entry in journal] == answers
    assert journal[1].who == "Ada"
    assert journal[1].why == "checked with the source"
    assert journal[1].when == "2024-05-06T07:08:00+00:00"
    assert journal[1].subject == "b"
    assert journal[1].anomaly == "INT_TYPE_SMALL_INT"
    assert journal[1].seen == "Expected values of at least 1, got 0"
    assert journal[1].changes == ("feature 'b': int_domain.min 1 -> 0",)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "schema.journal.jsonl",
        "schema.pbtxt",
    ]


def test_a_schema_without_decisions_has_no_journal(tmp_path: Path) -> None:
    assert read_journal(tmp_path / "schema.pbtxt") == []


@pytest.mark.parametrize(
    ("who", "why", "when", "message"),
    [
        (" ", "because", WHEN, "'data set': expected who decided so, got an empty text"),
        ("Ada", "", WHEN, "'data set': expected why decided so, got an empty text"),
        ("Ada", "because", WHEN.replace(tzinfo=None), "expected a time with a time zone, got 2024"),
    ],
)
def test_a_decision_says_who_why_and_when(
    tmp_path: Path, who: str, why: str, when: datetime, message: str
) -> None:
    schema = schema_of(SCHEMA)
    decision = Decision(proposals(schema)[0], True, who, when, why)
    with pytest.raises(InvalidArgument, match=message):
        record([decision], schema, tmp_path / "schema.pbtxt")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("line", ["{", "[]", "{}", '{"changes": [], "colour": 1}'])
def test_a_journal_that_was_not_written_by_a_review(tmp_path: Path, line: str) -> None:
    path = tmp_path / "schema.pbtxt"
    journal_path(path).write_text(f"{line}\n")
    with pytest.raises(DataCorrupt, match=r"schema\.journal\.jsonl, line 1: expected a decision"):
        read_journal(path)
