"""The commands about images: data import, verify, list, export, remove."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from idat_tune.cli import completing
from idat_tune.cli.shared import Json, app, console, given_path, print_json, program, progress
from idat_tune.errors import BadInput, printable

_MOST_SHOWN = 40  # of the kinds of things that were left out

data_app = typer.Typer(
    help="The images of tasks: bring, check, list, take them.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(data_app, name="data")

Tasks = Annotated[
    list[str],
    typer.Option(
        "--task",
        metavar="NAME",
        autocompletion=completing.tasks_and_groups,
        help="A task or group; may be given several times.",
    ),
]
Folder = Annotated[
    Path | None, typer.Option("--data", metavar="DIR", parser=given_path, help="The store, where not the default one.")
]


@data_app.command("import")
def import_(
    source: Annotated[
        Path,
        typer.Option(
            "--from", metavar="PATH", parser=given_path, help="A folder, archive or list: VTAB-1K, or your images."
        ),
    ],
    task: Tasks = [],  # noqa: B006
    kind: Annotated[str, typer.Option(metavar="KIND", help="What PATH is, where it is not to be found out.")] = "auto",
    train_images: Annotated[int | None, typer.Option(metavar="N", help="Of your own task: train and val.")] = None,
    seed: Annotated[int, typer.Option(metavar="S", help="Of the split of your own task.")] = 0,
    path_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of a list: where its paths or images are.")
    ] = None,
    label_column: Annotated[str | None, typer.Option(metavar="NAME", help="Of a list: where its labels are.")] = None,
    split_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of a list: train, val or test; or none.")
    ] = None,
    group_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of a list: what must stay together, such as a patient.")
    ] = None,
    group_pattern: Annotated[
        str | None, typer.Option(metavar="REGEX", help="The same from file names: what its first group matches.")
    ] = None,
    layout: Annotated[
        str,
        typer.Option(
            metavar="LAYOUT", help="What your folders are: classes, splits (of classes) or parts (of classes, pooled)."
        ),
    ] = "auto",
    drop_conflicts: Annotated[
        bool, typer.Option("--drop-conflicts", help="Leave out pictures that stand under two labels.")
    ] = False,
    allow_outside: Annotated[
        bool, typer.Option("--allow-outside", help="Of a list: paths may be absolute or lead out of its folder.")
    ] = False,
    skip_bad: Annotated[int, typer.Option(metavar="N", help="Leave out up to N images that cannot be read.")] = 0,
    any_size: Annotated[
        bool, typer.Option("--any-size", help="Accept other numbers of images than the table has.")
    ] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Import again what is there already.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be imported, and import nothing.")
    ] = False,
    folder: Folder = None,
    as_json: Json = False,
) -> None:
    """Import tasks: a prepared copy of VTAB-1K, or a folder, zip, tar, CSV or Parquet file of your own images."""
    from idat_tune import data
    from idat_tune.data import ways

    choices: dict[str, Any] = {
        "kind": kind,
        "any_size": any_size,
        "train_images": train_images,
        "seed": seed,
        "path_column": path_column,
        "label_column": label_column,
        "split_column": split_column,
        "group_column": group_column,
        "group_pattern": group_pattern,
        "layout": layout,
        "drop_conflicts": drop_conflicts,
        "allow_outside": allow_outside,
    }
    if dry_run:
        _show_planned(ways.sources(source, task or None, **choices), as_json)
        return
    more: dict[str, Any] = {"skip_bad": skip_bad, "replace": replace, "folder": folder}
    with progress("importing", as_json) as step:
        imported = data.import_(source, task or None, progress=step, **more, **choices)
    if as_json:
        print_json([_plain(found) for found in imported])
        return
    for found in imported:
        state = "was there already" if found.already else f"{found.images:,} images imported"
        typer.echo(f"{found.task.name}: {state}, in {found.where}")
        sizes = {"train": found.task.train, "val": found.task.val, "test": found.task.test}
        _show_taken(found.class_counts, sizes, found.left_out)
        if found.report:
            _show_report(found.report)


@data_app.command()
def verify(task: Tasks = [], folder: Folder = None, as_json: Json = False) -> None:  # noqa: B006
    """Decode and check every image of imported tasks (all of them, unless named) again; exit 1 if one is wrong."""
    from idat_tune import data, tasks

    data.register_own(folder)
    listed = data.listing(folder)
    spoilt = [] if task else [found for found in listed if found.why]
    there = [found.task.name for found in listed if found.state in ("complete", "stand-in")]
    if not task and not there and not spoilt:
        raise BadInput(
            f"there is nothing to verify in {data.folder(folder)}: no task is imported; `{program()} data import` does"
        )
    reports = []
    for name in [known.name for known in tasks.select(task)] if task else there:
        with progress(f"verifying {name}", as_json) as step:
            reports.append(data.verify(name, folder, step))
    if as_json:
        print_json([_plain(report) for report in reports])
    else:
        for report in reports:
            typer.echo(f"{report.task}: {'wrong' if report.problems else 'whole'}, content {report.content_hash}")
            _show_report(report)
    for found in spoilt:
        typer.echo(f"{found.task.name}: {found.state}: {found.why}", err=as_json)
    if spoilt or any(report.problems for report in reports):
        raise SystemExit(1)


@data_app.command()
def remove(
    task: Annotated[
        list[str],
        typer.Option(
            "--task",
            metavar="NAME",
            autocompletion=completing.tasks,
            help="A task; may be given several times.",
        ),
    ],
    folder: Folder = None,
    as_json: Json = False,
) -> None:
    """Delete what was imported of a task, whole, half or damaged; searches and students of it stay."""
    from idat_tune import data

    names = list(dict.fromkeys(data.removable(name, folder) for name in task))  # all are known before one goes
    removed = [data.remove(name, folder) for name in names]
    if as_json:
        print_json([_plain(gone) for gone in removed])
        return
    for gone in removed:
        typer.echo(f"{gone.task}: removed, {gone.bytes / 1e6:.1f} MB in {', '.join(map(str, gone.where))}")


@data_app.command("list")
def list_(folder: Folder = None, as_json: Json = False) -> None:
    """What is there, complete or not, where, and how large."""
    from idat_tune import data

    listed = data.listing(folder)
    if as_json:
        print_json([_plain(found) for found in listed])
        return
    from idat_tune.screen import listing_table

    console().print(listing_table(listed, data.folder(folder)))


@data_app.command()
def export(
    to: Annotated[
        Path, typer.Argument(metavar="FOLDER", parser=given_path, help="A new folder; it gets one for each class.")
    ],
    task: Annotated[str, typer.Option(metavar="NAME", autocompletion=completing.tasks, help="A task.")],
    split: Annotated[
        str,
        typer.Option(metavar="SPLIT", autocompletion=completing.splits, help="train, val, trainval or test."),
    ] = "test",
    count: Annotated[int | None, typer.Option(metavar="N", help="Only the first N; all if absent.")] = None,
    folder: Folder = None,
    as_json: Json = False,
) -> None:
    """Write a task's images as files: to look at, or to try a student on."""
    from idat_tune import data

    written = data.export(task, split, to, count, folder)
    if as_json:
        print_json([str(path) for path in written])
        return
    typer.echo(f"{len(written):,} images of {task} {split} in {to}, a folder per class, such as {written[0]}")
    typer.echo(f"try a student on them: {program()} predict EXPORT {shlex.quote(str(to))}")


def _show_planned(found: list[Any], as_json: bool) -> None:
    """What sources would become, as far as it is known before the images are read."""
    planned = [
        {
            "dry_run": True,
            "task": _plain(source.task),
            "images": sum(source.sizes.values()),
            "splits": dict(source.sizes),
            "class_counts": source.counts_by_name(),
            "left_out": list(source.left_out),
            "notes": list(source.notes),
            "path": source.path,
        }
        for source in found
    ]
    if as_json:
        print_json(planned)
        return
    for one in planned:
        where = printable(one["path"])
        typer.echo(f"{one['task']['name']}: {one['images']:,} images would be imported from {where}")
        _show_taken(one["class_counts"], one["splits"], one["left_out"])
        for sentence in one["notes"]:
            typer.echo(f"  {printable(sentence)}")


def _show_taken(class_counts: Mapping[str, int], sizes: Mapping[str, int], left_out: Sequence[str]) -> None:
    from idat_tune.data.sources import class_line

    if class_counts:
        typer.echo(f"  {printable(class_line(class_counts))}")
    typer.echo("  " + ", ".join(f"{split} {images:,}" for split, images in sizes.items()))
    if left_out:
        more = f", and {len(left_out) - _MOST_SHOWN:,} more (--json names all)" if len(left_out) > _MOST_SHOWN else ""
        typer.echo(f"  left out: {printable(', '.join(left_out[:_MOST_SHOWN]))}{more}")


def _show_report(report: Any) -> None:
    for sentence in (*report.problems, *report.findings):
        typer.echo(f"  {printable(sentence)}")


def _plain(value: Any) -> Any:
    """A dataclass as what JSON can hold."""
    import json

    return json.loads(json.dumps(asdict(value), default=str))
