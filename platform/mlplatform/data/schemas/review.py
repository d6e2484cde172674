"""Review: a person walks through the changes that validation proposes, and keeps or refuses each.

Enters: findings and the schema.  Leaves: proposals in order, then, with a decision on each, the new
schema and a journal beside it, one line of JSON for each decision, that says who decided what, when
and why.  The dialogue itself is no part of this.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from tensorflow_metadata.proto.v0 import schema_pb2

from mlplatform.artifacts import write_file_atomically
from mlplatform.data.schemas.diff import diff
from mlplatform.data.schemas.schema import save_schema
from mlplatform.data.validation.findings import Finding, accept
from mlplatform.errors import DataCorrupt, InvalidArgument


@dataclass(frozen=True)
class Proposal:
    """A change of the schema that a person may accept.

    Attributes:
        subject: the feature, or 'data set'.
        seen: what was expected and what came.
        changes: the change, as lines that a person reads.
    """

    finding: Finding
    subject: str
    seen: str
    changes: tuple[str, ...]


@dataclass(frozen=True)
class Decision:
    """when: of a time zone, so that journals of several people can be put in order."""

    proposal: Proposal
    accepted: bool
    who: str
    when: datetime
    why: str


@dataclass(frozen=True)
class Entry:
    """A line of the journal.  when: ISO 8601.  anomaly: the name of an `AnomalyInfo.Type`."""

    when: str
    who: str
    why: str
    accepted: bool
    subject: str
    anomaly: str
    seen: str
    changes: tuple[str, ...]


def propose(findings: Iterable[Finding], schema: schema_pb2.Schema) -> list[Proposal]:
    """What could be accepted: of the data set, of the schema's features in its order, of others.

    A finding that no change accepts is none of them, and so is one whose change is already part of
    the schema.

    Args:
        findings: as `inspect` returns them for `schema`.
    """
    places = {feature.name: place for place, feature in enumerate(schema.feature)}

    def order(finding: Finding) -> tuple[int, str]:
        if finding.feature is None:
            return -1, ""
        return places.get(finding.feature, len(places)), finding.feature

    proposals = []
    for finding in sorted(findings, key=order):
        if finding.change is None:
            continue
        changes = tuple(map(str, diff(schema, accept(schema, [finding]))))
        if changes:
            subject = finding.feature if finding.feature is not None else "data set"
            proposals.append(Proposal(finding, subject, finding.description, changes))
    return proposals


def decide(schema: schema_pb2.Schema, decisions: Iterable[Decision]) -> schema_pb2.Schema:
    """The schema with the changes of the decisions that accepted theirs."""
    return accept(schema, (one.proposal.finding for one in decisions if one.accepted))


def record(decisions: Sequence[Decision], schema: schema_pb2.Schema, path: Path) -> None:
    """Store the schema after `decisions`, and the decisions in the journal beside it.

    The journal is written first: whatever happens between the two writes, no change of the schema
    is without its entry, and what is missing is proposed again.

    Args:
        schema: as it was when the changes were proposed.
        path: of the schema.

    Raises:
        InvalidArgument: a decision without a name, a reason or a time zone.
    """
    lines = "".join(json.dumps(asdict(_entry(one)), sort_keys=True) + "\n" for one in decisions)
    changed = decide(schema, decisions)
    journal = journal_path(path)
    before = journal.read_bytes() if journal.exists() else b""
    write_file_atomically(journal, before + lines.encode())
    save_schema(changed, path)


def journal_path(schema: Path) -> Path:
    """Where the journal of the schema at a path stands."""
    return schema.with_name(schema.stem + ".journal.jsonl")


def read_journal(schema: Path) -> list[Entry]:
    """The decisions on the schema at a path, in the order in which they were recorded.

    Raises:
        DataCorrupt: a line is not one that `record` wrote.
    """
    journal = journal_path(schema)
    entries = []
    lines = journal.read_text(encoding="utf-8").splitlines() if journal.exists() else []
    for number, line in enumerate(lines, start=1):
        try:
            values = json.loads(line)
            entries.append(Entry(**values | {"changes": tuple(values["changes"])}))
        except (ValueError, TypeError, KeyError) as error:
            raise DataCorrupt(
                f"{journal}, line {number}: expected a decision as JSON, got something else "
                f"({error}); restore the file from a copy"
            ) from error
    return entries


def _entry(decision: Decision) -> Entry:
    for field in ("who", "why"):
        if not getattr(decision, field).strip():
            raise InvalidArgument(
                f"decision on {decision.proposal.subject!r}: expected {field} decided so, got an "
                "empty text"
            )
    if decision.when.tzinfo is None:
        raise InvalidArgument(
            f"decision on {decision.proposal.subject!r}: expected a time with a time zone, got "
            f"{decision.when.isoformat()}"
        )
    proposal = decision.proposal
    return Entry(
        when=decision.when.isoformat(),
        who=decision.who,
        why=decision.why,
        accepted=decision.accepted,
        subject=proposal.subject,
        anomaly=proposal.finding.type_name,
        seen=proposal.seen,
        changes=proposal.changes,
    )
