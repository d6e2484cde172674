"""Declarations that contradict themselves or each other are refused."""

from typing import Any

import pytest

from mlplatform.errors import InvalidArgument
from mlplatform.transform.feature import (
    Bucketize,
    Crossed,
    Feature,
    Hashed,
    Quantiles,
    Vocabulary,
    ZScore,
    require_parts,
)
from mlplatform.transform.transform import Transform


def test_a_list_has_no_default() -> None:
    with pytest.raises(InvalidArgument, match="'x'"):
        Feature("x", "string", "", Vocabulary(), width=2, default="b")


@pytest.mark.parametrize(
    ("dtype", "transform"),
    [
        ("float32", Vocabulary()),
        ("string", Quantiles(4)),
        ("string", Bucketize((1.0,))),
        ("string", ZScore()),
        ("string", Hashed(4)),
        ("float32", Hashed(4)),
        ("string", Crossed(("a", "b"), 4)),
    ],
)
def test_a_transform_is_refused_a_type_that_it_does_not_take(dtype: Any, transform: Any) -> None:
    with pytest.raises(InvalidArgument, match=rf"'x'.*{type(transform).__name__}, got {dtype}"):
        Feature("x", dtype, "", transform)


@pytest.mark.parametrize(
    "boundaries",
    [
        (),
        (1.0, 1.0),
        (2.0, 1.0),
        (0.0, float("nan")),
        (0.0, float("inf")),
        (0.0, 1e300),
        (16_777_216.0, 16_777_217.0),  # equal as float32
    ],
)
def test_limits_that_do_not_rise_as_float32_are_refused(boundaries: tuple[float, ...]) -> None:
    with pytest.raises(InvalidArgument, match="Bucketize: expected"):
        Bucketize(boundaries)


@pytest.mark.parametrize("of", [(), ("a",), ("a", "b", "a")])
def test_a_cross_of_fewer_than_two_features_is_refused(of: tuple[str, ...]) -> None:
    with pytest.raises(InvalidArgument, match="two or more features"):
        Crossed(of, 8)


@pytest.mark.parametrize("changes", [{"width": 2}, {"source": "y"}, {"default": 3}])
def test_a_cross_has_no_width_source_or_default(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match=r"'x'.*cross"):
        Feature("x", "int64", "", Crossed(("a", "b"), 8), **changes)


def test_a_cross_has_no_column() -> None:
    assert Feature("x", "int64", "", Crossed(("a", "b"), 8)).column == ""


@pytest.mark.parametrize(
    ("part", "got"),
    [
        (Feature("other", "int64", "", Hashed(4)), "none of that name"),
        (Feature("b", "int64", "", Hashed(4), width=2), "a list of width 2"),
        (Feature("b", "int64", ""), "one without a transform"),
        (Feature("b", "int64", "", ZScore()), "a ZScore"),
        (Feature("b", "int64", "", Crossed(("a", "c"), 4)), "a Crossed"),
    ],
)
def test_what_cannot_be_crossed_is_named(part: Feature, got: str) -> None:
    features = (
        Feature("a", "string", "", Vocabulary()),
        Feature("c", "int64", "", Hashed(4)),
        Feature("cross", "int64", "", Crossed(("a", "b"), 8)),
        part,
    )
    with pytest.raises(InvalidArgument, match=rf"'cross'.*'b'.*{got}"):
        require_parts(features)
    with pytest.raises(InvalidArgument, match=rf"'cross'.*'b'.*{got}"):
        Transform(features)
