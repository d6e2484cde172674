"""Metrics of rows with a label of 0 or 1: how good, how ordered, how calibrated predictions are.

Enters: `Rows`.  Leaves: integers to be added up, and figures of their sums.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mlplatform.evaluation.rows import ONE, Floats, Mean, Reads, Rows, Units, fixed, ratio

_LEAST = 1e-12  # a certain mistake costs much, but not everything


@dataclass(frozen=True)
class LogLoss(Mean):
    """Mean cross entropy, nats a row; what came true counts as no less likely than 1e-12."""

    name: ClassVar[str] = "log loss"
    reads: ClassVar[Reads] = "probability"

    def each(self, rows: Rows) -> tuple[None, Floats]:
        of_label = np.where(rows.label == 1, rows.given, 1 - rows.given)
        return None, -np.log(np.maximum(of_label, _LEAST))


@dataclass(frozen=True)
class MeanLabel(Mean):
    """The share of positive rows."""

    name: ClassVar[str] = "mean label"
    reads: ClassVar[Reads] = "label"

    def each(self, rows: Rows) -> tuple[None, Floats]:
        return None, rows.label.astype(np.float64)


@dataclass(frozen=True)
class MeanPrediction(Mean):
    """The mean probability."""

    name: ClassVar[str] = "mean prediction"
    reads: ClassVar[Reads] = "probability"

    def each(self, rows: Rows) -> tuple[None, Floats]:
        return None, rows.given


@dataclass(frozen=True)
class Calibration:
    """Positives that the model expects over those there are: 1 is calibrated on the whole.

    There is no expected calibration error: noise alone makes it positive, so that the interval of a
    calibrated model would never hold its true value, zero, nor could slices of different sizes be
    compared (Kumar et al., Verified Uncertainty Calibration, NeurIPS 2019).  Where a model is off
    is told by the curve that an evaluation has of all rows.
    """

    name: ClassVar[str] = "calibration"
    reads: ClassVar[Reads] = "probability"
    joint: ClassVar[bool] = False
    bins: ClassVar[int] = 1
    parts: ClassVar[int] = 2

    def units(self, rows: Rows) -> Iterator[Units]:
        yield Units(None, 0, fixed(rows.given))
        yield Units(None, 1, rows.label)

    def value(self, sums: Floats) -> Floats:
        total = sums.sum(axis=1)
        return ratio(total[:, 0] / ONE, total[:, 1])


@dataclass(frozen=True)
class AUC:
    """Area under the ROC curve: how often a positive row scores above a negative; ties count half.

    It is the mean over positives of the share of negatives that each beats, or over negatives of
    the share of positives that beat each.  A resample draws both means anew, with each row's share
    as it is among all rows: to first order in 1/n that is the AUC of the resample.  The shares are
    the structural components of DeLong et al. (Comparing the Areas under Correlated ROC Curves,
    1988), summed by user as in Obuchowski (Nonparametric Analysis of Clustered ROC Curve Data,
    1997).  How exact they are says `survey`.
    """

    name: ClassVar[str] = "AUC"
    reads: ClassVar[Reads] = "score"
    joint: ClassVar[bool] = True
    bins: ClassVar[int] = 1
    parts: ClassVar[int] = 4

    def units(self, rows: Rows) -> Iterator[Units]:
        for part, label in ((0, 1), (2, 0)):
            at = np.flatnonzero(rows.label == label)
            yield Units(at, part, rows.ordered[at])
            yield Units(at, part + 1)

    def value(self, sums: Floats) -> Floats:
        beating, positives, beaten, negatives = sums.sum(axis=1).T
        pairs = 2 * positives[0] * negatives[0]
        by_positives = ratio(beating, positives) * positives[0]
        by_negatives = ratio(beaten, negatives) * negatives[0]
        return np.clip(ratio(by_positives + by_negatives - beating[0], pairs + 0 * positives), 0, 1)
