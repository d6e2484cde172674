"""The request log: what a served request leaves behind, written before its answer is told.

Enters: what requests were answered with.  Leaves: records of a `RecordLog`, one a request; and of
many records the two tables that `serving_log.Served` has too, so that training and skew checks read
both sources alike.  What may be changed: a field more at the end of `_Record`, with a default.

Encoding is on a request's way and takes microseconds: what is known of the apps of a batch is
looked up at once, and each list goes in as the bytes of one array.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mlplatform.errors import DataCorrupt, FailedPrecondition
from mlplatform.serving.record_log import RecordLog
from recsys import features
from recsys.online.feature_store import FeatureStore
from recsys.online.recommender import REQUEST_SCHEMA

if TYPE_CHECKING:
    from recsys.online.answering import Shown

KIND = "requests"
_DTYPES = {"int64": "<i8", "float32": "<f4"}
SERVED_FEATURES = tuple(f for f in features.IMPRESSION if not f.training_only)
# One place of a list: app -1 where it was left empty, score NaN where the ranker had none.
PLACE = np.dtype(
    [
        ("app_id", "<i8"),
        ("propensity", "<f8"),
        ("score", "<f4"),
        *((feature.name, _DTYPES[feature.dtype]) for feature in SERVED_FEATURES),
    ]
)
_LAYOUT = crc32(repr(PLACE.descr).encode())
_ROWS = 16_384  # requests that are Python objects at once
_FEATURES = pa.schema([field for field in REQUEST_SCHEMA if field.name != features.OWNED.name])


class _Record(msgspec.Struct, array_like=True, gc=False):
    """One request, as an array of msgpack."""

    layout: int  # of `places`, told apart by checksum
    request_id: int
    served_at: float
    user_id: int | None
    bundle_version: int
    arm: str
    fallback: str | None
    features: dict[str, Any]  # raw values by name
    places: bytes  # `PLACE`, by position


class RequestLog(RecordLog):
    """The log of one worker; `append` takes what `records_of` gives."""

    def __init__(
        self, directory: Path, alarm: Callable[[str | None], None] = lambda reason: None
    ) -> None:
        """As `RecordLog`, whose counts it has."""
        super().__init__(directory, KIND, alarm=alarm)


@dataclass(frozen=True)
class Logged:
    """What a log says, one row a request, and one for each app that was shown.

    requests: request_id, the features of the request as served, bundle_version int64; arm,
        fallback string, served_at float64, Unix seconds, user_id int64, null for who had none.
    impressions: request_id, app_id, position from 1, propensity, score, null where there is none,
        the app's features as served.
    """

    requests: pa.Table
    impressions: pa.Table


def records_of(shown: Sequence["Shown"], store: FeatureStore, served_at: float) -> list[bytes]:
    """The records of a batch.

    Args:
        store: that the batch was answered from; it says what is known of the apps.
        served_at: Unix seconds.
    """
    places = np.empty(sum(len(one.slate) for one in shown), PLACE)
    places["app_id"] = app_id = np.array([app for one in shown for app in one.slate], np.int64)
    places["propensity"] = [p for one in shown for p in one.propensities[: len(one.slate)].tolist()]
    places["score"] = [score for one in shown for score in one.scores]
    for name, column in store.app_columns(app_id).items():
        places[name] = column
    records, at = [], 0
    for one in shown:
        of_one = places[at : at + len(one.slate)]
        at += len(of_one)
        records.append(
            encode_request(
                one.request_id, served_at, one.user_id, one.features, of_one,
                one.version, one.arm, one.fallback,
            )
        )  # fmt: skip
    return records


def encode_request(
    request_id: int,
    served_at: float,
    user_id: int | None,
    served: Mapping[str, Any],
    places: NDArray[np.void],
    bundle_version: int,
    arm: str,
    fallback: str | None,
) -> bytes:
    """One record.

    Args:
        served_at: Unix seconds.
        served: the request's features, raw values by name.
        places: `[places] PLACE`, in order of position.
        fallback: what the order is by, if not the ranker's.
    """
    return _encode(
        (
            _LAYOUT, request_id, served_at, user_id, bundle_version, arm, fallback, served,
            places.tobytes(),
        )
    )  # fmt: skip


def read_requests(records: Iterable[bytes]) -> Logged:
    """The tables of any number of records, in their order.

    Raises:
        DataCorrupt: a record is none of a request.
        FailedPrecondition: it was written when apps had other features.
    """
    rest = iter(records)
    parts = [_read([])]  # without any record, tables of these columns all the same
    while some := list(islice(rest, _ROWS)):
        parts.append(_read(some))
    return Logged(
        pa.concat_tables([part.requests for part in parts]),
        pa.concat_tables([part.impressions for part in parts]),
    )


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Record).decode


def _read(records: list[bytes]) -> Logged:
    try:
        read = [_decode(record) for record in records]
    except msgspec.DecodeError as error:
        raise DataCorrupt(
            f"request log: expected records of requests, got another one ({error}); read it with "
            "the release that wrote it"
        ) from error
    if any(one.layout != _LAYOUT for one in read):
        raise FailedPrecondition(
            f"request log: expected apps with the features {', '.join(PLACE.names or ())}, got "
            "others; read it with the release that wrote it"
        )
    asked = pa.Table.from_pylist([one.features for one in read], schema=_FEATURES)
    request_id = np.array([one.request_id for one in read], np.int64)
    requests = pa.table(
        {"request_id": request_id}
        | {name: asked[name] for name in asked.column_names}
        | {
            "bundle_version": pa.array([one.bundle_version for one in read], pa.int64()),
            "arm": pa.array([one.arm for one in read], pa.string()),
            "fallback": pa.array([one.fallback for one in read], pa.string()),
            "served_at": pa.array([one.served_at for one in read], pa.float64()),
            "user_id": pa.array([one.user_id for one in read], pa.int64()),
        }
    )
    n_places = np.array([len(one.places) // PLACE.itemsize for one in read], np.int64)
    places = np.frombuffer(b"".join(one.places for one in read), PLACE)
    position = 1 + np.arange(len(places)) - np.repeat(np.cumsum(n_places) - n_places, n_places)
    is_app = places["app_id"] >= 0
    shown = places[is_app]
    impressions = pa.table(
        {
            "request_id": np.repeat(request_id, n_places)[is_app],
            "app_id": shown["app_id"],
            "position": position[is_app],
            "propensity": shown["propensity"],
            "score": pa.array(shown["score"], from_pandas=True),
            **{feature.name: shown[feature.name] for feature in SERVED_FEATURES},
        }
    )
    return Logged(requests, impressions)
