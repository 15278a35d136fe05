"""What a shell completes beside commands and options: names of tasks, spaces, recipes, searches and the like."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import typer


def _names(known: Callable[[typer.Context], Iterable[str]]) -> Callable[[typer.Context, str], list[str]]:
    """A completer from a function that lists names: those that begin so, and none where it fails.

    Whatever is wrong (a damaged task, a folder without access) is for the command to say, not while its line is typed.
    """

    def completer(ctx: typer.Context, incomplete: str) -> list[str]:
        with suppress(Exception):
            return [name for name in known(ctx) if name.startswith(incomplete)]
        return []

    return completer


@_names
def tasks(ctx: typer.Context) -> list[str]:
    """All tasks, the user's own too."""
    from idat_tune import data
    from idat_tune.tasks import TASKS

    return list(dict.fromkeys([*TASKS, *(task.name for task in data.own_tasks(ctx.params.get("folder")))]))


@_names
def tasks_and_groups(ctx: typer.Context) -> list[str]:
    """All tasks, and what stands for several."""
    from idat_tune.tasks import GROUPS

    return ["all", *GROUPS, *tasks(ctx, "")]


@_names
def spaces(ctx: typer.Context) -> list[str]:
    """The spaces that come with the package, and files that may be one."""
    from idat_tune import space

    return [*space.named(), *(str(path) for path in Path().glob("*.y*ml"))]


@_names
def searches(ctx: typer.Context) -> list[str]:
    """The searches under --out."""
    from idat_tune.cli.shared import OUT
    from idat_tune.search.manifest import JOURNAL

    return sorted(path.parent.name for path in Path(ctx.params.get("out") or OUT).glob(f"*/{JOURNAL}"))


@_names
def recipes(ctx: typer.Context) -> Iterable[str]:
    """Published settings of kinds of adapter."""
    from idat_tune.recipes import RECIPES

    return RECIPES


@_names
def students(ctx: typer.Context) -> list[str]:
    """Backbones by their short names."""
    from idat_tune.backbones import BACKBONES

    return list(BACKBONES)


@_names
def teachers(ctx: typer.Context) -> list[str]:
    """Backbones by their short names, and none."""
    from idat_tune.backbones import NO_TEACHER

    return [NO_TEACHER, *students(ctx, "")]


@_names
def samplers(ctx: typer.Context) -> Iterable[str]:
    """What proposes trials."""
    from idat_tune.search.config import SAMPLERS

    return SAMPLERS


@_names
def rules(ctx: typer.Context) -> Iterable[str]:
    """What ends trials early."""
    from idat_tune.search.config import RULES

    return RULES


@_names
def splits(ctx: typer.Context) -> Iterable[str]:
    """The splits of a task."""
    from idat_tune.tasks import SPLITS

    return SPLITS
