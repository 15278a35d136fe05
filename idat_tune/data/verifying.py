"""Look through what is in the store: verify a task's images, list all tasks, remove one."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from idat_tune import tasks
from idat_tune.data import cache, checks, examined, files, parquet, store
from idat_tune.data.checks import Report
from idat_tune.data.examined import Split
from idat_tune.data.importing import Progress
from idat_tune.data.parquet import Encoded
from idat_tune.data.store import STORED
from idat_tune.errors import BadInput
from idat_tune.tasks import Task


@dataclass(frozen=True)
class Listed:
    """A task and what the store has of it."""

    task: Task  # with the sizes as they are
    state: str  # complete, stand-in, embedded, half imported, unusable or missing
    where: Path | None  # none unless there is something
    bytes: int  # of its files
    why: str = ""  # what makes it unusable, and the way out


@dataclass(frozen=True)
class Removed:
    """What `remove` deleted of a task."""

    task: str
    where: tuple[Path, ...]
    bytes: int  # decoded pixels among them


def verify(task: str, folder: Path | None = None, progress: Progress | None = None) -> Report:
    """Decode and check every image of an imported task again; findings are in the report, not raised.

    Raises:
        BadInput: no such task, an embedded one, or one that is not imported.
    """
    known = store.task(task, folder)
    if known.embedded:
        raise BadInput(f"{known.name} comes with the package; there are no files to verify")
    manifest = store.read(known.name, folder)
    total = sum(split.images for split in manifest.splits.values())
    splits: dict[str, Split] = {}
    done = 0
    for split in STORED:
        splits[split] = Split([], [])
        encoded = (one for group in parquet.read(store.place(known.name, folder) / f"{split}.parquet") for one in group)
        for result in cache.in_order(_examine, encoded):
            done += 1
            if isinstance(result, BadInput):
                splits[split].bad.append(str(result))
            else:
                splits[split].images.append(result)
            if progress:
                progress(done, total)
    builtin = tasks.TASKS.get(known.name)
    expected = builtin if builtin and builtin.group != "own" else manifest.task
    where = store.place(known.name, folder)
    found = checks.report(
        manifest.task,
        expected,
        splits,
        where,
        manifest.skipped,
        manifest.stand_in,
        manifest.notes,
        manifest.intensity,
    )
    if found.content_hash != manifest.content_hash:
        changed = f"the images are not those that were imported: content hash {found.content_hash[:12]} instead of "
        found = replace(found, problems=(*found.problems, changed + manifest.content_hash[:12]))
    return found


def listing(folder: Path | None = None) -> list[Listed]:
    """Every task, built in or the user's own, and whether its images are there."""
    builtin = [_listed(task, folder) for task in tasks.TASKS.values() if task.group != "own"]
    spoilt = [Task(name, name, "own", 0, 0, 0.0, 0.0, 0.0, train=0, val=0) for name in store.unusable(folder)]
    own = sorted([*store.own_tasks(folder), *spoilt], key=lambda task: task.name)
    return builtin + [_listed(task, folder) for task in own]


def remove(task: str, folder: Path | None = None) -> Removed:
    """Delete what the store has of a task: its images, imports that did not come to their end, and decoded pixels.

    Files of others that lie in the same folder stay, and so do searches and students.

    Raises:
        BadInput: as `removable`; a file may not be deleted.
    """
    known = removable(task, folder)
    with files.lock(store.folder(folder) / ".locks" / f"{known}.lock"):
        gone = _there(known, folder)
        size = sum(map(_bytes, gone)) + sum(map(_size, cache.held(known, folder)))
        with files.disk(store.place(known, folder)):
            cache.forget(known, folder)
            _empty(store.place(known, folder))
        for path in store.half(known, folder):
            files.remove(path)
            if path.exists():
                raise BadInput(f"{path} may not be deleted")
    return Removed(known, gone, size)


def removable(task: str, folder: Path | None = None) -> str:
    """The exact name of a task of which the store has something.

    Raises:
        BadInput: no such task, an embedded one, a group, or one of which there is nothing.
    """
    if tasks.key(task) in ("all", *tasks.GROUPS):
        raise BadInput(f"'{task}' is a group of tasks; to remove some, name each")
    known = store.resolve(task, folder)
    if known in tasks.TASKS and tasks.TASKS[known].embedded:
        raise BadInput(f"{known} comes with the package; it cannot be removed")
    if not _there(known, folder):
        raise BadInput(f"there is nothing of {known} in {store.folder(folder)}")
    return known


def _there(name: str, folder: Path | None) -> tuple[Path, ...]:
    """The folders that hold files of a task."""
    home = store.place(name, folder)
    return (*([home] if any(path.is_file() for path in _ours(home)) else []), *store.half(name, folder))


def _ours(home: Path) -> list[Path]:
    return [home / name for name in (store.MANIFEST, *(f"{split}.parquet" for split in STORED))]


def _empty(home: Path) -> None:
    """Delete our files in a folder, and the folder if those were all."""
    for path in _ours(home):
        path.unlink(missing_ok=True)
    with suppress(OSError):
        home.rmdir()


def _listed(task: Task, folder: Path | None) -> Listed:
    if task.embedded:
        return Listed(task, "embedded", None, 0)
    where = store.place(task.name, folder)
    try:
        manifest = store.read(task.name, folder)
    except BadInput as failure:
        if (where / store.MANIFEST).exists():
            return Listed(task, "unusable", where, _bytes(where), str(failure))
        half = store.half(task.name, folder)
        if not half:
            return Listed(task, "missing", None, 0)
        return Listed(task, "half imported", half[0], sum(map(_bytes, half)), str(failure))
    return Listed(manifest.task, "stand-in" if manifest.stand_in else "complete", where, _bytes(where))


def _bytes(where: Path) -> int:
    return sum(map(_size, where.glob("*")))


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:  # another process took it away meanwhile
        return 0


def _examine(one: Encoded) -> examined.Image | BadInput:
    try:
        return examined.examine(one)
    except BadInput as failure:
        return failure
