"""Verbs about data: validate files, keep their schema, compare training with serving.

They work on any files that the platform reads; nothing here knows the store.  Each verb imports
what it needs when it runs, so that help is immediate.
"""

import getpass
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlplatform.errors import FailedPrecondition

if TYPE_CHECKING:
    from mlplatform.data.schemas.review import Decision, Proposal

Files = Annotated[
    list[Path], typer.Argument(help="Files of one data set: .parquet, .csv or .tfrecord, or .gz.")
]
SchemaOption = Annotated[Path, typer.Option("--schema", help="The schema's file.")]
Environment = Annotated[
    str | None, typer.Option(help="Where the data comes from, as TRAINING or SERVING.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a script to read.")]

schema_app = typer.Typer(
    name="schema", help="Infer, compare and review schemas.", no_args_is_help=True
)


def validate(
    files: Files,
    schema: Annotated[
        Path | None, typer.Option(help="Default: inferred from --previous, else from the data.")
    ] = None,
    previous: Annotated[
        list[Path] | None, typer.Option(help="The span before, to measure drift against.")
    ] = None,
    serving: Annotated[
        list[Path] | None, typer.Option(help="What servers saw, to measure skew against.")
    ] = None,
    environment: Environment = None,
    weight: Annotated[str | None, typer.Option(help="Column that weighs the rows.")] = None,
    slice_by: Annotated[
        list[str] | None, typer.Option("--slice", help="Column whose values are judged apart too.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page about the data here.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Say where files contradict their schema.  Ends with 0: nowhere, 1: somewhere, 2: unknown."""
    from mlplatform.data.schemas.inference import infer_schema
    from mlplatform.data.schemas.schema import load_schema
    from mlplatform.data.statistics.compute import compute_statistics
    from mlplatform.data.validation import report
    from mlplatform.data.validation.broken_rows import find_broken_rows
    from mlplatform.data.validation.comparisons import list_not_compared
    from mlplatform.data.validation.validate import validate as validate_statistics

    others = {"previous": previous or [], "serving": serving or []}
    datasets = {"data": files} | {name: paths for name, paths in others.items() if paths}
    known = load_schema(schema) if schema else None  # before the passes over the data
    computed = compute_statistics(datasets, weight=weight, slice_by=slice_by or ())
    found = {one.name: one for one in computed.datasets}
    source = f"schema {schema}"
    if known is None:
        base = "previous" if previous else "data"
        known, source = infer_schema(found[base]), f"a schema inferred from {datasets[base][0]}"
    results = []
    for name, statistics in found.items():
        if name.partition("/")[0] != "data":
            continue
        anomalies = validate_statistics(
            statistics,
            known,
            environment=environment,
            previous=found.get(name.replace("data", "previous", 1)),
            serving=found.get(name.replace("data", "serving", 1)),
        )
        broken = find_broken_rows(files, known, anomalies, environment=environment)
        results.append(
            {
                "data": name,
                "rows": statistics.num_examples,
                "anomalies": list(
                    report.describe_anomalies(anomalies, broken if name == "data" else ())
                ),
                "distances": list(report.describe_distances(anomalies)),
                "not_compared": list_not_compared(anomalies),
            }
        )
        if html and name == "data":
            other = "previous" if previous else "serving" if serving else ""
            page = report.render(
                f"{', '.join(map(str, files))}: judged by {source}",
                statistics,
                anomalies,
                broken=broken,
                other=found.get(other),
                other_name=f"the {other} data",
            )
            html.write_text(page, encoding="utf-8")
    if as_json:
        print(json.dumps({"schema": source, "results": results}, indent=1))
    else:
        _show_results(source, results)
        if html:
            print(f"page: {html}")
    if any(one["severity"] == "error" for result in results for one in result["anomalies"]):
        raise typer.Exit(1)


def skew(
    training: Annotated[Path, typer.Argument(help="Rows as trained on, Parquet.")],
    serving: Annotated[Path, typer.Argument(help="The same rows as served, Parquet.")],
    key: Annotated[list[str], typer.Option(help="Column that names a row; may be repeated.")],
    ignore: Annotated[
        list[str] | None, typer.Option(help="Column not to compare; may be repeated.")
    ] = None,
    tolerance: Annotated[
        float, typer.Option(help="Share by which floats may differ and still match.")
    ] = 0.0,
    as_json: JsonOption = False,
) -> None:
    """Compare rows as trained on with the same rows as served.  Ends with 1 where they differ."""
    from dataclasses import asdict

    from mlplatform.artifacts import to_json
    from mlplatform.data.skew.compare import compare_by_key

    report = compare_by_key(training, serving, key, ignore=ignore or (), tolerance=tolerance)
    if not report.counts.matched:
        raise FailedPrecondition(
            f"{training} and {serving}: expected rows with the same {', '.join(key)} on both "
            "sides, got none; check the keys"
        )
    if as_json:
        print(to_json(asdict(report)).decode())
    else:
        _show_skew(report)
    if any(feature.differing for feature in report.features):
        raise typer.Exit(1)


@schema_app.command()
def infer(
    files: Files, out: Annotated[Path, typer.Option(help="Where the schema goes; a new file.")]
) -> None:
    """Infer a schema that the files satisfy."""
    from mlplatform.data.schemas.inference import infer_schema
    from mlplatform.data.schemas.schema import save_schema
    from mlplatform.data.statistics.compute import compute_statistics

    if out.exists():
        raise FailedPrecondition(
            f"{out}: is there already, and people may have changed it; name a new file, or "
            "`storeloop schema review` it"
        )
    (statistics,) = compute_statistics({"data": files}).datasets
    schema = infer_schema(statistics)
    save_schema(schema, out)
    print(f"{out}: {len(schema.feature)} features of {statistics.num_examples:,} rows")


@schema_app.command()
def diff(
    old: Annotated[Path, typer.Argument(help="A schema's file.")],
    new: Annotated[Path, typer.Argument(help="A schema's file.")],
) -> None:
    """List what differs between two schemas.  Ends with 1 where anything does."""
    from mlplatform.data.schemas.diff import diff as differences
    from mlplatform.data.schemas.schema import load_schema

    found = differences(load_schema(old), load_schema(new))
    for one in found:
        print(one)
    if found:
        raise typer.Exit(1)


@schema_app.command()
def review(
    files: Files,
    schema: SchemaOption,
    environment: Environment = None,
    by: Annotated[str, typer.Option(help="Who decides; default: the user.")] = "",
) -> None:
    """Walk through what the files contradict, and accept or refuse each change of the schema.

    Every decision is written down, with who made it and why, in a journal beside the schema.
    """
    from mlplatform.data.schemas.review import journal_path, propose, record
    from mlplatform.data.schemas.schema import load_schema
    from mlplatform.data.statistics.compute import compute_statistics
    from mlplatform.data.validation.inspection import inspect

    current = load_schema(schema)
    (statistics,) = compute_statistics({"data": files}).datasets
    inspection = inspect(statistics, current, environment=environment)
    proposals = propose(inspection.findings, current)
    for finding in inspection.findings:
        if finding.change is None:
            print(f"{finding.feature or 'data set'}: {finding.description}; no schema accepts that")
    if not proposals:
        print("nothing to review: no change of the schema is proposed")
        return
    who = by or getpass.getuser()
    decisions: list[Decision] = []
    try:
        for number, proposal in enumerate(proposals, start=1):
            print(f"\n{number} of {len(proposals)}: {proposal.subject}: {proposal.seen}")
            for change in proposal.changes:
                print(f"    {change}")
            answer = _ask("accept, refuse, skip or quit? [a/r/s/q]", "arsq")
            if answer == "q":
                break
            if answer in "ar":
                decisions.append(_decide(proposal, answer == "a", who))
    except typer.Abort:
        print("\nstopped here; what was decided is kept")
    record(decisions, current, schema)
    accepted = sum(decision.accepted for decision in decisions)
    print(
        f"\n{accepted} accepted, {len(decisions) - accepted} refused, by {who}: {schema}, "
        f"{journal_path(schema)}"
    )


def _decide(proposal: "Proposal", accepted: bool, who: str) -> "Decision":
    from mlplatform.data.schemas.review import Decision

    why = ""
    while not why.strip():
        why = typer.prompt("why?", prompt_suffix=" ")
    return Decision(proposal, accepted, who, datetime.now(UTC), why)


def _ask(question: str, answers: str) -> str:
    while True:
        answer: str = typer.prompt(question, prompt_suffix=" ").strip().lower()[:1]
        if answer and answer in answers:
            return answer


def _show_results(source: str, results: list[dict[str, Any]]) -> None:
    for result in results:
        count = len(result["anomalies"])
        verdict = f"{count} anomalies" if count else "no anomalies"
        print(f"{result['data']}: {result['rows']:,} rows, {verdict}, judged by {source}")
        for one in result["anomalies"]:
            print(f"  {one['severity']} {one['feature']}: {'; '.join(one['types'])}")
            for description in one["descriptions"]:
                print(f"      {description}")
            for row in one["rows"]:
                print(f"      {row}")
            for line in one["change"].splitlines():
                print(f"      to accept it  {line}")
        for one in result["distances"]:
            mark = " above its limit" if one["above"] else ""
            print(
                f"  {one['feature']} against {one['against']}: {one['measure']} "
                f"{one['value']:.4f}, limit {one['limit']:g}{mark}"
            )
        for line in result["not_compared"]:
            print(f"  not compared: {line}")


def _show_skew(report: Any) -> None:
    counts = report.counts
    print(
        f"{counts.matched:,} rows matched; {counts.only_in_training:,} only in training, "
        f"{counts.only_in_serving:,} only in serving; keys more than once: "
        f"{counts.duplicated_in_training:,} and {counts.duplicated_in_serving:,}"
    )
    for one in report.features:
        if not one.differing:
            continue
        print(
            f"  {one.name}: {one.match:,} match, {one.mismatch:,} do not, {one.training_only:,} "
            f"only in training, {one.serving_only:,} only in serving"
        )
        for sample in one.samples[:3]:
            print(f"      {sample.key}: trained on {sample.training!r}, served {sample.serving!r}")
    agreeing = sum(not one.differing for one in report.features)
    print(f"  {agreeing} features agree in every row")
