"""The commands that train: search and train."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from idat_tune.cli.shared import (
    OUT,
    Json,
    Out,
    Set,
    Weights,
    app,
    check_positive,
    console,
    given_path,
    held,
    print_json,
    printed,
    program,
)
from idat_tune.errors import BadInput


@app.command()
def search(
    task: Annotated[list[str], typer.Option(help="A task or a group of tasks; may be given several times.")],
    space: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="Search space; the task's own if absent.")
    ] = None,
    trials: Annotated[int, typer.Option(metavar="N", help="Trials to explore, arms included.")] = 32,
    hours: Annotated[
        float | None,
        typer.Option(metavar="H", help="Propose nothing new after so long; the stages that follow come on top."),
    ] = None,
    gpu_hours: Annotated[
        float | None, typer.Option(metavar="H", help="The same, summed over the GPUs that trials take.")
    ] = None,
    patience: Annotated[
        int | None, typer.Option(metavar="N", help="Propose nothing new after N trials without a gain beyond noise.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(metavar="N", help="Epochs per trial; the space's if absent.")] = None,
    seeds: Annotated[int, typer.Option(metavar="N", help="Runs of the winner in the final run.")] = 3,
    top_k: Annotated[
        int | None, typer.Option(metavar="K", help="Best configs to confirm, beside the arms; 2 if absent.")
    ] = None,
    folds: Annotated[int | None, typer.Option(metavar="N", help="Splits to confirm them on; 5 if absent.")] = None,
    no_confirm: Annotated[
        bool, typer.Option("--no-confirm", help="Take the best on one val split; marked as unconfirmed.")
    ] = False,
    reopen_test: Annotated[
        bool, typer.Option("--reopen-test", help="Go on though the test was opened, and open it again; recorded.")
    ] = False,
    sampler: Annotated[
        str | None, typer.Option(metavar="NAME", help="What proposes trials: tpe (if absent), random, grid or gp.")
    ] = None,
    stopping: Annotated[
        str | None, typer.Option(metavar="RULE", help="Which end early: by halving (if absent), median or none.")
    ] = None,
    gpus_per_trial: Annotated[float | None, typer.Option(metavar="F", help="Part of a GPU per trial.")] = None,
    max_concurrent: Annotated[int | None, typer.Option(metavar="N", help="Trials at once.")] = None,
    stacked: Annotated[
        int, typer.Option(metavar="K", help="Experiment: K trials at once in each process; equal shapes train as one.")
    ] = 1,
    address: Annotated[str | None, typer.Option(metavar="ADDR", help="Of a running Ray cluster, or 'auto'.")] = None,
    out: Out = OUT,
    name: Annotated[str | None, typer.Option(help="Of the search; the same name again resumes it.")] = None,
    seed: Annotated[
        int,
        typer.Option(
            metavar="S", help="Of the sampler and of every trial; with --max-concurrent 1 a search repeats itself."
        ),
    ] = 0,
    assignments: Set = [],  # noqa: B006
    weights: Weights = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Measure a few steps here, print what it would cost, and stop.")
    ] = False,
    price_per_hour: Annotated[
        float | None,
        typer.Option(metavar="MONEY", help="With --dry-run: of a GPU, or of the machine where trials take none."),
    ] = None,
    as_json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="A line per trial instead of the live view.")] = False,
) -> None:
    """Search the best config of a task, train it on train and val, test it once."""
    from idat_tune import tasks
    from idat_tune.search import Resources, plan_search
    from idat_tune.search.request import FOLDS, HALVING, TOP_K, TPE, check_name

    resources = Resources(hours, gpus_per_trial, max_concurrent, address, gpu_hours, patience, stacked)
    check_positive("--price-per-hour", price_per_hour)
    if price_per_hour is not None and not dry_run:
        raise BadInput("--price-per-hour goes with --dry-run, which says what a search would cost")
    fixed = held(assignments, epochs=epochs)
    chosen = tasks.select(task)
    several = len(chosen) > 1
    if name is not None:
        check_name(name)  # as given, before the task's stands behind it
    if several and name is None:
        name = _free_name(out)
    plans = [
        plan_search(
            known.name,
            space=space,
            trials=trials,
            fixed=fixed,
            seed=seed,
            seeds=seeds,
            top_k=TOP_K if top_k is None else top_k,
            folds=0 if no_confirm else FOLDS if folds is None else folds,
            reopen_test=reopen_test,
            out=out,
            name=f"{name}-{known.name}" if several else name,
            sampler=TPE if sampler is None else sampler,
            stopping=HALVING if stopping is None else stopping,
        )
        for known in chosen
    ]
    for plan in plans:
        _caution(plan)
    if dry_run:
        _dry_run(plans, resources, price_per_hour, as_json)
        return
    results = []
    for result in _results(plans, resources, quiet, name if several else None):
        results.append(result)
        if not as_json:
            _show(result)
    table = _overview(results, out / f"{name}.parquet") if several else None
    if as_json:
        print_json(results if several else results[0])
    else:
        typer.echo(f"all tasks     {table}\n" * several + f"compare       {_compare(out, results[0]['tracking_uri'])}")
    if any(result["winner"] is None or result["winner"]["test_accuracy"] is None for result in results):
        raise SystemExit(1)


def _caution(plan: Any) -> None:
    """Say on stderr what is to be said of a task with few images."""
    from idat_tune import data

    for sentence in data.cautions(data.task(plan.task.name), plan.config_of({}).batch_size):
        typer.echo(f"{plan.task.name}: {sentence}", err=True)


def _dry_run(plans: list[Any], resources: Any, price_per_hour: float | None, as_json: bool) -> None:
    """Print what the searches would cost; nothing is written."""
    import tempfile

    from idat_tune.progress import others_silenced
    from idat_tune.screen import duration, estimate_tables
    from idat_tune.search import LOG, estimate_searches
    from idat_tune.search.address import unused

    beside = None if resources.address else unused()
    if beside:
        typer.echo(beside, err=True)
    typer.echo("measuring a few real steps; nothing is written", err=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, others_silenced(Path(folder) / LOG) as stderr:

        def tell(line: str) -> None:
            typer.echo(f"{line} ({duration(time.monotonic() - began)})", file=stderr)

        estimates = list(estimate_searches(plans, resources, price_per_hour, tell))
    if as_json:
        print_json(estimates if len(estimates) > 1 else estimates[0])
        return
    paper = console()
    for table in estimate_tables(estimates):
        paper.print(table)


def _results(plans: list[Any], resources: Any, quiet: bool, name: str | None) -> Iterator[dict[str, Any]]:
    """The result of each plan, with its progress on the screen meanwhile; `name` is that of all of them together."""
    from idat_tune.errors import Interrupted
    from idat_tune.progress import Progress
    from idat_tune.search import run_searches

    shown = []

    def listen(plan: Any) -> Progress:
        shown.append(Progress(quiet, command_again(name or plan.name)))
        return shown[-1]

    running = iter(plans)
    plan = next(running)
    try:
        for result in run_searches(plans, resources, listen):
            for progress in shown:
                progress.close()
            yield result
            plan = next(running, plan)
    except (Interrupted, KeyboardInterrupt):
        way_on = command_again(name or plan.name)
        raise Interrupted(f"search '{plan.name}' was interrupted; what was finished is kept. Go on: {way_on}") from None
    finally:
        for progress in shown:
            progress.close()


def _free_name(out: Path) -> str:
    """A name that no earlier searches of several tasks have."""
    return next(name for number in range(1, 10**9) if not any(out.glob(f"{(name := f'tasks-{number}')}-*")))


def _overview(results: list[dict[str, Any]], path: Path) -> Path:
    """Write the table over several tasks, and show it on stderr."""
    from rich.console import Console

    from idat_tune.metrics import write_table
    from idat_tune.screen import overview_table
    from idat_tune.search.finish import overview

    rows = overview(results)
    write_table(path, rows)
    Console(stderr=True, highlight=False, soft_wrap=True, markup=False).print(overview_table(rows))
    return path


def _compare(out: Path, tracking_uri: str) -> str:
    """Where all trials can be looked at: a command, or the user's own server."""
    from idat_tune import tracking

    if tracking_uri.startswith("http"):
        return tracking.shown(tracking_uri)
    return f"{program()} {printed('ui', '--out', out)}"


def command_again(name: str) -> str:
    """This very command under the name that its search, or its searches together, have, so that it resumes."""
    kept, words = [], iter(sys.argv[1:])
    for word in words:
        if word == "--name":
            next(words, None)
        elif not word.startswith("--name="):
            kept.append(word)
    return f"{program()} {printed(*kept, '--name', name)}"


def _show(result: dict[str, Any]) -> None:
    from idat_tune import screen

    paper = console()
    if result["winner"] or result["arms"]:
        paper.print()
        paper.print(screen.comparison(result))
    paper.print(result["verdict"], markup=False)
    if result["winner"] and result["winner"]["test_accuracy"]:
        paper.print(f"\nthe student   {result['best']}", markup=False)
        paper.print(f"use it        {program()} {printed('predict', result['best'])} IMAGE...", markup=False)
    paper.print(f"all figures   {result['out']}/trials.parquet, epochs.parquet, manifest.json", markup=False)


@app.command()
def train(
    task: Annotated[str, typer.Option(help="A task.")],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", parser=given_path, help="Export the student into this folder.")
    ] = None,
    assignments: Set = [],  # noqa: B006
    weights: Weights = None,
    test: Annotated[bool, typer.Option("--test", help="Train on train and val and measure on the test split.")] = False,
    as_json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No line per epoch.")] = False,
) -> None:
    """One run with the task's default config, changed by --set; measures on the val split."""
    from idat_tune import tasks
    from idat_tune.config import RunConfig

    config = RunConfig.for_task(tasks.get(task).name, held(assignments))
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
