"""A task's images as files again, a folder per class: to look at, to try a student on, to use elsewhere."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path

from idat_tune import tasks
from idat_tune.data import parquet, pixels, store
from idat_tune.errors import BadInput, unknown
from idat_tune.tasks import Task

_SUFFIX = {
    "JPEG": ".jpg",
    "TIFF": ".tif",
    "MPO": ".jpg",
    "JPEG2000": ".jp2",
    pixels.HEIC: ".heic",
}  # others are called as their format
_LONGEST = 200  # bytes of a folder's name; file systems take 255
_UNFIT = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]|^\.+|[. ]+$')  # what some file system does not take in a name


def export(task: str, split: str, to: Path, count: int | None = None, folder: Path | None = None) -> list[Path]:
    """Write images of a split as files, `to/<class>/<number>.<suffix>`, encoded as they were imported.

    Args:
        task: any task; those of embedded ones are written as PNG.
        split: train, val, trainval or test.
        to: a new or an empty folder.
        count: only so many, from the first of the split on; all if absent.
        folder: the store, where it is not the default one.

    Returns:
        The files, in the order of the split.

    Raises:
        BadInput: no such task or split, images that are not there, a folder with something in it, a count below 1.
    """
    known = store.task(task, folder)
    if split not in tasks.SPLITS:
        raise unknown("split", split, tasks.SPLITS)
    if count is not None and count < 1:
        raise BadInput(f"{count} images cannot be exported; the least is 1")
    images = _images(known, split, folder)
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise BadInput(f"{to} holds something already; name a new folder to export into")
    places = _places(known)
    written = []
    try:
        for number, (encoded, label) in enumerate(islice(images, count)):
            path = to / places[label] / f"{number:05d}{_suffix(encoded)}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded)
            written.append(path)
    except OSError as failure:
        raise BadInput(f"{failure.filename or to} cannot be written ({failure.strerror})") from None
    return written


def small(task: str, rows: Collection[int], side: int, folder: Path | None = None) -> dict[int, bytes]:
    """Small versions of some images of trainval by their places there: PNG or JPEG, no longer than `side` pixels.

    Raises:
        BadInput: images that are not there any more, or cannot be read.
    """
    known = store.task(task, folder)
    wanted, intensity = set(rows), None if known.embedded else store.read(known.name, folder).intensity
    found = {}
    for row, (encoded, _) in enumerate(_images(known, "trainval", folder)):
        if row in wanted:
            image = pixels.flatten(pixels.read(encoded), intensity)
            as_it_is = max(image.size) <= side
            image.thumbnail((side, side))
            buffer = io.BytesIO()
            image.save(buffer, "PNG" if as_it_is else "JPEG", quality=80)
            found[row] = buffer.getvalue()
        if len(found) == len(wanted):
            break
    return found


def _images(task: Task, split: str, folder: Path | None) -> Iterator[tuple[bytes, int]]:
    """Encoded images with their labels."""
    if task.embedded:
        return _embedded(task, split)
    store.read(task.name, folder)
    return _stored(task, split, folder)


def _stored(task: Task, split: str, folder: Path | None) -> Iterator[tuple[bytes, int]]:
    for name in ("train", "val") if split == "trainval" else (split,):
        for some in parquet.read(store.place(task.name, folder) / f"{name}.parquet"):
            yield from ((one.image, one.label) for one in some)


def _embedded(task: Task, split: str) -> Iterator[tuple[bytes, int]]:
    from PIL import Image

    from idat_tune import embedded

    held, labels = embedded.load_split(task.name, split)
    for image, label in zip(held, labels.tolist(), strict=True):
        buffer = io.BytesIO()
        Image.fromarray(image[0]).save(buffer, "PNG")
        yield buffer.getvalue(), label


def _places(task: Task) -> list[str]:
    """A folder name for each class: its own as far as file systems take it, with its number where two are alike."""
    names = [str(name) for name in task.class_names] or [str(label) for label in range(task.classes)]
    short = (name.encode()[:_LONGEST].decode(errors="ignore") for name in names)
    fit = [_UNFIT.sub("_", name) or "_" for name in short]
    shared = Counter(name.casefold() for name in fit)
    taken = {name for name, classes in shared.items() if classes == 1}
    places = []
    for label, name in enumerate(fit):
        place = name
        if shared[name.casefold()] > 1:
            place = f"{name}_{label}"
            while place.casefold() in taken:  # a class is called so
                place += "_"
            taken.add(place.casefold())
        places.append(place)
    return places


def _suffix(encoded: bytes) -> str:
    kind = pixels.form(encoded)
    return _SUFFIX.get(kind, f".{kind.lower()}")
