"""What each code of a feature stands for, and which row of an older table of weights it continues.

Enters: the keys of a feature in two transforms, made on different days.  Leaves: for every new
code the old one, so that weights can follow what they were learned for.
"""

from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mlplatform.errors import DataCorrupt, InvalidArgument
from mlplatform.transform.feature import FIRST_OF_VOCABULARY, OUT_OF_VOCABULARY

Kind = Literal["vocabulary", "buckets", "hashed"]
NO_ROW = -1


@dataclass(frozen=True)
class RowKeys:
    """Code 0 is always 'missing'; then, by kind:

    vocabulary: 1 a value out of the vocabulary, 2… the `values`, all of one type.
    buckets: 1… the stretches below, between and above the rising `limits`.
    hashed: 1…`buckets` by a hash with this `salt` of a value or, of a cross, of its `parts`: the
        name of each and how it is coded.
    """

    kind: Kind
    values: tuple[int | str, ...] = ()
    limits: tuple[float, ...] = ()
    buckets: int = 0
    salt: int = 0
    parts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(types := {type(value).__name__ for value in self.values}) > 1:
            raise InvalidArgument(
                f"row keys: expected values of one type, got {' and '.join(sorted(types))}; "
                "take them from one transform"
            )

    @property
    def cardinality(self) -> int:
        """How many codes there are, 0 included."""
        match self.kind:
            case "vocabulary":
                return FIRST_OF_VOCABULARY + len(self.values)
            case "buckets":
                return 2 + len(self.limits)
            case "hashed":
                return 1 + self.buckets

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads back, of plain lists, strings and numbers."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in vars(self).items()
        }

    @classmethod
    def from_json(cls, content: Any) -> Self:
        """Raises DataCorrupt: the content is not what `to_json` gives."""
        try:
            lists = {name: tuple(content[name]) for name in ("values", "limits", "parts")}
            kind, buckets, salt = content["kind"], int(content["buckets"]), int(content["salt"])
            if kind not in get_args(Kind):
                raise ValueError(f"kind {kind!r}")
            return cls(kind, buckets=buckets, salt=salt, **lists)
        except (KeyError, TypeError, ValueError, InvalidArgument) as error:
            raise DataCorrupt(
                f"row keys: expected what a transform says of a feature's codes, got other JSON "
                f"({type(error).__name__}: {error}); train a new version"
            ) from error


def match_rows(old: RowKeys, new: RowKeys) -> NDArray[np.int64] | None:
    """For each new code the old code whose weights it takes over, `[new.cardinality] int64`.

    A value of a vocabulary takes those of the same value of the same type, or `NO_ROW` when it is
    new.  A bucket takes those of the old bucket that holds its middle.  Missing takes missing's,
    and what is out of the vocabulary takes those of what was.  None: nothing can be taken over,
    because the codes are of another kind or another hash.
    """
    if old.kind != new.kind:
        return None
    match new.kind:
        case "vocabulary":
            return np.concatenate([[0, OUT_OF_VOCABULARY], _positions(old.values, new.values)])
        case "buckets":
            limits = np.array(old.limits, np.float64)
            middles = _middles(np.array(new.limits, np.float64), limits)
            return np.concatenate([[0], 1 + np.searchsorted(limits, middles, side="right")])
        case "hashed":
            return np.arange(new.cardinality) if new == old else None


def _positions(old: tuple[int | str, ...], new: tuple[int | str, ...]) -> NDArray[np.int64]:
    """The old code of each new value."""
    if not old or not new or type(old[0]) is not type(new[0]):
        return np.full(len(new), NO_ROW)  # 1 is not "1"
    found = pc.index_in(pa.array(new), value_set=pa.array(old)).cast(pa.int64())
    codes: NDArray[np.int64] = pc.add(found, FIRST_OF_VOCABULARY).fill_null(NO_ROW).to_numpy()
    return codes


def _middles(limits: NDArray[np.float64], old: NDArray[np.float64]) -> NDArray[np.float64]:
    """A value in each bucket, its middle where it has one.

    The first and the last bucket are open.  They count as wide as their neighbours: a limit that
    moved a little then leaves them the outermost old buckets, one that moved far gives them those
    they now cover.  Of two open buckets alone nothing is known, and they take the outermost; of a
    single one, which holds everything, the middle is that of the old limits.
    """
    if not len(limits):
        return np.array([np.median(old) if len(old) else 0.0])
    widths = np.diff(limits) if len(limits) > 1 else np.array([np.inf])
    below, above = limits[0] - widths[0] / 2, limits[-1] + widths[-1] / 2
    return np.concatenate([[below], (limits[:-1] + limits[1:]) / 2, [above]])
