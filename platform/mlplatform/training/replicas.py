"""One batch on many replicas: what `tf.distribute` asks of a training loop.

Enters: a strategy and batches.  Leaves: every replica's share of a batch, made by the process that
the replica runs in, and sums over all replicas.
"""

from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from mlplatform.errors import FailedPrecondition
from mlplatform.training.batches import Batches
from mlplatform.training.runtime import tensorflow


@dataclass(frozen=True)
class Replicas:
    """The replicas of a strategy; `mine` are the numbers of those in this process."""

    strategy: Any
    mine: tuple[int, ...]

    @classmethod
    def of(cls, strategy: Any | None) -> "Replicas":
        """The replicas of a `tf.distribute.Strategy`; of None: one, without any cost."""
        strategy = strategy or tensorflow().distribute.get_strategy()
        mine: list[int] = []

        def note(context: Any) -> Any:
            mine.append(context.replica_id_in_sync_group)
            return tensorflow().constant(0)

        strategy.experimental_distribute_values_from_function(note)
        return cls(strategy, tuple(mine))

    @property
    def count(self) -> int:
        """How many replicas there are in all processes together."""
        return int(self.strategy.num_replicas_in_sync)

    @property
    def is_chief(self) -> bool:
        """Whether this process writes what only one is to write."""
        return bool(self.strategy.extended.should_checkpoint)

    def read(self, batches: Batches, start: int = 0) -> Generator[Any, None, None]:
        """The batches from step `start` on as tensors, each replica's share in its place."""
        tf = tensorflow()
        with closing(batches.read(start, self.mine, self.count)) as made:
            for shares in made:
                tensors = {
                    replica: {name: tf.convert_to_tensor(array) for name, array in share.items()}
                    for replica, share in zip(self.mine, shares, strict=True)
                }
                yield self.strategy.experimental_distribute_values_from_function(
                    lambda context, tensors=tensors: tensors[context.replica_id_in_sync_group]
                )

    def summed(self, work: Callable[[Mapping[str, Any]], Any]) -> Callable[[Any], Any]:
        """Compile `work` on a share to a function of what `read` gives.

        work: gives a tensor, or a dict of tensors; each is summed over the replicas.
        """
        tf = tensorflow()

        @tf.function(reduce_retracing=True)
        def run(batch: Any) -> Any:
            found = self.strategy.run(work, args=(batch,))
            return tf.nest.map_structure(
                lambda value: self.strategy.reduce("SUM", value, axis=None), found
            )

        return run

    def check_agreed(self, step: int, where: str) -> None:
        """See that every process begins at the same step.

        Raises:
            FailedPrecondition: they do not, as their checkpoints differ.
        """
        tf = tensorflow()
        if len(self.mine) == self.count:
            return
        own = self.summed(lambda nothing: tf.constant([step, step**2], tf.int64))
        total, squares = own({}).numpy().tolist()
        # Their mean square is the square of their mean if they are all the same, and then only.
        if squares * self.count != total**2:
            raise FailedPrecondition(
                f"the workers begin at different steps, this one at {step}: expected {where} to "
                "be one directory that all of them see; share it, or delete every worker's copy"
            )
