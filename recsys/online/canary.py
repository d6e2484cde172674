"""Is a bundle safe to serve?  The real service is started with it, and must answer as it did.

Enters: a bundle's directory, a feature store's.  Leaves: the canary's report.  The bundle brings
its golden answers, which it gave when it was made, to requests as they were logged: the features
inline, and no user's id.  They hold for the feature store of that day.

    python -m recsys.online.canary BUNDLE FEATURE_STORE

is the service under test: it prints its port, and ends when its standard input does.
"""

import asyncio
import os
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import uvicorn
from fastapi import FastAPI

from mlplatform.artifacts import read_json
from mlplatform.errors import (
    DataCorrupt,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PlatformError,
)
from mlplatform.evaluation.canary import Limits, Report, Request, examine
from recsys.online.answering import alone
from recsys.online.bundle import Bundle
from recsys.online.calls import Calls, asked_of, keeps_nothing
from recsys.online.contract import Query, Unreadable, read_plain
from recsys.online.feature_store import PROFILE_FEATURES, VISIT_FEATURES, FeatureStore
from recsys.online.recommender import Recommender
from recsys.online.service import create_app

GOLDEN = "golden.json"
REQUESTS = 32
LIMITS = Limits(budget_ms=250, memory_mb=8192, ready_s=120)
_PATH = "/v1/recommendations"
_VERSION = 0  # a bundle that is not pushed has no number
_LISTEN = "127.0.0.1"


def golden(recommender: Recommender, requests: pa.Table) -> dict[str, Any]:
    """-> what goes into `golden.json`: `day` of the feature store, `exchanges` of request, answer.

    Args:
        requests: rows as `REQUEST_SCHEMA`, of which at most `REQUESTS` are taken, evenly spread;
            other columns are not looked at.  The log keeps no `owned`: then the history is taken.

    Raises:
        InvalidArgument: there is no row, or one is no request that the service accepts.
    """
    if not len(requests):
        raise InvalidArgument("golden answers: expected rows of requests, got none")
    rows = np.unique(np.linspace(0, len(requests) - 1, REQUESTS).round().astype(np.int64))
    kept = [n for n in (*PROFILE_FEATURES, *VISIT_FEATURES) if n in requests.column_names]
    bodies = []
    for row in requests.select(kept).take(rows).to_pylist():
        context = {name: row.pop(name) for name in VISIT_FEATURES}
        bodies.append({"profile": row, "context": context, "explain": True})
    try:
        asked = [asked_of(read_plain(Query, body)) for body in bodies]
    except Unreadable as error:
        raise InvalidArgument(
            f"golden answers: {error}; take requests that the service accepts"
        ) from None
    exchanges = []
    for body, answer in zip(bodies, alone(recommender, _VERSION).run(asked), strict=True):
        if isinstance(answer, PlatformError):
            raise answer
        exchanges.append({"request": body, "answer": answer})
    return {"day": recommender.store.day, "exchanges": exchanges}


def examine_bundle(bundle: Path, feature_store: Path, limits: Limits = LIMITS) -> Report:
    """Serve a bundle in a process of its own, and see that it answers as it did.

    Raises:
        NotFound: it has no golden answers.
        DataCorrupt: they are not what was written.
    """
    exchanges = _read_golden(bundle)["exchanges"]
    return examine(
        [sys.executable, "-m", __name__, str(bundle), str(feature_store)],
        [Request("POST", _PATH, exchange["request"]) for exchange in exchanges],
        [exchange["answer"] for exchange in exchanges],
        limits,
    )


def _read_golden(bundle: Path) -> dict[str, Any]:
    path = bundle / GOLDEN
    if not path.exists():
        raise NotFound(f"{path}: the bundle has no golden answers; make it again")
    content = read_json(path)
    if not isinstance(content, dict) or content.keys() != {"day", "exchanges"}:
        raise DataCorrupt(f"{path}: expected a day and exchanges, got others; make it again")
    return content


def main(arguments: Sequence[str]) -> None:
    """Serve a bundle until standard input ends; what keeps it from that is said in one line."""
    bundle, feature_store = map(Path, arguments)
    threading.Thread(target=_end_with_input, daemon=True).start()
    with socket.create_server((_LISTEN, 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        try:
            asyncio.run(_serve(create_app(lambda: _load(bundle, feature_store)), listener))
        except PlatformError as error:
            sys.exit(str(error))
        except Exception as error:  # whatever a library makes of a damaged part
            said = " ".join(str(error).split())
            sys.exit(f"{bundle}: cannot be served: {type(error).__name__}: {said}")


def _load(bundle: Path, feature_store: Path) -> Calls:
    store, made = FeatureStore(feature_store), _read_golden(bundle)["day"]
    if store.day != made:
        raise FailedPrecondition(
            f"{feature_store}: expected the feature store of day {made}, for which the golden "
            f"answers of {bundle} hold, got one of day {store.day}"
        )
    answering = alone(Recommender(Bundle.load(bundle), store), _VERSION)
    return Calls(answering, keeps_nothing)


async def _serve(app: FastAPI, listener: socket.socket) -> None:
    # Started here and not by uvicorn, which would log why it failed and raise nothing.
    async with app.router.lifespan_context(app):
        config = uvicorn.Config(app, log_level="warning", lifespan="off")
        await uvicorn.Server(config).serve(sockets=[listener])


def _end_with_input() -> None:
    while os.read(0, 1):  # not by `sys.stdin`, whose lock a thread must not hold at the end
        pass
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
