"""Training examples: the joins from logged events to rows, each as of its own moment.

Enters: the observable tables and the event log.  Leaves: Arrow tables of three datasets,
`requests` (one row a visit), `impressions` (one a shown app, with its label) and `positives` (one
an install, however it came about), whose columns are those declared in `features.py`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recsys import features
from recsys.history import InstallHistory

Int = NDArray[np.int64]
RECENT_CATEGORY_HOURS = 14 * 24.0
COUNTER_DAYS = 7
PRIOR_IMPRESSIONS = 50.0  # weight of the store's own rate in an app's smoothed install rate
BACKLOG_PER_USER = 4  # installs from before the log that become positives, the latest first
# Of the features of an impression, those that `AppCounters` counts, and as what.
COUNTED = {
    "recent_impressions": "impressions",
    "recent_installs": "installs",
    "recent_install_rate": "install_rate",
}
EVENT_TABLES = ("requests", "impressions", "installs")


@dataclass(frozen=True)
class EventLog:
    """The store's log: the observable tables, and the events of each day."""

    apps: pa.Table
    users: pa.Table
    owned: pa.Table  # installs from before the log began
    days: tuple[dict[str, pa.Table], ...]

    @classmethod
    def read(cls, world: Path, events: Path) -> "EventLog":
        days = sorted(events.glob("day=*"))
        return cls(
            pq.read_table(world / "apps.parquet"),
            pq.read_table(world / "users.parquet"),
            pq.read_table(world / "owned.parquet"),
            tuple({n: pq.read_table(day / f"{n}.parquet") for n in EVENT_TABLES} for day in days),
        )

    def history(self, before_day: int | None = None) -> InstallHistory:
        """All installs of the log, or those of the days before one."""
        tables = [self.owned, *(day["installs"] for day in self.days[:before_day])]
        wanted = ["user_id", "app_id", "arrival_hour"]
        return InstallHistory.of(pa.concat_tables([table.select(wanted) for table in tables]))

    def apps_by(self, day: int) -> pa.Table:
        """The catalogue as of the start of a day."""
        return self.apps.filter(pc.less(self.apps["release_day"], day))


@dataclass(frozen=True)
class AppCounters:
    """What happened to every app in the days before one; arrays over `ids`, rising."""

    ids: Int
    release_day: Int
    impressions: Int
    installs: Int
    install_rate: NDArray[np.float32]

    @classmethod
    def of(cls, log: EventLog, day: int) -> "AppCounters":
        """Counts over the `COUNTER_DAYS` days before `day`, of what was known by then."""
        ids = log.apps["app_id"].to_numpy()
        days = log.days[max(0, day - COUNTER_DAYS) : day]
        known = [
            d["installs"].filter(pc.less(d["installs"]["arrival_hour"], 24.0 * day)) for d in days
        ]
        impressions = _count(ids, [d["impressions"]["app_id"] for d in days])
        installs = _count(ids, [table["app_id"] for table in known])
        from_impressions = _count(
            ids, [t.filter(pc.is_valid(t["request_id"]))["app_id"] for t in known]
        )
        overall = (from_impressions.sum() + 1) / (impressions.sum() + 100)
        rate = (from_impressions + PRIOR_IMPRESSIONS * overall) / (impressions + PRIOR_IMPRESSIONS)
        return cls(
            ids,
            log.apps["release_day"].to_numpy(),
            impressions,
            installs,
            rate.astype(np.float32),
        )

    def columns(self, app: Int, day: int) -> dict[str, NDArray[np.generic]]:
        """The columns of `features.IMPRESSION` that describe each app on that day."""
        at = app - self.ids[0]  # right where ids have no gaps
        if len(at) and not (
            at.min() >= 0 and at.max() < len(self.ids) and (self.ids[at] == app).all()
        ):
            at = np.searchsorted(self.ids, app)
        return {
            "app_age_days": day - self.release_day[at],
            **{name: getattr(self, of)[at] for name, of in COUNTED.items()},
        }

    def edited(self, edit: Callable[[pa.Table], pa.Table]) -> "AppCounters":
        """With the columns of all apps as `edit` returns them; it is given app_id besides."""
        columns = {name: getattr(self, of) for name, of in COUNTED.items()}
        table = edit(pa.table({"app_id": self.ids} | columns))
        return replace(self, **{of: table[name].to_numpy() for name, of in COUNTED.items()})


def request_columns(
    log: EventLog,
    history: InstallHistory,
    user: Int,
    hour: NDArray[np.float64],
    network: pa.Array,
) -> pa.Table:
    """The columns of `features.REQUEST` and the history, for each (user, hour)."""
    known = log.users.take(pa.array(user))
    day = np.floor(hour / 24).astype(np.int64)
    latest, n_latest = history.latest(user, hour, features.HISTORY_LENGTH)
    recent, n_recent = history.latest(
        user, hour, features.RECENT_INSTALLS, since=hour - RECENT_CATEGORY_HOURS
    )
    category = log.apps["category"].combine_chunks().cast(pa.string())
    return pa.table(
        {
            **{
                name: known[name]
                for name in known.column_names
                if name not in ("user_id", "signup_day")
            },
            "account_age_days": day - known["signup_day"].to_numpy(),
            "hour_of_day": np.floor(hour % 24).astype(np.int64),
            "network": network,
            "history_count": history.counts(user, hour),
            "recent_categories": _lists(category.take(pa.array(recent)), n_recent),
            "history": _lists(pa.array(latest), n_latest),
        }
    )


def owned_lists(history: InstallHistory, user: Int, hour: NDArray[np.float64]) -> pa.Array:
    """The column of `features.OWNED` for each (user, hour)."""
    latest, count = history.latest(user, hour, features.OWNED.width)
    return _lists(pa.array(latest), count)


def requests_of(log: EventLog, history: InstallHistory, day: int) -> pa.Table:
    """Dataset `requests` of one day."""
    requests = log.days[day]["requests"]
    columns = request_columns(
        log,
        history,
        requests["user_id"].to_numpy(),
        requests["hour"].to_numpy(),
        requests["network"],
    )
    return _prepend(requests.select(["request_id", "user_id", "hour"]), columns)


def impressions_of(
    log: EventLog, counters: AppCounters, day: int, known_by_hour: float
) -> pa.Table:
    """Dataset `impressions` of one day, labelled with the installs reported by an hour."""
    impressions = log.days[day]["impressions"]
    installs = log.days[day]["installs"]
    installs = installs.filter(
        pc.and_(
            pc.is_valid(installs["request_id"]), pc.less(installs["arrival_hour"], known_by_hour)
        )
    )
    app = impressions["app_id"].to_numpy()
    pair = _pairs(impressions["request_id"].to_numpy(), app)
    hit = _pairs(installs["request_id"].to_numpy(), installs["app_id"].to_numpy())
    return pa.table(
        {
            **{name: impressions[name] for name in impressions.column_names},
            **counters.columns(app, day),
            features.LABEL.name: np.isin(pair, hit).astype(np.int64),
        }
    )


def positives_of(
    log: EventLog, history: InstallHistory, day: int, known_by_hour: float
) -> pa.Table:
    """Dataset `positives` of one day: installs, as their users stood just before each."""
    installs = log.days[day]["installs"]
    installs = installs.filter(pc.less(installs["arrival_hour"], known_by_hour))
    return _positives(log, history, installs, _network_of(log.days[day]["requests"], installs))


def positives_reported(
    log: EventLog, history: InstallHistory, since_hour: float, until_hour: float
) -> pa.Table:
    """The same of all installs reported in [since, until), however long ago they happened.

    So no install is lost that is reported after its own day was joined, and none counts twice.
    """
    installs = pa.concat_tables([day["installs"] for day in log.days])
    arrival = installs["arrival_hour"]
    installs = installs.filter(
        pc.and_(pc.greater_equal(arrival, since_hour), pc.less(arrival, until_hour))
    )
    requests = pa.concat_tables([day["requests"] for day in log.days])
    return _positives(log, history, installs, _network_of(requests, installs))


def backlog_positives(log: EventLog, history: InstallHistory) -> pa.Table:
    """Positives from before the log: every user's last few apps."""
    user = log.owned["user_id"].to_numpy()
    order = np.lexsort((-log.owned["hour"].to_numpy(), user))
    sorted_user = user[order]
    first = np.searchsorted(sorted_user, sorted_user)
    kept = np.sort(order[np.arange(len(order)) - first < BACKLOG_PER_USER])
    installs = log.owned.take(pa.array(kept))
    return _positives(log, history, installs, pa.nulls(len(installs), pa.string()))


def _positives(
    log: EventLog, history: InstallHistory, installs: pa.Table, network: pa.Array
) -> pa.Table:
    columns = request_columns(
        log, history, installs["user_id"].to_numpy(), installs["hour"].to_numpy(), network
    )
    return _prepend(installs.select(["user_id", "app_id", "hour"]), columns)


def _network_of(requests: pa.Table, installs: pa.Table) -> pa.ChunkedArray:
    """The network of the request that led to each install, null where none did."""
    at = pc.index_in(installs["request_id"], value_set=requests["request_id"].combine_chunks())
    return requests["network"].take(at)


def _count(ids: Int, columns: Sequence[pa.ChunkedArray]) -> Int:
    total = np.zeros(len(ids), dtype=np.int64)
    for column in columns:
        total += np.bincount(np.searchsorted(ids, column.to_numpy()), minlength=len(ids))
    return total


def _pairs(request_id: Int, app: Int) -> NDArray[np.uint64]:
    """A number for each (request, app) that no other pair of a day shares, save by chance 2^-64."""
    with np.errstate(over="ignore"):
        mixed = request_id.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        return (mixed ^ (mixed >> np.uint64(29))) + app.astype(np.uint64)


def _lists(values: pa.Array, counts: Int) -> pa.Array:
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def _prepend(keys: pa.Table, columns: pa.Table) -> pa.Table:
    return pa.table({name: table[name] for table in (keys, columns) for name in table.column_names})
