"""Schemas: what the data is expected to be, inferred once and then kept by people.

Enters: the statistics of a data set.  Leaves: a tensorflow-metadata `Schema`, stored as text so
that a change to it can be reviewed.  Inference follows TFDV: it promises only what every later
data set should keep, so it sets no ranges of numbers.
"""

from collections.abc import Iterable
from pathlib import Path

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from mlplatform.artifacts import write_file_atomically
from mlplatform.errors import InvalidArgument, NotFound

_TYPES = {"INT": schema_pb2.INT, "FLOAT": schema_pb2.FLOAT, "STRING": schema_pb2.BYTES}


def infer_schema(
    statistics: statistics_pb2.DatasetFeatureStatistics, *, max_string_domain: int = 200
) -> schema_pb2.Schema:
    """The schema that `statistics` satisfies and later data sets are to satisfy too.

    Args:
        statistics: of one data set, as `compute_statistics` returns them.
        max_string_domain: strings with at most this many distinct values get a domain.
    """
    schema = schema_pb2.Schema()
    for observed in statistics.features:
        feature = schema.feature.add(name=feature_name(observed), type=feature_type(observed))
        common = common_statistics(observed)
        feature.presence.min_count = min(common.num_non_missing, 1)
        if not common.num_non_missing:
            continue
        if not common.num_missing:
            feature.presence.min_fraction = 1.0
        _infer_valency(feature, common)
        if feature.type == schema_pb2.FLOAT:
            _infer_float_domain(feature, observed.num_stats)
        elif feature.type == schema_pb2.BYTES:
            _infer_string_domain(schema, feature, observed.string_stats, max_string_domain)
    return schema


def save_schema(schema: schema_pb2.Schema, path: Path) -> None:
    """Write `schema` as text."""
    write_file_atomically(path, text_format.MessageToString(schema, as_utf8=True).encode())


def load_schema(path: Path) -> schema_pb2.Schema:
    """Read what `save_schema` or a person wrote.

    Raises:
        NotFound: there is no such file.
        InvalidArgument: the file is not the text form of a schema.
    """
    try:
        schema: schema_pb2.Schema = text_format.Parse(
            path.read_text(encoding="utf-8"), schema_pb2.Schema()
        )
    except FileNotFoundError as error:
        raise NotFound(f"{path}: expected a schema, found nothing; infer one first") from error
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise InvalidArgument(
            f"{path}: expected a schema as protobuf text, got a file that does not parse "
            f"({error}); correct that line or infer the schema again"
        ) from error
    return schema


def set_environments(
    schema: schema_pb2.Schema,
    feature: str,
    *,
    in_environments: Iterable[str] = (),
    not_in_environments: Iterable[str] = (),
) -> None:
    """Say in which environments `feature` is expected, besides or against the default ones.

    A feature belongs to every default environment that it is not excluded from.  An environment
    named in `not_in_environments` becomes a default one, for otherwise no feature would be in it.

    Raises:
        InvalidArgument: the schema has no such feature, or an environment is on both sides.
    """
    chosen = find_feature(schema, feature)
    inside, outside = set(in_environments), set(not_in_environments)
    if both := sorted(inside & outside):
        raise InvalidArgument(
            f"feature {feature!r}: expected an environment either in or out, got "
            f"{', '.join(both)} on both sides"
        )
    chosen.in_environment[:] = sorted((set(chosen.in_environment) | inside) - outside)
    chosen.not_in_environment[:] = sorted((set(chosen.not_in_environment) | outside) - inside)
    schema.default_environment.extend(sorted(outside - set(schema.default_environment)))


def find_feature(schema: schema_pb2.Schema, name: str) -> schema_pb2.Feature:
    """The feature of that name, to be read or changed in place.

    Raises:
        InvalidArgument: the schema has no such feature.
    """
    for feature in schema.feature:
        if feature.name == name:
            return feature
    known = ", ".join(feature.name for feature in schema.feature)
    raise InvalidArgument(f"feature {name!r}: expected one of the schema's ({known})")


def feature_name(statistics: statistics_pb2.FeatureNameStatistics) -> str:
    """The feature's name, in whichever of the two fields it stands."""
    return statistics.name or ".".join(statistics.path.step)


def feature_type(statistics: statistics_pb2.FeatureNameStatistics) -> schema_pb2.FeatureType:
    """The schema's word for the type of these statistics."""
    name = statistics_pb2.FeatureNameStatistics.Type.Name(statistics.type)
    return _TYPES.get(name, schema_pb2.TYPE_UNKNOWN)


def common_statistics(
    statistics: statistics_pb2.FeatureNameStatistics,
) -> statistics_pb2.CommonStatistics:
    """What is counted of a feature of any type."""
    return getattr(statistics, statistics.WhichOneof("stats") or "num_stats").common_stats


def _infer_valency(feature: schema_pb2.Feature, common: statistics_pb2.CommonStatistics) -> None:
    """A fixed shape if every row has it, else the count of values that a present row has."""
    fewest, most = common.min_num_values, common.max_num_values
    if not fewest:
        return
    if fewest == most and not common.num_missing:
        feature.shape.dim.add(size=fewest)
    elif fewest == most:
        feature.value_count.min, feature.value_count.max = fewest, most
    else:
        feature.value_count.min = 1


def _infer_float_domain(
    feature: schema_pb2.Feature, numbers: statistics_pb2.NumericStatistics
) -> None:
    if not any(histogram.num_nan for histogram in numbers.histograms):
        feature.float_domain.disallow_nan = True
    if float("-inf") < numbers.min and numbers.max < float("inf"):
        feature.float_domain.disallow_inf = True


def _infer_string_domain(
    schema: schema_pb2.Schema,
    feature: schema_pb2.Feature,
    strings: statistics_pb2.StringStatistics,
    max_string_domain: int,
) -> None:
    values = sorted(bucket.label for bucket in strings.rank_histogram.buckets)
    is_complete = len(values) == strings.unique and not strings.invalid_utf8_count
    if values and is_complete and len(values) <= max_string_domain:
        schema.string_domain.add(name=feature.name, value=values)
        feature.domain = feature.name
