"""Differences of schemas, as a list for people."""

from mlplatform.data.schemas.diff import diff
from tests.platform.data.validation.described import schema_of


def lines(old: str, new: str) -> list[str]:
    return [str(one) for one in diff(schema_of(old), schema_of(new))]


def test_features_and_domains_are_compared_by_name() -> None:
    old = """feature { name: "gone" type: INT }
             feature { name: "kept" type: BYTES presence { min_fraction: 1 } domain: "d" }
             string_domain { name: "d" value: "a" value: "b" }"""
    new = """feature { name: "kept" type: FLOAT presence { min_fraction: 0.5 } domain: "d" }
             feature { name: "new" type: INT }
             string_domain { name: "d" value: "c" value: "a" }"""
    assert lines(old, new) == [
        "feature 'gone': removed",
        "feature 'kept': type BYTES -> FLOAT",
        "feature 'kept': presence.min_fraction 1 -> 0.5",
        """feature 'new': added with { name: "new" type: INT }""",
        "string_domain 'd' (of kept): value added 'c'",
        "string_domain 'd' (of kept): value removed 'b'",
    ]


def test_fields_that_come_and_go() -> None:
    old = 'feature { name: "f" shape { dim { size: 2 } } in_environment: "A" }'
    new = 'feature { name: "f" value_count { min: 1 } not_in_environment: "A" }'
    assert lines(old, new) == [
        "feature 'f': value_count set to { min: 1 }",
        "feature 'f': not_in_environment added 'A'",
        "feature 'f': in_environment removed 'A'",
        "feature 'f': shape cleared, was { dim { size: 2 } }",
    ]


def test_what_is_of_no_feature() -> None:
    old = 'default_environment: "A"'
    new = 'default_environment: "B" dataset_constraints { min_examples_count: 3 }'
    assert lines(old, new) == [
        "schema: default_environment added 'B'",
        "schema: default_environment removed 'A'",
        "schema: dataset_constraints set to { min_examples_count: 3 }",
    ]


def test_a_map_and_an_order_can_differ() -> None:
    old = """tensor_representation_group { key: "k" value { } }
             feature { name: "f" shape { dim { size: 1 } dim { size: 2 } } }"""
    new = 'feature { name: "f" shape { dim { size: 2 } dim { size: 1 } } }'
    assert lines(old, new) == [
        "feature 'f': shape.dim reordered",
        "schema: tensor_representation_group removed 'k' {  }",
    ]


def test_a_value_that_is_set_to_its_default_is_a_difference() -> None:
    assert lines('feature { name: "f" }', 'feature { name: "f" presence { min_count: 0 } }') == [
        "feature 'f': presence set to { min_count: 0 }"
    ]


def test_the_order_of_features_is_no_difference() -> None:
    features = ['feature { name: "f" }', 'feature { name: "g" }']
    assert lines("".join(features), "".join(reversed(features))) == []
