"""The compiled loops of the models.

All in one file: a loop that is cached is compiled anew when its own file changes, and only then.
Rows and codes are not checked here; who calls has seen that they are within the tables.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from mlplatform.transform import hashing

# Sums may be reordered; what is no number stays none, since it says that a model is broken.
FAST = {"contract", "reassoc", "arcp", "nsz"}
FIRST, SECOND = hashing.FIRST_MULTIPLIER, hashing.SECOND_MULTIPLIER
LINE_BYTES = 64
# How the left side of a cross is read: a column of the request, one of its list (whose id 0 is an
# empty place), or a column of each of the apps of the history.
COLUMN, LISTED, HISTORY = 0, 1, 2


@intrinsic
def _prefetch(_context: Any, _address: Any) -> Any:
    """Have the line of memory at an address brought near; nothing is read, so nothing waits."""

    def generate(_: Any, builder: Any, signature: Any, arguments: Any) -> None:
        pointer, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
        prefetch = builder.module.declare_intrinsic("llvm.prefetch", [pointer], kind)
        read, keep, data = (ir.Constant(number, value) for value in (0, 3, 1))
        builder.call(prefetch, [builder.inttoptr(arguments[0], pointer), read, keep, data])

    return types.void(types.uintp), generate


@njit(nogil=True, cache=True)
def prefetch_row(table, row):  # type: ignore[no-untyped-def]
    start = table.ctypes.data + row * table.strides[0]
    for at in range(start - start % LINE_BYTES, start + table.strides[0], LINE_BYTES):
        _prefetch(at)


@njit(nogil=True, cache=True)
def prefetch_rows(table, rows):  # type: ignore[no-untyped-def]
    """Rows of a table that will be read soon, and that nothing else has read lately."""
    for c in range(len(rows)):
        prefetch_row(table, rows[c])


@njit(nogil=True, cache=True, fastmath=FAST)
def add_product(out, x, matrix):  # type: ignore[no-untyped-def]
    """out += x @ matrix.  Four rows at a time: `out` is read and written a fourth as often."""
    whole = len(x) - len(x) % 4
    for i in range(0, whole, 4):
        a, b, c, d = x[i], x[i + 1], x[i + 2], x[i + 3]
        for j in range(len(out)):
            out[j] += (
                a * matrix[i, j]
                + b * matrix[i + 1, j]
                + c * matrix[i + 2, j]
                + d * matrix[i + 3, j]
            )
    for i in range(whole, len(x)):
        for j in range(len(out)):
            out[j] += x[i] * matrix[i, j]


@njit(nogil=True, cache=True, fastmath=FAST)
def user_layer(  # type: ignore[no-untyped-def]
    codes,
    history,
    app_codes,
    bias,
    request,
    request_offsets,
    table,
    columns,
    offsets,
    kernel,
):
    """-> `[b, width]`: the first layer's sum over a request's columns and its mean past app."""
    dim = table.shape[1]
    out = np.empty((len(codes), len(bias)), np.float32)
    pooled = np.empty(len(kernel), np.float32)
    for q in range(len(codes)):
        out[q] = bias
        for c in range(codes.shape[1]):
            row = request_offsets[c] + codes[q, c]
            for j in range(len(bias)):
                out[q, j] += request[row, j]
        pooled[:] = 0
        n = 0
        for place in range(history.shape[1]):
            app = history[q, place]
            if app == 0:
                continue
            n += 1
            for c in range(len(columns)):
                row = offsets[c] + app_codes[app, columns[c]]
                for j in range(dim):
                    pooled[c * dim + j] += table[row, j]
        if n:
            pooled /= np.float32(n)
            add_product(out[q], pooled, kernel)
    return out


@njit(nogil=True, cache=True, fastmath=FAST)
def second_layer(hidden, kernel, bias):  # type: ignore[no-untyped-def]
    """relu(hidden) @ kernel + bias, `[b, width]`; `hidden` is overwritten."""
    out = np.empty((len(hidden), len(bias)), np.float32)
    for q in range(len(hidden)):
        for j in range(hidden.shape[1]):
            hidden[q, j] = _relu(hidden[q, j])
        out[q] = bias
        add_product(out[q], hidden[q], kernel)
    return out


@njit(nogil=True, cache=True, fastmath=FAST)
def _relu(x):  # type: ignore[no-untyped-def]
    return np.float32(0) if x < 0 else x  # NaN stays NaN


@njit(nogil=True, cache=True, fastmath=FAST)
def deep(  # type: ignore[no-untyped-def]
    logits, rows, user, app, state_of, impressions, places, product, kernel, bias, out
):
    """Add the deep part's logit of every app of `rows [b, n]` to `logits`.

    A request at a time: its apps are one matrix, so that both layers are products of matrices, and
    what it is told does not depend on who else asks.
    """
    n_product, width = product.shape
    n, n_last = rows.shape[1], len(bias)
    mixed = np.empty_like(product)
    hidden = np.empty((n, width), np.float32)
    factor = np.empty((n, n_product), np.float32)
    products = np.empty((n, width), np.float32)
    last = np.empty((n, n_last), np.float32)
    states = np.empty(n, np.int32)
    for q in range(len(rows)):
        if q == 0:
            prefetch_rows(app, rows[q])
        following = min(q + 1, len(rows) - 1)
        for c in range(n):
            states[c] = state_of[rows[q, c]]
        # (user * app) @ product = app @ (user * product): the user's factor once a request.
        for i in range(n_product):
            for j in range(width):
                mixed[i, j] = user[q, width + i] * product[i, j]
        for c in range(n):
            prefetch_row(app, rows[following, c])
            row, state = rows[q, c], states[c]
            for j in range(width):
                hidden[c, j] = user[q, j] + app[row, j] + impressions[state, j]
            for j in range(n_product):
                factor[c, j] = app[row, width + j]
        np.dot(factor, mixed, products)
        for c in range(n):
            for j in range(width):
                hidden[c, j] = _relu(hidden[c, j] + products[c, j])
        np.dot(hidden, kernel, last)
        for c in range(n):
            logit = places[states[c]]
            for j in range(n_last):
                logit += _relu(last[c, j] + bias[j]) * out[j]
            logits[q, c] += logit


@njit(nogil=True, cache=True)
def mix(state, value):  # type: ignore[no-untyped-def]
    """One step of `mlplatform.transform.hashing`."""
    state = (state ^ value) * np.int64(FIRST)
    state = state ^ (state >> 29)
    state = state * np.int64(SECOND)
    return state ^ (state >> 32)


@njit(nogil=True, cache=True)
def _id_of(ids, offset, code):  # type: ignore[no-untyped-def]
    return np.int64(code) if offset < 0 else ids[offset + code]


@njit(nogil=True, cache=True, fastmath=FAST)
def _weight(weights, has_weight, states, n, right):  # type: ignore[no-untyped-def]
    """The sum of the weights of `n` crosses with one right side."""
    total = np.float32(0)
    buckets = len(weights)
    power = (buckets & (buckets - 1)) == 0  # then a mask is the remainder, and far cheaper
    for i in range(n):
        mixed = mix(states[i], right)
        bucket = mixed & (buckets - 1) if power else mixed % buckets
        if has_weight[bucket >> 3] >> (bucket & 7) & 1:
            total += weights[bucket]
    return total


@njit(nogil=True, cache=True, fastmath=FAST)
def wide(  # type: ignore[no-untyped-def]
    logits,
    rows,
    codes,
    history,
    app_codes,
    own,
    weights,
    has_weight,
    request_ids,
    request_offsets,
    app_ids,
    app_offsets,
    left_salt,
    left_kind,
    left_column,
    left_right,
    right_column,
    right_codes,
    n_history,
):
    """Add the wide part's logit of every app of `rows [b, n]` to `logits`.

    The hash takes the left side first: its state is kept, by the column on the right that is to
    end it.  A right side of few codes (`right_codes`, else 0) is ended once a code and request.
    Most weights are 0, of which a bit in `has_weight`, `[buckets / 8]`, says so.
    """
    n_right = len(right_column)
    most = 0 if n_right == 0 else np.max(right_codes)
    states = np.empty((n_right, len(left_salt) * n_history + 1), np.int64)
    count = np.empty(n_right, np.int64)
    sums = np.empty((n_right, most), np.float32)
    summed = np.full((n_right, most), -1, np.int64)  # the request for which `sums` holds
    for q in range(len(rows)):
        prefetch_rows(app_codes, rows[q])
        for c in range(rows.shape[1]):
            logits[q, c] += own[rows[q, c]]
        count[:] = 0
        for i in range(len(left_salt)):
            column, right = left_column[i], left_right[i]
            if left_kind[i] == HISTORY:
                for place in range(n_history):
                    app = history[q, place]
                    if app == 0:
                        continue
                    left = _id_of(app_ids, app_offsets[column], app_codes[app, column])
                    states[right, count[right]] = mix(left_salt[i], left)
                    count[right] += 1
            else:
                left = _id_of(request_ids, request_offsets[column], codes[q, column])
                if left_kind[i] == LISTED and left == 0:
                    continue
                states[right, count[right]] = mix(left_salt[i], left)
                count[right] += 1
        for c in range(rows.shape[1]):
            row = rows[q, c]
            logit = np.float32(0)
            for right in range(n_right):
                column = right_column[right]
                code = app_codes[row, column]
                if right_codes[right] == 0:
                    value = _id_of(app_ids, app_offsets[column], code)
                    logit += _weight(weights, has_weight, states[right], count[right], value)
                    continue
                if summed[right, code] != q:
                    value = _id_of(app_ids, app_offsets[column], code)
                    sums[right, code] = _weight(
                        weights, has_weight, states[right], count[right], value
                    )
                    summed[right, code] = q
                logit += sums[right, code]
            logits[q, c] += logit
