"""The command that searches."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from idat_tune.cli import completing, outcome
from idat_tune.cli.away import detached, out_option, plan_of_running
from idat_tune.cli.shared import (
    OUT,
    Json,
    Recipe,
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
from idat_tune.errors import BadInput, IdatError


@app.command()
def search(
    task: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            autocompletion=completing.tasks_and_groups,
            help="A task or a group of tasks; may be given several times.",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", parser=given_path, help="Search file, such as search.yaml of any search; options override."
        ),
    ] = None,
    space: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE", autocompletion=completing.spaces, help="Search space; the task's own if absent."
        ),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(metavar="N", help="Trials to explore, arms included; 32 if absent, 0 runs the arms alone."),
    ] = None,
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
    seeds: Annotated[
        int | None, typer.Option(metavar="N", help="Runs of the winner in the final run; 3 if absent.")
    ] = None,
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
        str | None,
        typer.Option(
            metavar="NAME",
            autocompletion=completing.samplers,
            help="What proposes trials: tpe (if absent), random, grid or gp.",
        ),
    ] = None,
    stopping: Annotated[
        str | None,
        typer.Option(
            metavar="RULE",
            autocompletion=completing.rules,
            help="Which end early: by halving (if absent), median or none.",
        ),
    ] = None,
    gpus_per_trial: Annotated[float | None, typer.Option(metavar="F", help="Part of a GPU per trial.")] = None,
    max_concurrent: Annotated[int | None, typer.Option(metavar="N", help="Trials at once.")] = None,
    stacked: Annotated[
        int | None,
        typer.Option(metavar="K", help="Experiment: K trials at once in each process; equal shapes train as one."),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="ADDR", help="Of a Ray cluster; a head's own if absent. 'auto': what Ray knows of, 'local': none."
        ),
    ] = None,
    parallel_tasks: Annotated[
        int | None, typer.Option(metavar="N", help="Of several tasks, N at once, each with its part of the machines.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", parser=given_path, help="Folder of all searches; ./runs if absent."),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            autocompletion=completing.searches,
            help="Of the search; the same name again resumes it.",
        ),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(metavar="URI", help="Copy the search there as it grows; the same name resumes it from there."),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            metavar="S",
            help="Of the sampler and of every trial, 0 if absent; with --max-concurrent 1 a search repeats itself.",
        ),
    ] = None,
    recipe: Recipe = None,
    assignments: Set = [],  # noqa: B006
    weights: Weights = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Go on without this terminal; the same --name again shows it.")
    ] = False,
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
    from idat_tune.search import plan_search
    from idat_tune.search.config import SearchConfig, by_key, read
    from idat_tune.search.holding import holder

    check_positive("--price-per-hour", price_per_hour)
    if price_per_hour is not None and not dry_run:
        raise BadInput("--price-per-hour goes with --dry-run, which says what a search would cost")
    if detach and dry_run:
        raise BadInput("--detach begins a search and --dry-run begins none; leave one of the two away")
    if name and not task and not config:
        _attach(plan_of_running(out or OUT, name), quiet, as_json)
        return
    options = {
        "space": space,
        "recipe": recipe,
        "trials": trials,
        "hours": hours,
        "gpu_hours": gpu_hours,
        "patience": patience,
        "seeds": seeds,
        "top_k": top_k,
        "folds": 0 if no_confirm else folds,
        "reopen_test": reopen_test or None,
        "sampler": sampler,
        "stopping": stopping,
        "gpus_per_trial": gpus_per_trial,
        "stacked": stacked,
        "max_concurrent": max_concurrent,
        "address": address,
        "parallel_tasks": parallel_tasks,
        "out": out,
        "name": name,
        "storage": storage,
        "seed": seed,
    }
    flat = read(config) if config else {}
    flat |= by_key({option: value for option, value in options.items() if value is not None})
    fixed = flat.get("fixed") or {}
    if not isinstance(fixed, dict):
        raise BadInput(f"fixed in {config} is a mapping of key to value, such as {{epochs: 20}}")
    flat["fixed"] = {**fixed, **held(assignments, epochs=epochs)}
    chosen = tasks.select(task or _tasks_of(flat))
    asked = SearchConfig.from_flat({**flat, "task": chosen[0].name})  # what is wrong for one is so for all
    if dry_run:  # which writes nothing
        asked = asked.updated({"storage": None})
    several = len(chosen) > 1
    if several and asked.name is None:
        asked = asked.updated({"name": _free_name(Path(asked.out))})
    plans = []
    for known in chosen:
        names = {"name": f"{asked.name}-{known.name}"} if several else {}
        plans.append(plan_search(asked.updated({"task": known.name, **names})))
    for plan in plans:
        _caution(plan)
    if dry_run:
        _dry_run(plans, price_per_hour, as_json)
        return
    if detach:
        together = asked.name or str(plans[0].name)
        detached(plans, together, words_again(together), as_json)
        return
    if not several and holder(plans[0].folder):
        _attach(plans[0], quiet, as_json)
        return
    results, failure = [], None
    try:
        for result in _results(plans, quiet, asked.name if several else None):
            results.append(result)
            if not as_json:
                outcome.show(result)
    except IdatError as raised:
        if not results:
            raise
        failure = raised  # told below what the others have given
    results.sort(key=lambda result: [known.name for known in chosen].index(result["task"]))
    folder = Path(asked.out)
    table = outcome.overview(results, folder / f"{asked.name}.parquet") if several else None
    page = outcome.page(folder, str(asked.name), results) if several else None
    if as_json:
        print_json(results if several else results[0])
    else:
        compare = outcome.compare(folder, results[0]["tracking_uri"])
        over = f"the page      {page}\n" if page else ""
        typer.echo(over + f"all tasks     {table}\n" * several + f"compare       {compare}")
    if failure:
        raise failure
    if not all(result["finished"] for result in results):
        raise SystemExit(1)


def _tasks_of(flat: dict[str, Any]) -> list[str]:
    """The task, or tasks, that a search file names."""
    named = flat.get("task")
    if not named:
        raise BadInput("which task is not said; give --task, and `idat-tune tasks` lists them")
    return [str(one) for one in named] if isinstance(named, list) else [str(named)]


def _caution(plan: Any) -> None:
    """Say on stderr what is to be said of a task with few images."""
    from idat_tune import data

    for sentence in data.cautions(data.task(plan.task.name), plan.config_of({}).batch_size):
        typer.echo(f"{plan.task.name}: {sentence}", err=True)


def _dry_run(plans: list[Any], price_per_hour: float | None, as_json: bool) -> None:
    """Print what the searches would cost; nothing is written."""
    import tempfile

    from idat_tune.progress import others_silenced
    from idat_tune.screen import duration, estimate_tables
    from idat_tune.search import LOG, estimate_searches

    typer.echo("measuring a few real steps; nothing is written", err=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, others_silenced(Path(folder) / LOG) as stderr:

        def tell(line: str) -> None:
            typer.echo(f"{line} ({duration(time.monotonic() - began)})", file=stderr)

        estimates = list(estimate_searches(plans, price_per_hour, tell))
    if as_json:
        print_json(estimates if len(estimates) > 1 else estimates[0])
        return
    paper = console()
    for table in estimate_tables(estimates):
        paper.print(table)


def _results(plans: list[Any], quiet: bool, name: str | None) -> Iterator[dict[str, Any]]:
    """The result of each plan, with its progress on the screen meanwhile; `name` is that of all of them together."""
    from idat_tune.errors import Interrupted
    from idat_tune.progress import Progress
    from idat_tune.search import run_searches

    shown, several = [], len(plans) > 1
    beside = several and plans[0].config.resources.parallel_tasks > 1

    def progress_of(plan: Any) -> list[Progress]:
        label = f"{plan.task.name}: " if beside else ""
        shown.append(Progress(quiet or beside, command_again(name or plan.name, several), label=label))
        return shown[-1:]

    running = iter(plans)
    plan = next(running)
    try:
        for result in run_searches(plans, progress_of):
            for progress in shown:
                progress.close()
            yield result
            plan = next(running, plan)
    except (Interrupted, KeyboardInterrupt):
        way_on = command_again(name or plan.name, several)
        what = f"the searches of '{name}' were" if beside else f"search '{plan.name}' was"
        raise Interrupted(f"{what} interrupted; what was finished is kept. Go on: {way_on}") from None
    finally:
        for progress in shown:
            progress.close()


def _free_name(out: Path) -> str:
    """A name that no earlier searches of several tasks have."""
    return next(name for number in range(1, 10**9) if not any(out.glob(f"{(name := f'tasks-{number}')}-*")))


def command_again(name: str, several: bool = False) -> str:
    """This very command under the name that its search, or its searches together, have, so that it resumes.

    Without `--reopen-test`, which a single search that has begun remembers, and which would open it again once it is
    finished; `several` searches need it for those that have not begun.
    """
    kept = [word for word in words_again(name) if several or word != "--reopen-test"]
    return f"{program()} {printed(*kept)}"


def words_again(name: str) -> list[str]:
    """The words of this command under that name, in this terminal."""
    kept, words = [], iter(sys.argv[1:])
    for word in words:
        if word == "--name":
            next(words, None)
        elif word != "--detach" and not word.startswith("--name="):
            kept.append(word)
    return [*kept, "--name", name]


def _attach(plan: Any, quiet: bool, as_json: bool) -> None:
    """Follow a search that another process drives, and show what came out of it."""
    from idat_tune.errors import Interrupted
    from idat_tune.progress import Progress
    from idat_tune.search.attaching import attach

    typer.echo(f"search {plan.name} is running already: following it; Ctrl-C leaves it alone", err=True)
    progress = Progress(quiet)
    try:
        result = attach(plan, [progress])
    except KeyboardInterrupt:
        stop = f"{program()} {printed('stop', plan.name, *out_option(plan.out))}"
        raise Interrupted(f"search '{plan.name}' goes on without this view; `{stop}` ends it") from None
    finally:
        progress.close()
    if as_json:
        print_json(result)
    else:
        outcome.show(result)
    if not result["finished"]:
        raise SystemExit(1)
