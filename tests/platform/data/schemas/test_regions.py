"""Differences of schemas as regions of lines."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tensorflow_metadata.proto.v0 import schema_pb2

from mlplatform.data.schemas.regions import blocks_of, diff_regions
from mlplatform.data.schemas.schema import schema_text
from tests.platform.data.validation.described import schema_of


def regions_of(old: Any, new: Any) -> list[tuple[str, Any]]:
    blocks = blocks_of(old)
    regions = diff_regions(blocks, blocks_of(new, known=blocks))
    return [(name := one.WhichOneof("details"), getattr(one, name)) for one in regions]


def test_regions_hide_what_is_far_from_a_difference() -> None:
    values = [f'value: "{i:02}"' for i in range(20)]
    changed = [*values[:9], 'value: "other"', *values[10:]]
    old = schema_of(f'string_domain {{ name: "d" {" ".join(values)} }}')
    new = schema_of(f'string_domain {{ name: "d" {" ".join(changed)} }} default_environment: "E"')
    # Lines 1 and 2 open and name the domain, its values are lines 3 to 22, line 23 closes it.
    got = regions_of(old, new)
    assert [name for name, _ in got] == [
        "hidden",
        "unchanged",
        "changed",
        "unchanged",
        "hidden",
        "unchanged",
        "added",
    ]
    assert (got[0][1].left_start, got[0][1].right_start, got[0][1].size) == (1, 1, 8)
    assert list(got[1][1].contents) == ['  value: "06"', '  value: "07"', '  value: "08"']
    assert (got[2][1].left_start, got[2][1].right_start) == (12, 12)
    assert list(got[2][1].left_contents) == ['  value: "09"']
    assert list(got[2][1].right_contents) == ['  value: "other"']
    assert (got[4][1].left_start, got[4][1].right_start, got[4][1].size) == (16, 16, 5)
    assert list(got[5][1].contents) == ['  value: "18"', '  value: "19"', "}"]
    assert (got[6][1].start, list(got[6][1].contents)) == (24, ['default_environment: "E"'])


def test_a_feature_that_goes_is_a_removed_region() -> None:
    old = schema_of('feature { name: "a" } feature { name: "b" type: INT }')
    (kept, removed) = regions_of(old, schema_of('feature { name: "a" }'))
    assert (kept[0], list(kept[1].contents)) == ("unchanged", ["feature {", '  name: "a"', "}"])
    assert (removed[0], removed[1].start) == ("removed", 4)
    assert list(removed[1].contents) == ["feature {", '  name: "b"', "  type: INT", "}"]


def test_the_blocks_are_the_text_of_the_schema() -> None:
    schema = schema_of(
        """feature { name: "é" } feature { name: "b" } string_domain { name: "d" value: "x" }
           default_environment: "A" default_environment: "B" int_domain { name: "i" }
           sparse_feature { name: "s" } dataset_constraints { min_examples_count: 1 }
           tensor_representation_group { key: "k" value { } }
           tensor_representation_group { key: "j" value { } }
           represent_variable_length_as_ragged: false"""
    )
    text = "".join(f"{line}\n" for _, lines in blocks_of(schema) for line in lines)
    assert text == schema_text(schema)


def rebuild(regions: list[tuple[str, Any]], old: list[str], new: list[str]) -> Any:
    """Both texts from the regions; hidden lines are looked up where the regions say they are."""
    left: list[str] = []
    right: list[str] = []
    for name, one in regions:
        if name in ("unchanged", "hidden"):
            size = one.size if name == "hidden" else len(one.contents)
            assert (one.left_start, one.right_start) == (len(left) + 1, len(right) + 1)
            left += old[len(left) :][:size] if name == "hidden" else one.contents
            right += new[len(right) :][:size] if name == "hidden" else one.contents
        elif name == "removed":
            assert one.start == len(left) + 1
            left += one.contents
        elif name == "added":
            assert one.start == len(right) + 1
            right += one.contents
        else:
            assert (one.left_start, one.right_start) == (len(left) + 1, len(right) + 1)
            left += one.left_contents
            right += one.right_contents
    return left, right


domains = st.builds(
    lambda name, values: schema_pb2.StringDomain(name=name, value=values),
    st.sampled_from("ab"),
    st.lists(st.sampled_from("xyz"), max_size=12),
)
schemas = st.builds(
    lambda of_domains, environments: schema_pb2.Schema(
        string_domain=of_domains, default_environment=environments
    ),
    st.lists(domains, max_size=4),
    st.lists(st.sampled_from("EF"), max_size=8),
)


@given(schemas, schemas)
def test_both_texts_are_in_the_regions(old: Any, new: Any) -> None:
    regions = regions_of(old, new)
    assert bool(regions) == (old != new)
    if regions:
        texts = schema_text(old).splitlines(), schema_text(new).splitlines()
        assert rebuild(regions, *texts) == texts
