"""The command line.  Each verb imports what it needs when it runs, so that help is immediate."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from mlplatform.errors import AnomaliesFound, PlatformError
from recsys import data_cli, drill_cli, experiment_cli, log_cli, registry_cli
from recsys.data_cli import JsonOption
from recsys.registry_cli import WORKSPACE, WorkspaceOption

app = typer.Typer(
    name="storeloop",
    help="An app store's recommender, end to end: from a world's logs to served answers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def run(
    config: Annotated[str, typer.Option(help="tiny, small, full, or a YAML file's path.")] = "full",
    workspace: WorkspaceOption = WORKSPACE,
    as_json: JsonOption = False,
) -> None:
    """Run the main job: from a new world to a served, measured recommender."""
    from recsys.config import load_config

    settings = load_config(config)  # before the imports that take seconds

    from mlplatform.pipeline import Workspace
    from mlplatform.pipeline import run as run_stages
    from recsys import report
    from recsys.pipeline import stages

    opened = Workspace(workspace)
    with opened.locked(), report.Terminal() as terminal:
        records = run_stages(stages(settings, opened), opened, terminal)
    report.write_html(opened, records)
    report.show(opened, records, as_json=as_json)


@app.command()
def loop(
    days: Annotated[int, typer.Option(min=1, help="How many, after those of the main job.")] = 7,
    config: Annotated[
        str, typer.Option(help="tiny, small, full, or a YAML file's path.")
    ] = "small",
    fault: Annotated[
        list[str] | None,
        typer.Option(help="DAY:NAME, a drill: a fault planted in a day's rows; may be repeated."),
    ] = None,
    workspace: WorkspaceOption = WORKSPACE,
    as_json: JsonOption = False,
) -> None:
    """Serve, learn from it, judge, push: day after day.  Killed, it goes on where it was."""
    from recsys.config import load_config

    settings = load_config(config)

    from mlplatform.pipeline import Workspace
    from recsys import report
    from recsys.loop import loop as run_days
    from recsys.loop import parse_faults

    first = settings.days.evaluate
    faults = parse_faults(fault or [], range(first, first + days))
    opened = Workspace(workspace)
    with opened.locked(), report.Terminal() as terminal:
        found = list(run_days(settings, opened, days, terminal, faults))
    report.show_days(opened, found, as_json=as_json)


@app.command()
def serve(
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="HTTP port; 0 takes a free one.")
    ] = 8000,
    grpc_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="gRPC port; none if it is not given.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=256, help="Processes; default: one a core.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    label: Annotated[str, typer.Option(help="Which version to serve.")] = "stable",
    canary_share: Annotated[
        float, typer.Option(help="Share of users whom the version labelled canary answers.")
    ] = 0.05,
    exploration: Annotated[
        float, typer.Option(min=0, max=0.1, help="Share of places that explore.")
    ] = 0.01,
    requests_per_s: Annotated[
        float | None, typer.Option(help="Limit of one client's requests, in each worker.")
    ] = None,
    models: Annotated[
        bool, typer.Option(help="Answer for the models themselves, as TensorFlow Serving does.")
    ] = False,
    admin_port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help="Port for labels, rollback, reload; needs MLPLATFORM_ADMIN_TOKEN.",
        ),
    ] = None,
    workspace: WorkspaceOption = WORKSPACE,
    registry: Annotated[Path | None, typer.Option(help="Default: the workspace's.")] = None,
    feature_store: Annotated[
        Path | None, typer.Option(help="Default: the workspace's latest.")
    ] = None,
    state: Annotated[
        Path | None, typer.Option(help="Log and state; default: the workspace's serving/.")
    ] = None,
) -> None:
    """Serve what is pushed, over HTTP and gRPC; documentation is at /docs.

    API keys, where clients need one, come from STORELOOP_API_KEYS, separated by commas.
    """
    import os

    from recsys.online.feature_store import latest_feature_store
    from recsys.online.server import LOG
    from recsys.online.server import serve as serve_forever
    from recsys.online.worker import Task

    if feature_store is None:
        latest_feature_store(workspace)  # a mistake to be told before anything starts
    directory = state or workspace / "serving"
    task = Task(
        workspace=workspace.absolute(),
        registry=(registry or workspace / "registry").absolute(),
        feature_store=feature_store and feature_store.absolute(),
        log=(directory / LOG).absolute(),
        canary_share=canary_share,
        exploration=exploration,
        requests_per_s=requests_per_s,
        models=models,
    )

    def at(number: int | None) -> tuple[str, int] | None:
        return None if number is None else (host, number)

    serve_forever(
        task, directory, (host, port), at(grpc_port), at(admin_port),
        workers or os.cpu_count() or 1, label,
    )  # fmt: skip


@app.command()
def recommend(
    user: Annotated[int, typer.Argument(min=0, help="A user's id.")],
    k: Annotated[int, typer.Option(min=1, max=100, help="How many apps.")] = 10,
    hour: Annotated[int, typer.Option(min=0, max=23, help="Hour of the day.")] = 20,
    network: Annotated[
        Literal["wifi", "metered"] | None, typer.Option(help="Unknown if absent.")
    ] = None,
    workspace: WorkspaceOption = WORKSPACE,
    as_json: JsonOption = False,
) -> None:
    """Recommend apps to a user, without a server."""
    from mlplatform.registry.registry import STABLE, Registry
    from recsys import report
    from recsys.online.answering import Asked, alone
    from recsys.online.bundle import Bundle
    from recsys.online.feature_store import FeatureStore, latest_feature_store
    from recsys.online.recommender import Recommender

    store = FeatureStore(latest_feature_store(workspace))
    registry = Registry(workspace / "registry")
    version = registry.labelled(STABLE)
    store.profiles([user])  # an unknown one is told at once
    with registry.serving(version):
        recommender = Recommender(Bundle.of_version(version), store)
    (answer,) = alone(recommender, version.number).run(
        [Asked(user, None, hour, network, k, explain=False)]
    )
    if isinstance(answer, PlatformError):
        raise answer
    report.show_answer(answer, as_json=as_json)


app.command("list")(registry_cli.list_versions)
for verb in (
    registry_cli.show, registry_cli.verify, registry_cli.label, registry_cli.rollback,
    registry_cli.gc, registry_cli.lineage, registry_cli.rebuild,
):  # fmt: skip
    app.command()(verb)
app.command()(log_cli.seal)
app.command()(data_cli.validate)
app.command()(data_cli.skew)
app.add_typer(data_cli.schema_app)
app.command()(drill_cli.drill)
app.add_typer(experiment_cli.experiment_app, name="experiment")


def main() -> None:
    """Run the command; a mistake or a failure ends in one line, not in a stack trace."""
    try:
        app()
    except PlatformError as error:
        print(f"storeloop: {error}", file=sys.stderr)
        raise SystemExit(1 if isinstance(error, AnomaliesFound) else 2) from None
    except KeyboardInterrupt:
        print("storeloop: stopped; run the same command to go on", file=sys.stderr)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
