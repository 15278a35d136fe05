"""The command that shows what came of searches, as pages or as tables."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from idat_tune.cli import completing
from idat_tune.cli.shared import OUT, Json, Out, app, print_json
from idat_tune.errors import BadInput, unknown

if TYPE_CHECKING:
    from idat_tune.report.evidence import Evidence

FORMATS = ("html", "md", "csv", "latex")


@app.command()
def report(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME...",
            autocompletion=completing.searches,
            help="Searches, finished or not; a search of several tasks is all of them.",
        ),
    ],
    out: Out = OUT,
    form: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="html; or md, csv, latex: a table on stdout.")
    ] = "html",
    as_json: Json = False,
) -> None:
    """Write the page of each search anew, `report.html` in its folder, and one over several; or print their figures."""
    if form not in FORMATS:
        raise unknown("format", form, FORMATS)
    if as_json and form != "html":
        raise BadInput("--json says where pages were written; leave it away, or ask for --format csv alone")
    from idat_tune.search.manifest import searches_of

    # All are known before one is written.
    contents = {folder: content for name in names for folder, content in searches_of(out, name).items()}
    several = len(contents) > 1 or out / names[0] not in contents
    found = list(_evidence(contents))
    if form != "html":
        typer.echo(_table(found, several, form), nl=False)
        return
    pages = {evidence.name: _page(evidence) for evidence in found}
    if several:
        together = dict.fromkeys(names)
        name = names[0] if len(together) == 1 else None  # that of all of them
        pages[name or ""] = page_over(out, name, [_result(evidence) for evidence in found])
    if as_json:
        print_json([{"name": name or None, "report": str(page.absolute())} for name, page in pages.items()])
        return
    for page in pages.values():
        typer.echo(page)


def _evidence(contents: Mapping[Path, Mapping[str, Any]]) -> "Iterator[Evidence]":
    from idat_tune.journal import Journal
    from idat_tune.report.evidence import Evidence
    from idat_tune.search.manifest import JOURNAL

    return (Evidence.of(folder, content, Journal(folder / JOURNAL)) for folder, content in contents.items())


def _page(evidence: "Evidence") -> Path:
    from idat_tune.report.task import write

    return write(evidence.folder, evidence.content, evidence.journal)


def _result(evidence: "Evidence") -> dict[str, Any]:
    return {**evidence.result, "name": evidence.name}


def _table(found: "list[Evidence]", several: bool, form: str) -> str:
    from idat_tune.report import formats, tables
    from idat_tune.report.outcomes import Outcome

    outcomes = [Outcome(_result(evidence)) for evidence in found]
    return formats.FORMATS[form](tables.of_tasks(outcomes) if several else tables.of_task(outcomes[0]))


def page_over(out: Path, name: str | None, results: list[dict[str, Any]]) -> Path:
    """Write the page over several searches: in the folder of their common name, or beside them all without one."""
    from idat_tune.report.several import write
    from idat_tune.report.task import FILE

    return write(out / name / FILE if name else out / FILE, results, out)
