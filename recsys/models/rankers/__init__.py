"""Families of rankers: one module each, named as a configuration's `ranking.kind` names it.

To add one, write a module here with PARTS: the classes whose logits add up to the ranker's.  It is
trained, warm-started, judged and served like the others.
"""

import importlib
import pkgutil
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    import tensorflow as tf

    from recsys.models.ranking import Ranker


class Part(Protocol):
    """A tf.Module that gives a logit for every app of a slate.

    hashes: of each variable whose rows are buckets of a hash, by its attribute, what is hashed:
        while the words stay the same, weights go on from one day to the next.

    A part may have a method `served()`, what serves for it: a `ServedPart` of `models/serving`.
    A ranker with a part that has none is served by its exported signature, at several times the
    cost.
    """

    hashes: ClassVar[dict[str, str]]
    trainable_variables: Any

    def __init__(self, ranker: "Ranker") -> None:
        """The ranker has the columns, the app table and the settings."""

    def __call__(
        self, request: "tf.Tensor", history: "tf.Tensor", app: "tf.Tensor", impression: "tf.Tensor"
    ) -> "tf.Tensor":
        """-> `[b, k]`.

        request: codes `[b, columns]`; history: rows of the app table `[b, n]`; app, impression:
        codes `[b, k, columns]`.
        """

    def optimizer(self) -> Any:
        """A Keras optimizer for the part's variables."""


def families() -> list[str]:
    """The names of all families; nothing is imported."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def parts_of(family: str) -> tuple[type[Part], ...]:
    """What a family's rankers are made of."""
    parts: tuple[type[Part], ...] = importlib.import_module(f"{__name__}.{family}").PARTS
    return parts
