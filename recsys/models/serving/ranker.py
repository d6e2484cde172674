"""A ranker as it serves: the sum of its parts' serving forms.

Enters: codes and rows.  Leaves: logits.  What a part needs of an app alone is a row of a table that
was made with the bundle; what it needs of the day is worked out when a server begins.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mlplatform.errors import DataCorrupt
from mlplatform.transform.hashing import hash_numpy
from recsys.models.serving import kernels
from recsys.models.serving.files import load_arrays, save_arrays
from recsys.models.serving.user import UserLayer

Float = NDArray[np.float32]
Int = NDArray[np.int32]
Long = NDArray[np.int64]
# (logits [b, n], to be added to; codes [b, columns], history [b, apps], rows [b, n])
Adder = Callable[[Float, Int, Int, Int], None]
_BIAS = "bias.npy"


@dataclass(frozen=True)
class Impressions:
    """What is known of apps on a day.  Many apps are alike in it: they share a state."""

    codes: Int  # [states, columns] of `features.IMPRESSION`
    state_of: Int  # [apps + 1], by row of the app table

    @classmethod
    def of(cls, codes: Int) -> "Impressions":
        """codes: of every app, `[apps + 1, columns]`."""
        sizes = codes.max(axis=0).astype(np.int64) + 1
        steps = np.concatenate([np.cumprod(sizes[:0:-1])[::-1], [1]])
        _, first, state_of = np.unique(codes @ steps, return_index=True, return_inverse=True)
        return cls(codes[first], state_of.astype(np.int32))


class ServedPart(Protocol):
    """A dataclass of arrays, and of such dataclasses."""

    def on(self, app_codes: Int, impressions: Impressions) -> Adder:
        """-> what adds the part's logits, as of a day."""


@dataclass(frozen=True)
class ServedWide:
    """A weight for every value and every cross; see `rankers/linear.py`.

    An id of column c and code x is x itself where the column's offset is negative, else
    ids[offset + x].
    """

    weights: Float  # [buckets]
    own: Float  # [apps + 1], the weights of an app's values added up
    request_ids: Long
    request_offsets: Int
    app_ids: Long
    app_offsets: Int
    impression_ids: Long
    impression_offsets: Int
    impression_salts: Long
    left_salt: Long  # of each left side of a cross: its salt,
    left_kind: Int  # how it is read,
    left_column: Int  # where,
    left_right: Int  # and which right side it meets
    right_column: Int  # of each right side: its column of apps,
    right_codes: Int  # how many codes; 0 if there are more than candidates
    n_history: Int  # [], how many past apps take part

    def on(self, app_codes: Int, impressions: Impressions) -> Adder:
        known = weights_of(
            self.weights,
            impressions.codes,
            self.impression_ids,
            self.impression_offsets,
            self.impression_salts,
        )
        own = self.own + known[impressions.state_of]
        # Few have one, and the bits of all stay in a core's own cache, where the weights would not.
        has_weight = np.packbits(self.weights != 0, bitorder="little")

        def add(logits: Float, codes: Int, history: Int, rows: Int) -> None:
            kernels.wide(
                logits,
                rows,
                codes,
                history,
                app_codes,
                own,
                self.weights,
                has_weight,
                self.request_ids,
                self.request_offsets,
                self.app_ids,
                self.app_offsets,
                self.left_salt,
                self.left_kind,
                self.left_column,
                self.left_right,
                self.right_column,
                self.right_codes,
                int(self.n_history),
            )

        return add


def weights_of(weights: Float, codes: Int, ids: Long, offsets: Int, salts: Long) -> Float:
    """The weights of all values of each row of codes added up, `[rows]`."""
    total = np.zeros(len(codes), np.float32)
    for column, (offset, salt) in enumerate(zip(offsets, salts, strict=True)):
        code = codes[:, column].astype(np.int64)
        value = code if offset < 0 else ids[offset + code]
        total += weights[hash_numpy(len(weights), 0, np.array(salt), value)]
    return total


@dataclass(frozen=True)
class ServedDeep:
    """The network over embeddings; see `rankers/deep.py`.  A first layer is a sum of halves."""

    user: UserLayer  # width first + product: the user's half, and its factor
    app: Float  # [apps + 1, first + product]: an app's half, and its factor
    impression: Float  # [rows, first], an impression's half by column and code
    impression_offsets: Int
    impression_columns: Int
    place: Float  # [rows], the place's own logit
    place_offsets: Int
    place_columns: Int
    product: Float  # [product, first]
    kernel: Float  # [first, second]
    bias: Float  # [second]
    out: Float  # [second]

    def on(self, app_codes: Int, impressions: Impressions) -> Adder:
        codes = impressions.codes
        half = self.impression[codes[:, self.impression_columns] + self.impression_offsets]
        place = self.place[codes[:, self.place_columns] + self.place_offsets]
        known, places = half.sum(axis=1), place.sum(axis=1)

        def add(logits: Float, codes: Int, history: Int, rows: Int) -> None:
            kernels.deep(
                logits,
                rows,
                self.user(codes, history, app_codes),
                self.app,
                impressions.state_of,
                known,
                places,
                self.product,
                self.kernel,
                self.bias,
                self.out,
            )

        return add


FORMS: tuple[type, ...] = (ServedWide, ServedDeep)


@dataclass(frozen=True)
class ServedRanker:
    """A bias and parts, whose logits add up."""

    bias: float
    parts: tuple[ServedPart, ...]

    def on(self, app_codes: Int, impressions: Impressions) -> Callable[[Int, Int, Int], Float]:
        """-> (codes `[b, columns]`, history `[b, apps]`, rows `[b, n]`) -> logits `[b, n]`."""
        adders = [part.on(app_codes, impressions) for part in self.parts]

        def logits(codes: Int, history: Int, rows: Int) -> Float:
            total = np.full(rows.shape, self.bias, np.float32)
            for add in adders:
                add(total, codes, history, rows)
            return total

        return logits

    def save(self, directory: Path) -> None:
        """Write it into `directory`, which is made: a folder for each part, named by its class."""
        directory.mkdir()
        np.save(directory / _BIAS, np.float32(self.bias), allow_pickle=False)
        for number, part in enumerate(self.parts):
            save_arrays(part, directory / f"{number}.{type(part).__name__}")

    @classmethod
    def load(cls, directory: Path) -> "ServedRanker":
        """Map what `save` wrote.

        Raises:
            DataCorrupt: a file is missing or damaged, or a part is of a kind nobody knows.
        """
        known = {form.__name__: form for form in FORMS}
        parts: list[ServedPart] = []
        for folder in sorted(path for path in directory.iterdir() if path.is_dir()):
            name = folder.suffix[1:]
            if name not in known:
                raise DataCorrupt(
                    f"{folder}: a part of unknown kind {name!r}, expected one of "
                    f"{', '.join(known)}; push the bundle again"
                )
            parts.append(load_arrays(known[name], folder))
        try:
            bias = float(np.load(directory / _BIAS, allow_pickle=False))
        except (OSError, ValueError) as error:
            raise DataCorrupt(
                f"{directory / _BIAS}: not what was written ({error}); push the bundle again"
            ) from error
        return cls(bias, tuple(parts))
