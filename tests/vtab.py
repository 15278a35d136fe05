"""Makes small stand-ins of VTAB-1K in the prepared layout: every task, with generated images of its classes."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from idat_tune import tasks
from idat_tune.tasks import Task

SMALL = {"train": 24, "val": 8, "test": 16}
SEARCHABLE = {"train": 40, "val": 16, "test": 24}  # more than a batch to train with
LISTS = {"train": "train800", "val": "val200", "test": "test"}


def make(root: Path, names: list[str] | None = None, sizes: dict[str, int] | None = None, pixels: int = 24) -> Path:
    """Write tasks (all 19 by default) under `root`, which is returned.

    Args:
        root: gets a folder per task.
        names: tasks or groups.
        sizes: images in train, val and test; `full(task)` gives the benchmark's.
        pixels: width of an image; its height is 3/4 of that.
    """
    for task in tasks.select(names or ["all"]):
        make_task(root / task.name, task, sizes or SMALL, pixels)
    return root


def full(name: str) -> dict[str, int]:
    task = tasks.get(name)
    return {"train": task.train, "val": task.val, "test": task.test}


def make_task(folder: Path, task: Task, sizes: dict[str, int], pixels: int = 24) -> None:
    rng = np.random.default_rng(sum(task.name.encode()))
    encoded: dict[str, list[tuple[bytes, int]]] = {}
    for split, count in sizes.items():
        labels = [i % task.classes for i in range(count)]
        encoded[split] = [(jpeg(picture(rng, label, task.classes, pixels)), label) for label in labels]
    encoded["both"] = encoded["train"] + encoded["val"]
    for split, images in encoded.items():
        write_list(folder, "train800val200" if split == "both" else LISTS[split], images)


def write_list(folder: Path, name: str, images: list[tuple[bytes, int]]) -> None:
    (folder / "images" / name).mkdir(parents=True, exist_ok=True)
    lines = []
    for i, (image, label) in enumerate(images):
        path = f"images/{name}/{i:06d}.jpg"
        (folder / path).write_bytes(image)
        lines.append(f"{path} {label}\n")
    (folder / f"{name}.txt").write_text("".join(lines))


def picture(rng: np.random.Generator, label: int, classes: int, pixels: int = 24) -> Image.Image:
    """A picture whose colour and stripes say its class, with noise that makes it unlike all others."""
    height, width = max(1, pixels * 3 // 4), pixels
    hue = 2 * np.pi * label / classes
    colour = 128 + 70 * np.cos(hue + np.array([0, 2, 4]))
    stripes = 30 * np.sin(np.arange(width) * (1 + label % 5) / 3)
    noise = rng.normal(0, 25, (height, width, 3))
    values = colour + stripes[None, :, None] + noise
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def jpeg(image: Image.Image, **options: object) -> bytes:
    return encode(image, "JPEG", **options)


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
