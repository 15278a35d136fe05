"""The store: which tasks' images lie in which folder, whole or not, and what is recorded of them."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from idat_tune import tasks
from idat_tune.data import deep
from idat_tune.errors import BadInput, unknown
from idat_tune.tasks import Task

FORMAT = 1  # of the store; raised when an older idat-tune could not read it
STORED = ("train", "val", "test")  # the splits that have a file; trainval is train followed by val
MANIFEST = "task.json"
PARTIAL = ".partial"  # the folder of imports that are on their way
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
    source: dict[str, str]  # kind, path, options, key: where the images came from
    stand_in: bool = False  # sizes differ from the benchmark's: results do not compare with published ones
    skipped: tuple[str, ...] = ()  # images left out because they could not be read
    notes: tuple[str, ...] = ()  # what the checks of the import found
    grouped: bool = False  # images have groups, which stay together
    intensity: tuple[float, float] | None = None  # of images with more than 8 bits: the values that are black and white


def folder(given: Path | None = None) -> Path:
    """Where images are kept: `given`, else the environment's IDAT_TUNE_DATA, else in the user's cache folder.

    Raises:
        BadInput: a name begins with a `~` that stands for nobody, or this user has no home.
    """
    named = given or os.environ.get("IDAT_TUNE_DATA")
    try:
        if named:
            return Path(named).expanduser()
        cache = os.environ.get("XDG_CACHE_HOME")
        return (Path(cache) if cache else Path.home() / ".cache") / "idat-tune" / "data"
    except RuntimeError:
        where = f"{named} begins with a user that" if named else "this user"
        raise BadInput(f"{where} has no home folder; name a folder for images with IDAT_TUNE_DATA") from None


def place(name: str, root: Path | None = None) -> Path:
    """The folder of one task's images."""
    return folder(root) / name


def resolve(name: str, root: Path | None = None) -> str:
    """The exact name of a task, built in or in the store, whole or not.

    Raises:
        BadInput: no task goes by that name.
    """
    builtin = tasks.find(name)
    if builtin is not None:
        return builtin.name
    own = tasks.key(name)
    if _NAME.fullmatch(own) and ((place(own, root) / MANIFEST).is_file() or own in _remains(root)):
        return own
    raise unknown("task", name, [*tasks.TASKS, *(task.name for task in _own(root) if task.name not in tasks.TASKS)])


def require(task: str, folder: Path | None = None) -> None:
    """Returns quickly if the images of `task` can be loaded; those of embedded tasks always can.

    Raises:
        BadInput: no such task, not imported, half imported, damaged, or written by a newer version.
    """
    name = resolve(task, folder)
    if name in tasks.TASKS and tasks.TASKS[name].embedded:
        return
    read(name, folder)


def task(name: str, folder: Path | None = None) -> Task:
    """The task of that name, built in or imported by the user, with the split sizes as they are in the store.

    Raises:
        BadInput: no task goes by that name, or the own one is damaged, half imported, or of a newer version.
    """
    resolved = resolve(name, folder)
    if (place(resolved, folder) / MANIFEST).is_file() or not _is_builtin(resolved):
        return read(resolved, folder).task
    return tasks.get(resolved)


def register_own(folder: Path | None = None) -> list[Task]:
    """Make the user's own tasks in the store known to `tasks`, so that RunConfig accepts their names.

    The command line and every worker call this once, early. Of those that are damaged, of another version or half
    imported, `tasks` learns why they cannot be used, and says so instead of not knowing them.
    """
    for name, why in unusable(folder).items():
        tasks.set_unusable(name, why)
    return [tasks.register(own) for own in own_tasks(folder)]


def unusable(root: Path | None = None) -> dict[str, str]:
    """Own tasks of which the store has something that cannot be used, each with a sentence: why, and the way out."""
    found: dict[str, str] = {}
    for name in _remains(root):
        try:
            read(name, root)
        except BadInput as failure:
            found[name] = str(failure)
    return found


def own_tasks(folder: Path | None = None) -> list[Task]:
    """The tasks in the store that are not built in."""
    return list(_own(folder))


def intensity(task: str, folder: Path | None = None) -> tuple[float, float] | None:
    """The values that are black and white in a task's images of more than 8 bits; None where there are none.

    None as well where the images are not here, as in a process that got them from another.
    """
    try:
        return read(resolve(task, folder), folder).intensity
    except BadInput:
        return None


def content_hash(task: str, folder: Path | None = None) -> str:
    """A sha256, in hex, of what a task's images and labels are; changes when any of them does.

    Of an embedded task only `train` and `val` are looked at, so that asking does not open its test split.

    Raises:
        BadInput: no such task, or it is not imported.
    """
    name = resolve(task, folder)
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
        raise _damaged(name, root) from None
    if version != FORMAT:
        raise BadInput(
            f"{path.parent} was written by another version of idat-tune (store format {version}, this one reads "
            f"{FORMAT}); update idat-tune, or import it again: `{_again(name, found, root)}`"
        )
    try:
        manifest = _from_json(found)
    except (KeyError, TypeError, AttributeError, ValueError):
        raise _damaged(name, root) from None
    if manifest.task.name != name:
        raise BadInput(f"{path.parent} holds the task {manifest.task.name}; give the folder that name")
    for split, stored in manifest.splits.items():
        file = path.with_name(f"{split}.parquet")
        if not file.is_file() or file.stat().st_size != stored.bytes:
            state = "is not the file that was imported" if file.is_file() else "is missing"
            raise BadInput(f"{file} {state}; import {name} again: `{_again(name, found, root)}`")
    return manifest


def to_json(manifest: Manifest) -> str:
    """A manifest as its file has it."""
    return json.dumps({"format": FORMAT, **asdict(manifest)}, indent=1)


def again(
    name: str, path: str, root: Path | None, *, replace: bool = True, any_size: bool = False, options: str = ""
) -> str:
    """The command that imports a task from a path, as it can be typed; with `options` of what was decided then."""
    there = next((found for found in (Path(path), *Path(path).parents) if found.exists()), None)
    # Of a task within a zip, the zip; a folder above what is gone would be something else.
    source = shlex.quote(str(there)) if there == Path(path) or (there and there.is_file()) else "PATH"
    try:
        decided = shlex.join(shlex.split(options))  # a file may say anything: nothing but words for our command
    except ValueError:
        decided = ""
    words = ["--from", source, "--task", name, *[decided] * bool(decided)]
    words += [*["--any-size"] * any_size, *["--replace"] * replace]
    return f"idat-tune data import {' '.join(words)}{_option(root)}"


def _remove(name: str, root: Path | None) -> str:
    return f"`idat-tune data remove --task {name}{_option(root)}`"


def _option(root: Path | None) -> str:
    return "" if root is None else f" --data {shlex.quote(str(root))}"


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


def _own(root: Path | None) -> Iterator[Task]:
    for name in _remains(root):
        try:
            found = read(name, root).task
        except BadInput:
            continue
        if found.group == "own":
            yield found


def _remains(root: Path | None) -> list[str]:
    """The names of own tasks of which the store has anything at all, in order."""
    home = folder(root)
    if not home.is_dir():
        return []
    there = {path.parent.name for path in home.glob(f"*/{MANIFEST}")}
    there |= {path.name.partition("-")[0] for path in (home / PARTIAL).glob("*-*")}
    return sorted(name for name in there if _NAME.fullmatch(name) and not _is_builtin(name))


def _is_builtin(name: str) -> bool:
    known = tasks.find(name)
    return known is not None and known.group != "own"


def half(name: str, root: Path | None = None) -> list[Path]:
    """The folders of imports of a task that did not come to their end."""
    return sorted((folder(root) / PARTIAL).glob(f"{name}-*"))


def _missing(name: str, root: Path | None) -> BadInput:
    where = folder(root)
    if half(name, root):
        return BadInput(
            f"the images of {name} are only half imported into {where}; unless an import is still running, give its "
            f"command once more, or remove what is there with {_remove(name, root)}"
        )
    return BadInput(
        f"the images of {name} are not in {where}; import them with `idat-tune data import --from PATH --task {name}`"
    )


def _damaged(name: str, root: Path | None) -> BadInput:
    path = place(name, root) / MANIFEST
    return BadInput(f"{path} is damaged; remove {name} with {_remove(name, root)} and import it again")


def _again(name: str, found: Any, root: Path | None) -> str:
    source = found.get("source")
    origin = source if isinstance(source, dict) else {}
    path, options = str(origin.get("path") or "PATH"), str(origin.get("options") or "")
    return again(name, path, root, any_size=bool(found.get("stand_in")), options=options)


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
        intensity=deep.check_range(found.get("intensity")),
    )
