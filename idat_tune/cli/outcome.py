"""What came of searches, as the terminal shows it."""

from pathlib import Path
from typing import Any

import typer

from idat_tune.cli.away import out_option
from idat_tune.cli.shared import console, printed, program


def overview(results: list[dict[str, Any]], path: Path) -> Path:
    """Write the table over several tasks, and show it on stderr."""
    from rich.console import Console

    from idat_tune.metrics import write_table
    from idat_tune.screen import arms_table, overview_table
    from idat_tune.search.finish import overview as rows_of

    rows = rows_of(results)
    write_table(path, rows)
    shown = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    for table in filter(None, (overview_table(rows), arms_table(rows))):
        shown.print(table)
    return path


def page(out: Path, name: str, results: list[dict[str, Any]]) -> Path | None:
    """Write the page over several tasks; a failure is told and fails nothing, as it can be made again."""
    from idat_tune.cli.pages import page_over

    try:
        return page_over(out, name, results)
    except Exception as failure:
        again = f"{program()} {printed('report', name, *out_option(out))}"
        typer.echo(f"the page over all tasks could not be written ({failure}); `{again}` tries it again", err=True)
        return None


def compare(out: Path, tracking_uri: str) -> str:
    """Where all trials can be looked at: a command, or the user's own server."""
    from idat_tune import tracking

    if tracking_uri.startswith("http"):
        return tracking.shown(tracking_uri)
    return f"{program()} {printed('ui', '--out', out)}"


def show(result: dict[str, Any]) -> None:
    """Print what one search came to, and what can be done with it."""
    from idat_tune import screen

    paper = console()
    if result["winner"] or result["arms"]:
        paper.print()
        paper.print(screen.comparison(result))
    paper.print(result["verdict"], markup=False)
    if result["winner"] and result["winner"]["test_accuracy"]:
        paper.print(f"\nthe student   {result['best']}", markup=False)
        paper.print(f"use it        {program()} {printed('predict', result['best'])} IMAGE...", markup=False)
    paper.print(f"the page      {result['out']}/report.html", markup=False)
    paper.print(f"all figures   {result['out']}/trials.parquet, epochs.parquet, manifest.json", markup=False)
