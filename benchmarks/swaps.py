"""Ten swaps of the version and two rollbacks, each as soon as the one before is done, under a
thousand requests a second: no request may fail, and no answer be of two versions.

Two versions are made of the workspace's bundle that can be told apart by two of their parts: all
titles of the catalogue end with the version's mark, and the ranker's bias differs.  Every answer
must have the titles of the version that it says it is of.  Of some, everything but the request's id
must be what that version's bundle alone answers to the same query.

Half of the requests come over HTTP, half over gRPC.
"""

import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.load import Generator, Outcome
from benchmarks.result import Result
from benchmarks.served import Door, Served, Visits, answer_of, serve, two_days
from mlplatform.artifacts import hash_files, link_tree
from mlplatform.registry.registry import MANIFEST, STABLE, Registry
from mlplatform.registry.signing import sign, signing_key
from recsys.models.serving.files import SERVED
from recsys.online.bundle import MAPPED_CATALOGUE, RANKER

MARKS = (" (A)", " (B)")
DOORS: Sequence[Door] = ("http", "grpc")
Pair = tuple[dict[str, Any], dict[str, Any]]  # a query, its answer
_BIAS = "bias.npy"
_ROUND = 1e-6  # messages have scores in float32


@dataclass(frozen=True)
class Settings:
    """rate: of both doors together.  Seconds: at least, and of one run of the generators.
    compared: answers of each version and door that are held to its bundle."""

    rate: float = 1000.0
    seconds: float = 60.0
    run_s: float = 20.0
    swaps: int = 10
    rollback_after: Sequence[int] = (5, 10)
    compared: int = 100


def measure(settings: Settings = Settings()) -> Result:
    from benchmarks.full_run import full_workspace

    return measure_on(full_workspace(), settings)


def measure_on(workspace: Path, settings: Settings) -> Result:
    result = Result(settings=dict(vars(settings)))
    _, visits = two_days(workspace)
    with marked_versions(workspace) as (registry, marks):
        # Nothing is drawn, so that an answer can be had again.
        options = ("--registry", str(registry), "--exploration", "0", "--canary-share", "0")
        with serve(workspace, *options) as served:
            moves = Moves(served, Registry(registry), list(marks), settings)
            runs = run_while(moves, served, visits, settings)
        some: dict[int, list[Pair]] = {number: [] for number in marks}
        for door, outcomes in runs.items():
            add_run(result, door, outcomes)
            of_door = check_answers(result, door, outcomes, visits, marks, settings.compared)
            for number, pairs in of_door.items():
                some[number] += pairs
        compare(result, workspace, Registry(registry), some)
    result.figures["swaps and rollbacks"] = len(moves.forward_s) + len(moves.back_s)
    result.limits["swaps and rollbacks"] = (
        "least", settings.swaps + len(settings.rollback_after),
    )  # fmt: skip
    for what, seconds in (("a later", moves.forward_s), ("an earlier", moves.back_s)):
        result.figures[f"until {what} version is served, median, s"] = float(np.median(seconds))
        result.figures[f"until {what} version is served, longest, s"] = max(seconds)
    return result


@contextmanager
def marked_versions(workspace: Path) -> Iterator[tuple[Path, dict[int, str]]]:
    """A registry of its own with a version for each of `MARKS`; -> it, and marks by number.

    The last one is labelled stable.  The files are links to the workspace's, but for the marks.
    """
    source = Registry(workspace / "registry").labelled(STABLE)
    told = {
        name: value
        for name, value in source.manifest.items()
        if name not in ("version", "parent", "created", "files")
    }
    marks: dict[int, str] = {}
    with tempfile.TemporaryDirectory(prefix="marked-", dir=workspace.parent) as folder:
        root = Path(folder) / "registry"
        for number, mark in enumerate(MARKS):
            bundle = Path(folder) / f"bundle-{number}"
            link_tree(source.path, bundle)
            (bundle / MANIFEST).unlink()
            put_mark(bundle, mark, bias=0.25 * number)
            record = {"blessed": True, "files": hash_files(bundle)}
            blessing = sign(record, signing_key(root))
            marks[Registry(root).push(bundle, told | {"blessing": blessing}).number] = mark
        yield root, marks


def put_mark(bundle: Path, mark: str, bias: float) -> None:
    """Write a mark behind every title, and add to every logit."""
    path = bundle / MAPPED_CATALOGUE
    catalogue = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    at = catalogue.schema.get_field_index("title")
    titles = pc.binary_join_element_wise(catalogue["title"], mark, "")
    marked = catalogue.set_column(at, catalogue.schema.field("title"), titles)
    path.unlink()  # a link: the workspace keeps its own
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, marked.schema) as writer:
        writer.write_table(marked)
    path = bundle / RANKER / SERVED / _BIAS
    value = np.load(path, allow_pickle=False)
    path.unlink()
    np.save(path, np.float32(value + bias), allow_pickle=False)


@dataclass
class Moves:
    """The label's, one after the other.

    forward_s, back_s: what each took until it was served, to a later version and to an earlier one.
    """

    served: Served
    registry: Registry
    numbers: Sequence[int]
    settings: Settings
    forward_s: list[float] = field(default_factory=list)
    back_s: list[float] = field(default_factory=list)
    failed: list[BaseException] = field(default_factory=list)

    def run(self) -> None:
        """In a thread of its own; what it raises is kept for the other."""
        try:
            for swap in range(self.settings.swaps):
                self._follow(self._swap)
                if swap + 1 in self.settings.rollback_after:
                    self._follow(self._roll_back)
        except BaseException as error:
            self.failed.append(error)

    def _swap(self) -> int:
        there = self.registry.labels()[STABLE]
        to = next(number for number in self.numbers if number != there)
        self.registry.set_label(STABLE, to, "a benchmark")
        return to

    def _roll_back(self) -> int:
        return self.registry.rollback(STABLE).number

    def _follow(self, move: Callable[[], int]) -> None:
        before, began = self.registry.labels()[STABLE], time.monotonic()
        number = move()
        ended = self.served.wait_for(lambda status: status.labels.get(STABLE) == number)
        (self.forward_s if number > before else self.back_s).append(ended - began)


def run_while(
    moves: Moves, served: Served, visits: Visits, settings: Settings
) -> dict[Door, list[Outcome]]:
    """Load both doors until the moves are done and the time is over."""
    runs: dict[Door, list[Outcome]] = {door: [] for door in DOORS}
    with ExitStack() as stack:
        generators = {door: stack.enter_context(Generator()) for door in DOORS}
        mover = threading.Thread(target=moves.run)
        mover.start()
        began, first = time.monotonic(), 0
        while mover.is_alive() or time.monotonic() - began < settings.seconds:
            futures = {
                door: generators[door].start(
                    served.plan(
                        door, visits, settings.rate / len(DOORS), settings.run_s,
                        seed=first + number, first=first, keep_one_in=1,
                    )
                )
                for number, door in enumerate(DOORS)
            }  # fmt: skip
            for door, future in futures.items():
                runs[door].append(future.result())
            first += max(len(outcomes[-1]) for outcomes in runs.values())
        mover.join()
    if moves.failed:
        raise moves.failed[0]
    return runs


def add_run(result: Result, door: str, outcomes: Sequence[Outcome]) -> None:
    latencies = np.concatenate([outcome.latency_ms for outcome in outcomes])
    failed = sum(int((~outcome.ok).sum()) for outcome in outcomes)
    result.figures[f"{door}: requests"] = len(latencies)
    for percent in (50, 99):
        result.figures[f"{door}: p{percent}, ms"] = float(np.percentile(latencies, percent))
    result.figures[f"{door}: requests that failed"] = failed
    result.limits[f"{door}: requests that failed"] = ("most", 0)
    for kind in sorted({kind for outcome in outcomes for kind in outcome.errors()}):
        count = sum(outcome.errors().get(kind, 0) for outcome in outcomes)
        result.figures[f"{door}: {kind}"] = count


def answers(door: str, outcomes: Sequence[Outcome], visits: Visits) -> Iterator[Pair]:
    """Every good answer with its query."""
    for outcome in outcomes:
        for number in np.flatnonzero(outcome.ok).tolist():
            query = visits.queries[(outcome.plan.first + number) % len(visits.queries)]
            yield query, answer_of(door, outcome.bodies[number])


def check_answers(
    result: Result,
    door: str,
    outcomes: Sequence[Outcome],
    visits: Visits,
    marks: Mapping[int, str],
    most: int,
) -> dict[int, list[Pair]]:
    """Count the answers of each version, and those whose titles are of another.

    -> of each version about `most` of the answers, evenly spread.
    """
    some: dict[int, list[Pair]] = {version: [] for version in marks}
    counts, mixed = dict.fromkeys(marks, 0), 0
    every = max(1, sum(int(one.ok.sum()) for one in outcomes) // (len(marks) * most))
    for query, answer in answers(door, outcomes, visits):
        version = answer["bundle_version"]
        mixed += not all(app["title"].endswith(marks[version]) for app in answer["apps"])
        if counts[version] % every == 0:
            some[version].append((query, answer))
        counts[version] += 1
    for version, count in counts.items():
        result.figures[f"{door}: answers of version {version}"] = count
        result.limits[f"{door}: answers of version {version}"] = ("least", 1)
    result.figures[f"{door}: answers of two versions"] = mixed
    result.limits[f"{door}: answers of two versions"] = ("most", 0)
    return some


def compare(
    result: Result, workspace: Path, registry: Registry, some: Mapping[int, Sequence[Pair]]
) -> None:
    """Hold some answers of each version to what its bundle alone answers."""
    from recsys.online.answering import alone
    from recsys.online.bundle import Bundle
    from recsys.online.calls import asked_of
    from recsys.online.contract import Query
    from recsys.online.feature_store import FeatureStore, latest_feature_store
    from recsys.online.recommender import Recommender

    compared = others = late = 0
    with FeatureStore(latest_feature_store(workspace)) as store:
        for number, pairs in some.items():
            bundle = Bundle.of_version(registry.version(number))
            says = alone(Recommender(bundle, store), number)
            for query, answer in pairs:
                if "fallback" in answer:  # the ranker was late: it is another order
                    late += 1
                    continue
                (expected,) = says.run([asked_of(Query.model_validate(query))])
                compared += 1
                others += not is_same(answer, expected)
    result.figures["answers held to their version's bundle"] = compared
    result.limits["answers held to their version's bundle"] = ("least", 1)
    result.figures["answers that are not their version's"] = others
    result.limits["answers that are not their version's"] = ("most", 0)
    result.figures["answers that fell back, among those looked at"] = late


def is_same(answer: Mapping[str, Any], expected: Any) -> bool:
    """Whether version, apps in order, titles, categories and scores are."""
    if answer["bundle_version"] != expected["bundle_version"]:
        return False
    if len(answer["apps"]) != len(expected["apps"]):
        return False
    return all(
        int(one["app_id"]) == other["app_id"]
        and one["title"] == other["title"]
        and one["category"] == other["category"]
        and abs(one["score"] - other["score"]) <= _ROUND
        for one, other in zip(answer["apps"], expected["apps"], strict=True)
    )
