"""What a recommender's lists look like as a whole: how much of the catalogue, how popular.

Enters: lists of items, and how popular every item is.  Leaves: figures without intervals.  Coverage
can have none by resampling: a resample of lists repeats some and lacks others, so it always has
fewer distinct items than there are, and its interval would lie below the figure.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlplatform.errors import InvalidArgument

Items = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class ListFigures:
    """coverage: the share of the catalogue that is in some list.

    gini: how unequally the places in lists fall to the items of the catalogue (Gini, 1912): 0 is
        evenly, toward 1 is to one alone.
    popularity: the mean percentile of popularity of the items in lists, from 0 to 1.
    wanted_popularity: that of what users went for; the lists' is above it where they favour the
        popular beyond what is wanted.
    """

    coverage: float
    gini: float
    popularity: float
    wanted_popularity: float


def describe_lists(lists: Items, popularity: NDArray[Any], wanted: Items) -> ListFigures:
    """Figures of all lists together.

    Args:
        lists: places of the items in the catalogue, `[lists, k]`; -1 where a list is shorter.
        popularity: of every item of the catalogue, in any unit, `[items]`.
        wanted: places of the held-out items, `[positives]`.

    Raises:
        InvalidArgument: an item is none of the catalogue, or no list has one.
    """
    items = len(popularity)
    shown = lists[lists != -1]
    for name, some in (("lists", shown), ("wanted", wanted)):
        wrong = (some < 0) | (some >= items)
        if wrong.any():
            raise InvalidArgument(
                f"{name}: expected places of {items} items, from 0, got {some[wrong][0]}; "
                "take them from the catalogue that the popularity is of"
            )
    if not len(shown):
        raise InvalidArgument("lists: expected at least one item in a list, got none")
    counts = np.bincount(shown, minlength=items)
    # With counts rising, the area under the Lorenz curve is a sum weighted by place.
    place = np.arange(1, items + 1)
    gini = ((2 * place - items - 1) * np.sort(counts)).sum() / (items * counts.sum())
    percentile = _percentiles(popularity)
    return ListFigures(
        coverage=float(np.count_nonzero(counts) / items),
        gini=float(gini),
        popularity=float(percentile[shown].mean()),
        wanted_popularity=float(percentile[wanted].mean()) if len(wanted) else float("nan"),
    )


def _percentiles(popularity: NDArray[Any]) -> NDArray[np.float64]:
    """The share of items that are less popular, and half of those as popular, `[items]`."""
    ordered = np.sort(popularity)
    below = np.searchsorted(ordered, popularity, "left")
    not_above = np.searchsorted(ordered, popularity, "right")
    return (below + not_above) / (2 * len(popularity))
