"""Any declaration, any rows: training and an exported, reloaded model agree to the bit."""

import mlplatform  # noqa: F401  # first: it sets what TensorFlow reads from the environment

# isort: split
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from mlplatform.training.runtime import tensorflow
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
from tests.platform.transform.by_hand import (
    FLOAT_MAX,
    INT_MAX,
    INT_MIN,
    arrow_table,
    raw_tensors,
)

tf = tensorflow()
from mlplatform.training.export import save_model  # noqa: E402  # imports TensorFlow
from mlplatform.transform.graph import TransformGraph  # noqa: E402

N_ROWS = 300
TEXTS = st.text(min_size=1, max_size=6)
INTS = st.integers(INT_MIN + 1, INT_MAX)
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
VALUES: dict[str, Any] = {"string": TEXTS, "int64": INTS, "float32": FLOATS}
EDGES: dict[str, list[Any]] = {
    "string": ["\x00", "a\u0308", "ä", "🜚", " "],
    "int64": [INT_MIN, INT_MIN + 1, INT_MAX, -1, 0, 1, 2**24 + 1, -(2**53) - 1],
    "float32": [
        -FLOAT_MAX,
        FLOAT_MAX,
        0.0,
        -0.0,
        2.0**-126,
        -(2.0**-126),
        2.0**-149,
        1.5 * 2.0**-126,
    ],
}
KINDS = [
    (Vocabulary, "string"),
    (Vocabulary, "int64"),
    *((kind, dtype) for kind in (Quantiles, Bucketize, ZScore) for dtype in ("int64", "float32")),
    (Hashed, "int64"),
]
LIMITS = st.lists(FLOATS, min_size=1, max_size=6, unique_by=np.float32).map(
    lambda limits: tuple(sorted(limits))
)


@st.composite
def transforms(draw: Any) -> Transform:
    """A list and a scalar of every kind and type, then some more, and three crosses of scalars."""
    features: list[Feature] = []
    found: dict[str, dict[str, Any]] = {"vocabularies": {}, "boundaries": {}, "scales": {}}
    more = draw(st.lists(st.sampled_from(KINDS), max_size=6))
    for number, (kind, dtype) in enumerate([*KINDS, *KINDS, *more]):
        name = f"f{number}"
        is_list = number < len(KINDS)  # lists first, so that a scalar can share a list's words
        transform: Any = kind() if kind in (Vocabulary, ZScore) else None
        if kind is Vocabulary:
            owners = [f.name for f in features if f.dtype == dtype and f.transform == Vocabulary()]
            if owners and draw(st.booleans()):
                transform = Vocabulary(shared_with=draw(st.sampled_from(owners)))
            else:
                words = st.lists(VALUES[dtype], unique=True, max_size=6)
                found["vocabularies"][name] = tuple(draw(words))
        elif kind is Quantiles:
            transform = Quantiles(8)
            found["boundaries"][name] = np.array(draw(st.just(()) | LIMITS), np.float32)
        elif kind is Bucketize:
            transform = Bucketize(draw(LIMITS))
        elif kind is ZScore:
            found["scales"][name] = Scale.of(draw(FLOATS), draw(st.floats(0, 1e38)))
        else:
            transform = Hashed(draw(st.integers(1, 2**31 - 1)), draw(INTS))
        default = None if is_list else draw(st.none() | VALUES[dtype])
        width = draw(st.integers(2, 4)) if is_list else 1
        features.append(Feature(name, dtype, "", transform, width=width, default=default))
    coded = [f.name for f in features if f.width == 1 and not isinstance(f.transform, ZScore)]
    parts = st.lists(st.sampled_from(coded), min_size=2, max_size=4, unique=True).map(tuple)
    for number in range(3):
        cross = Crossed(draw(parts), draw(st.integers(1, 2**31 - 1)), draw(INTS))
        features.append(Feature(f"cross{number}", "int64", "", cross))
    return Transform(tuple(draw(st.permutations(features))), **found)


def rows_for(transform: Transform, drawn: dict[str, list[Any]], seed: int) -> list[dict[str, Any]]:
    """Rows that mix what is missing with drawn values, extremes, values of vocabularies, limits."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = [{} for _ in range(N_ROWS)]
    for feature in transform.features:
        if not feature.column:
            continue
        pool = [None, *drawn[feature.dtype], *EDGES[feature.dtype]]
        if isinstance(feature.transform, Vocabulary):
            pool += transform.vocabulary(feature)
        if isinstance(feature.transform, Quantiles | Bucketize):
            limits = transform.limits(feature)
            near = [limits, *(np.nextafter(limits, np.float32(end)) for end in (-9e37, 9e37))]
            if feature.dtype == "float32":
                pool += np.concatenate(near).tolist()
            else:
                pool += [int(n) for n in np.concatenate(near).tolist() if abs(n) < 2.0**63]
        if isinstance(feature.transform, ZScore) and feature.dtype == "float32":
            pool += [transform.scales[feature.name].mean]
        for row in rows:
            picked = [pool[i] for i in rng.integers(0, len(pool), rng.integers(0, 6) + 1)]
            if feature.width == 1:
                row[feature.column] = picked[0]
            else:
                row[feature.column] = None if rng.random() < 0.1 else picked[:-1]
    return rows


def export(transform: Transform, names: list[str], directory: Path) -> Any:
    """The signature of a saved and reloaded model that does nothing but transform."""
    module = TransformGraph(transform, names)
    serve = tf.function(lambda **raw: module(raw)).get_concrete_function(**module.signature())
    save_model(module, directory / "model", {"serve": serve})
    return tf.saved_model.load(str(directory / "model")).signatures["serve"]


# Not made smaller when it fails: that would export hundreds of models.
@settings(deadline=None, max_examples=5, phases=(Phase.reuse, Phase.generate))
@given(
    transforms(),
    st.fixed_dictionaries(
        {dtype: st.lists(values, max_size=8) for dtype, values in VALUES.items()}
    ),
    st.integers(0, 2**32),
    st.integers(0, 3),
)
def test_training_and_an_exported_model_agree_to_the_bit(
    transform: Transform, drawn: dict[str, list[Any]], seed: int, absent: int
) -> None:
    columns = {feature.column: feature for feature in transform.features if feature.column}
    with_default = [name for name, feature in columns.items() if feature.default is not None]
    left_out = with_default[:absent]
    rows = rows_for(transform, drawn, seed)
    names = [feature.name for feature in transform.features]
    table = arrow_table(rows, columns).drop_columns(left_out)
    applied = transform.apply(table, names)
    sent = [row | dict.fromkeys(left_out) for row in rows]
    with tempfile.TemporaryDirectory() as directory:
        served = export(transform, names, Path(directory))(**raw_tensors(sent, columns))
    assert list(applied) == names and served.keys() == set(names)
    for name in names:
        codes, expected = served[name].numpy(), applied[name]
        assert codes.dtype == expected.dtype and codes.shape == expected.shape
        assert codes.tobytes() == expected.tobytes(), (name, transform.by_name[name])


@pytest.mark.parametrize("names", [["cross"], ["cross", "b"], ["b", "cross", "a"]])
def test_a_cross_asks_for_its_parts_columns_and_answers_for_itself(
    names: list[str], tmp_path: Path
) -> None:
    transform = Transform(
        (
            Feature("a", "string", "", Vocabulary(), source="word"),
            Feature("b", "float32", "", Bucketize((0.5,)), default=0.0),
            Feature("cross", "int64", "", Crossed(("a", "b"), 50)),
        ),
        {"a": ("x", "y")},
    )
    graph = TransformGraph(transform, names)
    assert graph.signature().keys() == {"word", "b"}
    serve = export(transform, names, tmp_path)
    raw = {"word": tf.constant(["y", "", "?"]), "b": tf.constant([1.0, float("nan"), 0.5])}
    codes = serve(**raw)
    assert codes.keys() == set(names)
    rows: list[Any] = [{"word": "y", "b": 1.0}, {"word": None, "b": None}, {"word": "?", "b": 0.5}]
    columns = {feature.column: feature for feature in transform.read_for(names)}
    expected = transform.apply(arrow_table(rows, columns), ["cross"])["cross"]
    assert codes["cross"].numpy().tolist() == expected.tolist()
    assert len(set(expected.tolist())) == 3
