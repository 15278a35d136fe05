"""What can be wrong with a task's images: they are counted, and the splits compared."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from idat_tune.data import deep, leaks
from idat_tune.data.deep import Range
from idat_tune.data.examined import Image, Split
from idat_tune.data.leaks import Duplicates
from idat_tune.data.store import STORED
from idat_tune.errors import BadInput
from idat_tune.tasks import Task

FEWEST_VAL = 25  # images of val: with fewer, one image is more than 4 points


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
    notes: tuple[str, ...] = ()  # sentences worth knowing, of the import
    cautions: tuple[str, ...] = ()  # and of the images themselves: how they are read, whether they are enough
    missing_names: tuple[str, ...] = ()  # of the missing classes, where they have names

    @property
    def ok(self) -> bool:
        """Whether the images can be relied on."""
        return not self.problems

    @property
    def findings(self) -> tuple[str, ...]:
        """What is worth knowing beside the problems, in sentences."""
        width, height = self.mean_size
        found = [f"images are {width:.0f} x {height:.0f} pixels in the mean", *self.notes, *self.cautions]
        if self.stand_in:
            found.append("a stand-in: other numbers of images than the benchmark has, so not comparable with it")
        if self.missing_classes:
            found.append(f"train has no image of {_some(self.missing_names or self.missing_classes)}")
        if self.skipped:
            found.append(f"{len(self.skipped)} images that could not be read were left out, such as: {self.skipped[0]}")
        for one in self.duplicates:
            if one.pixels:
                found.append(
                    f"{one.pixels} images of {one.second} are in {one.first} too ({one.bytes} as the same file), "
                    f"{one.example} for one"
                )
        return tuple(found)


def intensity(train: Split) -> Range | None:
    """The range of values that becomes black to white in all images of more than 8 bits of a task.

    Raises:
        BadInput: some hold fractions of 1 and others counts, for which there is no one range.
    """
    found = [(image.name, image.values) for image in train.images if image.values]
    counts = next((name for name, values in found if values.whole and values.most > 1), "")
    shares = next((name for name, values in found if not values.whole and values.least >= -1 and values.most <= 1), "")
    if counts and shares:
        raise BadInput(f"{shares} has fractions of 1 and {counts} has counts; a task has one range: save all alike")
    return deep.range_of(values for _, values in found)


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
    intensity: Range | None = None,
) -> Report:
    """Compare the splits of a task with each other and with what is expected of it; `intensity` is its range."""
    sizes = {split: len(splits[split].images) for split in STORED}
    wanted = {"train": expected.train, "val": expected.val, "test": expected.test}
    everything = [image for split in STORED for image in splits[split].images]
    trainval = splits["train"].images + splits["val"].images
    missing = tuple(sorted(set(range(task.classes)) - {image.label for image in splits["train"].images}))
    return Report(
        task.name,
        where,
        sizes,
        wanted,
        _mean_size(everything),
        missing,
        (
            leaks.between("train", splits["train"].images, "val", splits["val"].images),
            leaks.between("trainval", trainval, "test", splits["test"].images),
        ),
        skipped,
        stand_in,
        content_hash([splits[split].hash for split in STORED], task.classes),
        tuple(_problems(task, sizes, wanted, splits, len(skipped), stand_in)),
        notes,
        (*_remarks(everything), *_deep(splits, intensity), *cautions(task)),
        tuple(str(task.class_names[label]) for label in missing) if task.class_names else (),
    )


def cautions(task: Task, batch: int | None = None) -> tuple[str, ...]:
    """What is to be said of a task with few images, in sentences.

    Args:
        task: with the sizes as they are.
        batch: how many images a training step takes; the default of RunConfig if absent.
    """
    if batch is None:
        from idat_tune.config import RunConfig

        batch = int(RunConfig.model_fields["batch_size"].default)
    found = []
    if task.train < batch:
        found.append(f"{task.train} images to train with are fewer than a batch of {batch}: a step takes all of them")
    if task.val < FEWEST_VAL:
        found.append(
            f"val has {task.val} image{'s' if task.val > 1 else ''}: accuracy on it comes in steps of "
            f"{100 / max(1, task.val):.0f} points, too coarse to choose by; give it more"
        )
    return tuple(found)


def _remarks(images: list[Image]) -> list[str]:
    found: dict[str, list[str]] = defaultdict(list)
    for image in images:
        if image.remark:
            found[image.remark].append(image.name)
    return [f"{len(names)} images have {remark}: {names[0]} for one" for remark, names in found.items()]


def _deep(splits: dict[str, Split], intensity: Range | None) -> list[str]:
    there = {split: sum(image.values is not None for image in splits[split].images) for split in STORED}
    count = sum(there.values())
    if not count:
        return []
    if intensity is None:
        return [
            f"{count} images have more than 8 bits, and none of train: of theirs the upper 8 of 16 bits are read, and "
            "of fractions 0 to 1"
        ]
    low, high = intensity
    return [f"{count} images have more than 8 bits; {low:g} is read as black and {high:g} as white, by those of train"]


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


def _some(classes: Sequence[object]) -> str:
    shown = ", ".join(map(str, classes[:10]))
    counted = "1 class" if len(classes) == 1 else f"{len(classes)} classes"
    return f"{counted}: {shown}{', ...' if len(classes) > 10 else ''}"


def _mean_size(images: list[Image]) -> tuple[float, float]:
    count = max(1, len(images))
    return sum(image.size[0] for image in images) / count, sum(image.size[1] for image in images) / count
