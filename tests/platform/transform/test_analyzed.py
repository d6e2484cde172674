"""What codes stand for, and that only what was saved is loaded."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlplatform  # noqa: F401  # first: it sets what TensorFlow reads from the environment

# isort: split
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.errors import DataCorrupt, InvalidArgument
from mlplatform.transform.feature import (
    Bucketize,
    Crossed,
    Feature,
    Hashed,
    Quantiles,
    Vocabulary,
)
from mlplatform.transform.row_keys import RowKeys, match_rows
from mlplatform.transform.transform import Transform
from tests.platform.transform import by_hand
from tests.platform.transform.by_hand import INT_MAX, INT_MIN
from tests.platform.transform.example import FEATURES, INTS, LIMITS, STRINGS, TRANSFORM, WORDS

WORD_IDS = st.lists(STRINGS.filter(bool), unique=True, max_size=8)


@settings(deadline=None, max_examples=40)
@given(WORD_IDS, WORD_IDS, st.lists(INTS.filter(lambda n: n != INT_MIN), unique=True, max_size=8))
def test_pairs_of_values_keep_their_cross_when_vocabularies_gain_lose_and_reorder(
    before: list[str], after: list[str], levels: list[int]
) -> None:
    features = (
        Feature("word", "string", "", Vocabulary()),
        Feature("level", "int64", "", Vocabulary()),
        Feature("pair", "int64", "", Crossed(("word", "level"), 2**31 - 1)),
    )
    old = Transform(features, {"word": tuple(before), "level": tuple(levels)})
    new = Transform(features, {"word": tuple(after), "level": tuple(reversed(levels))})
    pairs = [(w, n) for w in {*before, *after} for n in levels]
    table = pa.table(
        {
            "word": pa.array([word for word, _ in pairs], pa.string()),
            "level": pa.array([level for _, level in pairs], pa.int64()),
        }
    )
    survives = [word in before and word in after for word, _ in pairs]
    one, other = (t.apply(table, ["pair"])["pair"][survives] for t in (old, new))
    assert one.tolist() == other.tolist()
    # And as different pairs differ, these are no constants: 2^31 buckets for at most 128 pairs.
    assert len(set(one.tolist())) == len(one)


def test_stable_ids_are_hashes_of_values_and_codes_of_all_else() -> None:
    ids = TRANSFORM.stable_ids("level")
    assert ids.dtype == np.int64
    assert ids.tolist() == [0, 1, *map(by_hand.id_of, (7, -3, INT_MAX, INT_MIN + 1, 0))]
    assert TRANSFORM.stable_ids("word_or").tolist() == [0, 1, *map(by_hand.id_of, WORDS)]
    for name in ("amount", "size", "id_b", "triple"):
        assert TRANSFORM.stable_ids(name).tolist() == list(range(TRANSFORM.cardinality(name)))


def test_row_keys_say_what_codes_stand_for() -> None:
    limits = (-1.5, 0.0, float(np.float32(0.1)))
    word = RowKeys("vocabulary", values=WORDS)
    assert TRANSFORM.row_keys("word") == TRANSFORM.row_keys("word_or") == word
    assert TRANSFORM.row_keys("size") == RowKeys("buckets", limits=limits)
    assert TRANSFORM.row_keys("amount") == RowKeys("buckets", limits=LIMITS)
    assert TRANSFORM.row_keys("id_b") == RowKeys("hashed", buckets=7, salt=2)
    assert TRANSFORM.row_keys("triple") == RowKeys(
        "hashed",
        buckets=97,
        parts=("word_or: string", "level: int64", f"id_a: {Hashed(1 << 18, salt=1)}"),
    )


def test_a_crosss_rows_are_kept_while_its_parts_are_coded_alike() -> None:
    changed = {
        "word": Vocabulary(top_k=3),  # its values keep their ids
        "count_or": Quantiles(5),  # its buckets are others
    }
    for name, expected in (("word", True), ("count_or", False)):
        new = replace(TRANSFORM, features=with_declared(name, transform=changed[name]))
        kept = match_rows(TRANSFORM.row_keys("pair"), new.row_keys("pair"))
        assert (kept is not None) == expected


@pytest.mark.parametrize("name", ["score", "untouched"])
def test_what_is_not_coded_has_no_row_keys_ids_or_cardinality(name: str) -> None:
    for ask in (TRANSFORM.row_keys, TRANSFORM.stable_ids, TRANSFORM.cardinality):
        with pytest.raises(InvalidArgument, match=f"'{name}'"):
            ask(name)


@pytest.mark.parametrize(("name", "expected"), [("id_b", 8), ("word_or", 8), ("level", 7)])
def test_cardinality_counts_missing_and_unknown(name: str, expected: int) -> None:
    assert TRANSFORM.cardinality(name) == expected


def test_a_saved_transform_gives_the_same_codes(tmp_path: Path) -> None:
    TRANSFORM.save(tmp_path / "transform.json")
    loaded = Transform.load(tmp_path / "transform.json", FEATURES)
    assert loaded.fingerprint == TRANSFORM.fingerprint
    assert dict(loaded.vocabularies) == dict(TRANSFORM.vocabularies)
    assert loaded.boundaries.keys() == TRANSFORM.boundaries.keys()
    assert dict(loaded.scales) == dict(TRANSFORM.scales)
    for name, limits in TRANSFORM.boundaries.items():
        assert loaded.boundaries[name].dtype == np.float32
        assert loaded.boundaries[name].tobytes() == limits.tobytes()


def with_declared(which: str, **changes: Any) -> tuple[Feature, ...]:
    return tuple(replace(f, **changes) if f.name == which else f for f in FEATURES)


@pytest.mark.parametrize(
    "features",
    [
        with_declared("word", transform=Vocabulary(min_count=2)),
        with_declared("word", transform=Vocabulary(top_k=9)),
        with_declared("word", dtype="int64"),
        with_declared("size", transform=Bucketize((-1.5, 0.0, 0.2))),
        with_declared("pair", transform=Crossed(("count_or", "word"), 1 << 20, salt=3)),
        with_declared("pair", transform=Crossed(("word", "count_or"), 1 << 20, salt=4)),
        with_declared("words", width=2),
        with_declared("untouched", name="renamed"),
        FEATURES[:-1],
    ],
)
def test_another_declaration_is_refused(features: tuple[Feature, ...], tmp_path: Path) -> None:
    path = tmp_path / "transform.json"
    TRANSFORM.save(path)
    with pytest.raises(DataCorrupt, match=r"transform\.json"):
        Transform.load(path, features)


@pytest.mark.parametrize("changes", [{"default": "b"}, {"source": "term"}])
def test_what_a_null_becomes_and_where_it_is_read_belong_to_the_declaration(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "transform.json"
    TRANSFORM.save(path)
    with pytest.raises(DataCorrupt):
        Transform.load(path, with_declared("word", **changes))


def test_an_altered_vocabulary_boundary_or_scale_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "transform.json"
    TRANSFORM.save(path)
    content = json.loads(path.read_text())
    assert Transform.load(path, FEATURES).fingerprint == content["fingerprint"]
    content["vocabularies"]["word"].reverse()
    path.write_text(json.dumps(content))
    with pytest.raises(DataCorrupt, match=r"transform\.json"):
        Transform.load(path, FEATURES)
    content["vocabularies"]["word"].reverse()
    content["boundaries"]["amount"][1] = -1.25
    path.write_text(json.dumps(content))
    with pytest.raises(DataCorrupt, match=r"transform\.json"):
        Transform.load(path, FEATURES)
    content["boundaries"]["amount"][1] = -1.5
    content["scales"]["score"][1] *= 2
    path.write_text(json.dumps(content))
    with pytest.raises(DataCorrupt, match=r"transform\.json"):
        Transform.load(path, FEATURES)


def test_a_cut_off_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "transform.json"
    TRANSFORM.save(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataCorrupt, match=r"transform\.json"):
        Transform.load(path, FEATURES)


@pytest.mark.parametrize("content", ["[]", "{}", '{"vocabularies": {}, "boundaries": {}}'])
def test_json_of_another_shape_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "transform.json"
    path.write_text(content)
    with pytest.raises(DataCorrupt, match=r"transform\.json"):
        Transform.load(path, FEATURES)
