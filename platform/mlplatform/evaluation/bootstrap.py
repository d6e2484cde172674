"""Intervals by a bootstrap over groups of users.

Enters: sums of each of `GROUPS` groups, into which users are put by a hash.  Leaves: the sums of
resamples, whose figures have an `Interval`.

Rows of one user depend on each other, so users have to be drawn whole.  To draw each of them by
itself costs rows times resamples.  Here 256 groups of whole users are drawn: each has a Poisson(1)
weight in each resample (the Poisson bootstrap; Chamandy et al., Estimating Uncertainty for Massive
Data Streams, 2012, who group users into streams likewise).  A row is read once and added to the
sums of its group.  Users fall into groups by a hash, so groups are independent and alike, whatever
users are; a width is known to about 1/sqrt(2 * 256), 4 % of itself.  All figures of a run see the
same weights, so that differences, of models or of slices, are paired.
"""

from typing import Any

import numpy as np

from mlplatform.evaluation.rows import Floats

GROUPS = 256
RESAMPLES = 200


def resampling(seed: int) -> Floats:
    """Weights of the groups, `[1 + RESAMPLES, GROUPS]`; the first row is ones: what there is."""
    drawn = np.random.default_rng(seed).poisson(1.0, (RESAMPLES, GROUPS))
    return np.concatenate([np.ones((1, GROUPS)), drawn])


def spread(draws: Any) -> Floats:
    """Standard deviation over the resamples of `[1 + RESAMPLES, ...]`, NaN if any is NaN."""
    deviation: Floats = np.std(draws[1:], axis=0, ddof=1)
    return deviation
