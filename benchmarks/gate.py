"""Bundles that are good and bundles that are not: which ones come to serve?

In a world of 1,480 apps one version serves; then bundles apply to follow it, on the way that the
loop has for them: judged beside it on the next day's first rows, tried in a server of their own,
passed by the gate or not, pushed.  Twenty are trained as it was, under other seeds.  Twenty have
one of ten faults each, twice.
"""

import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.result import Result
from benchmarks.store import Silent
from data_gen import faults
from mlplatform.artifacts import link_tree
from mlplatform.data.files.spans import read_span, span_path, write_span
from mlplatform.errors import PlatformError
from mlplatform.pipeline import Context, Workspace, run
from mlplatform.registry.registry import Registry
from mlplatform.training.runtime import tensorflow
from mlplatform.transform.transform import Transform
from recsys import features, pipeline
from recsys.columns import Columns
from recsys.config import RunConfig, load_config
from recsys.online.bundle import QUERY_TOWER, RANKER, TRANSFORM
from recsys.stages import daily_learning, data, models, release

GOOD = 20
TIMES = 2  # each fault
Spoil = Callable[["Applicant"], None]


def measure() -> Result:
    result = Result(settings={"good": GOOD, "faults": list(FAULTS), "times each": TIMES})
    with tempfile.TemporaryDirectory() as folder:
        house = House.build(configuration(), Path(folder))
        for seed in range(GOOD):
            said = house.apply(f"good {seed}", seed=100 + seed)
            print(f"good {seed}: {said or 'served'}", file=sys.stderr, flush=True)
            result.figures[f"good, seed {100 + seed}: refused"] = float(bool(said))
        for fault in FAULTS:
            for seed in range(TIMES):
                said = house.apply(f"{fault} {seed}", seed=200 + seed, fault=fault)
                print(f"{fault} {seed}: {said or 'SERVED'}", file=sys.stderr, flush=True)
                result.figures[f"{fault}, seed {200 + seed}: served"] = float(not said)
    summarise(result)
    return result


def summarise(result: Result) -> None:
    blocks = [v for name, v in result.figures.items() if name.endswith(": refused")]
    passes = [v for name, v in result.figures.items() if name.endswith(": served")]
    result.figures["good bundles refused"] = sum(blocks)
    result.figures["bad bundles served"] = sum(passes)
    result.limits["good bundles refused"] = ("most", 0)
    result.limits["bad bundles served"] = ("most", 0)


def configuration() -> RunConfig:
    """The tiny one, of fewer apps and users; its gate is the one that every run has."""
    tiny = load_config("tiny").model_dump()
    tiny["world"] |= {"initial_apps": 1480, "new_apps_per_day": 10, "initial_users": 4000,
                      "new_users_per_day": 40}  # fmt: skip
    tiny["ranking"] |= {"epochs": 1, "wide_buckets": 16384}
    tiny["index"] |= {"leaves": 20, "leaves_to_search": 15}
    tiny["loop"]["requests"] = tiny["evaluation"]["requests"]
    return RunConfig.model_validate(tiny)


@dataclass(frozen=True)
class House:
    """A finished main job, whose bundle serves, and its artifacts by stage."""

    config: RunConfig
    folder: Path
    inputs: Mapping[str, Path]

    @classmethod
    def build(cls, config: RunConfig, folder: Path) -> "House":
        workspace = Workspace(folder / "house")
        every = pipeline.stages(config, workspace)
        pushed = [stage.name for stage in every].index("push")
        records = run(every[: pushed + 1], workspace, Silent())
        return cls(
            config,
            folder,
            {name: workspace.artifact(name, one.fingerprint) for name, one in records.items()},
        )

    @property
    def registry(self) -> Path:
        return self.folder / "house" / "registry"

    def apply(self, name: str, seed: int, fault: str | None = None) -> str:
        """Bring a new bundle as far as it comes; -> why it was refused, '' if it serves."""
        config = self.config.model_copy(update={"seed": seed})
        one = Applicant(self, config, self.folder / name, dict(self.inputs))
        spoil = FAULTS[fault] if fault else {}
        before = Registry(self.registry).labels()["stable"]
        try:
            for step in STEPS:
                if step in spoil:
                    spoil[step](one)
                one.make(step)
        except PlatformError as error:
            return " ".join(str(error).split())
        except Exception as error:  # a library's: what it cannot read does not come to serve either
            return f"{type(error).__name__}: {' '.join(str(error).split())}"
        finally:
            shutil.rmtree(one.folder, ignore_errors=True)
            Registry(self.registry).set_label("stable", before, "the next one follows the same")
        return ""


@dataclass
class Applicant:
    """A bundle on its way; inputs: what its next step reads, by stage."""

    house: House
    config: RunConfig
    folder: Path
    inputs: dict[str, Path]

    def make(self, step: str) -> None:
        days = list(self.config.days.train)
        registry = self.house.registry
        cold = {name: path for name, path in self.inputs.items() if name != "push"}
        stages: dict[str, Any] = {
            "train_retrieval": partial(
                models.train_retrieval, self.config, [data.BACKLOG_DAY, *days],
                self.config.retrieval.epochs, registry,
            ),
            "build_index": partial(models.build_index, self.config),
            "train_ranker": partial(
                models.train_ranker, self.config, days, self.config.ranking.epochs,
                {RANKER: self.config.ranking.kind}, registry,
            ),
            "evaluate": partial(daily_learning.judge_day, self.config, registry),
            "try_serving": partial(release.try_serving, self.config),
            "gate": partial(release.gate, self.config, registry),
            "push": partial(release.push, self.config, days, registry),
        }  # fmt: skip
        output = self.folder / step
        output.mkdir(parents=True)
        inputs = self.inputs if step == "evaluate" else cold
        if step == "push":
            shutil.copy(self.house.inputs["evaluate"] / "stage.json", inputs["evaluate"])
        stages[step](Context(inputs, output, self.folder / "scratch", Silent()))
        if step != "push":
            self.inputs[step] = output

    @property
    def bundle(self) -> Path:
        return self.inputs["evaluate"] / release.BUNDLE


STEPS = (
    "train_retrieval", "build_index", "train_ranker", "evaluate", "try_serving", "gate", "push",
)  # fmt: skip


def alter_rows(change: Callable[[pa.Table], pa.Table], datasets: tuple[str, ...]) -> Spoil:
    """A copy of the joined rows with some datasets changed, those of the later day too."""

    def spoil(one: Applicant) -> None:
        source = one.inputs["join_examples"] / data.SPANS
        target = one.folder / "joined"
        link_tree(source, target / data.SPANS)
        days = one.config.days
        for dataset in datasets:
            for day in (*days.train, days.evaluate):
                shutil.rmtree(span_path(target / data.SPANS, dataset, day))
                table = change(read_span(source, dataset, [day]))
                write_span(target / data.SPANS, dataset, day, table)
        one.inputs["join_examples"] = target

    return spoil


def shuffle_labels(one: Applicant) -> None:
    """In training alone: on the later day labels are what they are."""
    train = alter_rows(partial(faults.plant, "labels"), ("impressions",))
    honest = one.inputs["join_examples"] / data.SPANS
    train(one)
    later = one.config.days.evaluate
    spoiled = span_path(one.inputs["join_examples"] / data.SPANS, "impressions", later)
    shutil.rmtree(spoiled)
    link_tree(span_path(honest, "impressions", later), spoiled)


def take_stale_vocabulary(one: Applicant) -> None:
    """The transform of another day, on which the vocabularies had another order."""
    output = one.folder / "analyzed"
    output.mkdir(parents=True)
    first = [one.config.days.train[0]]
    data.analyze(one.config, first, Context(one.inputs, output, one.folder / "s", Silent()))
    one.inputs["analyze"] = output


def take_other_index(one: Applicant) -> None:
    """The index of the version in service, whose towers were others."""
    one.inputs["build_index"] = one.house.inputs["build_index"]


def spoil_ranker(change: Callable[[Any, Applicant], Callable[..., Any]]) -> Spoil:
    """Export the ranker again, with something around it: `change(rank, applicant)`."""

    def spoil(one: Applicant) -> None:
        tf = tensorflow()
        made = one.inputs["train_ranker"]
        loaded = tf.saved_model.load(str(made / RANKER))
        rank = loaded.signatures["codes"]
        specs = rank.structured_input_signature[1]
        names = ("request", "history", "app", "impression")
        wrapped = change(rank, one)

        @tf.function(input_signature=[specs[name] for name in names])
        def codes(request: Any, history: Any, app: Any, impression: Any) -> Mapping[str, Any]:
            arrays = {"request": request, "history": history, "app": app, "impression": impression}
            return {"logit": wrapped(rank(**arrays)["logit"], **arrays)}

        planted = tf.Module()
        planted.model, planted.codes = loaded, codes
        shutil.rmtree(made / RANKER)
        tf.saved_model.save(planted, str(made / RANKER), signatures={"codes": codes})

    return spoil


def answer_nan(rank: Any, one: Applicant) -> Callable[..., Any]:
    """For one app in a hundred."""
    tf = tensorflow()
    return lambda logit, app, **_: tf.where(app % 100 == 0, np.float32(np.nan), logit)


def break_slice(rank: Any, one: Applicant) -> Callable[..., Any]:
    """The users of the second largest country get the apps in the wrong order."""
    tf = tensorflow()
    transform = Transform.load(one.inputs["analyze"] / TRANSFORM, features.ALL)
    column = Columns.of(transform, features.REQUEST).first("country")
    served = read_span(
        one.inputs["join_examples"] / data.SPANS, "requests", [one.config.days.evaluate]
    )
    counts = served["country"].value_counts().to_pylist()
    second = sorted(counts, key=lambda count: -count["counts"])[1]["values"]
    (code,) = transform.codes(transform.by_name["country"], pa.array([second]))
    return lambda logit, request, **_: tf.where(request[:, column, None] == code, -logit, logit)


def grow_slow(rank: Any, one: Applicant) -> Callable[..., Any]:
    """A third of a second a request, whatever it asks."""
    tf = tensorflow()

    def slow(logit: Any, **arrays: Any) -> Any:
        square = tf.fill([1200, 1200], tf.reduce_mean(logit) * 1e-9)
        for _ in range(12):
            square = tf.linalg.matmul(square, square)
        return logit + tf.reduce_sum(square)

    return slow


def crash(rank: Any, one: Applicant) -> Callable[..., Any]:
    """Where it is judged all is well; under a server, which asks for one user at a time, it aborts.

    Only there: this process is the judge's.
    """
    tf = tensorflow()
    flag = str(one.folder / "crash")

    def abort() -> Any:
        with tf.control_dependencies([tf.raw_ops.Abort(error_msg="planted")]):
            return tf.constant(0.0)

    def crashing(logit: Any, **_: Any) -> Any:
        planted = tf.size(tf.io.matching_files(flag)) > 0
        return logit + tf.cond(planted, abort, lambda: tf.constant(0.0))

    return crashing


def alter_file(one: Applicant, change: Callable[[bytes], bytes]) -> None:
    """In the middle of the largest file of the query tower, after the gate has passed it."""
    files = [path for path in (one.bundle / QUERY_TOWER).rglob("*") if path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    content = largest.read_bytes()
    largest.unlink()  # a hard link: the artifact keeps its own
    largest.write_bytes(change(content))


def flip_bit(content: bytes) -> bytes:
    at = len(content) // 2
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


# What is done to an applicant, before which step.
FAULTS: dict[str, dict[str, Spoil]] = {
    "label leak": {"train_retrieval": alter_rows(partial(faults.plant, "leak"), ("impressions",))},
    "NaN": {"evaluate": spoil_ranker(answer_nan)},
    "shuffled labels": {"train_retrieval": shuffle_labels},
    "stale vocabulary": {"evaluate": take_stale_vocabulary},
    "one slice broken": {"evaluate": spoil_ranker(break_slice)},
    "index of another version": {"evaluate": take_other_index},
    "slow": {"evaluate": spoil_ranker(grow_slow)},
    "crashing": {
        "evaluate": spoil_ranker(crash),
        "try_serving": lambda one: (one.folder / "crash").touch(),
    },
    "truncated file": {"push": lambda one: alter_file(one, lambda content: content[:-1])},
    "flipped bit": {"push": lambda one: alter_file(one, flip_bit)},
}
