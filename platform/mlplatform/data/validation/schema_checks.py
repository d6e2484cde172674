"""The checks of a schema's own features, whatever the data: what it says must make sense.

Enters: a schema, and the data's features by name.  Leaves: findings.  To add a check, write it and
append it to the list.  Each check sees the schema as the changes of the checks before it left it.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

from tensorflow_metadata.proto.v0 import schema_pb2

from mlplatform.data.schemas.schema import (
    Domain,
    find_domain,
    is_categorical,
    live_features,
    named_features,
)
from mlplatform.data.validation.bounds_checks import (
    check_bounds,
    check_dataset_constraints,
    invalid,
)
from mlplatform.data.validation.facts import Statistics, feature_type
from mlplatform.data.validation.findings import (
    CLEAR_DOMAIN,
    RETIRE,
    Change,
    Finding,
    Types,
    clearing,
    finding_of,
    setting,
)

SchemaCheck = Callable[[schema_pb2.Schema, Mapping[str, Statistics]], Iterator[Finding]]
Feature: TypeAlias = schema_pb2.Feature
type_name = schema_pb2.FeatureType.Name

COMPARATORS = ("drift_comparator", "skew_comparator")
_BYTES, _INT, _FLOAT = schema_pb2.BYTES, schema_pb2.INT, schema_pb2.FLOAT
# Domains that are not listed here say what values mean and not which there are: any type has them.
_TYPES_OF_DOMAINS: dict[str, tuple[int, ...]] = {
    "StringDomain": (_BYTES,),
    "IntDomain": (_BYTES, _INT),
    "FloatDomain": (_BYTES, _FLOAT),
    "BoolDomain": (_BYTES, _INT, _FLOAT),
    "StructDomain": (schema_pb2.STRUCT,),
}


def check_names(schema: schema_pb2.Schema, data: Mapping[str, Statistics]) -> Iterator[Finding]:
    """Every feature has a name of its own."""

    def keep_first(name: str) -> Callable[[schema_pb2.Schema], None]:
        def change(schema: schema_pb2.Schema) -> None:
            named = [i for i, feature in enumerate(schema.feature) if feature.name == name]
            for index in reversed(named[1:]):
                del schema.feature[index]

        return change

    def retire_nameless(schema: schema_pb2.Schema) -> None:
        for feature in schema.feature:
            if not feature.name:
                RETIRE(feature)

    nameless = [feature for feature in live_features(schema) if not feature.name]
    if nameless:
        text = f"Expected a name of every feature, got {len(nameless)} without"
        yield Finding("", Types.FEATURE_MISSING_NAME, "Missing name", text, retire_nameless)
    for name, times in Counter(feature.name for feature in schema.feature if feature.name).items():
        if times > 1:
            text = f"Expected the feature once in the schema, got it {times} times"
            yield Finding(
                name, Types.INVALID_SCHEMA_SPECIFICATION, "Repeated name", text, keep_first(name)
            )


def check_types(schema: schema_pb2.Schema, data: Mapping[str, Statistics]) -> Iterator[Finding]:
    """Every feature has a type.  The change takes that of the data, or of a domain of strings."""
    for feature in named_features(schema):
        if feature.type != schema_pb2.TYPE_UNKNOWN:
            continue
        change: Change = RETIRE
        if feature.name in data and feature_type(data[feature.name]):
            change = setting("type", feature_type(data[feature.name]))
        elif isinstance(find_domain(feature, schema), schema_pb2.StringDomain):
            change = setting("type", schema_pb2.BYTES)
        yield finding_of(
            feature,
            Types.FEATURE_MISSING_TYPE,
            "Missing type",
            "Expected the feature's type in the schema, got none",
            change,
        )


def check_environments(
    schema: schema_pb2.Schema, data: Mapping[str, Statistics]
) -> Iterator[Finding]:
    """No environment is both in and out."""
    for feature in named_features(schema):
        both = sorted(set(feature.in_environment) & set(feature.not_in_environment))
        if both:
            text = f"an environment either in or out, got {', '.join(both)} on both sides"
            yield invalid(feature, text, clearing("not_in_environment"))


def check_domains(schema: schema_pb2.Schema, data: Mapping[str, Statistics]) -> Iterator[Finding]:
    """A feature's domain is defined, fits its type, and could hold a value."""
    for feature in named_features(schema):
        domain = find_domain(feature, schema)
        if domain is None:
            if feature.HasField("domain"):
                yield _invalid_domain(
                    feature,
                    f"one of the schema's domains, got {feature.domain!r}",
                    CLEAR_DOMAIN,
                )
            continue
        name = type(domain).DESCRIPTOR.name
        if feature.type not in _TYPES_OF_DOMAINS.get(name, (feature.type,)):
            yield finding_of(
                feature,
                Types.DOMAIN_INVALID_FOR_TYPE,
                "Domain of another type",
                f"Expected a domain of values of type {type_name(feature.type)}, got a {name}",
                CLEAR_DOMAIN,
            )
        elif fault := _fault_of(domain):
            yield _invalid_domain(feature, fault, CLEAR_DOMAIN)


def check_distribution_constraints(
    schema: schema_pb2.Schema, data: Mapping[str, Statistics]
) -> Iterator[Finding]:
    """Only a domain of strings can have a least share."""
    for feature in named_features(schema):
        domain = find_domain(feature, schema)
        if feature.HasField("distribution_constraints") and not isinstance(
            domain, schema_pb2.StringDomain
        ):
            yield invalid(
                feature,
                "distribution_constraints beside a domain of strings, got them without one",
                clearing("distribution_constraints"),
            )


def check_comparators(
    schema: schema_pb2.Schema, data: Mapping[str, Statistics]
) -> Iterator[Finding]:
    """A threshold lies between 0 and 1, and values are counted only of categorical features."""
    for feature in named_features(schema):
        for name in COMPARATORS:
            comparator = getattr(feature, name)
            for measure, _ in comparator.ListFields():
                path = f"{name}.{measure.name}"
                threshold = getattr(comparator, measure.name).threshold
                if measure.name != "jensen_shannon_divergence" and not is_categorical(feature):
                    yield invalid(
                        feature,
                        f"{path} of a categorical feature only (strings, bools, or integers whose "
                        f"int_domain is_categorical), got a feature of type "
                        f"{type_name(feature.type)}; use jensen_shannon_divergence",
                        clearing(path),
                    )
                elif not 0 <= threshold <= 1:
                    limit = setting(f"{path}.threshold", min(max(threshold, 0.0), 1.0))
                    text = f"{path}.threshold from 0 to 1, got {threshold:g}"
                    yield invalid(feature, text, limit)


def check_derived(schema: schema_pb2.Schema, data: Mapping[str, Statistics]) -> Iterator[Finding]:
    """A feature that is derived for validation says so by its stage."""
    for feature in named_features(schema):
        stage = feature.lifecycle_stage
        derived = feature.HasField("validation_derived_source")
        if derived and stage != schema_pb2.VALIDATION_DERIVED:
            yield finding_of(
                feature,
                Types.DERIVED_FEATURE_BAD_LIFECYCLE,
                "Derived feature of another stage",
                "Expected a derived feature at stage VALIDATION_DERIVED or retired, got "
                f"{schema_pb2.LifecycleStage.Name(stage)}",
                setting("lifecycle_stage", schema_pb2.VALIDATION_DERIVED),
            )


SCHEMA_CHECKS: list[SchemaCheck] = [
    check_names,
    check_types,
    check_bounds,
    check_dataset_constraints,
    check_environments,
    check_domains,
    check_distribution_constraints,
    check_comparators,
    check_derived,
]


def _fault_of(domain: Domain) -> str | None:
    """What is wrong with a domain by itself: expected, got."""
    if isinstance(domain, schema_pb2.BoolDomain):
        if domain.HasField("true_value") and domain.true_value == domain.false_value:
            return f"different strings for true and false, got {domain.true_value!r} for both"
    elif isinstance(domain, schema_pb2.StringDomain):
        repeated = sorted(value for value, times in Counter(domain.value).items() if times > 1)
        if repeated:
            return f"every value of the domain once, got {', '.join(map(repr, repeated))} again"
    elif isinstance(domain, schema_pb2.IntDomain | schema_pb2.FloatDomain):
        has_both = domain.HasField("min") and domain.HasField("max")
        if has_both and domain.min > domain.max:
            return f"a domain's min up to its max, got {domain.min:g} above {domain.max:g}"
    return None


def _invalid_domain(feature: Feature, text: str, change: Change) -> Finding:
    kind = Types.INVALID_DOMAIN_SPECIFICATION
    return finding_of(feature, kind, "Invalid domain", f"Expected {text}", change)
