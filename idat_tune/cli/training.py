"""The command that trains once: train."""

from pathlib import Path
from typing import Annotated, Any

import typer

from idat_tune.cli import completing
from idat_tune.cli.shared import Json, Recipe, Set, Weights, app, given_path, held, print_json, program
from idat_tune.errors import BadInput


@app.command()
def train(
    task: Annotated[
        str | None,
        typer.Option(metavar="NAME", autocompletion=completing.tasks, help="A task; that of --config if absent."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", parser=given_path, help="Export the student into this folder.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--config", metavar="FILE", parser=given_path, help="Train as a run before: the config.yaml of an export."
        ),
    ] = None,
    recipe: Recipe = None,
    assignments: Set = [],  # noqa: B006
    weights: Weights = None,
    test: Annotated[bool, typer.Option("--test", help="Train on train and val and measure on the test split.")] = False,
    as_json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No line per epoch.")] = False,
) -> None:
    """One run with the task's default config, changed by --recipe and --set; measures on the val split.

    With --config best/config.yaml --test it is the run that an export of a search came from: to the byte, on the same
    machine.
    """
    config = _config(task, file, recipe, assignments)
    from idat_tune import data

    data.require(config.task)
    for sentence in data.cautions(data.task(config.task), config.batch_size):
        typer.echo(sentence, err=True)
    from idat_tune.single import train_once

    def line(epoch: Any) -> None:
        from idat_tune.screen import epoch_line

        if not quiet:
            typer.echo(epoch_line(epoch, config.total_epochs), err=True)

    result = train_once(config, out, test, line)
    if as_json:
        print_json(result)
        return
    from idat_tune.screen import percent

    for what in ("val", "teacher_val", "test"):
        if result[f"{what}_accuracy"] is not None:
            typer.echo(f"{what.replace('_', ' ')} accuracy {percent(result[f'{what}_accuracy'])}")
    if result["selected_on_test"]:
        typer.echo(f"selected on test: epoch {result['best_epoch'] + 1} of {config.total_epochs} did best there")
    typer.echo(f"trainable parameters {result['trainable_params']:,}; {result['seconds']:.1f} s")
    if result["out"]:
        typer.echo(f"exported to {result['out']}")


def _config(task: str | None, file: Path | None, recipe: str | None, assignments: list[str]) -> Any:
    """The config of the run; `--set` lies over a file, as over a recipe.

    Raises:
        BadInput: neither a task nor a file is named, or a file and a recipe, or one of them is not what it should be.
    """
    from idat_tune import reading, tasks
    from idat_tune.config import RunConfig

    changes = held(assignments)
    if file is None:
        if task is None:
            raise BadInput(f"train needs --task NAME, or --config FILE of a run before; see {program()} train --help")
        return RunConfig.for_task(tasks.get(task).name, changes, recipe)
    if recipe is not None:
        raise BadInput(f"--recipe {recipe} and --config {file} both say how to train; keep one, and --set the rest")
    text = reading.text(file, "config file")
    try:
        found = reading.yaml_value(text)
        if not isinstance(found, dict) or "task" not in found:
            raise BadInput("it has no settings of a run; the config.yaml of an export has them")
        return RunConfig.from_flat({**found, **changes, "task": tasks.get(task or str(found["task"])).name})
    except BadInput as failure:
        raise BadInput(f"config file {file}: {failure}") from None
