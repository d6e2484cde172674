"""Inference of schemas, their text form, and environments."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from mlplatform.data.schemas.schema import (
    find_feature,
    infer_schema,
    load_schema,
    save_schema,
    set_environments,
)
from mlplatform.errors import InvalidArgument, NotFound
from tests.platform.data.validation.described import statistics_of, told


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


def test_two_strings_that_mean_true_and_false() -> None:
    expect(
        inferred(["true", "false", "true"]),
        """feature { name: "f" type: BYTES presence { min_fraction: 1 min_count: 1 }
           shape { dim { size: 1 } } bool_domain { true_value: "true" false_value: "false" } }""",
    )
    assert not inferred(["true"]).feature[0].HasField("bool_domain")
    assert not inferred(["true", "FALSE"]).feature[0].HasField("bool_domain")


def test_strings_that_are_integers_have_no_list_of_values() -> None:
    schema = inferred(["1", "-20", "3"])
    assert schema.feature[0].int_domain == schema_pb2.IntDomain()
    assert schema.feature[0].HasField("int_domain")
    assert not schema.string_domain
    assert not inferred(["1", "2.0"]).feature[0].HasField("int_domain")


def test_integers_have_no_range_and_are_not_taken_for_bools() -> None:
    assert inferred([0, 1]).feature[0].WhichOneof("domain_info") is None


def test_integers_that_were_counted_as_categories_are_categorical() -> None:
    statistics = told(
        """features { path { step: "f" } type: INT string_stats { unique: 1 common_stats {
           num_non_missing: 2 min_num_values: 1 max_num_values: 1 tot_num_values: 2 }
           rank_histogram { buckets { label: "7" sample_count: 2 } } } }"""
    )
    assert infer_schema(statistics).feature[0].int_domain.is_categorical


def test_nested_lists_have_a_count_at_every_level() -> None:
    statistics = told(
        """features { path { step: "f" } type: INT num_stats { common_stats {
           num_non_missing: 2 min_num_values: 1 max_num_values: 3 tot_num_values: 4
           presence_and_valency_stats { num_non_missing: 2 min_num_values: 1 max_num_values: 3 }
           presence_and_valency_stats { num_non_missing: 4 min_num_values: 2 max_num_values: 2 }
           } } }"""
    )
    expect(
        infer_schema(statistics),
        """feature { name: "f" type: INT presence { min_count: 1 min_fraction: 1 }
           value_counts { value_count { min: 1 } value_count { min: 2 max: 2 } } }""",
    )


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
