"""The request log: what is read of it is what was served, in the form of the loop's own log."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mlplatform.errors import DataCorrupt, FailedPrecondition
from mlplatform.serving.record_files import sealed_files
from mlplatform.serving.record_frames import read_log
from recsys import features
from recsys.online import request_log
from recsys.online.answering import Shown
from recsys.online.feature_store import FeatureStore
from recsys.online.recommender import Recommendations, Recommender
from recsys.online.request_log import PLACE, RequestLog, encode_request, read_requests, records_of
from recsys.serving_log import SLATE, Visits, serve

MOMENT = 1_700_000_000.25
PROFILE = {"country": "BR", "ram_gb": 2.5, "os_version": 8, "history_count": 2,
           "recent_categories": ["GAME"], "history": [20, 10], "owned": [20, 10]}  # fmt: skip


class Store:
    """Of an app the counters are its id and what follows it."""

    def app_columns(self, app_ids: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        return {
            "app_age_days": app_ids, "recent_impressions": app_ids + 1,
            "recent_installs": app_ids + 2,
            "recent_install_rate": (app_ids / 1000).astype(np.float32),
        }  # fmt: skip

    def profiles(self, users: list[int]) -> list[dict[str, Any]]:
        return [PROFILE | {"history_count": user} for user in users]


STORE = cast(FeatureStore, Store())


def shown(request_id: int, slate: list[int], **changed: Any) -> Shown:
    served = PROFILE | {"hour_of_day": 20, "network": "wifi"}
    n = len(slate)
    given = {"request_id": request_id, "user_id": 5, "features": served, "slate": slate,
             "scores": [0.5] * n, "propensities": np.full(n + 1, 0.98), "version": 3,
             "arm": "stable", "fallback": None}  # fmt: skip
    return Shown(**(given | changed))


def test_records_say_what_was_served_and_where(tmp_path: Path) -> None:
    log = RequestLog(tmp_path)
    batch = [
        shown(2**58, [20, 10], scores=[0.25, float("nan")],
              propensities=np.array([0.98, 0.02 / 190, 0.98])),
        shown(7, [], user_id=None, features={"country": None}, arm="canary", fallback="popular"),
        shown(8, [30]),
    ]  # fmt: skip
    assert log.append(records_of(batch, STORE, MOMENT))
    assert (log.written, log.lost) == (3, 0)
    log.close()
    records, _ = read_log(sealed_files(tmp_path, "requests")[0].path)
    read = read_requests(records)
    assert read.requests["request_id"].to_pylist() == [2**58, 7, 8]
    assert read.requests["user_id"].to_pylist() == [5, None, 5]
    assert read.requests["arm"].to_pylist() == ["stable", "canary", "stable"]
    assert read.requests["fallback"].to_pylist() == [None, "popular", None]
    assert read.requests["served_at"].to_pylist() == [MOMENT] * 3
    assert read.requests["bundle_version"].to_pylist() == [3] * 3
    assert read.requests["history"].to_pylist() == [[20, 10], None, [20, 10]]
    assert read.requests["ram_gb"].to_pylist() == [2.5, None, 2.5]
    assert read.requests["network"].to_pylist() == ["wifi", None, "wifi"]
    assert features.OWNED.name not in read.requests.column_names
    rate = [float(np.float32(one)) for one in (0.02, 0.01, 0.03)]
    assert read.impressions.to_pydict() == {
        "request_id": [2**58, 2**58, 8],
        "app_id": [20, 10, 30],
        "position": [1, 2, 1],
        "propensity": [0.98, 0.02 / 190, 0.98],
        "score": [0.25, None, 0.5],
        "app_age_days": [20, 10, 30],
        "recent_impressions": [21, 11, 31],
        "recent_installs": [22, 12, 32],
        "recent_install_rate": rate,
    }


def test_columns_and_types_are_those_of_the_loops_log() -> None:
    ids = np.arange(1, SLATE + 1)[None]
    scores = np.full((1, SLATE), 0.25, np.float32)
    answer = Recommendations(ids, scores, scores, ids, ids.astype(np.int32), np.ones(1, np.bool_))
    recommender = SimpleNamespace(store=STORE, recommend=lambda *_: answer)
    visits = Visits(np.array([9]), np.array([5]), np.array([20.5]), ["wifi"])
    served = serve(cast(Recommender, recommender), visits, 3, exploration=0.0, seed=1)
    batch = [
        shown(9, ids[0].tolist(), scores=scores[0].tolist(), propensities=np.ones(SLATE),
              features=PROFILE | {"history_count": 5, "hour_of_day": 20, "network": "wifi"})
    ]  # fmt: skip
    read = read_requests(records_of(batch, STORE, MOMENT))
    assert read.impressions.equals(served.impressions)
    added = {"arm": pa.string(), "fallback": pa.string(), "served_at": pa.float64(),
             "user_id": pa.int64()}  # fmt: skip
    assert read.requests.drop_columns(list(added)).equals(served.requests)
    assert {name: read.requests.schema.field(name).type for name in added} == added


def test_no_records_are_tables_without_rows() -> None:
    read, one = read_requests([]), read_requests(records_of([shown(1, [10])], STORE, MOMENT))
    assert len(read.requests) == len(read.impressions) == 0
    assert read.requests.schema == one.requests.schema
    assert read.impressions.schema == one.impressions.schema


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2**59), st.none() | st.integers(0, 2**62),
            st.lists(st.integers(-1, 1) | st.integers(2, 2**62), max_size=5), st.text(max_size=3),
        ),
        max_size=6,
    ),
    st.integers(1, 3),
)  # fmt: skip
def test_any_records_are_read_in_their_order_however_many_at_once(
    asked: list[tuple[int, int | None, list[int], str]], rows: int
) -> None:
    records = []
    for request_id, user, slate, network in asked:
        places = np.zeros(len(slate), PLACE)
        places["app_id"] = slate
        records.append(
            encode_request(
                request_id, MOMENT, user, {"network": network}, places, 3, "stable", None
            )
        )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(request_log, "_ROWS", rows)
        read = read_requests(iter(records))
    assert read.requests["request_id"].to_pylist() == [one[0] for one in asked]
    assert read.requests["user_id"].to_pylist() == [one[1] for one in asked]
    assert read.requests["network"].to_pylist() == [one[3] for one in asked]
    expected = [
        (request_id, app, place)
        for request_id, _, slate, _ in asked
        for place, app in enumerate(slate, 1)
        if app >= 0  # -1 is a place left empty
    ]
    columns = (read.impressions[name].to_pylist() for name in ("request_id", "app_id", "position"))
    assert list(zip(*columns, strict=True)) == expected


def test_a_record_of_something_else_is_refused() -> None:
    with pytest.raises(DataCorrupt, match="expected records of requests, got another one"):
        read_requests([msgspec.msgpack.encode(["a", 1])])


def test_a_record_of_apps_with_other_features_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    records = records_of([shown(1, [10])], STORE, MOMENT)
    monkeypatch.setattr(request_log, "_LAYOUT", request_log._LAYOUT + 1)
    with pytest.raises(FailedPrecondition, match=r"expected apps with the features app_id, .* got"):
        read_requests(records)


def test_fields_that_a_later_release_adds_at_the_end_do_not_hinder() -> None:
    (record,) = records_of([shown(1, [10])], STORE, MOMENT)
    longer = msgspec.msgpack.encode([*msgspec.msgpack.decode(record), "more"])
    assert read_requests([longer]).requests.equals(read_requests([record]).requests)
