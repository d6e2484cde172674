"""An evaluation's JSON is read back as it was, and other JSON is refused."""

import json
import math
from typing import Any

import pytest

from mlplatform.artifacts import to_json
from mlplatform.errors import DataCorrupt
from mlplatform.evaluation.figures import CalibrationBin, Evaluation, Slice, WorstSlice
from mlplatform.evaluation.metrics import Interval

NAN = float("nan")
EVALUATION = Evaluation(
    models=("new", "old"),
    overall=Slice((), 10, 3, {"AUC: new": Interval(0.7, 0.6, 0.8)}),
    slices={"g=a": Slice((("g", "a"),), 4, 1, {"AUC: new": Interval(0.5, NAN, NAN)})},
    dropped=2,
    worst=(WorstSlice((("g", "a"),), None, 4, Interval(0.1, 0.05, 0.2), 0.001),),
    roc={"new": ((0.0, 0.0), (0.5, 0.75), (1.0, 1.0))},
    calibration={"new": (CalibrationBin(0.2, Interval(0.25, 0.1, 0.4), 10),)},
)


def test_json_is_read_back_as_it_was() -> None:
    content = json.loads(to_json(EVALUATION.to_json()))
    assert "NaN" not in to_json(EVALUATION.to_json()).decode()
    read = Evaluation.from_json(content)
    assert math.isnan(read.slices["g=a"].figures["AUC: new"].low)
    assert (read.overall, read.worst, read.roc, read.calibration, read.models, read.dropped) == (
        EVALUATION.overall, EVALUATION.worst, EVALUATION.roc, EVALUATION.calibration,
        EVALUATION.models, 2,
    )  # fmt: skip
    assert read.to_json() == EVALUATION.to_json()


@pytest.mark.parametrize("content", [None, [], {}, {"overall": 3}, {"overall": {"where": [["a"]]}}])
def test_other_json_is_refused(content: Any) -> None:
    whole = EVALUATION.to_json()
    with pytest.raises(DataCorrupt, match="evaluate again"):
        Evaluation.from_json(whole | content if content else content)
