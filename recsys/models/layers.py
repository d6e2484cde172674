"""The layers that both models are made of."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from mlplatform.training.state import named_variables
from mlplatform.training.warm_start import Rows
from mlplatform.transform.feature import Hashed
from mlplatform.transform.transform import Transform
from recsys.columns import Columns
from recsys.models.serving.user import UserLayer


class FieldEmbedding(tf.Module):
    """One embedding for each column of a code matrix, kept in one table.

    `[..., columns] int32 -> [..., columns * dim] float32`.  Ids begin at zero, so that an app
    never seen in training is described by its content alone.
    """

    def __init__(self, columns: Columns, names: list[str], dim: int, seed: int) -> None:
        super().__init__(name="field_embedding")
        picked = columns.indices(names)
        shared: dict[str, int] = {}  # columns of one feature share its rows
        offsets, blocks, total = [], [], 0
        rng = np.random.default_rng([seed, 1])
        by_column = [f for f in columns.features for _ in range(f.width)]
        for column in picked:
            feature = by_column[column]
            if feature.name not in shared:
                rows = columns.cardinality[column]
                shared[feature.name] = total
                scale = 0.0 if isinstance(feature.transform, Hashed) else 0.1
                blocks.append(scale * rng.standard_normal((rows, dim), dtype=np.float32))
                total += rows
            offsets.append(shared[feature.name])
        self.dim = dim
        self.features = tuple(shared)  # whose codes the rows of the table are, in this order
        self.picked = None if picked == list(range(columns.width)) else picked
        self.width = len(picked) * dim
        self.offsets = np.array(offsets, dtype=np.int32)
        self.cardinality = np.array([columns.cardinality[c] for c in picked], dtype=np.int32)
        self.table = tf.Variable(np.concatenate(blocks), name="table")

    @property
    def columns(self) -> NDArray[np.int32]:
        """Which columns of a code matrix it embeds."""
        picked = range(len(self.offsets)) if self.picked is None else self.picked
        return np.array(picked, dtype=np.int32)

    def __call__(self, codes: tf.Tensor) -> tf.Tensor:
        if self.picked is not None:
            codes = tf.gather(codes, self.picked, axis=-1)
        vectors = tf.gather(self.table, codes + self.offsets)
        return tf.reshape(vectors, tf.concat([tf.shape(codes)[:-1], [self.width]], axis=0))

    def folded(self, kernel: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """What each code of each column adds to `self(codes) @ kernel`.

        -> `[sum of cardinalities, outputs]`, and the row in it of each column's code 0.
        """
        table = self.table.numpy().astype(np.float64)
        by_column = np.split(kernel.astype(np.float64), len(self.offsets))
        terms = [
            table[offset : offset + size] @ part
            for offset, size, part in zip(self.offsets, self.cardinality, by_column, strict=True)
        ]
        starts = np.cumsum(self.cardinality) - self.cardinality
        return np.concatenate(terms).astype(np.float32), starts.astype(np.int32)


class Dense(tf.Module):
    """`[..., inputs] -> [..., outputs]`, He initialisation."""

    def __init__(self, inputs: int, outputs: int, seed: int, *, bias: bool = True) -> None:
        super().__init__(name="dense")
        weights: NDArray[Any] = np.random.default_rng([seed, 2]).standard_normal((inputs, outputs))
        self.kernel = tf.Variable((weights * (2 / inputs) ** 0.5).astype(np.float32), name="kernel")
        self.bias: Any = tf.Variable(np.zeros(outputs, np.float32), name="bias") if bias else None

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        y = (
            tf.linalg.matmul(x, self.kernel)
            if len(x.shape) == 2
            else tf.tensordot(x, self.kernel, 1)
        )
        return y if self.bias is None else y + self.bias


class HistoryPooling(tf.Module):
    """Mean embedding of the user's last apps: `[batch, apps] rows -> [batch, width]`."""

    def __init__(self, columns: Columns, views: tuple[str, ...], dim: int, seed: int) -> None:
        super().__init__(name="history")
        self.embedding = FieldEmbedding(columns, list(views), dim, seed)
        self.width = self.embedding.width

    def __call__(self, rows: tf.Tensor, app_codes: tf.Tensor) -> tf.Tensor:
        owned = rows > 0
        user = tf.where(owned)[:, 0]
        # Most places of most histories are empty: only the apps there are get looked up.
        vectors = self.embedding(tf.gather(app_codes, tf.boolean_mask(rows, owned)))
        total = tf.math.unsorted_segment_sum(vectors, user, tf.shape(rows)[0])
        count = tf.reduce_sum(tf.cast(owned, tf.float32), axis=1, keepdims=True)
        return total / tf.maximum(count, 1.0)


def user_layer(fields: FieldEmbedding, history: HistoryPooling, *layers: Dense) -> UserLayer:
    """What serves for layers over `concat([fields, history])`, their outputs side by side."""
    kernel = np.concatenate([layer.kernel.numpy() for layer in layers], axis=1)
    bias = np.concatenate([layer.bias.numpy() for layer in layers])
    request, offsets = fields.folded(kernel[: fields.width])
    past = history.embedding
    return UserLayer(
        bias,
        request,
        offsets,
        past.table.numpy(),
        past.columns,
        past.offsets,
        np.ascontiguousarray(kernel[fields.width :]),
    )


class StableIds(tf.Module):
    """Codes of columns -> ids that a value keeps while the vocabulary around it changes.

    `[..., columns] int32 -> [..., columns] int64`.  A table of weights that is addressed by a hash
    of these needs no mapping from one day to the next.
    """

    def __init__(self, columns: Columns, transform: Transform) -> None:
        super().__init__(name="stable_ids")
        tables, offsets, total = [np.zeros(1, np.int64)], [], 1
        by_column = [f for f in columns.features for _ in range(f.width)]
        for feature in by_column:
            ids = transform.stable_ids(feature.name)
            if (ids == np.arange(len(ids))).all():
                offsets.append(-1)  # the code is the id
            else:
                offsets.append(total)
                tables.append(ids)
                total += len(ids)
        self.offsets = np.array(offsets, dtype=np.int32)
        self.table = np.concatenate(tables)
        # Columns are told apart by what they hold, not by where they stand.
        self.salts = np.array(
            [
                salt_of(f"{feature.name}[{place}]")
                for feature in columns.features
                for place in range(feature.width)
            ]
        )

    def __call__(self, codes: tf.Tensor) -> tf.Tensor:
        is_own = self.offsets < 0
        at = tf.where(is_own, 0, codes + np.maximum(self.offsets, 0))
        return tf.where(is_own, tf.cast(codes, tf.int64), tf.gather(self.table, at))


def salt_of(name: str) -> int:
    """A number for a name, to salt a hash with."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)


def rows_of(model: tf.Module, transform: Transform, hashes: Mapping[str, str]) -> Rows:
    """What the rows of a model's tables stand for, so that a child can be started from it.

    hashes: of each variable that is addressed by a hash, how.
    """
    features = {
        id(module.table): module.features
        for module in model.submodules
        if isinstance(module, FieldEmbedding)
    }
    tables = {
        name: tuple(features[id(variable)])
        for name, variable in named_variables(model).items()
        if id(variable) in features
    }
    keys = {name: transform.row_keys(name) for names in tables.values() for name in names}
    return Rows(tables, keys, transform.fingerprint, hashes)
