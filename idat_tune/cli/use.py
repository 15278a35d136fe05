"""The command that uses what came out: predict."""

import csv
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from idat_tune.cli.shared import Json, Weights, app, given_path, print_json, progress
from idat_tune.errors import BadInput, printable


@app.command()
def predict(
    folder: Annotated[
        Path, typer.Argument(metavar="EXPORT", parser=given_path, help="A folder that a search or train exported.")
    ],
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", parser=given_path, help="Files, folders, or quoted patterns.")
    ],
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
    from idat_tune.export import load
    from idat_tune.predict import answers, image_files

    student = load(folder)
    files = image_files(images)
    show = _json if as_json else _csv if as_csv else _lines
    # Lines on a terminal show by themselves how far it is.
    with progress("predicting", hidden=len(files) == 1 or (show is _lines and sys.stdout.isatty())) as step:
        unread = show(_counted(answers(student, files, top), len(files), step), min(top, len(student.labels)))
    if len(unread) == len(files):
        raise BadInput(unread[0] if len(files) == 1 else f"none of {len(files)} images can be read; {unread[0]}")
    for sentence in unread:
        typer.echo(f"skipped: {sentence}", err=True)
    if unread:
        raise SystemExit(1)


def _counted(found: Iterable[Any], total: int, step: Callable[[int, int], None] | None) -> Iterator[Any]:
    for done, one in enumerate(found, 1):
        if step:
            step(done, total)
        yield one


def _lines(found: Iterable[Any], top: int) -> list[str]:
    """A line for each answer; returns why the others have none, as its two neighbours do."""
    unread = []
    for answer in found:
        if answer.error:
            unread.append(answer.error)
        else:
            said = "  ".join(f"{printable(label)}  {100 * probability:.1f} %" for label, probability in answer.top)
            typer.echo(f"{printable(answer.image)}  {said}")
    return unread


def _csv(found: Iterable[Any], top: int) -> list[str]:
    table = csv.writer(sys.stdout, lineterminator="\n")
    more = [name for k in range(2, top + 1) for name in (f"label_{k}", f"probability_{k}")]
    table.writerow(["image", "label", "probability", *more, "error"])
    unread = []
    for answer in found:
        cells = [cell for pair in answer.top for cell in pair] or [""] * (2 * top)
        table.writerow([answer.image, *cells, answer.error])
        unread += [answer.error] * bool(answer.error)
    return unread


def _json(found: Iterable[Any], top: int) -> list[str]:
    rows = list(map(_row, found))
    unread = [row["error"] for row in rows if row["error"]]
    if len(unread) < len(rows):
        print_json(rows)
    return unread


def _row(answer: Any) -> dict[str, Any]:
    top = [{"label": label, "probability": probability} for label, probability in answer.top]
    best = top[0] if top else {"label": None, "probability": None}
    return {"image": answer.image, **best, "top": top, "error": answer.error or None}
