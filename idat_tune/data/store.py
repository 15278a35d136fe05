"""The store: which tasks' images lie in which folder, whole or not, and what is recorded of them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from idat_tune import tasks
from idat_tune.errors import BadInput, unknown
from idat_tune.tasks import Task

FORMAT = 1  # of the store; raised when an older idat-tune could not read it
STORED = ("train", "val", "test")  # the splits that have a file; trainval is train followed by val
MANIFEST = "task.json"
_NAME = re.compile(r"[a-z0-9][a-z0-9_.]{0,63}")


@dataclass(frozen=True)
class StoredSplit:
    """One split's Parquet file."""

    images: int
    bytes: int  # of the file
    hash: str  # sha256 over labels and encoded images, in order


@dataclass(frozen=True)
class Manifest:
    """What is recorded of an imported task, beside its images."""

    task: Task  # with the sizes of the splits as they are
    splits: dict[str, StoredSplit]
    content_hash: str
    source: dict[str, str]  # kind, path, key: where the images came from
    stand_in: bool = False  # sizes differ from the benchmark's: results do not compare with published ones
    skipped: tuple[str, ...] = ()  # images left out because they could not be read
    notes: tuple[str, ...] = ()  # what the checks of the import found
    grouped: bool = False  # images have groups, which stay together


def folder(given: Path | None = None) -> Path:
    """Where images are kept: `given`, else the environment's IDAT_TUNE_DATA, else in the user's cache folder."""
    if given is not None:
        return Path(given).expanduser()
    if named := os.environ.get("IDAT_TUNE_DATA"):
        return Path(named).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "idat-tune" / "data"


def place(name: str, root: Path | None = None) -> Path:
    """The folder of one task's images."""
    return folder(root) / name


def require(task: str, folder: Path | None = None) -> None:
    """Returns quickly if the images of `task` can be loaded; those of embedded tasks always can.

    Raises:
        BadInput: no such task, not imported, half imported, damaged, or written by a newer version.
    """
    name = _resolve(task, folder)
    if name in tasks.TASKS and tasks.TASKS[name].embedded:
        return
    read(name, folder)


def task(name: str, folder: Path | None = None) -> Task:
    """The task of that name, built in or imported by the user, with the split sizes as they are in the store.

    Raises:
        BadInput: no task goes by that name.
    """
    resolved = _resolve(name, folder)
    if (place(resolved, folder) / MANIFEST).is_file():
        return read(resolved, folder).task
    return tasks.get(resolved)


def register_own(folder: Path | None = None) -> list[Task]:
    """Make the user's own tasks in the store known to `tasks`, so that RunConfig accepts their names.

    The command line and every worker call this once, early; what cannot be read is left out.
    """
    return [tasks.register(own) for own in own_tasks(folder)]


def own_tasks(folder: Path | None = None) -> list[Task]:
    """The tasks in the store that are not built in."""
    return list(_own(folder))


def content_hash(task: str, folder: Path | None = None) -> str:
    """A sha256, in hex, of what a task's images and labels are; changes when any of them does.

    Of an embedded task only `train` and `val` are looked at, so that asking does not open its test split.

    Raises:
        BadInput: no such task, or it is not imported.
    """
    name = _resolve(task, folder)
    if name in tasks.TASKS and tasks.TASKS[name].embedded:
        from idat_tune.data.loading import embedded_hash

        return embedded_hash(name)
    return read(name, folder).content_hash


def read(name: str, root: Path | None = None) -> Manifest:
    """The manifest of an imported task (`name` is its exact name).

    Raises:
        BadInput: not imported, half imported, damaged, or written by a newer version.
    """
    path = place(name, root) / MANIFEST
    try:
        found = json.loads(path.read_bytes())
        version = found["format"]
    except FileNotFoundError:
        raise _missing(name, root) from None
    except (OSError, ValueError, KeyError, TypeError):
        raise _damaged(path) from None
    if version != FORMAT:
        raise BadInput(
            f"{path.parent} was written by another version of idat-tune (store format {version}, this one reads "
            f"{FORMAT}); update idat-tune, or import {name} again with --replace"
        )
    try:
        manifest = _from_json(found)
    except (KeyError, TypeError, AttributeError):
        raise _damaged(path) from None
    for split, stored in manifest.splits.items():
        file = path.with_name(f"{split}.parquet")
        if not file.is_file() or file.stat().st_size != stored.bytes:
            raise BadInput(f"{file} is not the file that was imported; import {name} again with --replace")
    return manifest


def to_json(manifest: Manifest) -> str:
    """A manifest as its file has it."""
    return json.dumps({"format": FORMAT, **asdict(manifest)}, indent=1)


def own_name(given: str) -> str:
    """The name under which a task of the user's own is kept.

    Raises:
        BadInput: it is no name, or one that is taken by a built-in task or a group.
    """
    name = tasks.key(given)
    if not _NAME.fullmatch(name):
        raise BadInput(f"'{given}' cannot name a task; use letters, digits and _")
    if name in ("all", *tasks.GROUPS):
        raise BadInput(f"'{given}' is a group of tasks; choose another name")
    return name


def _resolve(name: str, root: Path | None) -> str:
    builtin = tasks.find(name)
    if builtin is not None:
        return builtin.name
    own = tasks.key(name)
    if _NAME.fullmatch(own) and (place(own, root) / MANIFEST).is_file():
        return own
    raise unknown("task", name, [*tasks.TASKS, *(task.name for task in _own(root) if task.name not in tasks.TASKS)])


def _own(root: Path | None) -> Iterator[Task]:
    home = folder(root)
    for path in sorted(home.glob(f"*/{MANIFEST}")) if home.is_dir() else []:
        name = path.parent.name
        builtin = tasks.find(name)
        if not _NAME.fullmatch(name) or (builtin is not None and builtin.group != "own"):
            continue
        try:
            found = read(name, root).task
        except BadInput:
            continue
        if (found.name, found.group) == (name, "own"):
            yield found


def _missing(name: str, root: Path | None) -> BadInput:
    where = folder(root)
    half = any((where / ".partial").glob(f"{name}-*"))
    what = "are only half imported into" if half else "are not in"
    return BadInput(
        f"the images of {name} {what} {where}; import them with `idat-tune data import --from PATH --task {name}`"
    )


def _damaged(path: Path) -> BadInput:
    return BadInput(f"{path} is damaged; import {path.parent.name} again with --replace")


def _from_json(found: dict[str, Any]) -> Manifest:
    recorded: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in found["task"].items()
    }
    return replace(
        Manifest(
            task=Task(**recorded),
            splits={split: StoredSplit(**stored) for split, stored in found["splits"].items()},
            content_hash=found["content_hash"],
            source=dict(found["source"]),
        ),
        stand_in=bool(found["stand_in"]),
        skipped=tuple(found["skipped"]),
        notes=tuple(found["notes"]),
        grouped=bool(found.get("grouped", False)),  # stores that are older than groups do not say
    )
