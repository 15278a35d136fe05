"""The commands; no logic, and heavy imports only inside a command."""

import sys

import typer

from idat_tune.cli import bench, images, look, runs, use
from idat_tune.cli.shared import app
from idat_tune.errors import IdatError

__all__ = ["app", "bench", "images", "look", "main", "runs", "use"]


def main() -> None:
    """Run a command: errors of ours become one sentence on stderr and their exit code."""
    # Names that this terminal cannot show (of files whose bytes are no text, say) are shown escaped, not refused.
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except IdatError as failure:
        typer.echo(f"error: {failure}", err=True)
        sys.exit(failure.exit_code)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(130)
