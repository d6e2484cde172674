"""What is known once the data was analyzed, kept as JSON.

Enters: features, and what was found of them: vocabularies, quantile boundaries, means and
deviations.  Leaves: how many codes each feature has and what each one stands for.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mlplatform.artifacts import read_json, to_json, write_file_atomically
from mlplatform.errors import DataCorrupt, InvalidArgument
from mlplatform.transform.feature import (
    OUT_OF_VOCABULARY,
    Bucketize,
    Crossed,
    Feature,
    Hashed,
    Quantiles,
    Vocabulary,
    ZScore,
    require_parts,
)
from mlplatform.transform.hashing import hash_values
from mlplatform.transform.near_zero import flush_numpy
from mlplatform.transform.row_keys import RowKeys
from mlplatform.transform.zscore import Scale


@dataclass(frozen=True)
class Analyzed:
    """Features with what was found of them, each under the feature's name.

    vocabularies: values, the most frequent first.   boundaries: rising float32 bucket limits.
    scales: of z-scores.

    Raises:
        InvalidArgument: a cross names a feature that is not there or cannot be crossed.
    """

    features: tuple[Feature, ...]
    vocabularies: Mapping[str, tuple[int | str, ...]] = field(default_factory=dict)
    boundaries: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    scales: Mapping[str, Scale] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_parts(self.features)

    @cached_property
    def by_name(self) -> dict[str, Feature]:
        return {feature.name: feature for feature in self.features}

    def read_for(self, names: Sequence[str]) -> list[Feature]:
        """The features whose columns these features are made of: themselves, parts for crosses."""
        read: dict[str, None] = {}
        for name in names:
            transform = self.by_name[name].transform
            read |= dict.fromkeys(transform.of if isinstance(transform, Crossed) else [name])
        return [self.by_name[name] for name in read]

    def vocabulary(self, feature: Feature) -> tuple[int | str, ...]:
        """The values of a `Vocabulary`, its own or the one it shares."""
        assert isinstance(feature.transform, Vocabulary)
        return self.vocabularies[feature.transform.shared_with or feature.name]

    def limits(self, feature: Feature) -> NDArray[np.float32]:
        """The rising limits between the buckets of `Quantiles` or `Bucketize`, float32."""
        if isinstance(feature.transform, Bucketize):
            return flush_numpy(np.array(feature.transform.boundaries, np.float32))
        return flush_numpy(self.boundaries[feature.name])

    def cardinality(self, name: str) -> int:
        """How many codes the feature can have, 0 (missing) included.

        Raises:
            InvalidArgument: the feature has no codes.
        """
        return self.row_keys(name).cardinality

    def row_keys(self, name: str) -> RowKeys:
        """What each code of a feature stands for.

        Raises:
            InvalidArgument: the feature has no codes.
        """
        feature = self.by_name[name]
        match feature.transform:
            case Vocabulary():
                return RowKeys("vocabulary", values=self.vocabulary(feature))
            case Quantiles() | Bucketize():
                return RowKeys("buckets", limits=tuple(self.limits(feature).tolist()))
            case Hashed(buckets=buckets, salt=salt):
                return RowKeys("hashed", buckets=buckets, salt=salt)
            case Crossed(of=of, buckets=buckets, salt=salt):
                parts = tuple(map(self._part, of))
                return RowKeys("hashed", buckets=buckets, salt=salt, parts=parts)
            case ZScore():
                raise InvalidArgument(f"feature {name!r} is a number, so it has no codes")
            case None:
                raise InvalidArgument(f"feature {name!r} has no transform, so it has no codes")

    def _part(self, name: str) -> str:
        """A part of a cross as its hash sees it: values of a vocabulary, codes of all else."""
        feature = self.by_name[name]
        is_by_value = isinstance(feature.transform, Vocabulary)
        return f"{name}: {feature.dtype if is_by_value else feature.transform}"

    def stable_ids(self, name: str) -> NDArray[np.int64]:
        """An id for each code, `[cardinality]`, whatever the order of a vocabulary.

        For a value of a vocabulary it is its `hash_values`, for everything else the code itself.

        Raises:
            InvalidArgument: the feature has no codes.
        """
        feature = self.by_name[name]
        if not isinstance(feature.transform, Vocabulary):
            return np.arange(self.cardinality(name))
        if name not in self._ids_of_values:
            values = hash_values(self.vocabulary(feature))
            self._ids_of_values[name] = np.concatenate([[0, OUT_OF_VOCABULARY], values])
        return self._ids_of_values[name]

    @cached_property
    def _ids_of_values(self) -> dict[str, NDArray[np.int64]]:
        return {}

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of everything that decides a code or a z-score."""
        return hashlib.sha256(to_json(self._content())).hexdigest()

    def save(self, path: Path) -> None:
        write_file_atomically(path, to_json(self._content() | {"fingerprint": self.fingerprint}))

    @classmethod
    def load(cls, path: Path, features: Sequence[Feature]) -> Self:
        """Read what `save` wrote; `features` is the declaration it was analyzed for.

        Raises:
            DataCorrupt: the file belongs to another declaration, or was altered.
        """
        content = read_json(path)
        try:
            expected = content["fingerprint"]
            loaded = cls(
                tuple(features),
                {name: tuple(values) for name, values in content["vocabularies"].items()},
                {
                    name: np.array(values, dtype=np.float32)
                    for name, values in content["boundaries"].items()
                },
                {name: Scale(*numbers) for name, numbers in content["scales"].items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataCorrupt(
                f"{path}: expected a transform, got other JSON ({type(error).__name__}: {error}); "
                "delete it and run the command again"
            ) from error
        if loaded.fingerprint != expected:
            raise DataCorrupt(
                f"{path}: made for another feature declaration (fingerprint "
                f"{str(expected)[:12]}, the declaration's is "
                f"{loaded.fingerprint[:12]}); train a new version"
            )
        return loaded

    def _content(self) -> dict[str, Any]:
        return {
            "features": {
                f.name: [f.dtype, f.width, f.column, repr(f.default), repr(f.transform)]
                for f in self.features
            },
            "vocabularies": {name: list(values) for name, values in self.vocabularies.items()},
            "boundaries": {
                name: [float(value) for value in values] for name, values in self.boundaries.items()
            },
            "scales": {name: astuple(scale) for name, scale in self.scales.items()},
        }
