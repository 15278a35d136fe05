"""Tasks of the user's own: their classes numbered, their images divided into splits where they are not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from idat_tune.data import copies, labels
from idat_tune.data.division import Said, divide
from idat_tune.data.files import as_utf8
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


@dataclass(frozen=True)
class Row:
    """An image of the user's and what is said of it."""

    name: str  # where the image is
    label: str  # the name of its class
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
    """The task that rows make, divided into train, val and test.

    Args:
        kind: of the source.
        path: what was given.
        name: of the task.
        rows: its images, all with a label.
        class_names: in their order, where there is one; else classes are sorted, numbers as numbers.
        choices: what the user decided.
        notes: sentences worth knowing.
        left_out: sentences on what was not taken.

    Raises:
        BadInput: labels that make no classes or contradict each other; splits that are missing or not to be made.
    """
    listed = [(row.name, row.label, row.split, row.size, row.group) for row in rows]
    asked = key(kind, name, str(path), listed, astuple(choices))
    same = copies.same_files(rows)
    if torn := [alike for alike in same if len({labels.tidy(rows[i].label) for i in alike}) > 1]:
        if not choices.drop_conflicts:
            raise _contradiction(rows, torn)
        dropped = {i for alike in torn for i in alike}
        place = {i: new for new, i in enumerate(i for i in range(len(rows)) if i not in dropped)}
        left_out = (*left_out, f"{len(dropped)} pictures under two labels, such as {rows[torn[0][0]].where}")
        same = [[place[i] for i in alike] for alike in same if alike[0] in place]
        rows = [rows[i] for i in place]
        if not rows:
            raise BadInput(f"all pictures of {path} stand under two labels")
    classes = labels.classes([row.label for row in rows], [row.split for row in rows], class_names, str(path))
    divided = divide(_said(rows, classes.labels, same), choices, path)
    sizes = {split: len(found) for split, found in divided.splits.items()}
    task = Task(
        name,
        name,
        "own",
        len(classes.names),
        sizes["test"],
        # The recipe that most tasks of the paper have.
        lr=5e-3,
        weight_decay=5e-5,
        drop_path=0.0,
        class_names=classes.names,
        train=sizes["train"],
        val=sizes["val"],
    )

    def items(split: str) -> Iterator[Item]:
        for i in divided.splits[split]:
            row = rows[i]
            group = None if row.group is None else as_utf8(row.group)
            yield Item(as_utf8(row.name), classes.labels[i], row.read, group)

    taken = Counter(classes.labels[i] for found in divided.splits.values() for i in found)
    return Source(
        task,
        kind,
        str(path),
        asked,
        sizes,
        items,
        notes=(*notes, *classes.notes, *divided.notes),
        left_out=(*left_out, *classes.left_out),
        class_counts=tuple(taken[label] for label in range(len(classes.names))),
        made=divided.made,
        drop_conflicts=choices.drop_conflicts,
        options=choices.options(),
    )


def _said(rows: Sequence[Row], numbers: Sequence[int], same: Sequence[Sequence[int]]) -> Said:
    repeats: set[int] = set()
    for alike in same:
        first: set[str | None] = set()
        for i in alike:
            if rows[i].split in first:
                repeats.add(i)
            first.add(rows[i].split)
    return Said(
        numbers,
        [row.split for row in rows],
        [row.group for row in rows],
        [row.where for row in rows],
        repeats,
    )


def _contradiction(rows: Sequence[Row], torn: Sequence[Sequence[int]]) -> BadInput:
    pairs = []
    for first, *others in torn:
        label = labels.tidy(rows[first].label)
        other = next(i for i in others if labels.tidy(rows[i].label) != label)
        pairs.append((rows[first].where, label, rows[other].where, labels.tidy(rows[other].label)))
    return copies.contradiction(pairs)
