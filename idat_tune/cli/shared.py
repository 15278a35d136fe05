"""What all commands share: the application, common options, printing."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from idat_tune import __version__
from idat_tune.errors import BadInput, Interrupted

ORDER = ("search", "train", "predict", "data", "describe", "tasks", "ui", "doctor", "bench")


CUT = "interrupted; nothing that was unfinished is kept, and the same command begins it again"


class _Ordered(typer.core.TyperGroup):
    """Lists commands as a user meets them, and says so when one is interrupted."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=ORDER.index)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # else typer leaves without a word
            raise Interrupted(CUT) from None


app = typer.Typer(
    cls=_Ordered,
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


def _name_weights(folder: Path | None) -> Path | None:
    # For this process and for the workers that it starts; absolute, because Ray changes their working directory.
    if folder is not None:
        os.environ["IDAT_TUNE_WEIGHTS"] = str(folder.absolute())
    return folder


Weights = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        metavar="DIR",
        callback=_name_weights,
        help="Folder of pretrained weights, <timm name>.safetensors.",
    ),
]


@app.callback(invoke_without_command=True)
def _before_any_command(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise SystemExit(0)
    from idat_tune import data

    data.register_own()


def print_json(value: Any) -> None:
    """One line of JSON on stdout."""
    typer.echo(json.dumps(value))


def check_positive(option: str, value: float | None) -> None:
    """Refuse a number that must be greater than 0; none at all is fine."""
    if value is not None and not value > 0:
        raise BadInput(f"{option} cannot be {value:g}: it must be greater than 0")


def program() -> str:
    """How this program was called, so that what we print can be typed again."""
    if shutil.which("idat-tune"):
        return "idat-tune"
    as_module = Path(sys.argv[0]).name == "__main__.py"
    return f"{sys.executable} -m idat_tune.cli" if as_module else sys.argv[0]


def console() -> Any:
    """Where tables go: as wide as the terminal, or wide enough for any table where there is none."""
    from rich.console import Console

    found = Console(highlight=False, soft_wrap=True)
    return found if found.is_terminal else Console(highlight=False, soft_wrap=True, width=140)


@contextmanager
def progress(what: str, hidden: bool) -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar on stderr, on a terminal only."""
    from rich.console import Console
    from rich.progress import Progress

    screen = Console(stderr=True)
    if hidden or not screen.is_terminal:
        yield None
        return
    with Progress(console=screen, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
