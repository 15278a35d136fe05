"""Tasks of the user's own: their classes numbered, their images divided into splits where they are not."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from idat_tune.data.dealing import stratified
from idat_tune.data.sources import Choices, Item, Source, key
from idat_tune.errors import BadInput
from idat_tune.tasks import Task

SPLITS_BY_NAME = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
SPLIT_NAMES = tuple(SPLITS_BY_NAME)
OFFICIAL_NAME = {"train": "train", "val": "validation", "test": "test"}  # as TFDS calls them
_TRAIN_IMAGES = 1000  # where none are asked for, and at most _TRAIN_SHARE of all
_TRAIN_SHARE = 0.8
_VAL_SHARE = 0.2  # of the training images


@dataclass(frozen=True)
class Row:
    """An image of the user's and what is said of it."""

    name: str  # where the image is
    label: int | str  # a number is the label itself, a word the name of its class
    read: Callable[[], bytes]
    split: str | None  # train, val or test, where that is said
    where: str  # file and line that say it
    size: int = -1  # bytes, where that is known cheaply
    group: str | None = None  # rows of one group never stand in two splits


def source(
    kind: str,
    path: Path,
    name: str,
    rows: Sequence[Row],
    class_names: tuple[str, ...],
    choices: Choices,
    notes: tuple[str, ...] = (),
    left_out: tuple[str, ...] = (),
) -> Source:
    """The task that rows make, divided into train, val and test."""
    labels, names = _numbered(rows, class_names)
    divided, more = _divide(rows, labels, choices.train_images, choices.seed, path)
    for split, found in divided.items():
        if not found:
            raise BadInput(f"{path}: the {split} split of {name} has no images")
    sizes = {split: len(found) for split, found in divided.items()}
    if len(names) < 2:
        raise BadInput(f"{path} has one class only, {names[0]}; a task needs two")
    task = Task(
        name,
        name,
        "own",
        len(names),
        sizes["test"],
        # The recipe that most tasks of the paper have.
        lr=5e-3,
        weight_decay=5e-5,
        drop_path=0.0,
        class_names=names,
        train=sizes["train"],
        val=sizes["val"],
    )

    def items(split: str) -> Iterator[Item]:
        for i in divided[split]:
            yield Item(rows[i].name, labels[i], rows[i].read, rows[i].group)

    listed = [(row.name, row.label, row.split, row.size) for row in rows]
    asked = key(kind, name, str(path), listed, astuple(choices))
    taken = Counter(labels[i] for found in divided.values() for i in found)
    counts = tuple(taken[label] for label in range(len(names)))
    return Source(
        task, kind, str(path), asked, sizes, items, notes=(*notes, *more), left_out=left_out, class_counts=counts
    )


def _divide(
    rows: Sequence[Row], labels: Sequence[int], train_images: int | None, seed: int, path: Path
) -> tuple[dict[str, list[int]], tuple[str, ...]]:
    """Which rows are train, val and test: as the rows say, else at random."""
    said: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    unsaid: list[int] = []
    for i, row in enumerate(rows):
        (said[row.split] if row.split else unsaid).append(i)
    if unsaid and len(unsaid) < len(rows):
        raise BadInput(f"{rows[unsaid[0]].where} has no split, others have; give all rows one, or none")
    if unsaid:
        pool, notes = _distinct(rows, unsaid)
        count = train_images or min(_TRAIN_IMAGES, round(_TRAIN_SHARE * len(pool)))
        if not 2 <= count < len(pool):
            raise BadInput(
                f"{path} has {len(pool):,} images, so {count:,} cannot be for training (at least 2) with some left "
                "for test; choose another --train-images"
            )
        train = _pick(pool, labels, count, seed)
        said["test"] = sorted(set(pool) - set(train))
        said["train"] = train
    elif not said["train"] or not said["test"]:
        there = ", ".join(split for split, found in said.items() if found)
        hint = "; name the val images test, then val is cut from train" if said["val"] and said["train"] else ""
        raise BadInput(f"{path} has {there} but no {'test' if said['train'] else 'train'} images{hint}")
    else:
        pool, notes = (said["train"], ()) if said["val"] else _distinct(rows, said["train"])
        if train_images and train_images > len(pool):
            raise BadInput(f"{path} has {len(pool):,} images to train with, not {train_images:,}")
        said["train"] = _pick(pool, labels, train_images, seed) if train_images else list(pool)
    if not said["val"]:
        said["val"] = _val(said["train"], labels, seed + 1)
        said["train"] = sorted(set(said["train"]) - set(said["val"]))
    return said, notes


def _pick(pool: list[int], labels: Sequence[int], count: int, seed: int) -> list[int]:
    return [pool[place] for place in stratified([labels[i] for i in pool], count, seed)]


def _val(train: list[int], labels: Sequence[int], seed: int) -> list[int]:
    count = max(1, round(_VAL_SHARE * len(train)))
    images = Counter(labels[i] for i in train)
    several = [i for i in train if images[labels[i]] > 1]  # the only image of a class is for training
    return _pick(several if len(several) > count else train, labels, count, seed)


def _distinct(rows: Sequence[Row], pool: list[int]) -> tuple[list[int], tuple[str, ...]]:
    """The pool without exact copies, which must not fall on both sides of a division made here."""
    sizes = Counter(rows[i].size for i in pool)
    seen: set[bytes] = set()
    kept: list[int] = []
    for i in pool:
        if sizes[rows[i].size] > 1:
            try:
                digest = hashlib.sha256(rows[i].read()).digest()
            except BadInput:
                digest = rows[i].name.encode()  # it is named when its turn comes
            if digest in seen:
                continue
            seen.add(digest)
        kept.append(i)
    copies = len(pool) - len(kept)
    return kept, (f"{copies} exact copies of other images were left out",) if copies else ()


def _numbered(rows: Sequence[Row], class_names: tuple[str, ...]) -> tuple[list[int], tuple[str, ...]]:
    """Each row's label from 0, and the names of the classes."""
    if all(isinstance(row.label, int) for row in rows):
        numbers = [int(row.label) for row in rows]
        highest = len(class_names or rows) - 1
        for row, number in zip(rows, numbers, strict=True):
            if not 0 <= number <= highest:
                known = f"0..{highest}" if class_names else f"0..{highest}, as there are {len(rows)} images"
                raise BadInput(f"{row.where}: label {number} is not in {known}")
        return numbers, class_names or tuple(str(number) for number in range(max(numbers) + 1))
    for row in rows:
        if row.label is None or not str(row.label).strip():
            raise BadInput(f"{row.where}: no label")
    names = sorted({str(row.label) for row in rows}, key=_in_order)
    number_of = {name: i for i, name in enumerate(names)}
    return [number_of[str(row.label)] for row in rows], tuple(names)


def _in_order(name: str) -> tuple[int, int, str]:
    return (0, int(name), name) if name.isdecimal() else (1, 0, name)
