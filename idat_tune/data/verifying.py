"""Look through what is in the store: verify a task's images, list all tasks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from idat_tune import tasks
from idat_tune.data import cache, checks, parquet, store
from idat_tune.data.checks import Report, Split
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
    why: str = ""  # what makes it unusable


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
    found = checks.report(manifest.task, expected, splits, where, manifest.skipped, manifest.stand_in, manifest.notes)
    if found.content_hash != manifest.content_hash:
        changed = f"the images are not those that were imported: content hash {found.content_hash[:12]} instead of "
        found = replace(found, problems=(*found.problems, changed + manifest.content_hash[:12]))
    return found


def listing(folder: Path | None = None) -> list[Listed]:
    """Every task, built in or the user's own, and whether its images are there."""
    builtin = [_listed(task, folder) for task in tasks.TASKS.values() if task.group != "own"]
    return builtin + [_listed(task, folder) for task in store.own_tasks(folder)]


def _listed(task: Task, folder: Path | None) -> Listed:
    if task.embedded:
        return Listed(task, "embedded", None, 0)
    where = store.place(task.name, folder)
    try:
        manifest = store.read(task.name, folder)
    except BadInput as failure:
        if (where / store.MANIFEST).exists():
            return Listed(task, "unusable", where, _bytes(where), str(failure))
        half = sorted((store.folder(folder) / ".partial").glob(f"{task.name}-*"))
        return Listed(task, "half imported", half[0], _bytes(half[0])) if half else Listed(task, "missing", None, 0)
    return Listed(manifest.task, "stand-in" if manifest.stand_in else "complete", where, _bytes(where))


def _bytes(where: Path) -> int:
    return sum(file.stat().st_size for file in where.glob("*"))


def _examine(one: Encoded) -> checks.Image | BadInput:
    try:
        return checks.examine(one)
    except BadInput as failure:
        return failure
