"""A transform of every kind of feature, and what rows it may meet."""

from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from mlplatform.transform.feature import (
    Bucketize,
    Crossed,
    Feature,
    Hashed,
    Quantiles,
    Vocabulary,
    ZScore,
)
from mlplatform.transform.transform import Transform
from mlplatform.transform.zscore import Scale
from tests.platform.transform import by_hand
from tests.platform.transform.by_hand import FLOAT_MAX, INT_MAX, INT_MIN, is_marker

WORDS = ("ü", "b", "日本語", "a\x00b", "x y", "🜚")
LIMITS = (-FLOAT_MAX, -1.5, 0.0, 0.5, FLOAT_MAX)
FEATURES = (
    Feature("word", "string", "", Vocabulary()),
    Feature("words", "string", "", Vocabulary(shared_with="word"), width=3),
    Feature("word_or", "string", "", Vocabulary(shared_with="word"), default="b"),
    Feature("level", "int64", "", Vocabulary()),
    Feature("amount", "float32", "", Quantiles(6)),
    Feature("amount_or", "float32", "", Quantiles(6), default=0.25),
    Feature("amounts", "float32", "", Quantiles(6), width=2),
    Feature("count", "int64", "", Quantiles(4)),
    Feature("count_or", "int64", "", Quantiles(4), default=7),
    Feature("id_a", "int64", "", Hashed(1 << 18, salt=1), source="id"),
    Feature("id_b", "int64", "", Hashed(7, salt=2), source="id"),
    Feature("ids", "int64", "", Hashed(1000), width=2),
    Feature("size", "float32", "", Bucketize((-1.5, 0.0, 0.1))),
    Feature("sizes", "int64", "", Bucketize((0, 2**24, 2**63)), width=2),
    Feature("score", "float32", "", ZScore()),
    Feature("score_or", "float32", "", ZScore(), default=0.25),
    Feature("scores", "int64", "", ZScore(), width=2),
    Feature("flat", "float32", "", ZScore()),
    Feature("pair", "int64", "", Crossed(("word", "count_or"), 1 << 20, salt=3)),
    Feature("triple", "int64", "", Crossed(("word_or", "level", "id_a"), 97)),
    Feature("untouched", "string", ""),
)
TRANSFORM = Transform(
    FEATURES,
    {"word": WORDS, "level": (7, -3, INT_MAX, INT_MIN + 1, 0)},
    {
        **{n: np.array(LIMITS, np.float32) for n in ("amount", "amount_or", "amounts")},
        **{n: np.array([0, 2**24, 2.0**63], np.float32) for n in ("count", "count_or")},
    },
    {
        "score": Scale.of(0.1, 3.0),
        "score_or": Scale.of(-1.5, 0.25),
        "scores": Scale.of(1e6, 1e17),
        "flat": Scale.of(7.0, 0.0),
    },
)
CODED = [feature for feature in FEATURES if feature.transform]

STRINGS = st.text(max_size=8) | st.sampled_from([*WORDS, "", "a", "A\u0308", "u\u0308", "\x00"])
INTS = st.integers(INT_MIN, INT_MAX) | st.sampled_from(
    [INT_MIN, INT_MIN + 1, INT_MAX, 0, -1, 7, -3, 2**24, 2**24 + 1, INT_MAX - 1]
)
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False) | st.sampled_from(
    [FLOAT_MAX, -FLOAT_MAX, 0.0, -0.0, 0.5, -1.5, 2.0**-126, -(2.0**-149)]
)
VALUES: dict[str, Any] = {"string": STRINGS, "int64": INTS, "float32": FLOATS}


def values_of(feature: Feature) -> Any:
    one = VALUES[feature.dtype]
    if feature.default is not None:
        one = one.filter(lambda value: not is_marker(value))
    one = st.none() | one
    return one if feature.width == 1 else st.none() | st.lists(one, max_size=feature.width + 2)


COLUMNS = {feature.column: feature for feature in CODED if feature.column}
ROWS = st.lists(
    st.fixed_dictionaries({name: values_of(feature) for name, feature in COLUMNS.items()}),
    min_size=1,
    max_size=5,
)


def arrow_table(rows: list[dict[str, Any]]) -> pa.Table:
    return by_hand.arrow_table(rows, COLUMNS)


def raw_tensors(rows: list[dict[str, Any]], columns: dict[str, Feature] = COLUMNS) -> Any:
    return by_hand.raw_tensors(rows, columns)


def code_by_hand(feature: Feature, value: Any) -> Any:
    return by_hand.encoded_value(TRANSFORM, feature, value)
