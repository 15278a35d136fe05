"""The commands about clusters: cluster check."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from idat_tune.cli.shared import Json, app, given_path, print_json

cluster_app = typer.Typer(
    help="Files that clusters are started from.", no_args_is_help=True, rich_markup_mode=None, add_completion=False
)
app.add_typer(cluster_app, name="cluster")


@cluster_app.command()
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", parser=given_path, help="For ray up, KubeRay or SkyPilot.")],
    as_json: Json = False,
) -> None:
    """What is wrong with a cluster file, or to know of it, before it costs money or opens a door (exit 2 on errors)."""
    from idat_tune import clusters

    found = clusters.check(file)
    errors = sum(one.severity == clusters.ERROR for one in found)
    if as_json:
        print_json({"file": str(file), "ok": not errors, "findings": [asdict(one) for one in found]})
    else:
        for one in found:
            typer.echo(f"{one.severity:<8} {one.where}: {one.sentence}")
        typer.echo(f"{file}: {errors or 'no'} error{'s' * (errors != 1)}")
    if errors:
        raise SystemExit(2)
