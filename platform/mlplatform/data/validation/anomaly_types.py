"""Which types of anomalies validation does not raise, and why.

Every other type of `AnomalyInfo.Type` is raised by a check.
"""

_SUPERSEDED = "Superseded: a value of another type is UNEXPECTED_DATA_TYPE, as in recent TFDV"
_NLP = "Statistics of natural language, which tokens and vocabularies are needed for, are not made"
_IMAGE = "Images are not decoded: their statistics are not made"

NOT_RAISED: dict[str, str] = {
    "UNKNOWN_TYPE": "Says nothing",
    "MULTIPLE_REASONS": "Every reason has a type of its own",
    "BOOL_TYPE_BYTES_NOT_INT": _SUPERSEDED,
    "BOOL_TYPE_BYTES_NOT_STRING": _SUPERSEDED,
    "BOOL_TYPE_FLOAT_NOT_INT": _SUPERSEDED,
    "BOOL_TYPE_FLOAT_NOT_STRING": _SUPERSEDED,
    "BOOL_TYPE_INT_NOT_STRING": _SUPERSEDED,
    "BOOL_TYPE_STRING_NOT_INT": _SUPERSEDED,
    "BOOL_TYPE_INVALID_CONFIG": "Superseded: a bool domain that contradicts itself is "
    "INVALID_DOMAIN_SPECIFICATION",
    "ENUM_TYPE_BYTES_NOT_STRING": _SUPERSEDED,
    "ENUM_TYPE_FLOAT_NOT_STRING": _SUPERSEDED,
    "ENUM_TYPE_INT_NOT_STRING": _SUPERSEDED,
    "FEATURE_TYPE_NO_VALUES": "Superseded: an empty list where values are required is "
    "FEATURE_TYPE_LOW_NUMBER_VALUES",
    "FEATURE_TYPE_UNEXPECTED_REPEATED": "Superseded: a list where one value is required is "
    "FEATURE_TYPE_HIGH_NUMBER_VALUES or INVALID_FEATURE_SHAPE",
    "FLOAT_TYPE_NOT_FLOAT": _SUPERSEDED,
    "FLOAT_TYPE_NON_STRING": _SUPERSEDED,
    "FLOAT_TYPE_UNKNOWN_TYPE_NUMBER": _SUPERSEDED,
    "INT_TYPE_INT_EXPECTED": _SUPERSEDED,
    "INT_TYPE_NOT_STRING": _SUPERSEDED,
    "INT_TYPE_STRING_EXPECTED": _SUPERSEDED,
    "INT_TYPE_UNKNOWN_TYPE_NUMBER": _SUPERSEDED,
    "STRING_TYPE_NOW_FLOAT": _SUPERSEDED,
    "STRING_TYPE_NOW_INT": _SUPERSEDED,
    "SCHEMA_TRAINING_SERVING_SKEW": "Superseded: skew is told by the comparators' types",
    "SEMANTIC_DOMAIN_UPDATE": "Statistics of what strings mean (URLs, times) are not made",
    "LOW_SUPPORTED_IMAGE_FRACTION": _IMAGE,
    "MAX_IMAGE_BYTE_SIZE_EXCEEDED": _IMAGE,
    "SEQUENCE_VALUE_TOO_FEW_OCCURRENCES": _NLP,
    "SEQUENCE_VALUE_TOO_MANY_OCCURRENCES": _NLP,
    "SEQUENCE_VALUE_TOO_SMALL_FRACTION": _NLP,
    "SEQUENCE_VALUE_TOO_LARGE_FRACTION": _NLP,
    "FEATURE_COVERAGE_TOO_LOW": _NLP,
    "FEATURE_COVERAGE_TOO_SHORT_AVG_TOKEN_LENGTH": _NLP,
    "NLP_WRONG_LOCATION": _NLP,
    "EMBEDDING_SHAPE_INVALID": "Features are no embeddings; INVALID_FEATURE_SHAPE tells of lists",
    "CUSTOM_VALIDATION": "Raised by conditions in SQL over statistics, which are not offered",
}
