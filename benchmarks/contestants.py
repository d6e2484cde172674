"""Who takes part in the benchmark of training: our models, and plain scripts on the same batches.

Enters: a task.  Leaves: contestants, ready to train.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from benchmarks.plain_inputs import ranker_inputs, table_sizes, tower_inputs
from benchmarks.training_tasks import Task
from mlplatform.training.batches import Batch
from mlplatform.training.runtime import set_seed, tensorflow
from mlplatform.training.trainer import train


@dataclass(frozen=True)
class Contestant:
    """A model in its trainer.

    rows: a batch counts for so many.
    model: a tf.Module, a Keras model too; its trainable variables are those trained.
    inputs: makes the batches of one passage, each when it is asked for.
    loss: a batch's total, a scalar tensor.
    optimizers: each with the variables that it moves.
    train: goes through all batches once, and says so after each.
    """

    rows: int
    model: Any
    inputs: Callable[[], Iterator[Any]]
    loss: Callable[[Any], Any]
    optimizers: list[tuple[Any, list[Any]]]
    train: Callable[[Callable[[], None]], object]

    @property
    def parameters(self) -> int:
        return sum(int(np.prod(variable.shape)) for variable in self.model.trainable_variables)


def ours(task: Task) -> Contestant:
    """In our trainer, with deterministic operations as in the pipeline."""
    tf = tensorflow()
    set_seed(0)
    model, batches = task.model, task.batches

    def inputs() -> Iterator[Any]:
        for rows in batches.rows():
            yield {name: tf.convert_to_tensor(a) for name, a in batches.take(rows).items()}

    return Contestant(
        task.rows,
        model,
        inputs,
        lambda batch: model.loss(batch)[0],
        model.optimizers(),
        lambda advance: train(lambda: model, batches, lambda rows: advance()),
    )


def plain_towers(task: Task) -> Contestant:
    """`compile` and `fit` of `plain_keras.TwoTower`."""
    tensorflow()
    from benchmarks import plain_keras

    ((optimizer, _),) = task.model.optimizers()
    settings = task.model.settings
    script = plain_keras.TwoTower(
        table_sizes(task),
        field_dim=settings.field_dim,
        hidden=settings.hidden,
        dim=settings.dim,
    )
    script.compile(optimizer)
    return _plain(
        task, script, script.compute_loss, [(optimizer, script)], partial(tower_inputs, task)
    )


def plain_ranker(task: Task, *, by_slate: bool) -> Contestant:
    """`compile` and `fit` of `plain_keras.wide_and_deep`."""
    tensorflow()
    from benchmarks import plain_keras

    settings = task.model.settings
    script = plain_keras.wide_and_deep(
        plain_keras.Wide(settings.wide_buckets),
        plain_keras.Deep(
            table_sizes(task),
            field_dim=settings.field_dim,
            hidden=settings.hidden,
            product=settings.product,
            slate=task.rows_an_example if by_slate else 1,
        ),
    )
    # The third optimizer of ours, the bias', is as the deep part's, to which the bias belongs here.
    wide, deep, _ = (optimizer for optimizer, _ in task.model.optimizers())
    script.compile([wide, deep], plain_keras.LOSS)
    return _plain(
        task,
        script,
        lambda batch: plain_keras.LOSS(batch[1], script(batch[0])),
        [(wide, script.linear_model), (deep, script.dnn_model)],
        partial(ranker_inputs, task, by_slate=by_slate),
    )


def _plain(
    task: Task,
    script: Any,
    loss: Callable[[Any], Any],
    optimizers: list[tuple[Any, Any]],
    convert: Callable[[Batch], Any],
) -> Contestant:
    """A compiled Keras model, and every batch, converted, in the cache of a tf.data.Dataset."""
    import tf_keras

    tf = tensorflow()

    def made() -> Iterator[Any]:
        for rows in task.batches.rows():
            yield tf.nest.map_structure(tf.constant, convert(task.batches.take(rows)))

    signature = tf.nest.map_structure(tf.type_spec_from_value, next(made()))
    cached = tf.data.Dataset.from_generator(made, output_signature=signature).cache()
    for _ in cached:
        pass  # fills the cache
    loss(next(iter(cached)))  # Keras makes the variables when it sees a batch
    dataset = cached.prefetch(tf.data.AUTOTUNE)

    def fit(advance: Callable[[], None]) -> None:
        told = tf_keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: advance())
        script.fit(dataset, verbose=0, callbacks=[told])

    groups = [(optimizer, list(part.trainable_variables)) for optimizer, part in optimizers]
    return Contestant(task.rows, script, lambda: iter(dataset), loss, groups, fit)
