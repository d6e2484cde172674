"""Training: rows a second of our two models in our trainer, beside plain Keras scripts.

The scripts (`plain_keras`) have the same parameters, optimizers and batches.  They are given what
favours them most: their inputs are codes, joined, hashed and crossed ahead, and every batch stands
ready in the cache of tf.data before the clock starts, so that their input costs nothing.  Ours
gathers every batch anew and hashes its crosses in the graph, and runs with deterministic operations
as the pipeline does; the scripts do not.  The ranker's script has an impression a row, as everybody
does, and once more works by slate as ours does.

Each contestant is a process of its own, built once; they train in turn, and all sleep but one.

The profile is of whole batches, in milliseconds: input alone (in training it is made in a thread
beside the step), forward alone, backward (forward and backward, less forward) and the optimizer
(a whole step, less forward and backward).
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.contestants import Contestant, ours, plain_ranker, plain_towers
from benchmarks.result import Result
from benchmarks.rounds import Rounds
from benchmarks.store import Store, million_apps
from benchmarks.training_tasks import ranker, towers
from mlplatform.training.runtime import tensorflow

WARM_UP = 10  # steps before the clock starts: tracing, and making the optimizers' slots
STEPS = 80  # a round, after these
ROUNDS = 5
PROFILED = 10  # batches
MUST = 1.0  # not slower
OURS, PLAIN, BY_ROW, BY_SLATE = "ours", "plain", "plain, an impression a row", "plain, by slate"
TOWERS, RANKER = "towers", "ranker"
SCRIPTS = {TOWERS: (OURS, PLAIN), RANKER: (OURS, BY_ROW, BY_SLATE)}


def measure() -> Result:
    config = million_apps(users=60_000)
    result = Result(
        settings={
            "steps a round": STEPS,
            "rounds, median of": ROUNDS,
            "world": config.world.model_dump(mode="json"),
            "retrieval": config.retrieval.model_dump(mode="json"),
            "ranking": config.ranking.model_dump(mode="json"),
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        store = Store.make(config, Path(folder))
        for model in SCRIPTS:
            measure_model(result, model, store, steps=STEPS, rounds=ROUNDS)
    return result


def measure_model(result: Result, model: str, store: Store, *, steps: int, rounds: int) -> None:
    """Add a model's figures and its limits."""
    with ExitStack() as stack:
        processes = {
            script: stack.enter_context(
                ProcessPoolExecutor(
                    1, get_context("spawn"), _enter, (store, model, script, WARM_UP + steps)
                )
            )
            for script in SCRIPTS[model]
        }
        built = {script: one.submit(_parameters) for script, one in processes.items()}
        sizes = {script: one.result() for script, one in built.items()}
        assert len(set(sizes.values())) == 1, f"{model}: numbers of parameters differ: {sizes}"
        result.figures[f"{model}: parameters"] = sizes[OURS]

        def speed(process: ProcessPoolExecutor) -> float:
            return process.submit(_speed).result()

        speeds = Rounds.run(
            rounds, {script: partial(speed, one) for script, one in processes.items()}
        )
        for script in processes:
            result.figures[f"{model}: rows a second, {script}"] = speeds.median(script)
        for script in processes:
            if script != OURS:
                result.figures[f"{model}: ours, times {script}"] = speeds.ratio(OURS, to=[script])
                result.limits[f"{model}: ours, times {script}"] = ("least", MUST)
        for script, process in processes.items():
            for phase, milliseconds in process.submit(_profile).result().items():
                result.figures[f"{model}: ms a batch, {phase}, {script}"] = milliseconds


class Clock:
    """Is told of every step, and knows the rows a second since the first `WARM_UP` of them."""

    def __init__(self, rows_a_step: int) -> None:
        self._rows = rows_a_step
        self._steps = 0
        self._started = self._ended = 0.0

    def advance(self) -> None:
        self._steps += 1
        self._ended = time.perf_counter()
        if self._steps == WARM_UP:
            self._started = self._ended

    @property
    def speed(self) -> float:
        return self._rows * (self._steps - WARM_UP) / (self._ended - self._started)


# A process has one contestant for its life; in the process that measures there is none.
_own: list[Contestant] = []


def _enter(store: Store, model: str, script: str, steps: int) -> None:
    task = towers(store, steps) if model == TOWERS else ranker(store, steps)
    if script == OURS:
        _own.append(ours(task))
    elif model == TOWERS:
        _own.append(plain_towers(task))
    else:
        _own.append(plain_ranker(task, by_slate=script == BY_SLATE))


def _parameters() -> int:
    return _own[0].parameters


def _speed() -> float:
    clock = Clock(_own[0].rows)
    _own[0].train(clock.advance)
    return clock.speed


def _profile() -> dict[str, float]:
    """Milliseconds a batch of each part, the median of some batches."""
    tf = tensorflow()
    contestant = _own[0]

    @tf.function(reduce_retracing=True)
    def forward(batch: Any) -> Any:
        return contestant.loss(batch)

    variables = [variable for _, group in contestant.optimizers for variable in group]

    def gradients(batch: Any) -> list[Any]:
        with tf.GradientTape() as tape:
            total = contestant.loss(batch)
        return tape.gradient(total, variables)

    @tf.function(reduce_retracing=True)
    def step(batch: Any) -> None:
        found = iter(gradients(batch))
        for optimizer, group in contestant.optimizers:
            optimizer.apply_gradients([(next(found), variable) for variable in group])

    both = tf.function(gradients, reduce_retracing=True)
    inputs = contestant.inputs()
    spent: dict[str, list[float]] = {"input": [], "forward": [], "both": [], "step": []}
    for _ in range(1 + PROFILED):
        batch = _timed(spent["input"], next, inputs)
        for name, call in (("forward", forward), ("both", both), ("step", step)):
            _timed(spent[name], call, batch)
    # The first of each was traced.
    found = {name: 1000 * statistics.median(seconds[1:]) for name, seconds in spent.items()}
    return {
        "input": found["input"],
        "forward": found["forward"],
        "backward": found["both"] - found["forward"],
        "optimizer": found["step"] - found["both"],
    }


def _timed(spent: list[float], call: Callable[[Any], Any], argument: Any) -> Any:
    started = time.perf_counter()
    answer = call(argument)
    spent.append(time.perf_counter() - started)
    return answer
