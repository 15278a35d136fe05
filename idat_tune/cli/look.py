"""The commands that look: describe, tasks, ui, doctor."""

from typing import Annotated

import typer

from idat_tune.cli.shared import OUT, Json, Out, Set, app, check_whole, console, held, print_json, program
from idat_tune.errors import BadInput, Interrupted


@app.command()
def describe(
    student: Annotated[str | None, typer.Option(help="A backbone.")] = None,
    teacher: Annotated[str | None, typer.Option(help="A backbone, or none.")] = None,
    classes: Annotated[int | None, typer.Option(metavar="C", help="Outputs of the head; the task's if absent.")] = None,
    task: Annotated[str, typer.Option(help="Whose defaults to take.")] = "cifar",
    assignments: Set = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Trainable parameters, FLOPs and predicted memory of a config, without weights."""
    from idat_tune.config import RunConfig

    config = RunConfig.for_task(task, held(assignments, student=student, teacher=teacher))
    check_whole("--classes", classes, 2, 10**6)
    from idat_tune import cost

    found = cost.describe(config, classes)
    if as_json:
        print_json(found)
        return
    from idat_tune.screen import description

    console().print(description(found, config))


@app.command()
def tasks(as_json: Json = False) -> None:
    """The tasks, their classes, splits and default recipes."""
    from dataclasses import asdict

    from idat_tune.tasks import TASKS

    if as_json:
        print_json([asdict(task) for task in TASKS.values()])
        return
    from idat_tune.screen import task_table

    console().print(task_table(TASKS.values()))


@app.command()
def ui(
    out: Out = OUT,
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than this machine need another.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 5000,
) -> None:
    """Open the MLflow UI on all searches under --out, to compare trials; Ctrl-C ends it."""
    from idat_tune import tracking
    from idat_tune.cli.serving import check_place, serve

    check_place(host, port)
    tracking.check()
    place = tracking.uri(out)
    if place.startswith(("http:", "https:")):
        raise BadInput(f"runs are tracked by {tracking.shown(place)} (MLFLOW_TRACKING_URI); open that address")
    if tracking.embedded(out):
        if not tracking.store(out).exists():
            raise BadInput(f"no tracking store at {tracking.store(out)}; run a search first, or name its --out")
        tracking.reach(place)
    typer.echo(f"starting MLflow's UI on {tracking.shown(place)}", err=True)
    try:
        serve(out, host, port, lambda address: typer.echo(f"{address} answers (Ctrl-C ends it)", err=True))
    except KeyboardInterrupt:
        raise Interrupted("the server was told to end, and has; what it showed stays as it is") from None


@app.command()
def doctor(out: Out = OUT, as_json: Json = False) -> None:
    """What is there and what is missing on this machine, each with its remedy."""
    from dataclasses import asdict

    from idat_tune.doctor import examine, summary

    findings = []
    for finding in examine(out):
        findings.append(finding)
        if not as_json:
            mark = "ok     " if finding.ok else "MISSING" if finding.needed else "absent "
            typer.echo(f"{mark} {finding.what}: {finding.found}" + ("" if finding.ok else f" -> {finding.remedy}"))
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        typer.echo(f"\n{summary(findings, program())}")
    if any(finding.needed and not finding.ok for finding in findings):
        raise SystemExit(1)
