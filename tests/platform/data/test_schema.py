"""Inference of schemas, their text form, and environments."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from mlplatform.data.accumulators import FeatureAccumulator
from mlplatform.data.columns import kind_of
from mlplatform.data.schema import (
    find_feature,
    infer_schema,
    load_schema,
    save_schema,
    set_environments,
)
from mlplatform.errors import InvalidArgument, NotFound


def statistics_of(**columns: Any) -> Any:
    """Statistics of one data set, without a pipeline."""
    arrays = {name: pa.array(values) for name, values in columns.items()}
    rows = max(map(len, arrays.values()))
    result = statistics_pb2.DatasetFeatureStatistics(name="d", num_examples=rows)
    for name, array in arrays.items():
        kind = kind_of(array.type) or "STRING"
        feature = FeatureAccumulator.of(array, kind, seed=0).describe()
        feature.type = statistics_pb2.FeatureNameStatistics.Type.Value(kind)
        feature.path.step.append(name)
        common = getattr(feature, feature.WhichOneof("stats")).common_stats
        common.num_missing = rows - common.num_non_missing
        result.features.append(feature)
    return result


def inferred(values: Any, **arguments: Any) -> Any:
    return infer_schema(statistics_of(f=values), **arguments)


def expect(schema: Any, text: str) -> None:
    assert schema == text_format.Parse(text, schema_pb2.Schema())


def test_a_required_integer() -> None:
    expect(
        inferred([1, 2, 3]),
        """feature { name: "f" type: INT presence { min_fraction: 1 min_count: 1 }
           shape { dim { size: 1 } } }""",
    )


def test_an_optional_float_without_nan_or_infinity() -> None:
    expect(
        inferred([1.5, None]),
        """feature { name: "f" type: FLOAT presence { min_count: 1 }
           value_count { min: 1 max: 1 }
           float_domain { disallow_nan: true disallow_inf: true } }""",
    )


@pytest.mark.parametrize(
    ("values", "domain"),
    [
        ([1.0, float("nan")], "disallow_inf: true"),
        ([1.0, float("inf")], "disallow_nan: true"),
    ],
)
def test_a_float_may_have_what_it_had(values: list[float], domain: str) -> None:
    expect(
        inferred(values),
        f"""feature {{ name: "f" type: FLOAT presence {{ min_fraction: 1 min_count: 1 }}
            shape {{ dim {{ size: 1 }} }} float_domain {{ {domain} }} }}""",
    )


def test_a_string_of_few_values_has_a_domain() -> None:
    expect(
        inferred(["b", "a", "b"]),
        """feature { name: "f" type: BYTES presence { min_fraction: 1 min_count: 1 }
           shape { dim { size: 1 } } domain: "f" }
           string_domain { name: "f" value: "a" value: "b" }""",
    )


def test_a_domain_has_at_most_so_many_values() -> None:
    values = [f"v{i}" for i in range(4)]
    assert not inferred(values, max_string_domain=3).string_domain
    assert inferred(values, max_string_domain=4).string_domain


def test_strings_that_are_not_utf8_have_no_domain() -> None:
    assert not inferred([b"a", b"\xff"]).string_domain


@pytest.mark.parametrize(
    ("values", "valency"),
    [
        ([[1, 2], [3, 4]], "presence { min_fraction: 1 min_count: 1 } shape { dim { size: 2 } }"),
        ([[1, 2], None], "presence { min_count: 1 } value_count { min: 2 max: 2 }"),
        ([[1], [3, 4]], "presence { min_fraction: 1 min_count: 1 } value_count { min: 1 }"),
        ([[], [3, 4]], "presence { min_fraction: 1 min_count: 1 }"),
    ],
)
def test_valency_of_lists(values: Any, valency: str) -> None:
    expect(inferred(values), f'feature {{ name: "f" type: INT {valency} }}')


def test_a_feature_without_values_promises_nothing() -> None:
    expect(
        inferred(pa.nulls(2, pa.float32())),
        'feature { name: "f" type: FLOAT presence { min_count: 0 } }',
    )


def test_text_form_round_trip(tmp_path: Path) -> None:
    schema = inferred(["é", "b"])
    save_schema(schema, tmp_path / "schema.pbtxt")
    assert load_schema(tmp_path / "schema.pbtxt") == schema
    assert "é" in (tmp_path / "schema.pbtxt").read_text(encoding="utf-8")


@pytest.mark.parametrize("content", [b"feature { name: 3 }", b"\xff\xfe", b"colour: 1"])
def test_a_file_that_is_no_schema(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "schema.pbtxt"
    path.write_bytes(content)
    with pytest.raises(InvalidArgument, match=r"schema\.pbtxt: expected a schema"):
        load_schema(path)


def test_no_schema_there(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"schema\.pbtxt: expected a schema, found nothing"):
        load_schema(tmp_path / "schema.pbtxt")


def test_environments() -> None:
    schema = infer_schema(statistics_of(a=[1], label=[1]))
    set_environments(schema, "label", in_environments=["TRAINING"], not_in_environments=["SERVING"])
    label = find_feature(schema, "label")
    assert (label.in_environment, label.not_in_environment) == (["TRAINING"], ["SERVING"])
    assert schema.default_environment == ["SERVING"]
    set_environments(schema, "label", in_environments=["SERVING"])
    assert label.in_environment == ["SERVING", "TRAINING"]
    assert not label.not_in_environment


def test_environments_of_an_unknown_feature_or_on_both_sides() -> None:
    schema = infer_schema(statistics_of(a=[1]))
    with pytest.raises(InvalidArgument, match=r"'b': expected one of the schema's \(a\)"):
        set_environments(schema, "b", in_environments=["X"])
    with pytest.raises(InvalidArgument, match="X on both sides"):
        set_environments(schema, "a", in_environments=["X"], not_in_environments=["X"])
