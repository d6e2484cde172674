"""The verb about what a server logged: a day of it becomes a span.

Enters: the folder that `storeloop serve` writes its log to.  Leaves: the joined day, as
`online/joining.py` says, and its counts.
"""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from mlplatform.errors import NotFound
from recsys.data_cli import JsonOption
from recsys.registry_cli import WORKSPACE, WorkspaceOption

SPANS = "events"


def seal(
    day: Annotated[int, typer.Argument(min=0, help="Its number; days are joined in order.")],
    began: Annotated[
        datetime,
        typer.Option(formats=["%Y-%m-%d"], help="The date of day 0, which begins at 0:00 UTC."),
    ],
    workspace: WorkspaceOption = WORKSPACE,
    state: Annotated[
        Path | None, typer.Option(help="As of `serve`; default: the workspace's serving/.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Join a day of the server's log with what users did, six hours after its end."""
    import time

    from mlplatform.data.files.spans import span_path
    from recsys.online.joining import seal_span
    from recsys.online.server import LOG

    folder = state or workspace / "serving"
    if not (folder / LOG).is_dir():
        raise NotFound(f"{folder / LOG}: expected a server's log, got no such folder; see --state")
    since = began.replace(tzinfo=UTC).timestamp()
    sealed = seal_span(folder / LOG, folder, SPANS, day, since, time.time())
    if as_json:
        print(json.dumps(asdict(sealed), indent=1))
        return
    print(span_path(folder, SPANS, day))
    for name, count in asdict(sealed).items():
        print(f"{count:>12,}  {name.replace('_', ' ')}")
