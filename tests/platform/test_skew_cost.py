"""The cost of skew, against a logistic model whose loss is worked out by hand."""

import json
import math
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mlplatform.artifacts import to_json
from mlplatform.data.skew.compare import compare_by_key
from mlplatform.errors import InvalidArgument
from mlplatform.evaluation.skew_cost import Score, SkewCost, rank_by_cost

WEIGHTS = {"weak": 0.1, "strong": 2.0}
IDS = [4, 1, 3, 2]
TRAINING = pa.table({"id": IDS, "weak": [1.0, 0.0, 2.0, 1.0], "strong": [1.0, -1.0, 0.5, -2.0]})
LABEL = np.array([1, 0, 1, 0])
# Serving has other rows first, one row more, `weak` off by 3 everywhere and `strong` off by 3 once.
SERVING = pa.table(
    {
        "id": [9, 1, 2, 3, 4],
        "strong": [0.0, -1.0, 1.0, 0.5, 1.0],
        "weak": [0.0, 3.0, 4.0, 5.0, 4.0],
    }
)


def logistic(rows: pa.Table) -> Any:
    logits = sum(w * rows[name].to_numpy() for name, w in WEIGHTS.items())
    return 1 / (1 + np.exp(-logits))


def by_hand(rows: list[tuple[float, float, int]]) -> tuple[float, float]:
    """The log loss and mean probability of rows of weak, strong and label."""
    probabilities = [1 / (1 + math.exp(-(0.1 * w + 2.0 * s))) for w, s, _ in rows]
    losses = [
        -math.log(p if label else 1 - p)
        for p, (_, _, label) in zip(probabilities, rows, strict=True)
    ]
    return sum(losses) / len(rows), sum(probabilities) / len(rows)


def rank(
    training: Any = TRAINING,
    serving: Any = SERVING,
    score: Score = logistic,
    label: Any = LABEL,
    **options: Any,
) -> SkewCost:
    report = compare_by_key(training, serving, ["id"])
    return rank_by_cost(report, training, serving, score, label, **options)


def test_costs_equal_a_hand_computation_and_the_feature_that_matters_comes_first() -> None:
    report = compare_by_key(TRAINING, SERVING, ["id"])
    assert [(one.name, one.differing) for one in report.features] == [("weak", 4), ("strong", 1)]
    # Rows by key: 1, 2, 3, 4.
    loss, mean = by_hand([(0, -1, 0), (1, -2, 0), (2, 0.5, 1), (1, 1, 1)])
    expected = {
        ("strong",): by_hand([(0, -1, 0), (1, 1, 0), (2, 0.5, 1), (1, 1, 1)]),
        ("weak",): by_hand([(3, -1, 0), (4, -2, 0), (5, 0.5, 1), (4, 1, 1)]),
        ("weak", "strong"): by_hand([(3, -1, 0), (4, 1, 0), (5, 0.5, 1), (4, 1, 1)]),
    }
    cost = rank()
    assert cost.rows == 4
    assert (cost.log_loss.value, cost.mean_probability.value) == pytest.approx((loss, mean))
    assert [one.features for one in cost.features] == [("strong",), ("weak",)]
    for one in (*cost.features, cost.together):
        after, mean_after = expected[one.features]
        assert one.log_loss.value == pytest.approx(after - loss)
        assert one.mean_probability.value == pytest.approx(mean_after - mean)


def test_the_order_of_rows_on_either_side_changes_nothing() -> None:
    order = [2, 0, 3, 1]
    again = rank(TRAINING.take(order), SERVING.take([4, 2, 0, 1, 3]), label=LABEL[order])
    assert again == rank()


def test_sides_that_agree_cost_nothing() -> None:
    cost = rank(serving=TRAINING.take([3, 2, 1, 0]))
    assert cost.features == () and cost.together.features == ()
    for change in (cost.together.log_loss, cost.together.mean_probability):
        assert (change.value, change.low, change.high) == (0, 0, 0)


def big(n: int, copies: int = 1) -> tuple[pa.Table, pa.Table, Any]:
    """Serving's `strong` has noise of which training knows nothing; each row stands there again."""
    rng = np.random.default_rng(3)
    strong, noise = rng.normal(size=(2, n))
    label = (rng.random(n) < 1 / (1 + np.exp(-2 * strong))).astype(np.int64)
    ids = np.arange(n * copies)
    weak = np.zeros(n * copies)
    sides = [
        pa.table({"id": ids, "weak": weak, "strong": np.repeat(values, copies)})
        for values in (strong, strong + noise)
    ]
    return sides[0], sides[1], np.repeat(label, copies)


def test_the_interval_is_that_of_a_paired_mean_and_leaves_out_zero_where_skew_costs() -> None:
    training, serving, label = big(2_000)
    change = rank(training, serving, label=label).features[0].log_loss
    before, after = logistic(training), logistic(serving)
    right = np.where(label == 1, before, 1 - before), np.where(label == 1, after, 1 - after)
    changes = np.log(right[0]) - np.log(right[1])
    half = 1.96 * changes.std(ddof=1) / math.sqrt(2_000)
    assert change.value == pytest.approx(changes.mean())
    assert change.low > 0
    assert change.high - change.low == pytest.approx(2 * half, rel=0.25)


def test_rows_of_one_group_do_not_count_as_independent() -> None:
    training, serving, label = big(200, copies=25)
    rows = rank(training, serving, label=label).features[0].log_loss
    groups = rank(training, serving, label=label, group=np.repeat(np.arange(200), 25))
    grouped = groups.features[0].log_loss
    assert grouped.value == rows.value
    # 25 copies of a row say as much as one: the interval is sqrt(25) times as wide.
    assert (grouped.high - grouped.low) / (rows.high - rows.low) == pytest.approx(5, rel=0.3)


def test_a_model_gets_the_columns_and_types_of_training_as_far_as_values_fit() -> None:
    training = pa.table(
        {
            "id": [1, 2],
            "count": pa.array([1, 2], pa.int32()),
            "share": pa.array([1, 2], pa.int32()),
            "word": pa.array(["a", "b"]).dictionary_encode(),
            "dropped": ["x", "y"],
        }
    )
    serving = pa.table(
        {
            "new": [1, 1],
            "word": pa.array(["b", "b"]),
            "share": [1.5, 2.0],
            "count": pa.array([3, 2], pa.int64()),
            "id": [1, 2],
        }
    )
    seen = []

    def remember(rows: pa.Table) -> Any:
        seen.append(rows)
        return np.full(len(rows), 0.5)

    rank(training, serving, remember, np.array([0, 1]))
    assert all(rows.schema.names == training.schema.names for rows in seen)
    assert seen[0].to_pydict() == training.to_pydict()
    together = seen[-1]
    assert together.to_pydict() == {
        "id": [1, 2],
        "count": [3, 2],
        "share": [1.5, 2.0],
        "word": ["b", "b"],
        "dropped": [None, None],
    }
    types = {field.name: field.type for field in together.schema}
    assert types.pop("share") == pa.float64()  # what no integer can hold
    assert types == {f.name: f.type for f in training.schema if f.name != "share"}
    changed = [
        [name for name in rows.schema.names if rows[name].to_pylist() != training[name].to_pylist()]
        for rows in seen[1:-1]
    ]
    assert sorted(changed) == [["count"], ["dropped"], ["share"], ["word"]]


def test_a_model_that_gives_no_probability_is_one_error_that_names_the_feature() -> None:
    def fails_on_four(rows: pa.Table) -> Any:
        return np.where(rows["weak"].to_numpy() == 4, np.nan, 0.5)

    with pytest.raises(InvalidArgument, match=r"with weak as serving has it.* nan .* 2 of 4 rows"):
        rank(score=fails_on_four)
    with pytest.raises(InvalidArgument, match=r"as trained on: expected probabilities, got 1\.5"):
        rank(score=lambda rows: np.full(len(rows), 1.5))
    with pytest.raises(InvalidArgument, match=r"one probability for each of 4 rows.*\(4, 2\)"):
        rank(score=lambda rows: np.full((len(rows), 2), 0.5))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"label": np.array([1, 0])}, r"label: expected one for each of the 4 rows.*\(2,\)"),
        ({"label": np.array([1, 0, 2, 0])}, "label: expected 0 or 1"),
        ({"group": np.array([1])}, r"group: expected one for each.*\(1,\)"),
        ({"serving": SERVING.slice(0, 1)}, "expected rows with one key on both sides, got none"),
    ],
)
def test_a_wrong_argument_is_one_clear_line(change: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidArgument, match=said) as error:
        rank(**change)
    assert "\n" not in str(error.value)


def test_costs_are_json() -> None:
    parsed = json.loads(to_json(asdict(rank())))
    assert parsed["features"][0]["features"] == ["strong"]
    assert parsed["together"]["log_loss"].keys() == {"value", "low", "high"}
