"""The ways in: what lies at a path is recognised, and read as the source it is."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from idat_tune import tasks
from idat_tune.data import (
    archives,
    folders,
    huggingface,
    importing,
    layouts,
    lists,
    official,
    prepared,
    store,
    tfds,
    trees,
)
from idat_tune.data.importing import Imported, Progress
from idat_tune.data.sources import Choices, Source, option
from idat_tune.errors import BadInput, shown, unknown
from idat_tune.tasks import Task

MOST_SEED = 2**31 - 1  # the next one draws val
KINDS = ("auto", "prepared", "images", "list", "huggingface", "tfds")


def import_(
    path: str | Path,
    names: list[str] | None = None,
    *,
    kind: str = "auto",
    any_size: bool = False,
    skip_bad: int = 0,
    replace: bool = False,
    folder: Path | None = None,
    progress: Progress | None = None,
    **choices: Any,
) -> list[Imported]:
    """Import the images of tasks into the store.

    Args:
        path: a prepared copy of VTAB-1K or a folder of images (either may be a zip or tar), a CSV or Parquet file of
            paths and labels, or a copy of a Hugging Face or TFDS data set on disk.
        names: tasks (or groups) of a prepared copy, none meaning all that are there; else the one task it becomes.
        kind: one of KINDS, where it is not to be found out.
        any_size: accept a benchmark's task with other numbers of images than it has, as a stand-in.
        skip_bad: leave out up to so many images of each task that cannot be read.
        replace: import again what is there already.
        folder: the store, where it is not the default one.
        progress: called with images done and images in all.
        choices: of an own task, the fields of `Choices`.

    Raises:
        BadInput: anything wrong with what is at `path`; nothing was changed for the task concerned.
        IdatError: the disk is full.
    """
    if skip_bad < 0:
        raise BadInput(f"skip_bad cannot be {skip_bad}; it counts images")
    found = sources(path, names, kind=kind, any_size=any_size, **choices)
    return importing.store_all(found, folder, skip_bad, replace, progress)


def sources(
    path: str | Path,
    names: list[str] | None = None,
    *,
    kind: str = "auto",
    any_size: bool = False,
    **choices: Any,
) -> list[Source]:
    """What `import_` would import, read and checked as far as that goes without decoding images."""
    if kind not in KINDS:
        raise unknown("kind of source", kind, KINDS)
    decided = Choices(**choices)
    if decided.layout not in layouts.LAYOUTS:
        raise unknown("layout", decided.layout, layouts.LAYOUTS)
    if decided.train_images is not None and decided.train_images < 2:
        raise BadInput(f"{decided.train_images} training images are too few; val takes one, so it needs two")
    if not 0 <= decided.seed < MOST_SEED:
        raise BadInput(f"the seed of a split cannot be {shown(decided.seed)}: it goes from 0 to {MOST_SEED - 1:,}")
    try:
        return _sources(_existing(path), names, kind, any_size, decided)
    except OSError as failure:
        raise BadInput(f"{failure.filename or path} cannot be read ({failure.strerror})") from None


def _existing(path: str | Path) -> Path:
    try:
        found = Path(path).expanduser().absolute()  # a link keeps its name, which says what it is
        there = found.exists()
    except (RuntimeError, ValueError) as failure:  # no such home folder, a null character
        raise BadInput(f"{str(path)!r} is no path: {failure}") from None
    if not there:
        raise BadInput(f"{found} does not exist")
    return found


def _sources(path: Path, names: list[str] | None, kind: str, any_size: bool, choices: Choices) -> list[Source]:
    kind = _recognised(path) if kind == "auto" else kind
    archive = path.is_file() and kind in ("prepared", "images") and archives.form(path) is not None
    if path.is_file() != (kind == "list") and not archive:
        raise BadInput(f"{path} is a {'file' if path.is_file() else 'folder'}, which '{kind}' cannot be")
    _check_fit(path, kind, choices, _UNFIT[kind])
    if kind == "prepared":
        return prepared.find(path, names, any_size)
    if kind == "tfds":
        wanted = tasks.select(names or tfds.there(path, list(official.OFFICIAL)))
        return [tfds.find(path, _benchmark(task.name), any_size) for task in wanted]
    if not names or len(names) != 1:
        raise BadInput(f"{path} becomes one task; name it with --task NAME")
    known = tasks.find(names[0])
    if known is not None and known.group != "own":
        if kind != "huggingface":
            raise BadInput(f"'{names[0]}' already names the task {known.title}; choose another name for {path}")
        _check_fit(path, known.name, choices, _ALL)
        return [huggingface.find(path, _benchmark(known.name), any_size)]
    name = store.own_name(names[0])
    return [_OWN[kind](path, name, choices)]


_OWN = {"images": folders.from_folder, "list": lists.from_list, "huggingface": huggingface.own_task}


def _recognised(path: Path) -> str:
    if path.is_file():
        if path.suffix.lower() in (".xlsx", ".xls", ".ods"):
            raise BadInput(f"{path} is a spreadsheet; save it as CSV, then import that")
        if path.suffix.lower() in lists.LISTS:
            return "list"
        if archives.form(path) is None:
            raise BadInput(f"{path} is not a zip, a tar, nor a list ({', '.join(lists.LISTS)})")
        return "prepared" if prepared.is_prepared(path) else "images"
    if prepared.is_prepared(path):
        return "prepared"
    if tfds.is_tfds(path):
        return "tfds"
    if not huggingface.is_huggingface(path):
        return "images"
    if trees.scan(path)[0].has_images():
        raise BadInput(
            f"{path} has images and tables (Arrow, Parquet): say which to import with --kind images or --kind "
            "huggingface, or name the table itself"
        )
    return "huggingface"


def _check_fit(path: Path, read_as: str, choices: Choices, unfit: frozenset[str]) -> None:
    """Raises BadInput for a choice that does nothing for what is read so."""
    for name in choices.made():
        if name in unfit:
            raise BadInput(f"{option(name)} does nothing for {path}, which is read as '{read_as}'; leave it out")


_COLUMNS = frozenset({"path_column", "label_column", "split_column", "group_column", "allow_outside"})
_ALL = frozenset(field.name for field in fields(Choices))
_UNFIT: dict[str, frozenset[str]] = {
    "images": _COLUMNS,
    "list": frozenset({"layout"}),
    "huggingface": frozenset({"layout"}),
    "prepared": _ALL,
    "tfds": _ALL,
}


def _benchmark(name: str) -> Task:
    if name not in official.OFFICIAL:
        raise BadInput(f"{name} is not one of the 19 tasks of VTAB-1K, so it has no official slices")
    return tasks.TASKS[name]
