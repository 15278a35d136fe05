"""The command that replays recorded curves: bench."""

from pathlib import Path
from typing import Annotated

import typer

from idat_tune.cli.shared import Json, app, check_whole, given_path, print_json


@app.command()
def bench(
    task: Annotated[
        list[str], typer.Option(metavar="NAME", help="A recorded task; may be given several times; all if absent.")
    ] = [],  # noqa: B006
    compare: Annotated[
        list[str],
        typer.Option(metavar="WHAT", help="Beside the defaults: samplers, stopping, confirm, portfolio or all."),
    ] = [],  # noqa: B006
    replays: Annotated[int, typer.Option(metavar="N", help="Searches replayed per setting.")] = 200,
    trials: Annotated[int, typer.Option(metavar="N", help="Trials of the longest replayed search.")] = 32,
    processes: Annotated[int, typer.Option(metavar="N", help="Replays at once.")] = 1,
    table: Annotated[
        Path | None,
        typer.Option(metavar="FILE", parser=given_path, help="Recorded curves; those of the package if absent."),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(metavar="FILE", parser=given_path, help="Draw accuracy against epochs there, as PNG or SVG."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Replay searches on recorded learning curves, without training: what do sampler, stopping and confirming give?"""
    check_whole("--processes", processes, 1, 1000)
    check_whole("--replays", replays, 1, 10**6)
    check_whole("--trials", trials, 1, 10**6)
    from idat_tune.replay import table as recorded
    from idat_tune.replay.compare import compare as compared
    from idat_tune.replay.picture import draw
    from idat_tune.replay.report import markdown

    path = table or recorded.SHIPPED
    tasks = task or recorded.tasks_of(recorded.read(path))
    found = []
    for comparison in compared(
        path, tasks, compare, replays, trials, processes, lambda line: typer.echo(line, err=True)
    ):
        found.append(comparison)
        if not as_json:
            typer.echo(markdown(comparison))
    if picture:
        draw(found, picture)
    if as_json:
        print_json({"table": recorded.story(path), "tasks": [comparison.as_dict() for comparison in found]})
