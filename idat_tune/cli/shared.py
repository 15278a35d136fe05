"""What all commands share: the application, common options, printing."""

import json
import math
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from idat_tune import __version__
from idat_tune.cli import completing
from idat_tune.errors import BadInput, Interrupted, shown

ORDER = (
    "search",
    "status",
    "stop",
    "train",
    "report",
    "export",
    "predict",
    "data",
    "describe",
    "tasks",
    "track",
    "ui",
    "cluster",
    "doctor",
    "bench",
)


NAME = "idat-tune"  # also where it was called as a module: what completes its lines goes by it
CUT = "interrupted; nothing that was unfinished is kept, and the same command begins it again"


UsageError: type[Exception] = typer.BadParameter.__mro__[1]  # which typer has under changing names


class _Ordered(typer.core.TyperGroup):
    """Lists commands as a user meets them; what typer finds wrong, or an interrupt, is told as our own errors are."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run a command and leave with its exit code."""
        try:
            code = super().main(*args, **{**extra, "prog_name": NAME, "standalone_mode": False})
        except UsageError as failure:
            raise _told(failure) from None
        raise SystemExit(code or 0)

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=ORDER.index)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # else typer leaves without a word
            raise Interrupted(CUT) from None


def _told(failure: Any) -> BadInput:
    """An error of typer's as one of ours."""
    if type(failure).__name__ == "NoArgsIsHelpError":  # a group of commands without any: its help is the answer
        typer.echo(failure.format_message(), err=True)
        raise SystemExit(failure.exit_code)
    found = failure.format_message().rstrip(".")
    words, context = ["--help"], failure.ctx
    while context and context.parent:
        words.insert(0, context.info_name)
        context = context.parent
    return BadInput(f"{found[:1].lower()}{found[1:]}; see {' '.join([program(), *words])}")


app = typer.Typer(
    cls=_Ordered,
    name=NAME,
    help="Search the best inverse-distillation adapter for a small image task.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def given_path(text: str | Path) -> Path:
    """A path of the command line, `~` resolved; whether something is there is its user's business.

    Raises:
        BadInput: nothing can have that name, or it cannot be looked at.
    """
    if not str(text).strip():
        raise BadInput("a path is empty; name a file or a folder, '.' for this one")
    try:
        path = Path(text).expanduser()
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError, RuntimeError) as failure:  # too long, a loop or forbidden; a zero byte; no such user
        reason = failure.strerror if isinstance(failure, OSError) else str(failure).rstrip(".")
        raise BadInput(f"path {shown(text, 100)} cannot be used: {reason}; choose another") from None
    return path


Set = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Hold a setting, such as optim.lr=1e-3.")]
Recipe = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        autocompletion=completing.recipes,
        help="Published settings of a kind of adapter, below --set; `describe --recipes`.",
    ),
]
Out = Annotated[
    Path,
    typer.Option("--out", metavar="DIR", parser=given_path, help="Folder of all searches and of the tracking store."),
]
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
        parser=given_path,
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


def held(assignments: list[str], **options: Any) -> dict[str, Any]:
    """Dotted keys that --set and options of their own hold at a value; an option that was not given is None.

    Raises:
        BadInput: a key is unknown, has no value, or is given twice; or it is the task, which has an option.
    """
    from idat_tune.config import parse_assignments

    found = parse_assignments(assignments)
    if "task" in found:
        raise BadInput("the task is chosen with --task, not with --set")
    for key, value in options.items():
        if value is not None and key in found:
            raise BadInput(f"{key} is given twice: --{key} {shown(value)} and --set {key}={found[key]}; keep one")
    return {**found, **{key: value for key, value in options.items() if value is not None}}


def print_json(value: Any) -> None:
    """One line of JSON on stdout."""
    typer.echo(json.dumps(value))


def check_positive(option: str, value: float | None) -> None:
    """Refuse a number that is not greater than 0 and finite; none at all is fine."""
    if value is not None and not 0 < value < math.inf:
        raise BadInput(f"{option} cannot be {value:g}: it must be greater than 0, and finite")


def check_whole(option: str, value: int | None, least: int, most: int) -> None:
    """Refuse a whole number outside its bounds; none at all is fine."""
    if value is not None and not least <= value <= most:
        raise BadInput(f"{option} cannot be {shown(value)}: it goes from {least:,} to {most:,}")


def printed(*words: object) -> str:
    """Words of a command line, quoted where a shell would read them otherwise."""
    return shlex.join(map(str, words))


def program() -> str:
    """How this program was called, so that what we print can be typed again."""
    if shutil.which("idat-tune"):
        return "idat-tune"
    as_module = Path(sys.argv[0]).name == "__main__.py"
    return printed(sys.executable, "-m", "idat_tune.cli") if as_module else printed(sys.argv[0])


def console() -> Any:
    """Where tables go: as wide as the terminal, or wide enough for any table where there is none."""
    from rich.console import Console

    # No markup: paths and names may hold brackets.
    found = Console(highlight=False, soft_wrap=True, markup=False)
    return found if found.is_terminal else Console(highlight=False, soft_wrap=True, markup=False, width=140)


@contextmanager
def progress(what: str, hidden: bool) -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar on stderr, on a terminal only."""
    from rich.console import Console
    from rich.progress import Progress

    screen = Console(stderr=True, markup=False)
    if hidden or not screen.is_terminal:
        yield None
        return
    with Progress(console=screen, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
