"""The verb `drill`: faults planted on purpose, and what each guard against them is worth."""

from typing import Annotated

import typer

from recsys.data_cli import JsonOption
from recsys.registry_cli import WORKSPACE, WorkspaceOption


def drill(
    names: Annotated[
        list[str] | None, typer.Argument(help="Which drills; all if none is named.")
    ] = None,
    days: Annotated[int, typer.Option(min=2, help="Of the loop, before the drills.")] = 3,
    config: Annotated[
        str, typer.Option(help="tiny, small, full, or a YAML file's path.")
    ] = "small",
    workspace: WorkspaceOption = WORKSPACE,
    as_json: JsonOption = False,
) -> None:
    """Plant each fault with its guard and without: what is a guard worth.  Killed, it goes on."""
    from recsys.config import load_config

    settings = load_config(config)

    from mlplatform.pipeline import Workspace
    from recsys import drill_report
    from recsys.drills import NAMES, run_drills
    from recsys.report import Terminal

    root = workspace / "drills"
    opened = Workspace(root)
    with opened.locked(), Terminal() as terminal:
        found = run_drills(settings, opened, terminal, days, names or NAMES)
    drill_report.show(root, settings, found, as_json=as_json)
