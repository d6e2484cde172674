"""A model that learns: its variables by name, its optimizers, its compiled step, its best values.

Enters: a function that builds a model, and the replicas to build it on.  Leaves: everything that a
step changes, to be kept and set again.
"""

from collections.abc import Callable, Mapping
from typing import Any, Generic, Protocol, TypeVar

from mlplatform.training.replicas import Replicas
from mlplatform.training.runtime import tensorflow
from mlplatform.training.state import named_variables, slots_of


class Trainable(Protocol):
    """What the trainer asks of a model, a tf.Module.

    One that has `measures` too (`held_out.Measured`) is measured by them on held-out batches.
    """

    def loss(self, batch: Mapping[str, Any]) -> tuple[Any, Any]:
        """Total loss of one batch of tensors, and the number of examples in it: two scalars.

        Gradients are those of the total, so that learning rates, accumulators and penalties keep
        the scale that the papers give them for single examples.
        """

    def optimizers(self) -> list[tuple[Any, list[Any]]]:
        """Each optimizer with the variables that it moves; together, all that are trained."""


Model = TypeVar("Model", bound=Trainable)


class Learner(Generic[Model]):
    """What learns; made, and used, inside the scope of the replicas' strategy.

    changing: all that a step changes, as nested dicts and lists of tf.Variable.
    best: a copy of `changing` as it was at `keep_best`, or None.
    learn: takes a step on what `Replicas.read` gives; -> total loss and examples, `[2] float64`.
    """

    def __init__(self, build: Callable[[], Model], replicas: Replicas) -> None:
        """Raises InvalidArgument: an optimizer moves what the model does not hold, or twice."""
        tf = tensorflow()
        self.model = build()
        self.optimizers = self.model.optimizers()
        self.variables = named_variables(self.model)
        self.slots = slots_of(self.variables, self.optimizers)
        self.changing = {
            "variables": self.variables,
            "slots": self.slots,
            "iterations": [optimizer.iterations for optimizer, _ in self.optimizers],
        }
        self.best: dict[str, Any] | None = None
        moved = [variable for _, group in self.optimizers for variable in group]

        def step(batch: Mapping[str, Any]) -> Any:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                for variable in moved:
                    tape.watch(variable)
                total, examples = self.model.loss(batch)
            gradients = iter(tape.gradient(total, moved))
            for optimizer, group in self.optimizers:
                # Summed over the replicas in there.
                optimizer.apply_gradients([(next(gradients), variable) for variable in group])
            return tf.stack([tf.cast(total, tf.float64), tf.cast(examples, tf.float64)])

        self.learn = replicas.summed(step)

    def everything(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return self.changing | ({} if self.best is None else {"best": self.best})

    def keep_best(self) -> None:
        """Copy what a step changes, values and slots alike: training can go on from there."""
        tf = tensorflow()
        if self.best is None:
            self.best = tf.nest.map_structure(
                lambda variable: tf.Variable(variable.read_value(), trainable=False), self.changing
            )
        else:
            _assign(self.best, self.changing)

    def restore_best(self) -> None:
        """Go back to the copy."""
        _assign(self.changing, self.best)


def _assign(targets: Any, sources: Any) -> None:
    tensorflow().nest.map_structure(
        lambda target, source: target.assign(source.read_value()), targets, sources
    )
