"""Statistics for tests, without a pipeline."""

from typing import Any

import pyarrow as pa
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from mlplatform.data.files.columns import kind_of
from mlplatform.data.statistics.accumulators import FeatureAccumulator


def statistics_of(**columns: Any) -> Any:
    """Statistics of one data set of these columns."""
    arrays = {name: pa.array(values) for name, values in columns.items()}
    rows = max(map(len, arrays.values()))
    result = statistics_pb2.DatasetFeatureStatistics(name="d", num_examples=rows)
    for name, array in arrays.items():
        kind = kind_of(array.type) or "STRING"
        feature = FeatureAccumulator.of(array, kind, seed=0).describe()
        feature.type = statistics_pb2.FeatureNameStatistics.Type.Value(kind)
        feature.path.step[:] = [name]
        common = getattr(feature, feature.WhichOneof("stats")).common_stats
        common.num_missing = rows - common.num_non_missing
        result.features.append(feature)
    return result


def feature_of(values: Any) -> Any:
    """Statistics of one feature."""
    return statistics_of(f=values).features[0]


def told(text: str, rows: int = 2) -> Any:
    """Statistics of one data set as TFDV may write them."""
    result = text_format.Parse(text, statistics_pb2.DatasetFeatureStatistics())
    result.num_examples = rows
    return result


def schema_of(text: str) -> Any:
    return text_format.Parse(text, schema_pb2.Schema())
