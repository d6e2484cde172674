"""How a feature is declared, and the ways to turn its raw value into codes.

Every transformed feature is an int32 code, 0 meaning 'missing': a row of some table of weights.
Numbers become the index of their quantile bucket (Cheng et al., Wide & Deep Learning for
Recommender Systems, 2016, section 4.1). Codes have no rounding, so training and serving can agree
to the bit.

Markers of a missing value in a raw tensor, which has no nulls: see `MISSING`.
"""

from dataclasses import dataclass
from typing import Literal

from mlplatform.errors import InvalidArgument

Dtype = Literal["int64", "float32", "string"]
Scalar = int | float | str

MISSING: dict[str, Scalar] = {"int64": -(2**63), "float32": float("nan"), "string": ""}


@dataclass(frozen=True)
class Vocabulary:
    """Code 1 for a value out of the vocabulary, 2… for its values, the most frequent first."""

    min_count: int = 1
    top_k: int = 10_000
    shared_with: str | None = None  # the feature whose vocabulary this one uses


@dataclass(frozen=True)
class Quantiles:
    """Codes 1…buckets, of about equal mass in the analyzed data."""

    buckets: int


@dataclass(frozen=True)
class Hashed:
    """Codes 1…buckets by a hash of the integer value: no analysis, collisions accepted."""

    buckets: int
    salt: int = 0


@dataclass(frozen=True)
class Feature:
    """One feature, as declared once and read by training, serving, schema and documentation.

    width: 1 for a scalar; else the value is a list, cut or padded to this many.
    source: the column it is read from, when that is not `name`.
    training_only: known when training, not when serving; serving then uses `default`.
    """

    name: str
    dtype: Dtype
    description: str
    transform: Vocabulary | Quantiles | Hashed | None = None
    unit: str = ""
    width: int = 1
    source: str = ""
    training_only: bool = False
    default: Scalar | None = None

    def __post_init__(self) -> None:
        if self.width > 1 and self.default is not None:
            raise InvalidArgument(
                f"feature {self.name!r}: expected no default for a list of width {self.width}, got "
                f"{self.default!r}; a list that is missing is empty"
            )

    @property
    def column(self) -> str:
        return self.source or self.name
