"""The feature store: what serving knows of users and apps at the moment of a request.

Enters: the event log up to a day.  Leaves: a directory with an embedded key-value store (LMDB) of
users, and arrays of app counters.  It is written by the same functions that write training rows,
so both say the same of the same moment.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Self

import lmdb
import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mlplatform.errors import DataCorrupt, NotFound
from mlplatform.pipeline import Workspace
from recsys import features
from recsys.examples import AppCounters, EventLog, owned_lists, request_columns

_MAP_BYTES = 8 << 30  # address space that LMDB may use; the file grows as it needs
_WRITE_ROWS = 20_000
# Of the request's features, those that depend on the visit and not on the user.
VISIT_FEATURES = ("hour_of_day", "network")
PROFILE_FEATURES = [
    *(f.name for f in features.REQUEST if f.name not in VISIT_FEATURES),
    features.HISTORY.name,
    features.OWNED.name,
]

_COUNTERS = [field.name for field in fields(AppCounters)]
Profile = dict[str, Any]
Edit = Callable[[pa.Table], pa.Table]


def write_feature_store(
    log: EventLog, day: int, directory: Path, edit: Edit = lambda table: table
) -> int:
    """Write what is known at the start of `day`; return how many users there are.

    edit: is given the rows of users, with user_id, and those of apps, with app_id, as they are
        about to be written, and returns what is written: a drill's way to plant a fault.
    """
    history = log.history(before_day=day)
    users = log.users.filter(pa.compute.less_equal(log.users["signup_day"], day))[
        "user_id"
    ].to_numpy()
    environment = lmdb.open(
        str(directory / "users"), map_size=_MAP_BYTES, readahead=False, lock=False
    )
    encoder = msgspec.msgpack.Encoder()
    for start in range(0, len(users), _WRITE_ROWS):
        some = users[start : start + _WRITE_ROWS]
        hour = np.full(len(some), 24.0 * day)
        table = request_columns(log, history, some, hour, pa.nulls(len(some), pa.string()))
        table = table.append_column(features.OWNED.name, owned_lists(history, some, hour))
        table = edit(table.append_column("user_id", pa.array(some)))
        rows = table.select(PROFILE_FEATURES).to_pylist()
        with environment.begin(write=True) as transaction:
            for user, row in zip(some.tolist(), rows, strict=True):
                transaction.put(_key(user), encoder.encode(row), append=True)
    environment.sync(True)
    environment.close()
    counters = AppCounters.of(log, day).edited(edit)
    np.savez(directory / "day.npz", day=np.array(day))
    for name in _COUNTERS:
        np.save(directory / f"counters.{name}.npy", getattr(counters, name), allow_pickle=False)
    return len(users)


def latest_feature_store(workspace: Path) -> Path:
    """The one that the workspace's last run made.

    Raises:
        NotFound: there is none.
    """
    if workspace.exists() and (store := Workspace(workspace).latest("build_feature_store")):
        return store
    raise NotFound(f"{workspace}: no feature store here; run `storeloop run` first")


class FeatureStore:
    """Reads what `write_feature_store` wrote; safe to share between threads.

    A process can have a store open once: whoever is done with it closes it, `with` does.
    """

    def __init__(self, directory: Path) -> None:
        """Open a store.

        Raises:
            DataCorrupt: the directory does not hold one.
        """
        try:
            self._users = lmdb.open(str(directory / "users"), readonly=True, lock=False)
            self.day = int(np.load(directory / "day.npz", allow_pickle=False)["day"])
            self.counters = AppCounters(
                # Of a memmap every index would make a view that costs more than the look.
                *(
                    np.asarray(
                        np.load(
                            directory / f"counters.{name}.npy", mmap_mode="r", allow_pickle=False
                        )
                    )
                    for name in _COUNTERS
                )
            )
        except (lmdb.Error, OSError, ValueError, KeyError) as error:
            raise DataCorrupt(
                f"{directory}: expected a feature store, got one that does not open ({error}); "
                "delete it and run `storeloop run` again"
            ) from error
        self._decoder = msgspec.msgpack.Decoder(dict[str, Any])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._users.close()

    def profiles(self, users: Sequence[int]) -> list[Profile]:
        """The profile of each user, by feature name, the history among them.

        Raises:
            NotFound: a user has never signed up.
        """
        return [
            self.decode(_known(user, raw))
            for user, raw in zip(users, self.profiles_raw(users), strict=True)
        ]

    def profiles_raw(self, users: Sequence[int]) -> list[bytes | None]:
        """The profile of each user as it is stored, of one moment; None of who never signed up."""
        with self._users.begin() as transaction:
            get = transaction.get
            return [get(_key(user)) for user in users]

    def decode(self, raw: bytes) -> Profile:
        """A profile of `profiles_raw`, by feature name: msgpack, with lists as lists."""
        return self._decoder.decode(raw)

    def user_ids(self) -> Iterator[int]:
        """Every known user."""
        with self._users.begin() as transaction:
            for key in transaction.cursor().iternext(values=False):
                yield int.from_bytes(key, "big")

    def app_columns(self, app_ids: NDArray[np.int64]) -> dict[str, NDArray[np.generic]]:
        """The impression features of each app, as of the store's day."""
        return self.counters.columns(app_ids, self.day)


def _known(user: int, raw: bytes | None) -> bytes:
    if raw is None:
        raise NotFound(f"user {user} is unknown; ask with an inline profile instead of a user id")
    return raw


def _key(user: int) -> bytes:
    return user.to_bytes(8, "big")
