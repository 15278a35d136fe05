"""The commands; no logic, and heavy imports only inside a command."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from idat_tune import __version__
from idat_tune.errors import BadInput, IdatError

app = typer.Typer(
    name="idat-tune",
    help="Search the best inverse-distillation adapter for a small image task.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Set = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Hold a setting, such as optim.lr=1e-3.")]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of all searches and of the tracking store.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, everything else on stderr.")]
OUT = Path("runs")


@app.command()
def search(
    task: Annotated[list[str], typer.Option(help="A task or a group of tasks; may be given several times.")],
    space: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="Search space; the task's own if absent.")
    ] = None,
    trials: Annotated[int, typer.Option(metavar="N", help="Trials to explore, arms included.")] = 32,
    hours: Annotated[float | None, typer.Option(metavar="H", help="Propose nothing new after so long.")] = None,
    epochs: Annotated[int | None, typer.Option(metavar="N", help="Epochs per trial; the space's if absent.")] = None,
    seeds: Annotated[int, typer.Option(metavar="N", help="Runs of the winner in the final run.")] = 3,
    gpus_per_trial: Annotated[float | None, typer.Option(metavar="F", help="Part of a GPU per trial.")] = None,
    max_concurrent: Annotated[int | None, typer.Option(metavar="N", help="Trials at once.")] = None,
    address: Annotated[str | None, typer.Option(metavar="ADDR", help="Of a running Ray cluster, or 'auto'.")] = None,
    out: Out = OUT,
    name: Annotated[str | None, typer.Option(help="Of the search; the same name again resumes it.")] = None,
    seed: Annotated[int, typer.Option(metavar="S", help="Of the sampler and of every trial.")] = 0,
    assignments: Set = [],  # noqa: B006
    as_json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="A line per trial instead of the live view.")] = False,
) -> None:
    """Search the best config of a task, train it on all 1,000 images, test it once."""
    from idat_tune import tasks
    from idat_tune.config import parse_assignments
    from idat_tune.search import Resources, plan_search

    fixed = parse_assignments(assignments)
    if "task" in fixed:
        raise BadInput("the task is chosen with --task, not with --set")
    if epochs is not None:
        fixed["epochs"] = epochs
    chosen = tasks.select(task)
    several = len(chosen) > 1
    plans = [
        plan_search(
            known.name,
            space=space,
            trials=trials,
            fixed=fixed,
            seed=seed,
            seeds=seeds,
            out=out,
            name=f"{name}-{known.name}" if name and several else name,
        )
        for known in chosen
    ]
    _check_number("--hours", hours)
    _check_number("--gpus-per-trial", gpus_per_trial)
    _check_number("--max-concurrent", max_concurrent)
    results = _search(plans, Resources(hours, gpus_per_trial, max_concurrent, address), quiet)
    if as_json:
        _print_json(results if len(results) > 1 else results[0])
    else:
        _show(results, out)
    if any(result["winner"] is None or result["winner"]["test_accuracy"] is None for result in results):
        raise SystemExit(1)


def _check_number(option: str, value: float | None) -> None:
    if value is not None and not value > 0:
        raise BadInput(f"{option} cannot be {value:g}: it must be greater than 0")


def _search(plans: list[Any], resources: Any, quiet: bool) -> list[dict[str, Any]]:
    from idat_tune.screen import Progress
    from idat_tune.search import Interrupted, run_search

    results = []
    for plan in plans:
        progress = Progress(quiet)
        try:
            results.append(run_search(plan, resources, progress))
        except (Interrupted, KeyboardInterrupt):
            progress.close()
            raise Interrupted(
                f"search '{plan.name}' was interrupted; what was finished is kept. Give the same command again with "
                f"--name {plan.name} to go on"
            ) from None
        finally:
            progress.close()
    return results


def _show(results: list[dict[str, Any]], out: Path) -> None:
    from rich.console import Console

    from idat_tune import screen

    console = Console(highlight=False, soft_wrap=True)
    for result in results:
        console.print()
        console.print(screen.comparison(result))
        console.print(result["verdict"], markup=False)
        if result["winner"] and result["winner"]["test_accuracy"]:
            console.print(f"\nthe student   {result['best']}", markup=False)
            console.print(f"use it        {_program()} predict {result['best']} IMAGE...", markup=False)
        console.print(f"all figures   {result['out']}/trials.parquet, epochs.parquet, manifest.json", markup=False)
    console.print(f"compare       {_program()} ui --out {out}", markup=False)


def _program() -> str:
    """How this program was called, so that what we print can be typed again."""
    import shutil

    return "idat-tune" if shutil.which("idat-tune") else sys.argv[0]


@app.command()
def train(
    task: Annotated[str, typer.Option(help="A task.")],
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Export the student into this folder.")] = None,
    assignments: Set = [],  # noqa: B006
    test: Annotated[
        bool, typer.Option("--test", help="Train on all 1,000 images and measure on the test split.")
    ] = False,
    as_json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No line per epoch.")] = False,
) -> None:
    """One run with the task's default config, changed by --set; measures on the val split."""
    from idat_tune import tasks
    from idat_tune.config import RunConfig, parse_assignments

    config = RunConfig.for_task(tasks.get(task).name, parse_assignments(assignments))
    from idat_tune import data

    data.require(config.task)
    from idat_tune.single import train_once

    def line(epoch: Any) -> None:
        from idat_tune.screen import epoch_line

        if not quiet:
            typer.echo(epoch_line(epoch, config.epochs), err=True)

    result = train_once(config, out, test, line)
    if as_json:
        _print_json(result)
        return
    from idat_tune.screen import percent

    for what in ("val", "teacher_val", "test"):
        if result[f"{what}_accuracy"] is not None:
            typer.echo(f"{what.replace('_', ' ')} accuracy {percent(result[f'{what}_accuracy'])}")
    typer.echo(f"trainable parameters {result['trainable_params']:,}; {result['seconds']:.1f} s")
    if result["out"]:
        typer.echo(f"exported to {result['out']}")


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
    from idat_tune.config import RunConfig, parse_assignments

    changes = {"student": student, "teacher": teacher}
    given = {key: value for key, value in changes.items() if value is not None}
    config = RunConfig.for_task(task, {**parse_assignments(assignments), **given})
    if classes is not None and classes < 2:
        raise BadInput(f"--classes cannot be {classes}: a task has at least 2")
    from idat_tune import cost

    found = cost.describe(config, classes)
    if as_json:
        _print_json(found)
        return
    from rich.console import Console

    from idat_tune.screen import description

    Console(highlight=False).print(description(found, config))


@app.command()
def tasks(as_json: Json = False) -> None:
    """The tasks, their classes, splits and default recipes."""
    from dataclasses import asdict

    from idat_tune.tasks import TASKS

    if as_json:
        _print_json([asdict(task) for task in TASKS.values()])
        return
    from rich.console import Console

    from idat_tune.screen import task_table

    Console(highlight=False).print(task_table(TASKS.values()))


@app.command()
def predict(
    folder: Annotated[Path, typer.Argument(metavar="EXPORT", help="A folder that a search or train exported.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...")],
    as_json: Json = False,
) -> None:
    """Labels of images, by an exported student."""
    from PIL import Image, UnidentifiedImageError

    from idat_tune.export import load

    student = load(folder)
    answers: list[dict[str, Any]] = []
    for path in images:
        try:
            with Image.open(path) as image:
                label, probability = student.predict([image])[0]
        except (OSError, UnidentifiedImageError) as failure:
            raise BadInput(f"image {path} cannot be read: {failure}") from None
        answers.append({"image": str(path), "label": label, "probability": probability})
    if as_json:
        _print_json(answers)
        return
    for answer in answers:
        typer.echo(f"{answer['image']}  {answer['label']}  {100 * answer['probability']:.1f} %")


@app.command()
def ui(
    out: Out = OUT,
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than this machine need another.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 5000,
) -> None:
    """Open the MLflow UI on all searches under --out, to compare trials."""
    import os
    import subprocess

    from idat_tune import tracking

    if tracking.uri(out).startswith("sqlite:") and not tracking.store(out).exists():
        raise BadInput(f"no tracking store at {tracking.store(out)}; run a search first, or name its --out")
    typer.echo(f"MLflow UI on http://{host}:{port} (Ctrl-C ends it)", err=True)
    # Job execution is for MLflow's own agents: without it the server takes 2 processes instead of 10.
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    raise SystemExit(subprocess.run(tracking.server_command(out, host, port), env=environment, check=False).returncode)


@app.command()
def doctor(out: Out = OUT, as_json: Json = False) -> None:
    """What is there and what is missing on this machine, each with its remedy."""
    from dataclasses import asdict

    from idat_tune.doctor import examine

    findings = []
    for finding in examine(out):
        findings.append(finding)
        if not as_json:
            mark = "ok     " if finding.ok else "MISSING" if finding.needed else "absent "
            typer.echo(f"{mark} {finding.what}: {finding.found}" + ("" if finding.ok else f" -> {finding.remedy}"))
    if as_json:
        _print_json([asdict(finding) for finding in findings])
    if any(finding.needed and not finding.ok for finding in findings):
        raise SystemExit(1)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise SystemExit(0)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value))


def main() -> None:
    """Run a command: errors of ours become one sentence on stderr and their exit code."""
    try:
        app()
    except IdatError as failure:
        typer.echo(f"error: {failure}", err=True)
        sys.exit(failure.exit_code)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(130)


if __name__ == "__main__":
    main()
