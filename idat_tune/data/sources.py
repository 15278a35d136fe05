"""Where images are imported from: one shape for every way in."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idat_tune.data import pixels
from idat_tune.errors import BadInput
from idat_tune.tasks import Task

if TYPE_CHECKING:
    from PIL import Image
_FEW = 12  # classes that are shown one by one


@dataclass(frozen=True)
class Item:
    """An image that can be read when its turn comes."""

    name: str  # where it is, for messages and as provenance
    label: int
    read: Callable[[], bytes]
    group: str | None = None  # images of one group never stand in two splits


@dataclass(frozen=True)
class Choices:
    """What its user decides about a task of their own, where their images leave it open."""

    train_images: int | None = None  # to train with, val among them; None means 1,000, or four fifths of fewer
    seed: int = 0  # of the random, stratified division
    path_column: str | None = None  # of a list; None means one of the usual names
    label_column: str | None = None
    split_column: str | None = None  # "none" if no column is to be taken for it
    group_column: str | None = None  # rows of one value (patient, photo, burst) never stand in two splits
    group_pattern: str | None = None  # the same for files: a regular expression whose first group is the value
    layout: str = "auto"  # what folders are: classes, splits that have those in them, or parts that are taken together
    drop_conflicts: bool = False  # leave out pictures that stand under two labels, instead of refusing them
    allow_outside: bool = False  # paths of a list may be absolute or climb out of its folder

    def made(self) -> dict[str, Any]:
        """Those that are not the defaults."""
        return {one.name: getattr(self, one.name) for one in fields(self) if getattr(self, one.name) != one.default}

    def options(self) -> str:
        """Those that are not the defaults, as they are typed."""
        made = self.made().items()
        return shlex.join(word for name, value in made for word in (option(name), *[str(value)] * (value is not True)))


@dataclass(frozen=True)
class Source:
    """The images of one task, ready to import; everything cheap has been checked."""

    task: Task  # with the benchmark's sizes, or an own task's real ones
    kind: str  # prepared, images, list, huggingface or tfds
    path: str
    key: str  # changes when another import is asked for
    sizes: Mapping[str, int]  # images per split: train, val, test
    items: Callable[[str], Iterator[Item]]  # of a split, in order
    stand_in: bool = False  # sizes differ from the benchmark's
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()  # the folders, file types and rows that were not taken, by name
    class_counts: tuple[int, ...] = ()  # images per class in all splits, where they are known before reading
    made: tuple[str, ...] = ()  # splits that were drawn at random; no picture of theirs may stand in another
    drop_conflicts: bool = False  # leave out pictures of an own task that stand under two labels
    options: str = ""  # what its user decided, as it is typed

    def counts_by_name(self) -> dict[str, int]:
        """Images of each class in all splits; empty where they are not known before reading."""
        return dict(zip(_names(self.task), self.class_counts, strict=True)) if self.class_counts else {}


def option(choice: str) -> str:
    """A field of `Choices` as the command line has it."""
    return "--" + choice.replace("_", "-")


def key(*parts: Any) -> str:
    """A short digest of what an import was asked for."""
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:16]


def class_line(counts: Mapping[str, int]) -> str:
    """The classes and how many images each has, in one line; of many only the largest and the smallest."""
    most = sorted(counts, key=lambda name: -counts[name])
    if len(counts) <= _FEW:
        return f"{len(counts)} classes: " + ", ".join(f"{name} {counts[name]:,}" for name in most)
    first, last = (", ".join(f"{name} {counts[name]:,}" for name in some) for some in (most[:3], most[-3:]))
    return f"{len(counts):,} classes: the largest {first}; the smallest {last}"


def class_counts(task: Task, labels: Iterable[int]) -> dict[str, int]:
    """How often each class of a task occurs, by its name, or by its number where it has none."""
    counts = Counter(labels)
    return {name: counts[label] for label, name in enumerate(_names(task))}


def _names(task: Task) -> tuple[str, ...]:
    return task.class_names or tuple(map(str, range(task.classes)))


def read_file(path: Path) -> bytes:
    """The bytes of an image file.

    Raises:
        BadInput: it cannot be read, is no file, or is too large for an image.
    """
    try:
        if path.exists() and not path.is_file():  # a device or a pipe may never end
            raise BadInput(f"{path} is not a file")
        if path.stat().st_size > pixels.MAX_BYTES:
            raise BadInput(f"{path} has more than the {pixels.MAX_BYTES:,} bytes an image may have")
        return path.read_bytes()
    except OSError as failure:
        raise BadInput(f"{path} cannot be read ({failure.strerror})") from None


def read_image(path: Path) -> Image.Image:
    """The decoded image of a file, by the rules of an import: limits, formats, and its name in every sentence.

    Raises:
        BadInput: it cannot be read or decoded.
    """
    return pixels.read(read_file(path), str(path))


def read_bytes(content: bytes, name: str) -> Image.Image:
    """The decoded image of what a file holds, by the same rules; `name` is what to call it.

    Raises:
        BadInput: it cannot be decoded, or is no bytes at all.
    """
    if not isinstance(content, bytes | bytearray):
        raise BadInput(f"{name}: an image is given as the bytes of its file, not as {type(content).__name__}")
    return pixels.read(bytes(content), name)


def safe(path: str, where: str, way_out: str = "") -> str:
    """`path` itself if it leads to something inside the folder it is relative to.

    Raises:
        BadInput: it is absolute, empty, or climbs out; `where` names the file and line that has it, `way_out` is
            what else could be done.
    """
    parts = path.replace("\\", "/").split("/")
    if not path or "\0" in path:
        raise BadInput(f"{where}: no path")
    if parts[0] == "" or (len(parts[0]) == 2 and parts[0][1] == ":"):
        raise BadInput(f"{where}: '{path}' is an absolute path; paths are relative to the folder of the list{way_out}")
    if ".." in parts:
        raise BadInput(f"{where}: '{path}' leads out of its folder; leave out '..'{way_out}")
    return path


def check_label(label: int, classes: int, where: str) -> int:
    """`label` itself if there is such a class; raises BadInput naming `where`."""
    if not 0 <= label < classes:
        raise BadInput(f"{where}: label {label} is not in 0..{classes - 1}")
    return label


def check_sizes(task: Task, sizes: Mapping[str, int], any_size: bool, where: str) -> bool:
    """Whether the sizes differ from the benchmark's.

    Raises:
        BadInput: a split is empty, or sizes differ and `any_size` does not allow it.
    """
    known = {"train": task.train, "val": task.val, "test": task.test}
    for split, images in sizes.items():
        if images == 0:
            raise BadInput(f"{where}: the {split} split of {task.name} has no images")
        if images != known[split] and not any_size:
            raise BadInput(
                f"{where}: the {split} split of {task.name} has {images:,} images, the benchmark's has "
                f"{known[split]:,}; get the whole copy, or take it as a stand-in with --any-size"
            )
    return dict(sizes) != known
