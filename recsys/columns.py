"""Which column of a code matrix holds which feature.

Codes travel as int32 matrices, one for requests, one for apps, one for impressions; a feature of
width w takes w columns, in the order of its declaration.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mlplatform.transform.feature import Feature
from mlplatform.transform.transform import Transform


@dataclass(frozen=True)
class Columns:
    """The layout of one code matrix; `cardinality[i]` is how many codes column i can have."""

    features: tuple[Feature, ...]
    cardinality: tuple[int, ...]

    @classmethod
    def of(cls, transform: Transform, features: Sequence[Feature]) -> "Columns":
        return cls(
            tuple(features),
            tuple(transform.cardinality(f.name) for f in features for _ in range(f.width)),
        )

    @cached_property
    def slices(self) -> dict[str, slice]:
        ends = np.cumsum([feature.width for feature in self.features]).tolist()
        return {
            feature.name: slice(end - feature.width, end)
            for feature, end in zip(self.features, ends, strict=True)
        }

    @property
    def width(self) -> int:
        return len(self.cardinality)

    def first(self, name: str) -> int:
        """The first column of a feature; of `tags`, that of the main tag."""
        return self.slices[name].start

    def indices(self, names: Sequence[str]) -> list[int]:
        """All columns of the named features."""
        return [i for name in names for i in range(self.width)[self.slices[name]]]

    def matrix(self, transform: Transform, table: pa.Table) -> NDArray[np.int32]:
        """Codes of a table, `[rows, width] int32`."""
        codes = transform.apply(table, [feature.name for feature in self.features])
        if not codes:
            return np.zeros((len(table), 0), dtype=np.int32)
        return np.concatenate([c if c.ndim == 2 else c[:, None] for c in codes.values()], axis=1)
