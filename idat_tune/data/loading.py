"""A split of a task as arrays: mapped from the cache, or decoded on the way (test)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from idat_tune import tasks
from idat_tune.data import cache, parquet, pixels, store
from idat_tune.data.cache import Shape
from idat_tune.errors import unknown

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, eq=False)
class Images:
    """Labelled images, decoded."""

    pixels: np.ndarray  # uint8 (N, C, H, W)
    labels: np.ndarray  # int64 (N,)
    groups: np.ndarray | None = None  # str (N,), '' for none: images of one group stay together

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def digests(self) -> np.ndarray:
        """Numbers (N,) that are equal where pixels are."""
        import numpy as np

        found = [hashlib.blake2b(image.tobytes(), digest_size=8).digest() for image in self.pixels]
        return np.frombuffer(b"".join(found), np.uint64)


def load(
    task: str,
    split: str,
    size: int = 224,
    channels: int = 3,
    interpolation: str = "bicubic",
    folder: Path | None = None,
) -> Images:
    """One split of a task, decoded to `channels` x `size` x `size`.

    `train`, `val` and `trainval` (train followed by val) come mapped from a file that is made when first asked for and
    shared by all processes; `test` is decoded anew each time (see `batches`).

    Raises:
        BadInput: unknown task, split or interpolation, an impossible shape, or images that are not imported.
    """
    import numpy as np

    known, shape = _known(task, split, size, channels, interpolation, folder)
    if known.embedded:
        return _embedded(known.name, split, shape)
    manifest = store.read(known.name, folder)
    if split == "test":
        images = manifest.splits["test"].images
        held = np.empty((images, channels, size, size), np.uint8)
        labels = np.empty(images, np.int64)
        done = 0
        for some in _test(known.name, shape, 256, folder):
            held[done : done + len(some)], labels[done : done + len(some)] = some.pixels, some.labels
            done += len(some)
        return Images(held, labels)
    first, last = _range(manifest, split)
    held, labels = cache.mapped(manifest, shape, folder)
    groups = _groups(known.name, folder)[first:last] if manifest.grouped else None
    return Images(held[first:last], labels[first:last], groups)


def batches(
    task: str,
    split: str,
    size: int = 224,
    channels: int = 3,
    interpolation: str = "bicubic",
    batch: int = 256,
    folder: Path | None = None,
) -> Iterator[Images]:
    """A split, up to `batch` images at a time and in order; `test` is never held as a whole.

    Raises:
        BadInput: as `load`, before the first batch.
    """
    known, shape = _known(task, split, size, channels, interpolation, folder)
    if split == "test" and not known.embedded:
        store.read(known.name, folder)
        return _test(known.name, shape, batch, folder)
    return _slices(load(task, split, size, channels, interpolation, folder), batch)


def embedded_hash(task: str) -> str:
    """A sha256 over an embedded task's train and val arrays."""
    from idat_tune import embedded

    digest = hashlib.sha256()
    for split in ("train", "val"):
        held, labels = embedded.load_split(task, split)
        digest.update(split.encode() + held.tobytes() + labels.tobytes())
    return digest.hexdigest()


def _known(
    task: str, split: str, size: int, channels: int, interpolation: str, folder: Path | None
) -> tuple[tasks.Task, Shape]:
    known = store.task(task, folder)
    if split not in tasks.SPLITS:
        raise unknown("split", split, tasks.SPLITS)
    shape = Shape(size, channels, interpolation)
    if known.embedded:
        return known, shape
    return known, replace(shape, intensity=store.read(known.name, folder).intensity)


def _range(manifest: store.Manifest, split: str) -> tuple[int, int]:
    train, val = manifest.splits["train"].images, manifest.splits["val"].images
    return {"train": (0, train), "val": (train, train + val), "trainval": (0, train + val)}[split]


def _groups(name: str, folder: Path | None) -> np.ndarray:
    """Groups of train followed by val."""
    import numpy as np

    home = store.place(name, folder)
    return np.array([group or "" for split in ("train", "val") for group in parquet.groups(home / f"{split}.parquet")])


def _test(name: str, shape: Shape, batch: int, folder: Path | None) -> Iterator[Images]:
    import numpy as np

    path = store.place(name, folder) / "test.parquet"
    # The threads decode ahead across the edges of batches, so that whoever takes a batch seldom waits.
    labels: list[int] = []

    def counted() -> Iterator[parquet.Encoded]:
        for group in parquet.read(path):
            labels.extend(one.label for one in group)
            yield from group

    held: list[np.ndarray] = []
    done = 0
    for image in cache.decoded(counted(), shape):
        held.append(image)
        if len(held) == batch:
            yield Images(np.stack(held), np.array(labels[done : done + batch], np.int64))
            done += batch
            held = []
    if held:
        yield Images(np.stack(held), np.array(labels[done : done + len(held)], np.int64))


def _slices(images: Images, batch: int) -> Iterator[Images]:
    for first in range(0, len(images), batch):
        yield Images(images.pixels[first : first + batch], images.labels[first : first + batch])


def _embedded(name: str, split: str, shape: Shape) -> Images:
    import numpy as np
    from PIL import Image

    from idat_tune import embedded

    held, labels = embedded.load_split(name, split)
    if (shape.channels, shape.size, shape.size) == held.shape[1:]:
        return Images(held, labels)
    resized = np.empty((len(held), shape.channels, shape.size, shape.size), np.uint8)
    for place, image in zip(resized, held, strict=True):
        place[:] = pixels.decode(Image.fromarray(image[0]), shape.size, shape.channels, shape.interpolation)
    return Images(resized, labels)
