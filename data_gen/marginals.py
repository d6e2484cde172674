"""A real store's marginals (2018), as functions that a world can be drawn through.

Enters: `google_play_marginals.json` beside this file, which names its source and licence.
Leaves: quantile functions and per-category figures.  The real scrape has no joint distribution
here, only marginals: how the columns hang together is this world's own invention.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]


@cache
def figures() -> dict[str, Any]:
    """The whole file."""
    path = Path(__file__).with_name("google_play_marginals.json")
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


@cache
def categories() -> tuple[str, ...]:
    """Category names; an app's category is an index into them."""
    return tuple(figures()["by_category"])


@cache
def per_category(name: str) -> Float:
    """One figure ('share', 'rating_mean', …) of every category, `[categories] float64`."""
    return np.array([figure[name] for figure in figures()["by_category"].values()])


def quantile_function(quantiles: dict[str, float], u: Float, *, log: bool = False) -> Float:
    """The value at each probability `u`, interpolated between the published quantiles.

    `log` interpolates log(1 + value), which suits heavy tails.
    """
    probabilities = np.array([float(p) for p in quantiles])
    values = np.array(list(quantiles.values()), dtype=np.float64)
    if log:
        return np.expm1(np.interp(u, probabilities, np.log1p(values)))
    return np.interp(u, probabilities, values)


@cache
def install_buckets() -> tuple[NDArray[np.int64], Float]:
    """Lower bounds of the install buckets, rising, and the cumulative share up to each one."""
    shares: dict[int, float] = {}
    for label, share in figures()["installs_bucket_share"].items():
        bound = int(label.rstrip("+").replace(",", ""))
        shares[bound] = shares.get(bound, 0.0) + share
    bounds = sorted(shares)
    cumulative = np.cumsum([shares[bound] for bound in bounds])
    return np.array(bounds, dtype=np.int64), cumulative / cumulative[-1]
