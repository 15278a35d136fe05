"""Import: from a source into the store, whole or not at all, and going on where it was interrupted."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from idat_tune import __version__, tasks
from idat_tune.data import cache, checks, examined, files, leaks, parquet, store
from idat_tune.data.checks import Report
from idat_tune.data.copies import Seen
from idat_tune.data.examined import Split
from idat_tune.data.parquet import Encoded
from idat_tune.data.sources import Item, Source, class_counts, key
from idat_tune.data.store import STORED, Manifest, StoredSplit
from idat_tune.errors import BadInput

Progress = Callable[[int, int], None]  # images done, images in all


@dataclass(frozen=True)
class Imported:
    """What became of one task."""

    task: tasks.Task
    where: Path
    images: int  # in all splits
    already: bool  # it was there, from the same source; nothing was done
    report: Report | None  # none where it was there already
    class_counts: Mapping[str, int]  # images of each class that are stored, in all splits
    left_out: tuple[str, ...]  # the folders, file types and rows that were not taken, by name


def store_all(
    found: Sequence[Source],
    root: Path | None = None,
    skip_bad: int = 0,
    replace_existing: bool = False,
    progress: Progress | None = None,
) -> list[Imported]:
    """Import tasks, one after another; each is in the store whole, or not at all.

    Args:
        found: what to import.
        root: the store, as `store.folder` takes it.
        skip_bad: leave out up to so many images of each task that cannot be read.
        replace_existing: import again what came from another source before, or is damaged.
        progress: called with images done and images in all.

    Raises:
        BadInput: an image cannot be read, or a task is there already from another source.
        IdatError: the disk is full.
    """
    total = sum(sum(source.sizes.values()) for source in found)
    done = 0
    imported: list[Imported] = []
    for source in found:
        count = _Count(progress, done, total)
        imported.append(_store(source, root, skip_bad, replace_existing, count))
        done += sum(source.sizes.values())
        count.at(done)
    return imported


class _Count:
    def __init__(self, progress: Progress | None, done: int, total: int):
        self.progress, self.done, self.total = progress, done, total

    def at(self, done: int) -> None:
        self.done = done
        if self.progress:
            self.progress(done, self.total)

    def one(self) -> None:
        self.at(self.done + 1)


def _store(source: Source, root: Path | None, skip_bad: int, again: bool, count: _Count) -> Imported:
    name = source.task.name
    home = store.folder(root)
    stamp = _stamp(source)
    with files.lock(home / ".locks" / f"{name}.lock"):
        there = None if again else _there(source, stamp, root)
        if there is not None:
            return _imported(source, there.task, root, None)
        # Named by the files as they are, so that an import that was killed never goes on with others.
        staging = home / store.PARTIAL / f"{name}-{key(source.key, stamp)}"
        for stale in store.half(name, root):
            if stale != staging or again:
                files.remove(stale)
        try:
            with files.disk(staging):
                staging.mkdir(parents=True, exist_ok=True)
                files.sweep(staging)
            report, manifest = _stage(source, stamp, staging, root, skip_bad, count)
            with files.disk(store.place(name, root)):
                files.swap_in(staging, store.place(name, root))
        except Exception:
            # Only an interruption (KeyboardInterrupt, a killed process) leaves whole splits to go on from.
            files.remove(staging)
            raise
        cache.forget(name, root)
        return _imported(source, manifest.task, root, report)


def _imported(source: Source, task: tasks.Task, root: Path | None, report: Report | None) -> Imported:
    where = store.place(task.name, root)
    labels = [label for split in STORED for label in parquet.labels(where / f"{split}.parquet")]
    counts = class_counts(task, labels)
    known = tasks.find(task.name)
    if known is not None and known.group == "own" and store.folder(root) == store.folder():
        tasks.register(task)  # in the place of what this process has seen there before
    return Imported(task, where, len(labels), report is None, report, counts, source.left_out)


def _stamp(source: Source) -> str:
    """Changes when a file does that the images come from: its time or size; without reading any."""
    first = next(source.items("train"), None)
    if first is not None and _state(Path(first.name)):
        names = {item.name for split in STORED for item in source.items(split)}
        states = {name: _state(Path(name)) for name in names}
    else:  # the images lie in tables or an archive
        path = Path(source.path)
        inside = path.rglob("*") if path.is_dir() else [path, *path.parents[:-1]]
        states = {str(found): _state(found) for found in inside}
    return key(sorted(states.items()))


def _state(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except (OSError, ValueError):  # no file's name, but words that describe a row of a table
        return None
    return (found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None


def _there(source: Source, stamp: str, root: Path | None) -> Manifest | None:
    name = source.task.name
    if not (store.place(name, root) / store.MANIFEST).exists():
        return None
    manifest = store.read(name, root)
    again = store.again(name, source.path, root, any_size=source.stand_in, options=source.options)
    over = f"import over it with `{again}`"
    if manifest.source.get("key") != source.key:
        raise BadInput(
            f"{name} is in {store.folder(root)} already, imported from {manifest.source.get('path')}, or with other "
            f"options; {over}"
        )
    if manifest.source.get("stamp", stamp) != stamp:
        raise BadInput(f"{name} is in {store.folder(root)} already, but files in {source.path} changed since; {over}")
    return manifest


def _stage(
    source: Source, stamp: str, staging: Path, root: Path | None, skip_bad: int, count: _Count
) -> tuple[Report, Manifest]:
    """Write all files of a task into `staging`."""
    own = source.task.group == "own"
    seen = Seen(source.made, source.task.class_names, own, source.drop_conflicts)
    began = count.done
    splits = _splits(source, staging, skip_bad, count, seen)
    while not seen.settled():
        seen.restart()
        count.at(began)
        for kept in staging.glob("*.npz"):
            kept.unlink()
        splits = _splits(source, staging, skip_bad, count, seen)
    notes = (*source.notes, *seen.notes)
    skipped = tuple(sentence for split in STORED for sentence in splits[split].bad)
    for split in STORED:
        splits[split].bad.clear()  # they are not in the store
    sizes = {split: len(splits[split].images) for split in STORED}
    names = tuple(map(files.as_utf8, source.task.class_names))
    task = replace(source.task, class_names=names, train=sizes["train"], val=sizes["val"], test=sizes["test"])
    for split in STORED:
        if not sizes[split]:
            copies = ", or all are copies of others" if seen.repeated or seen.unwanted else ""
            raise BadInput(f"none of the {split} images of {task.name} can be read{copies}")
    intensity = checks.intensity(splits["train"])
    where, expected = store.place(task.name, root), task if own else source.task
    report = checks.report(task, expected, splits, where, skipped, source.stand_in, notes, intensity)
    leaks.refuse(task, report.duplicates, sizes)
    stored = {
        split: StoredSplit(sizes[split], (staging / f"{split}.parquet").stat().st_size, splits[split].hash)
        for split in STORED
    }
    origin = {"kind": source.kind, "path": source.path, "options": source.options, "key": source.key, "stamp": stamp}
    origin["idat_tune"] = __version__
    grouped = any(image.group for split in STORED for image in splits[split].images)
    manifest = Manifest(
        task, stored, report.content_hash, origin, source.stand_in, skipped, notes, grouped=grouped, intensity=intensity
    )
    for split in STORED:
        (staging / f"{split}.npz").unlink(missing_ok=True)
    with files.whole(staging / store.MANIFEST) as file:
        file.write(store.to_json(manifest).encode())
    return report, manifest


def _splits(source: Source, staging: Path, skip_bad: int, count: _Count, seen: Seen) -> dict[str, Split]:
    splits: dict[str, Split] = {}
    for split in STORED:
        bad = sum(len(done.bad) for done in splits.values())
        splits[split] = _split(source, split, staging, skip_bad - bad, count, seen)
    return splits


def _split(source: Source, split: str, staging: Path, skip_bad: int, count: _Count, seen: Seen) -> Split:
    """Write one split, unless an earlier import that was interrupted had finished it."""
    kept, path = staging / f"{split}.npz", staging / f"{split}.parquet"
    if kept.exists() and path.exists():
        count.at(count.done + source.sizes[split])
        loaded = Split.load(kept)
        for image in loaded.images:
            seen.takes(image, split)
        seen.repeated += source.sizes[split] - len(loaded.images) - len(loaded.bad)
        return loaded
    written = Split([], [])
    about = {
        "format": store.FORMAT,
        "task": source.task.name,
        "split": split,
        "classes": source.task.classes,
        "class_names": source.task.class_names,
        "source": {"kind": source.kind, "path": source.path},
        "idat_tune": __version__,
    }
    takes = partial(seen.takes, split=split)
    parquet.write(path, _readable(source.items(split), written, skip_bad, count, takes), about)
    if not seen.dropped:  # what was dropped is not known to whoever goes on from here
        written.save(kept)
    return written


def _readable(
    items: Iterator[Item], written: Split, skip_bad: int, count: _Count, takes: Callable[[examined.Image], bool]
) -> Iterator[Encoded]:
    for result in cache.in_order(_read, items):
        count.one()
        if isinstance(result, BadInput):
            written.bad.append(str(result))
            if len(written.bad) > skip_bad:
                raise BadInput(f"{result}; repair it, or leave out up to N such images with --skip-bad N")
            continue
        encoded, image = result
        if takes(image):
            written.images.append(image)
            yield encoded


def _read(item: Item) -> tuple[Encoded, examined.Image] | BadInput:
    try:
        encoded = Encoded(files.as_utf8(item.name), item.read(), item.label, item.group)
        return encoded, examined.examine(encoded)
    except BadInput as failure:
        return failure
