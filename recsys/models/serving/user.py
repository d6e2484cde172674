"""The user's side of a model: the first layer folded into a table, and the query tower on it.

Enters: codes of requests, rows of past apps.  Leaves: float32 vectors, one a request.

A dense layer over embeddings is a sum with a term for each column, and a column has few codes: the
terms are worked out once a model, and a request adds up those of its codes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.models.serving import kernels

Float = NDArray[np.float32]
Int = NDArray[np.int32]


@dataclass(frozen=True)
class UserLayer:
    """A dense layer over a request's embeddings and the mean embedding of its past apps."""

    bias: Float  # [width]
    request: Float  # [rows, width], the terms; those of column c and code x in row offset[c] + x
    request_offsets: Int  # [columns of requests]
    history: Float  # [rows, dim], embeddings of what past apps are viewed by
    history_columns: Int  # [n], which columns of apps
    history_offsets: Int  # [n]
    history_kernel: Float  # [n * dim, width]

    def __call__(self, codes: Int, history: Int, app_codes: Int) -> Float:
        """Codes `[b, columns]`, rows `[b, apps]` with 0 for none -> `[b, width]`."""
        out: Float = kernels.user_layer(
            codes,
            history,
            app_codes,
            self.bias,
            self.request,
            self.request_offsets,
            self.history,
            self.history_columns,
            self.history_offsets,
            self.history_kernel,
        )
        return out


@dataclass(frozen=True)
class ServedQuery:
    """The query tower."""

    user: UserLayer
    kernel: Float  # [hidden, dim]
    bias: Float  # [dim]

    def __call__(self, codes: Int, history: Int, app_codes: Int) -> Float:
        """Codes `[b, columns]`, rows `[b, apps]` with 0 for none -> vectors `[b, dim]`."""
        hidden = self.user(codes, history, app_codes)
        vectors: Float = kernels.second_layer(hidden, self.kernel, self.bias)
        return vectors
