"""The trainer: any model, any batches, one loop that survives being killed.

Enters: a function that builds a model which knows its loss and its optimizers, and batches of
arrays.  Leaves: the trained model and its loss curve.

With checkpoints, a run that is killed at any step and started again ends in the same variables and
the same curve, bit for bit, if `set_seed` was called and the model draws nothing at random but by
seeds out of its batches.  With a strategy, the replicas share every batch: totals and gradients are
summed, so a loss that is a sum over rows trains as in one process.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic

import numpy as np

from mlplatform.training import divergence
from mlplatform.training.batches import Batches
from mlplatform.training.checkpoints import Checkpoints, restore
from mlplatform.training.curve import Point, best_of, is_out_of_patience
from mlplatform.training.events import Events
from mlplatform.training.held_out import HeldOut, Judge
from mlplatform.training.learner import Learner, Model
from mlplatform.training.replicas import Replicas
from mlplatform.training.state import Optimizers, Variables

LOSS_EVERY = 50  # steps


@dataclass(frozen=True)
class Trained(Generic[Model]):
    """A model after training.

    optimizers: with their slots, for `save_state`.
    curve: a point every `LOSS_EVERY` steps, at every judgement and checkpoint, and at the end.
    is_chief: whether this process, of those that trained together, is the one to save the model.
    """

    model: Model
    optimizers: Optimizers
    curve: tuple[Point, ...]
    is_chief: bool


def train(
    build: Callable[[], Model],
    batches: Batches,
    advance: Callable[[int], None] = lambda rows: None,
    *,
    held_out: HeldOut | None = None,
    checkpoints: Checkpoints | None = None,
    events: Path | None = None,
    begin: Callable[[Model, Variables, Mapping[str, Variables]], None] = lambda *_: None,
    strategy: Any | None = None,
) -> Trained[Model]:
    """Run through `batches` once, or until the held-out loss stops falling.

    build: makes the model, in the strategy's scope.
    advance: is told the number of rows after every step, and of those done before a kill at once.
    held_out: what the model is judged by; in the end it has the variables it was judged best with.
    checkpoints: where the run is kept, and gone on with if it is there.
    events: a directory for TensorBoard's event files.
    begin: is given the model, its variables by name, and their optimizers' slots by name and slot,
        before the first step of a run that begins; it may set them.
    strategy: a `tf.distribute.Strategy`; every process of a MultiWorkerMirroredStrategy calls
        `train` with the same arguments, and the chief alone writes.

    Raises:
        FailedPrecondition: a loss or a variable became NaN or infinite, and the variables are of
            no use; the message names the step, the input at fault and some of its rows, where
            there is one.  Or: too few rows for a batch; a batch that the replicas cannot share
            evenly; the checkpoints are another run's.
        InvalidArgument: an optimizer moves what the model does not hold.
        ResourceExhausted: no room is left for a checkpoint.
    """
    replicas = Replicas.of(strategy)
    intervals = [LOSS_EVERY]
    batches.check(replicas.count)
    if held_out is not None:
        held_out.batches.check(replicas.count)
        intervals.append(held_out.every)
    if checkpoints is not None:
        intervals.append(checkpoints.every)
    with ExitStack() as stack:
        stack.enter_context(replicas.strategy.scope())
        learner = Learner(build, replicas)
        judge = None if held_out is None else Judge(learner.model, held_out, replicas)
        identity = _identity(batches, held_out, learner)
        curve: list[Point] = []
        if checkpoints is not None:
            found = checkpoints.newest(identity)
            curve = [] if found is None else found[1]
            replicas.check_agreed(_step(curve), str(checkpoints.directory))
            if found is not None:
                _restore(found[0], learner, curve)
        start = kept = _step(curve)
        if start:
            advance(start * batches.batch_size)
        else:
            begin(learner.model, learner.variables, learner.slots)
        log = None
        if events is not None and replicas.is_chief:
            log = stack.enter_context(closing(Events(events, _examples(curve))))
        read = stack.enter_context(closing(replicas.read(batches, start)))
        pending: list[Any] = []
        steps = range(start + 1, batches.steps + 1)
        if held_out is not None and is_out_of_patience(curve, held_out.patience):
            steps = range(0)
        for step in steps:
            pending.append(learner.learn(next(read)))
            advance(batches.batch_size)
            is_last = step == batches.steps
            if not is_last and all(step % every for every in intervals):
                continue
            loss, examples = _mean_loss(pending, step, batches)
            pending.clear()
            point = Point(step, _examples(curve) + examples, loss)
            if judge is not None and (is_last or step % judge.every == 0):
                held_out_loss, metrics = judge.means(step)
                point = replace(point, held_out=held_out_loss, metrics=metrics)
            curve.append(point)
            if point.held_out is not None and best_of(curve) is point:
                learner.keep_best()
            if is_last or (checkpoints is not None and step % checkpoints.every == 0):
                divergence.check_variables(learner.variables, batches, step)
                if checkpoints is not None and replicas.is_chief:
                    checkpoints.write(learner.everything(), curve, identity, kept)
                    kept = step
            if log is not None:
                log.add(point)
            if held_out is not None and is_out_of_patience(curve, held_out.patience):
                break
        best = best_of(curve)
        if best is not None and best is not curve[-1]:
            learner.restore_best()
    return Trained(learner.model, learner.optimizers, tuple(curve), replicas.is_chief)


def _restore(path: Path, learner: Learner[Any], curve: Sequence[Point]) -> None:
    """Set the learner as a checkpoint has it, the best values so far included."""
    if best_of(curve) is not None:
        learner.keep_best()  # makes the copy that is set next
    restore(path, learner.everything())


def _identity(batches: Batches, held_out: HeldOut | None, learner: Learner[Any]) -> dict[str, Any]:
    """What the trainer itself knows of a run, JSON."""
    identity: dict[str, Any] = {"batches": _sizes(batches)}
    if held_out is not None:
        identity["held-out batches"] = _sizes(held_out.batches)
        identity["held-out every"] = held_out.every
    for name, variable in learner.variables.items():
        identity[f"variable {name}"] = {
            "dtype": variable.dtype.name,
            "shape": variable.shape.as_list(),
            "slots": sorted(learner.slots.get(name, {})),
        }
    return identity


def _sizes(batches: Batches) -> dict[str, int]:
    return {name: getattr(batches, name) for name in ("n_rows", "batch_size", "epochs", "seed")}


def _step(curve: Sequence[Point]) -> int:
    return curve[-1].step if curve else 0


def _examples(curve: Sequence[Point]) -> float:
    return curve[-1].examples if curve else 0.0


def _mean_loss(pending: Sequence[Any], step: int, batches: Batches) -> tuple[float, float]:
    """The mean loss an example of the last steps, the last of them `step`; and their examples."""
    totals, examples = np.array([sums.numpy() for sums in pending]).T
    if not np.isfinite(totals).all():
        bad = int(np.flatnonzero(~np.isfinite(totals))[0])
        number = step - len(pending) + bad
        divergence.refuse(f"the loss became {totals[bad]} in step {number + 1}", batches, number)
    return float(totals.sum() / examples.sum()), float(examples.sum())
