"""The verb `experiment`: what a skew costs, in installs."""

from typing import Annotated

import typer

from recsys.data_cli import JsonOption
from recsys.registry_cli import WORKSPACE, WorkspaceOption

experiment_app = typer.Typer(no_args_is_help=True, help="Experiments in the world.")


@experiment_app.callback()
def experiment() -> None:
    """Experiments in the world, which knows what would have been."""


@experiment_app.command()
def skew(
    config: Annotated[
        str, typer.Option(help="tiny, small, full, or a YAML file's path.")
    ] = "small",
    seeds: Annotated[
        int, typer.Option(min=1, max=1000, help="Worlds, from the configuration's seed on.")
    ] = 1,
    workspace: WorkspaceOption = WORKSPACE,
    as_json: JsonOption = False,
) -> None:
    """Serve with a skew, find it, remove it: what is an install rate worth.  Killed, it goes on.

    The first seed has all controls besides: severities, and a feature that matters to nobody.
    """
    from recsys.config import load_config

    settings = load_config(config)

    from mlplatform.pipeline import Workspace
    from recsys import experiment_report
    from recsys.drill_report import read_prices
    from recsys.experiment import run_story, with_seed
    from recsys.experiment_figures import figures_of
    from recsys.report import Terminal

    root = workspace / "experiment"
    found = {}
    for seed in range(settings.seed, settings.seed + seeds):
        opened = Workspace(root / f"seed-{seed}")
        with opened.locked(), Terminal() as terminal:
            arms = run_story(
                with_seed(settings, seed), opened, terminal, controls=seed == settings.seed
            )
            found[seed] = figures_of(arms, seed)
    drills = read_prices(workspace / "drills")
    experiment_report.show(root, settings, found, drills, as_json=as_json)
