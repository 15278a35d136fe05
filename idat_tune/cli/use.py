"""The command that uses what came out: predict."""

import csv
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Any

import typer

from idat_tune.cli.shared import Json, Weights, app, given_path, print_json, progress
from idat_tune.errors import BadInput, printable, shown


@app.command()
def predict(
    given: Annotated[
        list[str],
        typer.Argument(
            metavar="[EXPORT] IMAGE...",
            help="A student (an export folder, a search, models:/NAME@ALIAS, owner/name on the hub), then files, "
            "folders, or quoted patterns.",
        ),
    ],
    adapter: Annotated[
        list[str],
        typer.Option("--adapter", metavar="EXPORT", help="Instead of EXPORT, several that all answer."),
    ] = [],  # noqa: B006
    top: Annotated[int, typer.Option(metavar="K", help="Labels per image, the most probable first.")] = 1,
    weights: Weights = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print a table of comma-separated values.")] = False,
    as_json: Json = False,
) -> None:
    """Labels of images, by an exported student; those that cannot be read are named and skipped (exit 1)."""
    if as_csv and as_json:
        raise BadInput("--csv and --json are two formats; choose one")
    if top < 1:
        raise BadInput(f"--top cannot be {top}: an answer has at least 1 label")
    names, images = (adapter, given) if adapter else (given[:1], given[1:])
    if not images:
        raise BadInput(f"no image is named after the student {shown(given[0])}; name files, folders or patterns")
    if len(set(names)) < len(names):
        raise BadInput("--adapter names a student twice; name each once")
    paths = [given_path(image) for image in images]
    from idat_tune.predict import answers_of_all, image_files
    from idat_tune.students import load, load_many

    students = load_many(names) if adapter else [load(names[0], merge=None)]
    files = image_files(paths)
    show = _json if as_json else _csv if as_csv else _lines
    # Lines on a terminal show by themselves how far it is.
    with progress("predicting", hidden=len(files) == 1 or (show is _lines and sys.stdout.isatty())) as step:
        found = _counted(answers_of_all(students, files, top), len(files), step)
        most = min(top, max(len(student.labels) for student in students))
        unread = list(dict.fromkeys(show(_signed(found, adapter), most, bool(adapter))))
    if len(unread) == len(files):
        raise BadInput(unread[0] if len(files) == 1 else f"none of {len(files)} images can be read; {unread[0]}")
    for sentence in unread:
        typer.echo(f"skipped: {sentence}", err=True)
    if unread:
        raise SystemExit(1)


def _signed(found: Iterable[Any], adapters: Sequence[str]) -> Iterator[Any]:
    """The answers of all students one after the other, each with who gave it where several were asked."""
    for answers in found:
        for place, answer in enumerate(answers):
            yield replace(answer, adapter=adapters[place]) if adapters else answer


def _counted(found: Iterable[Any], total: int, step: Callable[[int, int], None] | None) -> Iterator[Any]:
    for done, one in enumerate(found, 1):
        if step:
            step(done, total)
        yield one


def _lines(found: Iterable[Any], top: int, several: bool) -> list[str]:
    """A line for each answer; returns why the others have none, as its two neighbours do."""
    unread = []
    for answer in found:
        if answer.error:
            unread.append(answer.error)
        else:
            said = "  ".join(f"{printable(label)}  {100 * probability:.1f} %" for label, probability in answer.top)
            who = f"{printable(answer.adapter)}  " if several else ""
            typer.echo(f"{printable(answer.image)}  {who}{said}")
    return unread


def _csv(found: Iterable[Any], top: int, several: bool) -> list[str]:
    table = csv.writer(sys.stdout, lineterminator="\n")
    more = [name for k in range(2, top + 1) for name in (f"label_{k}", f"probability_{k}")]
    table.writerow(["image", *(["adapter"] if several else []), "label", "probability", *more, "error"])
    unread = []
    for answer in found:
        cells = [cell for pair in answer.top for cell in pair]
        cells += [""] * (2 * top - len(cells))  # not read, or of a student of fewer classes
        table.writerow([answer.image, *([answer.adapter] if several else []), *cells, answer.error])
        unread += [answer.error] * bool(answer.error)
    return unread


def _json(found: Iterable[Any], top: int, several: bool) -> list[str]:
    rows = [{"adapter": answer.adapter, **_row(answer)} if several else _row(answer) for answer in found]
    unread = [row["error"] for row in rows if row["error"]]
    if len(unread) < len(rows):
        print_json(rows)
    return unread


def _row(answer: Any) -> dict[str, Any]:
    top = [{"label": label, "probability": probability} for label, probability in answer.top]
    best = top[0] if top else {"label": None, "probability": None}
    return {"image": answer.image, **best, "top": top, "error": answer.error or None}
