"""Searches without a terminal: beginning one, stopping one, and how all of them stand."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from idat_tune.cli import completing
from idat_tune.cli.shared import OUT, Json, Out, app, console, print_json, printed, program
from idat_tune.errors import BadInput, IdatError

SAID = "output.txt"  # in the search folder: what a detached search says
EVERY = 0.1  # seconds between two looks
PATIENCE = 240.0  # seconds to the beginning of a search, and to its end: on a busy machine a minute was too short


def detached(plans: list[Any], name: str, words: list[str], as_json: bool) -> None:
    """Begin the searches in a process of its own that outlives this terminal; returns once they are held.

    Raises:
        SystemExit: it ended before that, with what it said.
    """
    from idat_tune.search.holding import holder

    for plan in plans:
        if holder(plan.folder):
            raise BadInput(
                f"search '{plan.name}' is running already; `{_command('search', plan.name, plan.out)}` shows it"
            )
    folder = plans[0].folder
    log = folder / SAID if len(plans) == 1 else plans[0].out / f"{name}.{SAID}"
    log.parent.mkdir(parents=True, exist_ok=True)
    words = [word for word in words if word not in ("--json", "--quiet")]
    with log.open("ab") as said:
        begun = said.tell()
        process = subprocess.Popen(
            [sys.executable, "-m", "idat_tune.cli", *words, "--quiet"],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,  # so that the end of this terminal is not its end
        )
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and not any(holder(plan.folder) for plan in plans):
        if time.monotonic() > deadline:
            raise IdatError(
                f"search '{name}' takes long to begin; {log} has what it says, and its process is {process.pid}"
            )
        try:
            time.sleep(EVERY)
        except KeyboardInterrupt:
            process.terminate()  # nobody has been told of it yet
            raise
    if process.poll() is not None:  # it was refused, or had nothing left to do
        with log.open("rb") as file:
            file.seek(begun)
            typer.echo(file.read().decode(errors="replace").rstrip(), err=True)
        raise SystemExit(process.returncode if process.returncode >= 0 else 128 - process.returncode)
    if as_json:
        print_json({"name": name, "pid": process.pid, "host": os.uname().nodename, "out": str(folder), "log": str(log)})
        return
    shown = " and ".join(f"`{_command('search', plan.name, plan.out)}`" for plan in plans[:2])
    more = f" (and so on for {len(plans)} tasks)" if len(plans) > 2 else ""
    typer.echo(f"search {name} goes on without this terminal, as process {process.pid}; it says all in {log}")
    typer.echo(f"show it       {shown}{more}")
    stop = _command("stop", plans[0].name, plans[0].out) if len(plans) == 1 else f"kill {process.pid}"
    typer.echo(f"stop it       `{stop}`")


def plan_of_running(out: Path, name: str) -> Any:
    """The plan of a search that is running, by its name alone.

    Raises:
        BadInput: none of that name is.
    """
    from idat_tune.search.attaching import awaited, plan_of
    from idat_tune.search.config import FILE, check_name
    from idat_tune.search.holding import holder

    folder = out / check_name(name)
    if holder(folder) is None:
        there = (folder / FILE).exists()
        again = printed("search", "--config", folder / FILE, "--name", name, *out_option(out))
        rest = f"`{program()} {again}` goes on with it" if there else "give --task to begin it"
        raise BadInput(f"search '{name}' is not running in {out}; {rest}")
    awaited(folder)
    return plan_of(folder)


@app.command()
def stop(
    name: Annotated[str, typer.Argument(metavar="NAME", autocompletion=completing.searches, help="A running search.")],
    out: Out = OUT,
) -> None:
    """End a running search as Ctrl-C would: what was finished is kept, and it can be gone on with."""
    import signal

    from idat_tune.search.config import FILE
    from idat_tune.search.holding import holder
    from idat_tune.search.standing import standings

    (found,) = standings(out, name)
    held = holder(out / name)
    if held is None:
        raise BadInput(f"search '{name}' is not running: it is {found['state']}")
    if not held.is_here:
        raise BadInput(f"search '{name}' runs on {held.host}, as process {held.pid}; give this command there")
    if not held.lives():
        raise BadInput(
            f"search '{name}' is held by a process that this machine does not show ({held}); end it where it runs"
        )
    os.kill(held.pid, signal.SIGTERM)
    deadline = time.monotonic() + PATIENCE
    while holder(out / name) == held or held.lives():
        if time.monotonic() > deadline:
            raise IdatError(
                f"search '{name}' was told to stop and has not ended for {PATIENCE:g} s; its process is {held.pid}"
            )
        time.sleep(EVERY)
    again = f"{program()} {printed('search', '--config', out / name / FILE, '--name', name, *out_option(out))}"
    way_on = "the command that began it" + f", or {again}" * (out / name / FILE).exists()
    typer.echo(f"search {name} is stopped; what was finished is kept. Go on: {way_on}")


@app.command()
def status(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", autocompletion=completing.searches, help="A search; all of them if absent."),
    ] = None,
    out: Out = OUT,
    as_json: Json = False,
) -> None:
    """How searches stand: which run, where, how far they are, and what the others came to."""
    from idat_tune.search.standing import standings

    found = standings(out, name)
    if as_json:
        print_json(found)
        return
    if not found:
        typer.echo(f"no searches in {out}; `{program()} search --task digits` begins one")
        return
    from idat_tune.screen import standing_table

    console().print(standing_table(found))


def _command(word: str, name: str, out: Path) -> str:
    words = ("search", "--name", name) if word == "search" else (word, name)
    return f"{program()} {printed(*words, *out_option(out))}"


def out_option(out: Path) -> tuple[str, ...]:
    """The option that names a folder of searches, where it is not the usual one."""
    return () if out.absolute() == OUT.absolute() else ("--out", str(out))
