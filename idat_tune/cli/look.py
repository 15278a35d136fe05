"""The commands that look: describe, tasks, track, ui, doctor."""

from typing import Annotated

import typer

from idat_tune.cli import completing
from idat_tune.cli.shared import OUT, Json, Out, Recipe, Set, app, check_whole, console, held, print_json, program
from idat_tune.errors import BadInput, Interrupted

MOST_LINKS = 15  # that are printed: three of a search


@app.command()
def describe(
    student: Annotated[
        str | None, typer.Option(metavar="NAME", autocompletion=completing.students, help="A backbone.")
    ] = None,
    teacher: Annotated[
        str | None, typer.Option(metavar="NAME", autocompletion=completing.teachers, help="A backbone, or none.")
    ] = None,
    classes: Annotated[int | None, typer.Option(metavar="C", help="Outputs of the head; the task's if absent.")] = None,
    task: Annotated[
        str, typer.Option(metavar="NAME", autocompletion=completing.tasks, help="Whose defaults to take.")
    ] = "cifar",
    recipe: Recipe = None,
    recipes: Annotated[bool, typer.Option("--recipes", help="List the recipes instead.")] = False,
    assignments: Set = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Trainable parameters, FLOPs and predicted memory of a config, without weights."""
    if recipes:
        _list_recipes(as_json)
        return
    from idat_tune.config import RunConfig

    config = RunConfig.for_task(task, held(assignments, student=student, teacher=teacher), recipe)
    check_whole("--classes", classes, 2, 10**6)
    from idat_tune import cost

    found = cost.describe(config, classes)
    if as_json:
        print_json(found)
        return
    from idat_tune.screen import description

    console().print(description(found, config))


def _list_recipes(as_json: bool) -> None:
    from dataclasses import asdict

    from idat_tune.recipes import RECIPES

    if as_json:
        print_json({name: asdict(recipe) for name, recipe in RECIPES.items()})
        return
    from idat_tune.screen import recipe_table

    console().print(recipe_table(RECIPES))


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
def track(
    name: Annotated[str, typer.Argument(metavar="NAME", autocompletion=completing.searches, help="Of a search.")],
    out: Out = OUT,
    as_json: Json = False,
) -> None:
    """Send to MLflow what it lacks of a search: all of it, or what was owed while the server was away."""
    from idat_tune import tracking
    from idat_tune.search.tracked import track as sent_now

    tracking.check()
    found = sent_now(out / name)
    if as_json:
        print_json(found)
        return
    runs = f"{found['runs']} run{'s' * (found['runs'] != 1)} of search {found['name']}"
    sent = f"{runs} {'is' if found['runs'] == 1 else 'are'} sent"
    typer.echo(sent if found["runs"] else f"nothing is owed: all runs of search {found['name']} are there")


@app.command()
def ui(
    out: Out = OUT,
    host: Annotated[
        str, typer.Option(metavar="HOST", help="Address to listen on; others than this machine need another.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="PORT", help="Port to listen on.")] = 5000,
    browser: Annotated[
        bool,
        typer.Option("--browser/--no-browser", help="Open the newest search in a browser, where there is a screen."),
    ] = True,
) -> None:
    """Open the MLflow UI on all searches under --out, to compare trials; Ctrl-C ends it.

    Prints links of views that are about a search: trials best first, their charts, what came out.
    """
    from idat_tune import tracking
    from idat_tune.cli.serving import check_place, serve, show, views

    check_place(host, port)
    tracking.check()
    place = tracking.uri(out)
    if place.startswith(("http:", "https:")):
        raise BadInput(f"runs are tracked by {tracking.shown(place)} (MLFLOW_TRACKING_URI); open that address")
    if tracking.embedded(out):
        if not tracking.store(out).exists():
            raise BadInput(f"no tracking store at {tracking.store(out)}; run a search first, or name its --out")
        tracking.reach(place)
        tracking.follow_moved(out)
    typer.echo(f"starting MLflow's UI on {tracking.shown(place)}", err=True)

    def answers(address: str) -> None:
        typer.echo(f"{address} answers (Ctrl-C ends it)", err=True)
        found = views(host, port)
        for name, link in found[:MOST_LINKS]:
            typer.echo(f"  {name}\n    {link}", err=True)
        if len(found) > MOST_LINKS:
            typer.echo(f"  and {len(found) - MOST_LINKS} of earlier searches", err=True)
        if browser:
            show(found[0][1] if found else address)

    try:
        serve(out, host, port, answers)
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
