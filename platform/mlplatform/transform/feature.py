"""How a feature is declared, and the ways to turn its raw value into what a model takes.

Most features become an int32 code, 0 meaning 'missing': a row of some table of weights.  Numbers
become the index of their bucket (Cheng et al., Wide & Deep Learning for Recommender Systems, 2016,
section 4.1).  Codes have no rounding, so training and serving can agree to the bit; z-scores are
float32, by operations that both round alike.

Markers of a missing value in a raw tensor, which has no nulls: see `MISSING`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mlplatform.errors import InvalidArgument

Dtype = Literal["int64", "float32", "string"]
Scalar = int | float | str

MISSING: dict[str, Scalar] = {"int64": -(2**63), "float32": float("nan"), "string": ""}

# The codes of a vocabulary after 0, which is missing.
OUT_OF_VOCABULARY = 1
FIRST_OF_VOCABULARY = 2


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
class Bucketize:
    """Codes 1…n + 1 by n rising limits, compared as float32; a value on a limit is above it."""

    boundaries: tuple[float, ...]

    def __post_init__(self) -> None:
        with np.errstate(over="ignore"):  # what overflows is found infinite
            limits = np.array(self.boundaries, np.float32)
        if not len(limits) or not np.isfinite(limits).all() or not (np.diff(limits) > 0).all():
            raise InvalidArgument(
                "Bucketize: expected one or more finite boundaries, each above the one before "
                f"when rounded to float32, got {self.boundaries}; correct the declaration"
            )


@dataclass(frozen=True)
class ZScore:
    """Not a code but a float32: (value - mean) / standard deviation, 0.0 for a missing value.

    Mean and population deviation are those of the finite values analyzed; a feature that was
    constant there is 0.0 everywhere.
    """


@dataclass(frozen=True)
class Hashed:
    """Codes 1…buckets by a hash of the integer value: no analysis, collisions accepted."""

    buckets: int
    salt: int = 0


@dataclass(frozen=True)
class Crossed:
    """Codes 1…buckets by a hash of what the features `of` say together; missing is a thing to say.

    It has no column of its own but reads those of its parts, which are scalars with codes, declared
    beside it and no crosses themselves.  Its Feature is an int64 that names no source and no
    default: a part that is missing takes the part's default.

    What is hashed are the parts' `Transform.stable_ids`, so that the code of a pair of values does
    not depend on where they stand in a vocabulary.
    """

    of: tuple[str, ...]
    buckets: int
    salt: int = 0

    def __post_init__(self) -> None:
        if len(self.of) < 2 or len(set(self.of)) < len(self.of):
            raise InvalidArgument(
                f"Crossed: expected two or more features, each once, got {self.of}; "
                "correct the declaration"
            )


Coding = Vocabulary | Quantiles | Bucketize | ZScore | Hashed | Crossed
_TAKES: dict[type[Coding], tuple[Dtype, ...]] = {
    Vocabulary: ("int64", "string"),
    Quantiles: ("int64", "float32"),
    Bucketize: ("int64", "float32"),
    ZScore: ("int64", "float32"),
    Hashed: ("int64",),
    Crossed: ("int64",),
}


@dataclass(frozen=True)
class Feature:
    """One feature, as declared once and read by training, serving, schema and documentation.

    width: 1 for a scalar; else the value is a list, cut or padded to this many.
    source: the column it is read from, when that is not `name`.
    training_only: known when training, not when serving; serving then uses `default`.

    Raises:
        InvalidArgument: the parts of the declaration contradict each other.
    """

    name: str
    dtype: Dtype
    description: str
    transform: Coding | None = None
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
        takes = _TAKES[type(self.transform)] if self.transform else (self.dtype,)
        if self.dtype not in takes:
            raise InvalidArgument(
                f"feature {self.name!r}: expected {' or '.join(takes)} for "
                f"{type(self.transform).__name__}, got {self.dtype}; correct the declaration"
            )
        if isinstance(self.transform, Crossed) and (
            self.width > 1 or self.source or self.default is not None
        ):
            raise InvalidArgument(
                f"feature {self.name!r}: expected a cross without width, source and default, got "
                f"width {self.width}, source {self.source!r}, default {self.default!r}; "
                "declare them of its parts"
            )

    @property
    def column(self) -> str:
        """The raw column that it is read from; empty for a cross, which has none."""
        return "" if isinstance(self.transform, Crossed) else self.source or self.name


def require_parts(features: Sequence[Feature]) -> None:
    """Raise InvalidArgument unless the parts of every cross are there and can be crossed."""
    by_name = {feature.name: feature for feature in features}
    for feature in features:
        if not isinstance(feature.transform, Crossed):
            continue
        for name in feature.transform.of:
            match by_name.get(name):
                case None:
                    got = "none of that name"
                case Feature(width=width) if width > 1:
                    got = f"a list of width {width}"
                case Feature(transform=None):
                    got = "one without a transform"
                case Feature(transform=ZScore() | Crossed() as transform):
                    got = f"a {type(transform).__name__}"
                case _:
                    continue
            raise InvalidArgument(
                f"feature {feature.name!r}: expected {name!r} to be a scalar feature with codes of "
                f"its own, declared beside the cross, got {got}; correct the declaration"
            )
