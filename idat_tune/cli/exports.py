"""The command that takes a student out: export."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from idat_tune.cli import completing
from idat_tune.cli.shared import Json, Weights, app, given_path, print_json, progress
from idat_tune.errors import BadInput


@app.command()
def export(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            autocompletion=completing.searches,
            help="A finished search, or a folder that was exported.",
        ),
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="DIR", parser=given_path, help="Folder for the student.")
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            metavar="TASK",
            autocompletion=completing.tasks,
            help="Instead of NAME: its search that was finished last.",
        ),
    ] = None,
    trial: Annotated[
        str | None, typer.Option(metavar="ID", help="The student of this trial, not the winner's.")
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", parser=given_path, help="Folder that holds searches.")] = Path(
        "runs"
    ),
    form: Annotated[
        str,
        typer.Option("--format", metavar="FORMAT", help="folder; merged (one file); onnx; torch-export."),
    ] = "folder",
    max_params: Annotated[
        str | None, typer.Option(metavar="N", help="Trainable parameters at most, as 20000, 20k or 0.2M.")
    ] = None,
    max_latency: Annotated[
        str | None, typer.Option(metavar="TIME", help="For one image on this device, at most, as 5ms.")
    ] = None,
    with_teacher: Annotated[
        bool, typer.Option("--with-teacher", help="As one model with its teacher: the mean of both.")
    ] = False,
    push_to_hub: Annotated[
        str | None, typer.Option("--push-to-hub", metavar="OWNER/NAME", help="Put it there too; private if it is new.")
    ] = None,
    weights: Weights = None,
    as_json: Json = False,
) -> None:
    """Export a student of a finished search: the winner, or the best confirmed one within limits."""
    if to is None:
        raise BadInput("--to is missing; it names the folder for the student")
    if (name is None) == (task is None):
        raise BadInput("name a finished search, or --task for the last one of a task: one of the two")
    most_params, most_time = _count("--max-params", max_params), _milliseconds("--max-latency", max_latency)
    limited = most_params is not None or most_time is not None
    if trial and limited:
        raise BadInput("--trial and limits are two ways to choose; leave one away")
    from idat_tune.export import hub, is_export

    if push_to_hub:
        hub.check_login(push_to_hub)
    earlier = Path(name).expanduser() if name else None
    if earlier and is_export(earlier):
        if trial or limited or with_teacher:
            raise BadInput(f"{name} is an export, so nothing is left to choose in it; leave all but --format away")
        found = _converted(earlier, to, form)
    else:
        found = _from_search(out, name, task, to, (trial, most_params, most_time, with_teacher, form))
    if push_to_hub:
        found["hub"] = hub.pushed(to, push_to_hub)
    if as_json:
        print_json(found)
    else:
        typer.echo(_said(found) + (f"; and put on {found['hub']}" if push_to_hub else ""))


def _from_search(out: Path, name: str | None, task: str | None, to: Path, wanted: tuple[Any, ...]) -> dict[str, Any]:
    from idat_tune.search.exporting import Wanted, export_student, finished_last

    folder = out / name if name else finished_last(out, str(task))
    with progress("exporting", hidden=False) as step:
        return export_student(folder, to, Wanted(*wanted), lambda epoch, total: step and step(epoch.epoch + 1, total))


def _converted(earlier: Path, to: Path, form: str) -> dict[str, Any]:
    from idat_tune.export import FOLDER, check_format, convert

    check_format(form)
    if form == FOLDER:
        raise BadInput(f"{earlier} is an export already; choose a --format: merged, onnx or torch-export")
    return {"out": str(to.absolute()), "format": convert(earlier, to, form)}


def _said(found: Mapping[str, Any]) -> str:
    """What was exported, in a line."""
    about = found["format"]
    words = []
    if "trial" in found:
        accuracy, confirmed = found["test_accuracy"], found["confirmed"]
        words += [f"{found['trial']} of search {found['search']}{' with its teacher' * found['with_teacher']}"]
        words += [f"{found['trainable_params']:,} trainable parameters"]
        if found["milliseconds"] is not None:
            words += [f"{found['milliseconds']:.3g} ms per image here"]
        if accuracy:
            words += [f"test {100 * accuracy['mean']:.1f} % over {accuracy['seeds']} seeds"]
        elif confirmed:
            words += [f"confirmed {100 * confirmed['mean']:.1f} % on {confirmed['folds']} splits, not tested"]
        else:
            words += ["neither confirmed nor tested"]
        if found["trained"]:
            words += ["trained now with the first final seed, as its tensors were not kept"]
    if about["name"] != "folder":
        merged = "merged into the backbone" if about["adapters"] == "merged" else "beside it, as this kind cannot merge"
        words += [f"{about['name']} with adapters {merged}"]
    if "largest_difference" in about:
        words += [f"logits equal to {about['largest_difference']:.1g}"]
    return f"{', '.join(words)}: exported to {found['out']}"


def _count(option: str, given: str | None) -> float | None:
    """A number that may end in k or M."""
    if given is None:
        return None
    count = _number(given, {"k": 1e3, "m": 1e6})
    if not 0 < count < math.inf:
        raise BadInput(f"{option} {given} is no number of parameters, as 20000, 20k or 0.2M are")
    return count


def _milliseconds(option: str, given: str | None) -> float | None:
    """A time that may end in ms or s; without, it is in ms."""
    if given is None:
        return None
    time = _number(given, {"ms": 1.0, "s": 1e3})
    if not 0 < time < math.inf:
        raise BadInput(f"{option} {given} is no time, as 5ms or 0.02s are")
    return time


def _number(given: str, ends: Mapping[str, float]) -> float:
    """The number before the first of some endings, times its factor; NaN if there is none."""
    end = next((end for end in ends if given.lower().endswith(end)), "")
    try:
        return float(given.removesuffix(given[len(given) - len(end) :])) * ends.get(end, 1.0)
    except ValueError:
        return math.nan
