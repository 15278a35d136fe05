"""The cache: train and val decoded once per image size into an Arrow file that every process maps into memory."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idat_tune.data import deep, files, parquet, pixels, store
from idat_tune.data.store import Manifest
from idat_tune.errors import BadInput

if TYPE_CHECKING:
    import numpy as np

_VERSION = 2  # raised when `pixels.decode` changes what it gives
_LARGEST = 24 * 2**30  # bytes of pixels; more is decoded in memory by mistake only


@dataclass(frozen=True)
class Shape:
    """What images are decoded to."""

    size: int
    channels: int
    interpolation: str
    intensity: deep.Range | None = None  # of images with more than 8 bits: which values are black and white

    def __post_init__(self) -> None:
        pixels.check_shape(self.size, self.channels, self.interpolation)

    @property
    def bytes(self) -> int:
        """Of one decoded image."""
        return self.channels * self.size * self.size


def mapped(manifest: Manifest, shape: Shape, root: Path | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (N, C, H, W) and labels (N,) of train followed by val, mapped from the cache, which is built if need be.

    The arrays may be written to (so torch takes them without a copy), but what is written stays in this process.
    """
    path = _path(manifest, shape, root)
    found = _open(path, shape)
    if found is None:
        with files.lock(path.parent / "build.lock"):
            files.sweep(path.parent)
            found = _open(path, shape)  # another process may have built it meanwhile
            if found is None:
                _build(path, manifest, shape, root)
                found = _open(path, shape)
    assert found is not None, path
    return found


def forget(name: str, root: Path | None = None) -> None:
    """Delete what is cached of a task."""
    for path in held(name, root):
        path.unlink(missing_ok=True)


def held(name: str, root: Path | None = None) -> list[Path]:
    """The files of what is cached of a task."""
    return sorted(_folder(root).glob(f"{name}-*"))


def decoded(images: Iterable[parquet.Encoded], shape: Shape) -> Iterator[np.ndarray]:
    """Each image's pixels (C, H, W), in order, decoded by as many threads as there are cores, a little ahead."""
    one = partial(_decode, shape=shape)
    yield from in_order(one, images)


def in_order(function: Any, items: Iterable[Any]) -> Iterator[Any]:
    """`map` over threads that holds only a few items at a time and keeps their order."""
    from concurrent.futures import Future, ThreadPoolExecutor

    threads = pixels.workers()
    with ThreadPoolExecutor(threads) as pool:
        source = iter(items)
        waiting: list[Future[Any]] = [pool.submit(function, item) for item in islice(source, 4 * threads)]
        try:
            while waiting:
                yield waiting.pop(0).result()
                waiting += [pool.submit(function, item) for item in islice(source, 1)]
        finally:
            for future in waiting:
                future.cancel()


def _decode(one: parquet.Encoded, shape: Shape) -> np.ndarray:
    return pixels.decode_bytes(one.image, one.name, shape.size, shape.channels, shape.interpolation, shape.intensity)


def _path(manifest: Manifest, shape: Shape, root: Path | None) -> Path:
    address = [_VERSION, manifest.splits["train"].hash, manifest.splits["val"].hash]
    address += [shape.size, shape.channels, shape.interpolation, shape.intensity]
    digest = hashlib.sha256(json.dumps(address).encode()).hexdigest()[:16]
    return _folder(root) / f"{manifest.task.name}-{digest}.arrow"


def _folder(root: Path | None) -> Path:
    home = store.folder(root)
    if os.access(home, os.W_OK):
        return home / ".pixels"
    # A store shared by many users may be read-only: then each keeps pixels of their own.
    return store.folder(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "idat-tune" / "pixels")


def _open(path: Path, shape: Shape) -> tuple[np.ndarray, np.ndarray] | None:
    # The file is Arrow IPC, but only numpy is needed to map it, since where its columns begin stands beside it.
    import numpy as np

    try:
        columns = json.loads(path.with_suffix(".json").read_bytes())
        if path.stat().st_size != columns["bytes"]:
            return None
        images = columns["images"]
        stored = np.memmap(path, np.uint8, mode="c")  # copy on write
        labels = stored[columns["labels"] :][: 8 * images].view(np.int64)
        found = stored[columns["pixels"] :][: images * shape.bytes]
        return np.asarray(found).reshape(images, shape.channels, shape.size, shape.size), np.array(labels)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _build(path: Path, manifest: Manifest, shape: Shape, root: Path | None) -> None:
    import numpy as np
    import pyarrow as pa

    images = manifest.splits["train"].images + manifest.splits["val"].images
    if images * shape.bytes > _LARGEST:
        import_again = store.again(
            *(manifest.task.name, manifest.source.get("path", "PATH"), root),
            options=manifest.source.get("options", ""),
        )
        raise BadInput(
            f"{images:,} images at size {shape.size} are {images * shape.bytes / 2**30:.0f} GB of pixels, more than "
            f"{_LARGEST / 2**30:.0f} GB; take fewer: `{import_again} --train-images N`"
        )
    home = store.place(manifest.task.name, root)
    encoded = chain.from_iterable(chain(*(parquet.read(home / f"{split}.parquet") for split in ("train", "val"))))
    labels = np.empty(images, np.int64)
    held = np.empty((images, shape.bytes), np.uint8)

    def counted() -> Iterator[parquet.Encoded]:
        for i, one in enumerate(encoded):
            labels[i] = one.label
            yield one

    for i, image in enumerate(decoded(counted(), shape)):
        held[i] = image.ravel()
    column = pa.FixedSizeListArray.from_arrays(pa.array(held.reshape(-1)), shape.bytes)
    about = {"task": manifest.task.name, "train_images": manifest.splits["train"].images, **vars(shape)}
    batch = pa.record_batch([pa.array(labels), column], names=["label", "pixels"])
    batch = batch.replace_schema_metadata({"idat-tune": json.dumps(about)})
    path.with_suffix(".json").unlink(missing_ok=True)
    with files.whole(path) as file, pa.ipc.new_file(file, batch.schema) as writer:
        writer.write_batch(batch)
    with files.whole(path.with_suffix(".json")) as file:
        file.write(json.dumps(_columns(path)).encode())


def _columns(path: Path) -> dict[str, int]:
    """Where the columns of an Arrow file of one batch begin, in bytes from its start."""
    import pyarrow as pa

    with pa.memory_map(str(path)) as source:
        batch = pa.ipc.open_file(source).get_batch(0)
        source.seek(0)
        start = source.read_buffer(1).address
        labels, held = batch.column(0).buffers()[1], batch.column(1).flatten().buffers()[1]
        return {
            "images": batch.num_rows,
            "labels": labels.address - start,
            "pixels": held.address - start,
            "bytes": path.stat().st_size,
        }
