"""The prepared layout of VTAB-1K, a folder or archive: <task>/images/ beside train800.txt, val200.txt, test.txt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from idat_tune import tasks
from idat_tune.data import archives
from idat_tune.data.sources import Item, Source, check_label, check_sizes, key, read_file, safe
from idat_tune.errors import BadInput
from idat_tune.tasks import Task

LISTS = {"train": "train800.txt", "val": "val200.txt", "test": "test.txt"}
BOTH = "train800val200.txt"  # has copies of the images of train and val; only checked against them
_TRAIN_LISTS = (LISTS["train"], BOTH)  # either tells that a folder is meant to be a task
_MAX_LIST = 16 * 2**20  # bytes; the longest of the benchmark, of 73,728 images, has 3 million
_DEPTH = 3  # folders are looked for the lists this deep


@dataclass(frozen=True)
class _Line:
    number: int
    path: str
    label: int


class _Folder:
    """Files of a folder by their relative path."""

    def __init__(self, root: Path):
        self.root = root

    def tasks(self) -> Iterator[str]:
        """The folders, relative and at most `_DEPTH` deep, that have a list of training images; some more than once."""
        for depth in range(_DEPTH):
            for name in _TRAIN_LISTS:
                for found in sorted(self.root.glob("*/" * depth + name)):
                    yield found.parent.relative_to(self.root).as_posix()

    def has(self, path: str) -> bool:
        return (self.root / path).is_file()

    def read(self, path: str) -> bytes:
        return read_file(self.root / path)

    def show(self, path: str) -> str:
        return str(self.root / path)


class _Archive(_Folder):
    """Files of a zip or tar by their name in it; nothing is ever extracted."""

    def __init__(self, root: Path):
        super().__init__(root)
        self.archive = archives.read(root)

    def tasks(self) -> Iterator[str]:
        for name in sorted(self.archive.entries, key=lambda name: (name.count("/"), name)):
            path = PurePosixPath(name)
            if path.name in _TRAIN_LISTS and len(path.parts) <= _DEPTH:
                yield path.parent.as_posix()

    def has(self, path: str) -> bool:
        return str(PurePosixPath(path)) in self.archive.entries

    def read(self, path: str) -> bytes:
        return self.archive.read(str(PurePosixPath(path)))

    def show(self, path: str) -> str:
        return f"{self.root}/{PurePosixPath(path)}"


def is_prepared(path: Path) -> bool:
    """Whether there is at least one task in the prepared layout; raises BadInput for an archive that is broken."""
    place = _Archive(path) if path.is_file() else _Folder(path)
    return next(place.tasks(), None) is not None


def find(path: Path, wanted: list[str] | None = None, any_size: bool = False) -> list[Source]:
    """The tasks in a folder or zip, each with its lists read and checked.

    Args:
        path: a folder that has the tasks' folders (or is one), or a zip or tar of such.
        wanted: names of tasks; none means all that are there.
        any_size: accept splits that are not as large as the benchmark's, and mark the task a stand-in.

    Raises:
        BadInput: a wanted task is not there, or a list is wrong; names file and line.
    """
    place = _Archive(path) if path.is_file() else _Folder(path)
    found: dict[str, str] = {}
    for folder in place.tasks():
        task = tasks.find(PurePosixPath(folder).name if folder != "." else path.stem)
        name = task.name if task else _only(wanted) if folder == "." else None
        if name:
            found.setdefault(name, folder)
    if not found:
        raise BadInput(f"no task in {path}; expected <task>/{LISTS['train']} with a folder name such as dtd")
    here = [name for name in tasks.TASKS if name in found]
    names = here if wanted is None else [task.name for task in tasks.select(wanted)]
    for name in names:
        if name not in found:
            raise BadInput(f"no {name}/{LISTS['train']} in {path}; found there: {', '.join(here) or 'no task'}")
    return [_source(place, found[name], tasks.get(name), any_size) for name in names]


def _only(wanted: list[str] | None) -> str | None:
    return tasks.get(wanted[0]).name if wanted and len(wanted) == 1 else None


def _source(place: _Folder, folder: str, task: Task, any_size: bool) -> Source:
    lines = {split: _read(place, f"{folder}/{name}", task) for split, name in LISTS.items()}
    where = place.show(folder)
    sizes = {split: len(listed) for split, listed in lines.items()}
    stand_in = check_sizes(task, sizes, any_size, where)
    _check_apart(place, folder, lines)
    notes = _check_both(place, folder, lines, task)

    def items(split: str) -> Iterator[Item]:
        for line in lines[split]:
            path = f"{folder}/{line.path}"
            yield Item(place.show(path), line.label, lambda path=path: place.read(path))  # type: ignore[misc]

    listed = {split: [(line.path, line.label) for line in lines[split]] for split in LISTS}
    asked = key("prepared", str(place.root.resolve()), _stamp(place), listed, any_size)
    counts = Counter(line.label for found in lines.values() for line in found)
    per_class = tuple(counts[label] for label in range(task.classes))
    return Source(task, "prepared", where, asked, sizes, items, stand_in, notes, class_counts=per_class)


def _stamp(place: _Folder) -> list[int]:
    if not isinstance(place, _Archive):
        return []
    state = place.root.stat()
    return [state.st_size, state.st_mtime_ns]


def _read(place: _Folder, path: str, task: Task) -> list[_Line]:
    """The lines of a list: a path (which may have spaces), a space, a label."""
    shown = place.show(path)
    if not place.has(path):
        raise BadInput(f"{shown} is missing")
    listed = place.read(path)
    if len(listed) > _MAX_LIST:
        raise BadInput(f"{shown} has {len(listed):,} bytes, more than the {_MAX_LIST:,} a list may have")
    try:
        text = listed.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadInput(f"{shown} is not a text file in UTF-8") from None
    folder = str(PurePosixPath(path).parent)
    lines: list[_Line] = []
    first: dict[str, int] = {}
    for number, row in enumerate(text.splitlines(), start=1):
        if not row.strip():
            continue
        where = f"{shown} line {number}"
        line = _parse(row, number, where, task)
        if line.path in first:
            raise BadInput(f"{where}: '{line.path}' is listed in line {first[line.path]} already")
        if not place.has(f"{folder}/{line.path}"):
            raise BadInput(f"{where}: '{line.path}' is missing")
        first[line.path] = number
        lines.append(line)
    return lines


def _parse(row: str, number: int, where: str, task: Task) -> _Line:
    path, label = [*row.strip().rsplit(maxsplit=1), ""][:2]  # some copies have a tab, or several spaces
    try:
        value = int(label)
    except ValueError:
        raise BadInput(f"{where}: '{row.strip()}' is not a path, a space and a label") from None
    if value == task.classes:
        raise BadInput(f"{where}: label {value} is not in 0..{value - 1}; take 1 off each if these begin at 1")
    return _Line(number, safe(path.strip(), where), check_label(value, task.classes, where))


def _check_apart(place: _Folder, folder: str, lines: dict[str, list[_Line]]) -> None:
    """No image may be listed in two splits."""
    seen: dict[str, str] = {}
    for split, listed in lines.items():
        for line in listed:
            path = str(PurePosixPath(line.path))
            if path in seen:
                raise BadInput(
                    f"{place.show(folder)}/{LISTS[split]} line {line.number}: '{line.path}' is in "
                    f"{LISTS[seen[path]]} too; no image may be in two splits"
                )
            seen[path] = split


def _check_both(place: _Folder, folder: str, lines: dict[str, list[_Line]], task: Task) -> tuple[str, ...]:
    """The list of all 1,000 must have the labels of train followed by those of val."""
    path = f"{folder}/{BOTH}"
    if not place.has(path):
        return (f"no {BOTH}: trainval was put together from train and val, unchecked",)
    both = [line.label for line in _read(place, path, task)]
    parts = [line.label for split in ("train", "val") for line in lines[split]]
    if both == parts:
        return ()
    if sorted(both) == sorted(parts):
        return (f"{BOTH} has the labels of train and val in another order",)
    raise BadInput(
        f"{place.show(path)} does not have the labels of {LISTS['train']} followed by those of {LISTS['val']}; "
        "these lists are not of one copy"
    )
