"""What can be wrong with images: every one is decoded, hashed and counted; the splits are compared."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from idat_tune.data import files, pixels
from idat_tune.data.parquet import Encoded
from idat_tune.data.store import STORED
from idat_tune.errors import BadInput
from idat_tune.tasks import Task

if TYPE_CHECKING:
    import numpy as np

MOST_SHARED = 0.05  # of val may also be in train; more is taken for a mistake


@dataclass(frozen=True)
class Duplicates:
    """Images that are in two splits."""

    first: str  # split
    second: str  # split
    bytes: int  # images of the second whose file is in the first
    pixels: int  # images of the second that look exactly like one in the first
    example: str  # the name of one; empty where there is none


@dataclass(frozen=True)
class Report:
    """What the checks found in a task."""

    task: str
    where: Path
    images: dict[str, int]  # per split
    expected: dict[str, int]  # per split, by the table
    mean_size: tuple[float, float]  # pixels: width, height
    missing_classes: tuple[int, ...]  # labels that train does not have
    duplicates: tuple[Duplicates, ...]  # train and val; both of them and test
    skipped: tuple[str, ...]  # images left out by the import
    stand_in: bool
    content_hash: str
    problems: tuple[str, ...] = ()  # sentences; none means the images are whole
    notes: tuple[str, ...] = ()  # sentences worth knowing

    @property
    def ok(self) -> bool:
        """Whether the images can be relied on."""
        return not self.problems

    @property
    def findings(self) -> tuple[str, ...]:
        """What is worth knowing beside the problems, in sentences."""
        width, height = self.mean_size
        found = [f"images are {width:.0f} x {height:.0f} pixels in the mean", *self.notes]
        if self.stand_in:
            found.append("a stand-in: other numbers of images than the benchmark has, so not comparable with it")
        if self.missing_classes:
            found.append(f"train has no image of {_some(self.missing_classes)}")
        if self.skipped:
            found.append(f"{len(self.skipped)} images that could not be read were left out, such as: {self.skipped[0]}")
        for one in self.duplicates:
            if one.pixels:
                found.append(
                    f"{one.pixels} images of {one.second} are in {one.first} too ({one.bytes} as the same file), "
                    f"{one.example} for one"
                )
        return tuple(found)


@dataclass(frozen=True)
class Image:
    """What one image is, without its pixels."""

    name: str
    label: int
    bytes_digest: bytes  # sha256 of the file
    pixels_digest: bytes  # sha256 of the upright RGB pixels, before any resizing
    size: tuple[int, int]  # width, height
    group: str = ""  # images of one group stay together


@dataclass
class Split:
    """The images of a split in their order, and what could not be read."""

    images: list[Image]
    bad: list[str]  # sentences that name them

    @property
    def hash(self) -> str:
        """sha256 over labels, files and groups (where there are any), in order."""
        digest = hashlib.sha256()
        for image in self.images:
            digest.update(image.label.to_bytes(8, "little", signed=True) + image.bytes_digest + image.group.encode())
        return digest.hexdigest()

    def save(self, path: Path) -> None:
        """Keep it beside a half imported split, so that the images need not be decoded again."""
        import numpy as np

        with files.whole(path) as file:
            np.savez(
                file,
                name=np.array([image.name for image in self.images]),
                label=np.array([image.label for image in self.images]),
                digests=_digests(self.images),
                size=np.array([image.size for image in self.images]),
                group=np.array([image.group for image in self.images], dtype=np.str_),
                bad=np.array(self.bad, dtype=np.str_),
            )

    @classmethod
    def load(cls, path: Path) -> Split:
        """What `save` wrote; raises OSError or ValueError where there is nothing of use."""
        import numpy as np

        with np.load(path, allow_pickle=False) as kept:
            names = kept["name"].tolist()
            groups = kept["group"].tolist() if "group" in kept else [""] * len(names)  # older than groups
            columns = (names, kept["label"].tolist(), kept["digests"], kept["size"], groups)
            images = [
                Image(name, label, digests[0].tobytes(), digests[1].tobytes(), (int(size[0]), int(size[1])), group)
                for name, label, digests, size, group in zip(*columns, strict=True)
            ]
            return cls(images, kept["bad"].tolist())


def examine(one: Encoded) -> Image:
    """Decode and hash one image.

    Raises:
        BadInput: it cannot be decoded; names it.
    """
    flat = pixels.flatten(pixels.read(one.image, one.name))
    seen = hashlib.sha256(b"%d %d " % flat.size)
    seen.update(flat.convert("RGB").tobytes())
    return Image(one.name, one.label, hashlib.sha256(one.image).digest(), seen.digest(), flat.size, one.group or "")


def content_hash(hashes: Sequence[str], classes: int) -> str:
    """One hash over those of train, val and test."""
    return hashlib.sha256(" ".join([str(classes), *hashes]).encode()).hexdigest()


def report(
    task: Task,
    expected: Task,
    splits: dict[str, Split],
    where: Path,
    skipped: tuple[str, ...] = (),
    stand_in: bool = False,
    notes: tuple[str, ...] = (),
) -> Report:
    """Compare the splits of a task with each other and with what is expected of it."""
    sizes = {split: len(splits[split].images) for split in STORED}
    wanted = {"train": expected.train, "val": expected.val, "test": expected.test}
    everything = [image for split in STORED for image in splits[split].images]
    trainval = splits["train"].images + splits["val"].images
    return Report(
        task.name,
        where,
        sizes,
        wanted,
        _mean_size(everything),
        tuple(sorted(set(range(task.classes)) - {image.label for image in splits["train"].images})),
        (
            _duplicates("train", splits["train"].images, "val", splits["val"].images),
            _duplicates("trainval", trainval, "test", splits["test"].images),
        ),
        skipped,
        stand_in,
        content_hash([splits[split].hash for split in STORED], task.classes),
        tuple(_problems(task, sizes, wanted, splits, len(skipped), stand_in)),
        notes,
    )


def refuse_shared(found: Report) -> None:
    """Raises BadInput if val shares so many images with train that it cannot tell what was learnt."""
    shared = found.duplicates[0]
    if shared.pixels > MOST_SHARED * found.images["val"]:
        raise BadInput(
            f"{shared.pixels} of {found.images['val']} val images of {found.task} are in train too, {shared.example} "
            "for one; put each image into one split only"
        )


def _problems(
    task: Task, sizes: dict[str, int], wanted: dict[str, int], splits: dict[str, Split], skipped: int, stand_in: bool
) -> list[str]:
    problems = [sentence for split in STORED for sentence in splits[split].bad]
    for split in STORED:
        if sizes[split] == 0:
            problems.append(f"the {split} split has no images")
        if not stand_in and not wanted[split] - skipped <= sizes[split] <= wanted[split]:
            problems.append(f"the {split} split has {sizes[split]:,} images instead of {wanted[split]:,}")
        wrong = [image for image in splits[split].images if not 0 <= image.label < task.classes]
        if wrong:
            problems.append(f"{wrong[0].name} has label {wrong[0].label}, not in 0..{task.classes - 1}")
    return problems


def _some(labels: tuple[int, ...]) -> str:
    shown = ", ".join(map(str, labels[:10]))
    return f"{len(labels)} classes: {shown}{', ...' if len(labels) > 10 else ''}"


def _duplicates(first: str, a: list[Image], second: str, b: list[Image]) -> Duplicates:
    stored, shown = {image.bytes_digest for image in a}, {image.pixels_digest for image in a}
    same = [image for image in b if image.bytes_digest in stored]
    alike = [image for image in b if image.pixels_digest in shown]
    return Duplicates(first, second, len(same), len(alike), alike[0].name if alike else "")


def _mean_size(images: list[Image]) -> tuple[float, float]:
    count = max(1, len(images))
    return sum(image.size[0] for image in images) / count, sum(image.size[1] for image in images) / count


def _digests(images: list[Image]) -> np.ndarray:
    import numpy as np

    joined = b"".join(image.bytes_digest + image.pixels_digest for image in images)
    return np.frombuffer(joined, np.uint8).reshape(len(images), 2, 32)
