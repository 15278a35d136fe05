"""A folder or an archive as a tree of images, with an account of everything in it that is none."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from idat_tune.data import signatures
from idat_tune.data.pixels import SUFFIXES
from idat_tune.data.sources import read_file
from idat_tune.errors import BadInput, printable

_MAX_DEPTH = 60  # folders within each other; what lies deeper is no data set
_MAX_FOLDERS = 1_000_000  # visited; more is a web of links
_SUFFIX = re.compile(r"\.[A-Za-z][A-Za-z0-9]{0,9}$")  # not the end of a name such as 'IMG_20.24' or 'cat.jpg_large'

# What systems and programs leave behind, beside everything that starts with a dot.
_SYSTEM_FOLDER = re.compile(
    r"__macosx|__pycache__|@eadir|[@#]recycle|@recently-snapshot|@tmp|@sharebin|@transcode|[#~]snapshot|lost\+found|"
    r"\$recycle\.bin|recycler|found\.\d+|system volume information|network trash folder|temporary items",
    re.IGNORECASE,
)
_SYSTEM_FILE = re.compile(r"(eh)?thumbs\.db|desktop\.ini|icon\r|\.(ds_store|gitkeep|gitignore|nomedia)", re.IGNORECASE)


@dataclass(frozen=True)
class Image:
    """A file that is an image by its name or its first bytes."""

    path: str  # within the source, with /
    shown: str  # the whole way, for messages
    size: int  # bytes
    read: Callable[[], bytes]


@dataclass
class Folder:
    """The images and the folders in a folder; hidden and system folders are not among them."""

    path: str = ""  # within the source, with /; empty for the source itself
    folders: dict[str, Folder] = field(default_factory=dict)
    images: list[Image] = field(default_factory=list)  # directly in it
    others: Counter[str] = field(default_factory=Counter)  # files directly in it that are no images, by kind

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.rpartition("/")[2]

    def walk(self) -> Iterator[Folder]:
        """It and all folders below, in order."""
        waiting = [self]
        while waiting:
            found = waiting.pop()
            yield found
            waiting += [found.folders[name] for name in sorted(found.folders, reverse=True)]

    def all_images(self) -> list[Image]:
        """The images in it and below, in the order of their paths."""
        return [image for folder in self.walk() for image in sorted(folder.images, key=lambda image: image.path)]

    def files(self) -> int:
        """How many files lie in it and below."""
        return sum(len(folder.images) + folder.others.total() for folder in self.walk())

    def has_images(self) -> bool:
        """Whether there is an image in it or below."""
        return any(folder.images for folder in self.walk())

    def inner(self) -> dict[str, Folder]:
        """The folders directly in it that have images, in order."""
        return {name: self.folders[name] for name in sorted(self.folders) if self.folders[name].has_images()}


@dataclass
class LeftOut:
    """What was not taken, told by name and number."""

    kinds: Counter[str] = field(default_factory=Counter)  # files, by kind
    folders: dict[str, list[int]] = field(default_factory=dict)  # of a name: how many folders, files in them
    links: dict[str, list[str]] = field(default_factory=dict)  # why links were not followed, and which
    others: list[str] = field(default_factory=list)  # whatever else, as it is to be said

    def folder(self, name: str, files: int) -> None:
        """Count a folder that is left out whole."""
        found = self.folders.setdefault(name, [0, 0])
        found[0] += 1
        found[1] += files

    def link(self, why: str, path: str) -> None:
        """Count a link that is not followed."""
        self.links.setdefault(why, []).append(path)

    def phrases(self) -> tuple[str, ...]:
        """Such as '14 .txt' and 'folder @eaDir (6 files)', the most frequent first."""
        said = [f"{count:,} {kind}" for kind, count in sorted(self.kinds.items(), key=lambda item: (-item[1], item[0]))]
        for name, (count, files) in sorted(self.folders.items()):
            held = number(files, "file") if files else "empty"
            said.append(f"{'folder' if count == 1 else f'{count:,} folders'} {name} ({held})")
        for why, paths in sorted(self.links.items()):
            said.append(f"{number(len(paths), 'link')} {why} ({some(paths)})")
        return tuple(printable(phrase) for phrase in (*said, *self.others))


def number(count: int, of: str) -> str:
    """Such as '1 file' and '2,000 files'."""
    return f"{count:,} {of}{'' if count == 1 else 's'}"


def some(names: list[str], most: int = 3) -> str:
    """The first of some names."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def is_system(name: str) -> bool:
    """Whether a folder of that name is hidden or left by a system, so that no one means its files."""
    return name.startswith(".") or _SYSTEM_FOLDER.fullmatch(name) is not None


def is_image(name: str, head: Callable[[], bytes]) -> bool:
    """Whether a file is an image by its suffix or, where it has none, by its first bytes."""
    if name.startswith(".") or _SYSTEM_FILE.fullmatch(name):
        return False
    suffix = _SUFFIX.search(name)
    if suffix:
        return suffix.group().lower() in SUFFIXES
    return signatures.is_image(head())


def kind(name: str) -> str:
    """What a file that is no image is counted as."""
    if name.startswith("._"):
        return "._*"
    if _SYSTEM_FILE.fullmatch(name):
        return name
    if name.startswith("."):
        return "hidden"
    suffix = _SUFFIX.search(name)
    return suffix.group().lower() if suffix else "without suffix"


def add(folder: Folder, name: str, image: Image, head: Callable[[], bytes]) -> None:
    """Put a file into a folder, as an image or as something else."""
    if is_image(name, head):
        folder.images.append(image)
    else:
        folder.others[kind(name)] += 1


def too_deep(folder: str) -> bool:
    """Whether a folder lies too deep to be looked into."""
    return folder.count("/") >= _MAX_DEPTH


def scan(root: Path) -> tuple[Folder, LeftOut]:
    """A folder on disk; links are followed, but never to a folder that the way there has led through.

    Raises:
        BadInput: there is no end of folders.
        OSError: one may not be read.
    """
    tree, left = Folder(), LeftOut()
    resolved = root.resolve()
    above = frozenset(_identity(path.stat()) for path in (resolved, *resolved.parents))
    waiting = [(tree, root, above)]
    visited = 0
    while waiting:
        folder, place, above = waiting.pop()
        visited += 1
        if visited > _MAX_FOLDERS:
            raise BadInput(f"{root} has more than {_MAX_FOLDERS:,} folders; are there links that lead round in it?")
        with os.scandir(place) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        for entry in found:
            path = f"{folder.path}/{entry.name}".lstrip("/")
            try:
                state = entry.stat()
            except OSError:  # a link to nothing, or to itself
                left.link("to nothing", path)
                continue
            if stat.S_ISDIR(state.st_mode):
                if state.st_ino and _identity(state) in above:  # some network shares do not number their folders
                    left.link("back to a folder that it lies in", path)
                elif is_system(entry.name) or too_deep(path):
                    left.folder(entry.name, 0 if entry.is_symlink() else _count(Path(entry.path)))
                else:
                    folder.folders[entry.name] = Folder(path)
                    waiting.append((folder.folders[entry.name], Path(entry.path), above | {_identity(state)}))
            elif stat.S_ISREG(state.st_mode):
                file = Path(entry.path)
                image = Image(path, entry.path, state.st_size, partial(read_file, file))
                add(folder, entry.name, image, partial(_head, file))
            else:
                folder.others["no regular file"] += 1
    return tree, left


def images_in(root: Path) -> list[Path]:
    """The images in a folder and below, as an import takes them, in the order of their paths.

    Raises:
        BadInput: a folder may not be read, or there is no end of them.
    """
    try:
        tree, _ = scan(root)
    except OSError as failure:
        raise BadInput(f"{failure.filename or root} cannot be read ({failure.strerror})") from None
    return sorted(Path(image.shown) for image in tree.all_images())


def _identity(state: os.stat_result) -> tuple[int, int]:
    return state.st_dev, state.st_ino


def _head(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(signatures.HEAD)


def _count(folder: Path) -> int:
    """Files in a folder and below; what may not be read, and what links lead to, does not count."""
    return sum(len(files) for _, _, files in os.walk(folder))
