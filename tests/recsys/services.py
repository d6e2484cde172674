"""One version behind the usual doors, as an ASGI app for tests."""

from typing import Any

from mlplatform.serving.doors import Doors
from recsys.online.answering import alone
from recsys.online.calls import Calls, keeps_nothing
from recsys.online.recommender import Recommender
from recsys.online.service import PROBES, create_app


def service(recommender: Recommender, version: int) -> Any:
    app = create_app(lambda: Calls(alone(recommender, version), keeps_nothing))
    return Doors(open_paths=PROBES).around(app)
